"""The `karp` command: its parser, and how a command's errors become messages and exit statuses."""

import argparse
import sys
from collections.abc import Sequence

from karp import __version__
from karp.cli.command import Command, Commands
from karp.cli.runs import add_keys, add_launch, add_replay, add_scale, add_server, add_worker
from karp.cli.simulate import add_simulate
from karp.cli.tables import add_evaluate, add_export, add_fit, add_predict, add_show
from karp.errors import KarpError, SettingError
from karp.monitor import streams

DESCRIPTION = """\
karp trains multi-layer perceptrons with its own autograd engine, in one process or in many.

A program is a Python file with an ordinary training loop (see the README). `python program.py` trains in one
process; `karp launch -n 4 program.py` starts a parameter server and four workers that run the same file."""


def parser() -> tuple[Command, Commands]:
    """Return the parser of the command line, and the action whose `choices` map each command to its parser."""
    top = Command("karp", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"karp {__version__}", help="say which karp this is")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_fit(commands)
    add_predict(commands)
    add_evaluate(commands)
    add_show(commands)
    add_export(commands)
    add_launch(commands)
    add_server(commands)
    add_worker(commands)
    add_scale(commands)
    add_replay(commands)
    add_keys(commands)
    add_simulate(commands)
    return top, commands


def parse(line: list[str]) -> argparse.Namespace:
    """Parse a command line.

    Prints a note if the program is handed options of the command. Raises SystemExit where argparse does, after a help
    or an error, and SettingError for a required option that stands after PROGRAM instead of before it.
    """
    top, commands = parser()
    command = commands.choices.get(line[0]) if line else None
    if command is None or "program" not in command.positionals:
        return top.parse_args(line)
    words, arguments = command.cut(line[1:])
    for names in command.needed:
        behind = [word for word in arguments if word.startswith(names)]
        if behind and not any(word.startswith((*names, "--resume", "-h", "--help")) for word in words):
            raise SettingError(
                f"karp {line[0]} lacks {names[0]}: {behind[0]} follows {words[-1]}, and all that does is handed to the "
                f"program; put {names[0]} before it"
            )
    options = top.parse_args([line[0], *words])
    options.arguments = arguments
    if own := command.own_among(arguments):
        are = "is handed to it" if len(own) == 1 else "are handed to it"
        print(
            f"karp: {' and '.join(own)} after {words[-1]} {are}; the options of karp {line[0]} stand before it",
            file=sys.stderr,
        )
    return options


def perform(line: list[str]) -> int:
    """Run the command of a command line; return the exit status."""
    try:
        options = parse(line)
        status: int = options.command(options)
    except SystemExit as error:  # argparse has printed its help or error
        return error.code if isinstance(error.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except KarpError as error:
        print(f"karp: {error}", file=sys.stderr)
        return 2
    return status


def main(line: Sequence[str] | None = None) -> int:
    """Run the `karp` command; return its exit status."""
    with streams.command():
        status = perform(list(sys.argv[1:] if line is None else line))
        if (why := streams.output_failure()) and status == 0:
            print(f"karp: what was to be printed could not be written: {why}", file=sys.stderr)
            status = 1
        return status
