"""python -m bench COMMAND: what scripts/bench.sh calls."""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from bench import engine, estimators, exchange, importing, modes
from bench.tables import command as tables

COMMANDS = {
    "engine": (engine, "training steps per second of karp, hand-written NumPy and other engines"),
    "exchange": (exchange, "samples per second of several workers that train together, karp among peers"),
    "modes": (modes, "samples and seconds to a target score, bytes and staleness, for each mode of training"),
    "tables": (tables, "scores of models of tables, and seconds from file to model, karp.fit among others"),
    "estimators": (estimators, "training steps per second of karp's MLPClassifier and of scikit-learn's"),
    "import": (importing, "the time of import karp beside that of import numpy"),
}


def main() -> int:
    """Parse and run."""
    parser = ArgumentParser("bench.sh", description="karp's benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (room, what) in COMMANDS.items():
        one = commands.add_parser(name, help=what, description=what)
        one.add_argument("--install", action="store_true", help="install the peers, their data and matplotlib first")
        room.add_arguments(one)
    args = parser.parse_args()
    status: int = COMMANDS[args.command][0].run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
