"""`bench.sh tables`: sixteen public tables from file to model, by karp.fit and by others, each as its users run it.

Scores: at most 10,000 training rows a set, 10 splits (5 of sets above 5,000 rows), the same rows for every contestant.
The error is 1 - accuracy, or 1 - AUC where few rows are of the one class, and at least one of the test rows; or the
RMSE. Time (`--time`): all rows but the test rows, a process of its own for every turn.

Contestants take turns, and each result is a line in a file (`--json`) as soon as it is there: whatever stands in it is
not made again, so the bench can be stopped, and goes on where it was. To have a contestant measured anew, as after a
change of karp, remove its lines, or give another file.
"""

from __future__ import annotations

import json
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from os import environ
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from bench import machine, picture
from bench.contest import Answer, FailedError, Process
from bench.engine import progress, several
from bench.exchange import load
from bench.table import Figure, short, text
from bench.tables import comparing, sets, splits
from bench.tables import picture as dots
from bench.tables.contestants import CONTESTANTS, OWN, Job
from bench.tables.results import Key, Result, Results
from bench.tables.scoring import error
from bench.tables.sets import SETS, DataSet

if TYPE_CHECKING:
    from pandas import DataFrame

LONGEST = 3 * 3600.0  # seconds of a fit
WORK = Path(tempfile.gettempdir()) / "karp-bench-tables"


def add_arguments(parser: ArgumentParser) -> None:
    """The options after `bench.sh tables`."""
    add = parser.add_argument
    add("--sets", type=several(SETS), metavar="A,B", help=f"{', '.join(SETS)} (all; for time {','.join(sets.TIMED)})")
    add("--splits", type=int, metavar="N", help="of each set at most N (10, 5 of sets above 5,000 rows; for time 1)")
    add("--contestants", type=several(CONTESTANTS), default=[*CONTESTANTS], metavar="A,B", help=", ".join(CONTESTANTS))
    add("--epochs", type=int, metavar="N", help="of karp and RealMLP-TD-S (their defaults)")
    add("--time", action="store_true", help="train on all rows, each time in a new process")
    add("--work", type=Path, default=WORK, metavar="DIR", help=f"the files of the splits ({WORK})")
    add("--json", type=Path, metavar="FILE", help="one object per result, read and added to (DIR/results.jsonl)")
    add("--picture", metavar="FILE", help="draw the comparison (.svg, .png); needs matplotlib")


def run(args: Namespace) -> int:
    """Make what is not in the file of results yet, and show all of it; 1 if a contestant fails."""
    tables = [SETS[name] for name in args.sets or (sets.TIMED if args.time else SETS)]
    if args.install:
        sets.install(tables)
    lacking = [f"the data package {package}" for package in sets.lacking(tables)]
    for name in args.contestants:
        lacking += [f"{module}, for {CONTESTANTS[name].title}" for module in CONTESTANTS[name].lacking]
    if lacking:
        print("karp: not installed, use --install: " + "; ".join(lacking), file=sys.stderr)
        return 1
    try:
        results = Results(args.json or args.work / "results.jsonl")
    except FailedError as reason:
        print(f"karp: {reason}", file=sys.stderr)
        return 1
    print(f"{machine.describe()}; {load()}", flush=True)
    reasons = measure(tables, results, args)
    progress("")
    show(tables, results, args)
    print("".join(f"{reason}\n" for reason in reasons), end="", flush=True)
    return int(bool(reasons))


def measure(tables: Sequence[DataSet], results: Results, args: Namespace) -> list[str]:
    """Make the results that are not there; return why some could not be made."""
    reasons = []
    for table in tables:
        children = Children(args.time)
        frame: DataFrame | None = None
        try:
            for split, name in turns(table, args):
                key = key_of(table, split, name, args)
                if key in results:
                    continue
                progress(f"{table.name}: {CONTESTANTS[name].title}, split {split + 1}")
                try:
                    frame = sets.read(table) if frame is None else frame
                    parts = splits.write(args.work, table, split, None if args.time else splits.LIMIT, frame)
                    results.add(Result(*key, **children.fit(table, parts, key)))
                except FailedError as reason:
                    reasons.append(f"{table.name}, split {split + 1}: {CONTESTANTS[name].title} failed: {reason}")
        finally:
            children.close()
    return reasons


def turns(table: DataSet, args: Namespace) -> Iterator[tuple[int, str]]:
    """Yield splits and contestants, in an order that rotates."""
    names = args.contestants
    for split in range(min(args.splits or (1 if args.time else table.splits), table.splits)):
        first = split % len(names)
        yield from ((split, name) for name in (*names[first:], *names[:first]))


def key_of(table: DataSet, split: int, name: str, args: Namespace) -> Key:
    """Return what a result is of; epochs are named only for those whose argument they are."""
    return Key(table.name, split, name, args.time, args.epochs if CONTESTANTS[name].takes_epochs else None)


class Children:
    """The processes of the contestants, started when they are first needed; with `alone` for one fit only."""

    def __init__(self, alone: bool) -> None:
        self._alone = alone
        self._processes: dict[str, Process] = {}

    def fit(self, table: DataSet, parts: splits.Parts, key: Key) -> Answer:
        """Have a contestant fit and predict; raises FailedError. One that has failed starts again the next time."""
        name = key.contestant
        job = Job(str(parts.train), table.target, table.score, key.split, key.epochs)
        given = {"job": asdict(job), "test": str(parts.test), "truth": str(parts.truth)}
        failed = True
        try:
            if name not in self._processes:
                command = [sys.executable, "-P", "-m", "bench.tables.child", name]
                self._processes[name] = Process(name, command, environ)
                self._processes[name].ready()
            answer = self._processes[name].ask(f"fit {json.dumps(given)}", LONGEST)
            failed = False
            return answer
        finally:
            if failed or self._alone:
                self._processes.pop(name).close()

    def close(self) -> None:
        """End them all."""
        for process in self._processes.values():
            process.close()
        self._processes.clear()


def show(tables: Sequence[DataSet], results: Results, args: Namespace) -> None:
    """Print what is there of these sets and contestants, and draw it."""
    found = {
        table.name: {
            name: results.of(table.name, name, whole=args.time, epochs=key_of(table, 0, name, args).epochs)
            for name in args.contestants
        }
        for table in tables
    }
    asked = f"; {args.epochs} epochs of karp and RealMLP-TD-S" if args.epochs else ""
    print(f"\nmean errors: RMSE, else 100 (1 - score){asked}")
    print(text(lines_of_errors(tables, found, args.contestants)))
    print("\nseconds from file to model, medians")
    print(text(lines_of_seconds(tables, found, args.contestants)))
    comparisons = list(compare(tables, found, args.contestants))
    if comparisons:
        print("\nerror of the first : error of the second, geometric mean; worse is by two standard errors and more")
        print(text(lines_of_comparisons(comparisons)))
    if args.picture:
        draw(args.picture, tables, found, comparisons, args)


Found = dict[str, dict[str, dict[int, Result]]]  # by set, contestant, split


def errors(table: DataSet, found: Found, name: str) -> dict[int, float]:
    """Return a contestant's errors by split."""
    return {split: error(table.score, one.score, one.test_rows) for split, one in found[table.name][name].items()}


def lines_of_errors(tables: Sequence[DataSet], found: Found, names: Sequence[str]) -> list[list[str]]:
    """The cells of the table of mean errors."""
    lines = [["  set", "score", "rows", "splits", *(CONTESTANTS[name].title for name in names)]]
    for table in tables:
        every = [one for name in names for one in found[table.name][name].values()]
        if every:
            counts = sorted({len(found[table.name][name]) for name in names})
            means = [list(errors(table, found, name).values()) for name in names]
            unit = 1.0 if table.score == "rmse" else 100.0
            lines.append([
                f"  {table.name}", table.score, f"{max(one.rows for one in every):,}", "-".join(map(str, counts)),
                *(f"{unit * mean(values):.4g}" if values else "–" for values in means),
            ])  # fmt: skip
    return lines


def lines_of_seconds(tables: Sequence[DataSet], found: Found, names: Sequence[str]) -> list[list[str]]:
    """The cells of the table of times."""
    lines = [["  set", *(CONTESTANTS[name].title for name in names)]]
    for table in tables:
        times = [[one.seconds for one in found[table.name][name].values()] for name in names]
        if any(times):
            lines.append([f"  {table.name}", *(short(Figure.of(each).middle) if each else "–" for each in times)])
    return lines


def compare(tables: Sequence[DataSet], found: Found, names: Sequence[str]) -> Iterator[comparing.Comparison]:
    """Compare karp, alone and with members, with every other contestant, and with each other."""
    by_name = {name: {table.name: errors(table, found, name) for table in tables} for name in names}
    for own in OWN:
        for name in names:
            if own in names and name != own and (own, name) != OWN:
                titles = (CONTESTANTS[own].title, CONTESTANTS[name].title)
                found_pair = comparing.compare(titles, by_name[own], by_name[name], [table.name for table in tables])
                if found_pair is not None:
                    yield found_pair


def lines_of_comparisons(comparisons: Sequence[comparing.Comparison]) -> list[list[str]]:
    """The cells of the table of comparisons."""
    lines = [["  first : second", "ratio", "sets", "better", "share", "worse"]]
    for one in comparisons:
        share = f"{one.better / len(one.sets):.0%}"
        worse = ", ".join(one.worse) or "none"
        lines.append([
            f"  {one.first} : {one.second}", f"{one.ratio:.3f}", str(len(one.sets)), str(one.better), share, worse
        ])  # fmt: skip
    return lines


def draw(
    path: str, tables: Sequence[DataSet], found: Found, comparisons: Sequence[comparing.Comparison], args: Namespace
) -> None:
    """Draw the errors beside karp's; with --time the seconds."""
    if not args.time:
        own = CONTESTANTS["karp"].title
        lines = [one for one in comparisons if one.first == own]
        members = [one for one in comparisons if one.second == own]  # drawn the other way round
        lines += [comparing.Comparison(own, one.first, tuple(map(swapped, one.sets))) for one in members]
        below = f"A dot is a set, the diamond the geometric mean; to the left of the line: less than {own}'s.\n"
        if lines:
            dots.draw(path, f"Test errors as multiples of {own}'s", below + machine.describe(), lines)
        return
    panels = []
    for table in tables:
        bars = []
        for name in args.contestants:
            every = list(found[table.name][name].values())
            if every:
                scores = mean(errors(table, found, name).values()) * (1 if table.score == "rmse" else 100)
                color = picture.OWN if name in OWN else picture.OTHER
                seconds = Figure.of(one.seconds for one in every)
                bars.append(picture.Bar(CONTESTANTS[name].title, seconds, f"s  ({scores:.3g})", color))
        if bars:
            rows = max(one.rows for each in found[table.name].values() for one in each.values())
            panels.append((f"{table.name}, {rows:,} training rows", bars))
    if panels:
        below = "In brackets: test error in %, of numbers the RMSE.\n"
        picture.draw(path, "Seconds from file to model", below + machine.describe(), panels)


def swapped(one: comparing.Paired) -> comparing.Paired:
    """Return the same pair the other way round."""
    return comparing.Paired(one.set, one.second, one.first, one.standard_error)
