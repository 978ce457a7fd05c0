"""The files that a program is known to read before it has run: those that its arguments or its texts name."""

import ast
import os
from pathlib import Path

LONGEST = 255  # bytes of a path


def named_files(program: Path, arguments: list[str]) -> list[str]:
    """Return the existing files that a program's arguments or the texts in it name, as they are named, sorted.

    An argument such as `--data=table.csv` names one, too. Files that a program composes a name for are not found, and
    one that it writes to is, if it is there from an earlier run.
    """
    texts = {part for argument in arguments for part in (argument, argument.partition("=")[2])}
    try:
        nodes = ast.walk(ast.parse(program.read_bytes()))
        texts |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    except (OSError, ValueError, SyntaxError):  # the program itself says what is wrong with it
        pass
    return sorted(text for text in texts if 0 < len(text.encode(errors="replace")) <= LONGEST and is_file(text))


def is_file(path: str) -> bool:
    """Return whether there is a file with this path; False for a text that can be none."""
    try:
        return os.path.isfile(path)
    except ValueError:
        return False
