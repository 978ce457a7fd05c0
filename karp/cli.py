"""The command line: `karp launch`."""

import argparse
import sys
from collections.abc import Sequence

from karp.errors import KarpError

DESCRIPTION = """\
karp trains multi-layer perceptrons with its own autograd engine, in one process or in many.

A program is a Python file with an ordinary training loop (see the README). `python program.py` trains in one
process; `karp launch -n 4 program.py` starts a parameter server and four workers that run the same file."""


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    formatter = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("karp", description=DESCRIPTION, formatter_class=formatter)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    launch = commands.add_parser(
        "launch",
        help="run a program with N workers on this machine",
        description="Start a parameter server and N workers on this machine, each running PROGRAM.\n"
        "What follows PROGRAM is handed to it.",
        epilog="example: karp launch -n 4 workers/digits.py --epochs 5",
        formatter_class=formatter,
    )
    launch.add_argument("-n", "--workers", type=int, required=True, metavar="N", help="worker processes to start")
    launch.add_argument(
        "--run-dir", metavar="DIR", help="where the run's files go (default: a fresh folder under runs/)"
    )
    launch.add_argument(
        "--threads", type=int, default=1, metavar="T", help="BLAS threads of each worker (default: 1)"
    )
    launch.add_argument("program", metavar="PROGRAM", help="a Python file with a karp.Trainer")
    launch.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="handed to PROGRAM")
    launch.set_defaults(command=run_launch)
    return top


def run_launch(options: argparse.Namespace) -> int:
    from karp.launch.local import launch

    return launch(options.program, options.arguments, options.workers, options.run_dir, options.threads)


def main(arguments: Sequence[str] | None = None) -> int:
    """The `karp` command; returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except KarpError as error:
        print(f"karp: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
