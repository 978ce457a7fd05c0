"""A line that is written over: the newest progress, where a stream knows the carriage return and nothing more.

That is what a notebook's output area knows. A line ends with a carriage return instead of a newline, so whatever is
written next takes its place; blanks cover what the shorter text leaves.
"""

import sys
from typing import TextIO

NOTEBOOK_SECONDS = 0.5  # between two states of the line, as a notebook may keep each
BAR = 20  # columns


class StatusLine:
    """What of a stream's last line is progress, and how it is replaced."""

    def __init__(self) -> None:
        self._covered = 0  # its characters

    def over(self, text: str) -> str:
        """Return what writes progress over the last."""
        written = f"{text:<{self._covered}}\r"
        self._covered = len(text)
        return written

    def before(self, text: str) -> str:
        """Return what writes lines in the place of the progress."""
        covered, self._covered = self._covered, 0
        return f"{'':<{covered}}\r{text}" if covered else text


def bar(done: float, total: float) -> str:
    """Return a progress bar as text.

    >>> bar(1, 4)
    '━━━━━───────────────'
    """
    filled = int(BAR * min(max(done / total if total else 1.0, 0.0), 1.0))
    return "━" * filled + "─" * (BAR - filled)


def is_notebook(stream: TextIO | None) -> bool:
    """Return whether a stream writes to the output area of a notebook."""
    module = sys.modules.get("ipykernel.iostream")
    return module is not None and isinstance(stream, module.OutStream)
