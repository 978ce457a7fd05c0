"""One contestant of `bench.sh engine` as a process: python -m bench.child NAME CASE. See contest.py."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

from bench import memory
from bench.cases import CASES
from bench.contest import Answer, serve, turns_of
from bench.contestants import CONTESTANTS


def start(name: str, case_name: str) -> Mapping[str, Callable[[str], Answer]]:
    """Import what it needs, build it, and say what it can do."""
    contestant, case = CONTESTANTS[name], CASES[case_name]
    importlib.import_module(contestant.needs)
    CASES["T"].data()  # NumPy imports its generators when they are first used
    before = memory.resident()
    run = contestant.build(case)
    memory.forget_peak()

    def losses(argument: str) -> Answer:
        return {"losses": [run(1) for _ in range(int(argument))]}

    def peak(_: str) -> Answer:
        return {"peak_rss_mb": memory.peak(), "growth_mb": memory.peak() - before}

    return {"losses": losses, "peak": peak} | turns_of(run)


if __name__ == "__main__":
    serve(lambda: start(*sys.argv[1:]))
