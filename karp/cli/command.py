"""The parser of a command, which knows where the arguments of PROGRAM begin."""

import argparse
from collections.abc import Sequence
from typing import Any

Commands = Any  # argparse has no public name for what add_subparsers returns


class Command(argparse.ArgumentParser):
    """The parser of a command, or of all commands, which finds where the arguments of PROGRAM begin."""

    def __init__(self, name: str | None = None, needed: Sequence[tuple[str, ...]] = (), **others: Any) -> None:
        self.needed = needed  # the names of each option that must be given
        self.valued: set[str] = set()  # the options with a value
        self.long: set[str] = set()  # all options that begin with two dashes
        self.positionals: list[str] = []
        others |= {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(others.pop("prog", name), **others)

    def add_argument(self, *names: Any, **others: Any) -> argparse.Action:
        action = super().add_argument(*names, **others)
        if not action.option_strings:
            self.positionals.append(action.dest)
        elif action.nargs != 0:
            self.valued |= set(action.option_strings)
        if others.get("action") not in ("help", "version"):
            self.long |= {name for name in action.option_strings if name.startswith("--")}
        return action

    def own_among(self, arguments: list[str]) -> list[str]:
        """Return the long options of this command that stand among the arguments of its PROGRAM.

        These may be meant for the program, which may have options of the same names; so nothing is refused.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        return [name for word in arguments[:end] if (name := word.split("=")[0]) in self.long]

    def add_program(self, help: str, **others: Any) -> None:
        """Add PROGRAM and its arguments, which argparse shows in the help but never parses."""
        self.add_argument("program", metavar="PROGRAM", help=help, **others)
        self.add_argument("arguments", metavar="ARGS", nargs="*", default=[], help="handed to PROGRAM as they are")

    def cut(self, line: list[str]) -> tuple[list[str], list[str]]:
        """Split a line after PROGRAM: return the words up to it, and its arguments.

        >>> command = Command()
        >>> _ = command.add_argument("-n"), command.add_program("a file")
        >>> command.cut(["-n", "4", "program.py", "-n", "--", ""])
        (['-n', '4', 'program.py'], ['-n', '--', ''])
        """
        left, at, options = self.positionals.index("program") + 1, 0, True
        while at < len(line) and left:
            word = line[at]
            if options and word in self.valued:
                at += 1  # its value
            elif options and word == "--":
                options = False
            elif not options or not word.startswith("-") or word == "-":
                left -= 1
            at += 1
        return line[:at], line[at:]


def add_kernels(command: argparse.ArgumentParser) -> None:
    """Add the option that has processes on different CPUs compute with the same kernels."""
    command.add_argument("--kernels", metavar="NAME", help="have OpenBLAS and NumPy compute as on this kind of CPU, "
        "such as Haswell: the same bits on all CPUs that can do so much (default: what each can do)")  # fmt: skip
