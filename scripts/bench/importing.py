"""`bench.sh import`: how long importing karp's engine takes beside `import numpy` alone, which it cannot do without.

Each turn is a Python process of its own, the kinds in rotating order. `import` is timed inside the process, and so
leaves the interpreter's start out; `process` is from start to end as a shell sees it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace

from bench import machine
from bench.table import Figure, ratio, text, write_json

MODULES = ("numpy", "karp")
WHAT = {"numpy": "import numpy", "karp": "from karp import Value"}  # `import karp` alone imports next to nothing
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def add_arguments(parser: ArgumentParser) -> None:
    """The options after `bench.sh import`."""
    parser.add_argument("--rounds", type=int, default=21, metavar="N", help="processes of each kind (21)")
    parser.add_argument("--json", metavar="FILE", help="write one object per row: case, name, ms, low, high")


def run(args: Namespace) -> int:
    """Make the table."""
    times: dict[tuple[str, str], list[float]] = {
        (case, name): [] for case in ("import", "process") for name in MODULES
    }
    for number in range(args.rounds + 1):
        for name in MODULES if number % 2 else MODULES[::-1]:
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", TIMED.format(WHAT[name])], check=True, stdout=subprocess.PIPE, text=True
            )
            if number:  # the first round fills the caches and is not counted
                times["process", name].append(1e3 * (time.perf_counter() - start))
                times["import", name].append(1e3 * float(done.stdout))
    print(machine.describe())
    rows = [["", "ms", "low", "high", ": numpy"]]
    for (case, name), every in times.items():
        figure = Figure.of(every)
        share = ratio(every, times[case, "numpy"]).middle
        rows.append([
            f"{case} {name}", f"{figure.middle:.1f}", f"{figure.low:.1f}", f"{figure.high:.1f}", f"{share:.3f}"
        ])  # fmt: skip
    print(text(rows))
    if args.json:
        figures = {key: Figure.of(every) for key, every in times.items()}
        write_json(args.json, (
            {"case": case, "name": name, "ms": figure.middle, "low": figure.low, "high": figure.high}
            for (case, name), figure in figures.items()
        ))
    return 0
