"""`bench.sh modes`: samples and seconds to a target score, bytes and staleness, for each mode of karp.

N workers under `karp launch` train the same program, which differs in the arguments of Trainer alone, with messages
over ZeroMQ, as between hosts, and once more with a straggler: worker 1 sleeps at every batch. Every few steps the
worker that has the first shard scores the weights it holds, and stops the run when they are good enough. A mode that
this karp does not have is left out, and named. Medians of the rounds, each with another seed. Bytes are those of the
frames, both ways, for each batch that a worker computes.
"""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import gate, machine, picture
from bench.contest import FailedError
from bench.engine import progress, several
from bench.exchange import load, surroundings
from bench.table import Figure, short, text, write_json
from bench.tasks import TASKS, Task

PROGRAM = Path(__file__).parent / "programs" / "modes.py"
LONGEST = 120.0  # seconds of a run
MODES: dict[str, dict[str, Any]] = {  # arguments of Trainer
    "one process": {},
    "synchronous": {},
    "staleness 1": {"staleness": 1},
    "staleness 4": {"staleness": 4},
    "asynchronous": {"staleness": None},
    "local steps 8": {"local_steps": 8},
    "float16": {"codec": "float16"},
    "bfloat16": {"codec": "bfloat16"},
    "int8": {"codec": "int8"},
}


@dataclass(frozen=True)
class Row:
    """One line of JSON; what is None was not reached or does not apply."""

    task: str
    mode: str
    workers: int
    straggler: bool
    samples: float | None  # to the target
    seconds: float | None
    low: float | None  # of the seconds
    high: float | None
    bytes_per_step_and_worker: float  # by frames; 0 in one process
    staleness: float  # mean over all contributions
    most_stale: int


def add_arguments(parser: ArgumentParser) -> None:
    """The options after `bench.sh modes`."""
    add = parser.add_argument
    add("--rounds", type=int, default=3, metavar="N", help="runs of each mode (3)")
    add("--tasks", type=several(TASKS), default=[*TASKS], metavar="A,B", help=", ".join(TASKS))
    add("--modes", type=several(MODES), default=[*MODES], metavar="A,B", help=", ".join(MODES))
    add("--workers", type=int, default=2, metavar="N", help="workers (2)")
    add("--exchange", choices=["zeromq", "auto"], default="zeromq", help="auto: shared memory (zeromq)")
    add("--json", metavar="FILE", help="write one object per row")
    add("--picture", metavar="FILE", help="draw the table (.svg, .png); needs matplotlib")


def run(args: Namespace) -> int:
    """Make the table; 1 if a mode that is there fails."""
    print(f"{machine.describe()}; {load()}")
    modes = list(there(args.modes))
    done: list[Row] = []
    failed = False
    for name in args.tasks:
        task, rows, reasons = TASKS[name], [], []
        for straggler in (False, True):
            for mode in modes:
                if straggler and mode == "one process":
                    continue
                try:
                    rows.append(measure(name, mode, straggler, args))
                except FailedError as error:
                    reasons.append(f"  {mode}{' with a straggler' * straggler} is out: {error}")
        progress("")
        print(f"\n{task.about}, batch {task.batch}, SGD {task.rate}, until {task.target:.0%} of the test rows fit")
        nap = f"the straggler sleeps {1e3 * task.nap:g} ms a batch"
        print(f"{args.workers} workers over {args.exchange}; {nap}; {args.rounds} rounds; {load()}")
        print(text(lines(rows)))
        print("".join(f"{reason}\n" for reason in reasons), end="", flush=True)
        failed = failed or bool(reasons)
        done += rows
    if args.json:
        write_json(args.json, map(asdict, done))
    if args.picture:
        draw(args.picture, done, args)
    return int(failed)


def there(names: list[str]) -> Iterator[str]:
    """Those that this karp has; the others are named."""
    import karp

    known = inspect.signature(karp.Trainer.__init__).parameters
    missing = [name for name in names if not MODES[name].keys() <= known.keys()]
    if missing:
        print(f"not in this karp: {', '.join(missing)}")
    yield from (name for name in names if name not in missing)


def measure(name: str, mode: str, straggler: bool, args: Namespace) -> Row:
    """All rounds of one line; raises FailedError."""
    every = []
    for number in range(args.rounds):
        progress(f"{name}: {mode}{' with a straggler' * straggler}, round {number + 1}")
        every.append(one(TASKS[name], name, mode, straggler, number, args))
    reached = [found for found in every if found["samples"]]
    whole = len(reached) == len(every)
    seconds = Figure.of(found["seconds"] for found in reached) if whole else None
    return Row(
        name, mode, 1 if mode == "one process" else args.workers, straggler,
        median(found["samples"] for found in reached) if whole else None,
        seconds and seconds.middle, seconds and seconds.low, seconds and seconds.high,
        median(found["bytes"] for found in every),
        median(found["staleness"] for found in every), max(found["most_stale"] for found in every),
    )  # fmt: skip


def one(task: Task, name: str, mode: str, straggler: bool, seed: int, args: Namespace) -> dict[str, Any]:
    """One run."""
    given = json.dumps({"task": name, "seed": seed, "limit": task.epochs, "trainer": MODES[mode]})
    environment = surroundings() | ({"KARP_BENCH_SLEEP": str(task.nap)} if straggler else {})
    with tempfile.TemporaryDirectory(prefix="karp-bench-run-") as directory:
        if mode == "one process":
            workers, command = 1, [sys.executable, str(PROGRAM), given]
            environment["KARP_RUN_DIR"] = directory
        else:
            workers = args.workers
            launch = ["launch", "-n", str(workers), "--exchange", args.exchange, "--run-dir", directory]
            command = [sys.executable, "-m", "karp.cli", *launch, str(PROGRAM), given]
        reports = gate.run([command], workers, environment, LONGEST)
        summary = json.loads((Path(directory) / "summary.json").read_text())
    ages = {int(age): count for age, count in (summary.get("staleness") or {}).items()}
    batches = sum(report["batches"] for report in reports)
    reached = next((report for report in reports if report["reached"] >= 0), None)
    return {
        "samples": reached and reached["reached"] * task.batch,
        "seconds": reached and reached["seconds"],
        "bytes": sum(report["sent"] + report["received"] for report in reports) / max(1, batches),
        "staleness": sum(age * count for age, count in ages.items()) / max(1, sum(ages.values())),
        "most_stale": max(ages, default=0),
    }


def lines(rows: list[Row]) -> list[list[str]]:
    """The table's cells."""
    heading = ["  mode", "straggler", "samples", "seconds", "low", "high", "bytes a batch", "staleness", "most"]
    table = [heading]
    for row in rows:
        numbers = [short(one) if one is not None else "–" for one in (row.samples, row.seconds, row.low, row.high)]
        travelled = short(row.bytes_per_step_and_worker) if row.bytes_per_step_and_worker else "–"
        stale = [f"{row.staleness:.2f}", str(row.most_stale)]
        table.append([f"  {row.mode}", "yes" if row.straggler else "no", *numbers, travelled, *stale])
    return table


def draw(path: str, done: list[Row], args: Namespace) -> None:
    """A panel per task, with a straggler and without: seconds, and in brackets samples."""
    panels = []
    for name in args.tasks:
        for straggler in (False, True):
            bars = [
                picture.Bar(
                    row.mode,
                    Figure(row.seconds, row.low or 0.0, row.high or 0.0),
                    f"s  ({short((row.samples or 0) / 1000)})",
                    picture.YARDSTICK if row.mode == "one process" else picture.OWN,
                )
                for row in done
                if row.task == name and row.straggler == straggler and row.seconds is not None
            ]
            if bars:
                panels.append((TASKS[name].about + ", a straggler" * straggler, bars))
    targets = " and ".join(f"{TASKS[name].target:.0%}" for name in args.tasks)
    title = f"Seconds until {targets} of the test rows are named rightly"
    below = f"{args.workers} workers, {args.exchange}; stragglers sleep at every batch. In brackets: thousand samples. "
    below += "Whiskers: fastest and slowest run.\n"
    if panels:
        picture.draw(path, title, below + machine.describe(), panels)
