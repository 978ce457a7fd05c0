"""`bench.sh engine`: training steps per second, forward + backward + SGD, karp among hand-written NumPy and its peers.

Everybody has one thread, float32 (but for the two engines of scalars: Python floats) and one fixed batch in memory.
Ratios are medians of the rounds' ratios; behind `karp : numpy` stand the lowest and the highest, which say how far to
trust it. The cores column is processor time by wall time: above 1 a contestant has help from more than its one thread,
well below 1 the machine was busy with something else. `--clock cpu` then gives steps per second of processor time,
which on a quiet machine is the same: nobody here waits for anything.

Memory is the peak resident size over the training steps, interpreter and libraries included, and its growth since all
was imported and nothing built: what the step needs (see memory.py). "At most 1.3 times the hand-written step" is
said of the growth, as the libraries weigh more than the step.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from bench import machine, picture
from bench.cases import CASES, Case
from bench.contest import FailedError, Process, rounds
from bench.contestants import CONTESTANTS, ENVIRONMENT
from bench.handwritten import losses
from bench.table import Figure, ratio, short, text, write_json

CHECKED_STEPS = 10
SCALARS = ("karp-scalar", "micrograd")
SHOWN = {  # name and colour in the picture, where they are not the row's name and everybody's colour
    "karp": ("karp", picture.OWN),
    "karp-scalar": ("karp-scalar", picture.OWN),
    "numpy": ("hand-written NumPy", picture.YARDSTICK),
    "matmul": ("matrix products alone", picture.LIMIT),
    "jax": ("JAX jit", picture.OTHER),
    "torch-compile": ("torch.compile", picture.OTHER),
    "sklearn": ("scikit-learn", picture.OTHER),
    "autograd": ("HIPS autograd", picture.OTHER),
}
QUIET = 0.9  # cores in use by a contestant, at least
TOLERANCE = 1e-4  # relative, of a loss; ten steps change it by a third


@dataclass(frozen=True)
class Row:
    """One line of JSON. Memory in MB of 10^6 bytes."""

    case: str
    name: str
    steps_per_s: float
    low: float
    high: float
    peak_rss_mb: float
    growth_mb: float  # of the resident size, from imports done to the peak


@dataclass(frozen=True)
class Result:
    """One contestant on one case."""

    row: Row
    rates: list[float]  # a round each
    cores: float


def add_arguments(parser: ArgumentParser) -> None:
    """The options after `bench.sh engine`."""
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each contestant (7)")
    parser.add_argument("--turn", type=float, default=0.4, metavar="SECONDS", help="length of a turn (0.4)")
    parser.add_argument("--cases", type=several(CASES), default=list(CASES), metavar="T,S,M,L", help="all by default")
    parser.add_argument(
        "--names", type=several(CONTESTANTS), default=list(CONTESTANTS), metavar="A,B", help=", ".join(CONTESTANTS)
    )
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: per second of processor time, for a busy machine"
    )
    parser.add_argument("--json", metavar="FILE", help="write one object per row")
    parser.add_argument("--picture", metavar="FILE", help="draw the table (.svg, .png); needs matplotlib")


def run(args: Namespace) -> int:
    """Make the table; 1 if karp was asked for and could not take part."""
    names = list(_installed(args.names))
    print(machine.describe())
    done: dict[str, list[Result]] = {}
    failed = False
    for case in (CASES[name] for name in args.cases):
        results, reasons = contest(case, [name for name in names if case.name in CONTESTANTS[name].cases], args)
        print(f"\n{case}, float32; {args.rounds} rounds of {args.turn} s")
        if results:
            if any(result.row.name in SCALARS for result in results):
                print(f"  {' and '.join(SCALARS)}: one value per number, Python floats, ReLU")
            print(text(lines(results)))
            print("".join(f"{line}\n" for line in comparisons(results)), end="")
        if args.clock == "wall" and results and median(result.cores for result in results) < QUIET:
            print("  the machine was busy with something else: try again, or with --clock cpu")
        for name, reason in reasons.items():
            print(f"  {name} is out: {reason}")
            failed = failed or name.startswith("karp")
        sys.stdout.flush()
        done[str(case)] = results
    if args.json:
        write_json(args.json, (asdict(result.row) for results in done.values() for result in results))
    if args.picture:
        draw(args.picture, done, args.clock)
    return int(failed)


def contest(case: Case, names: Sequence[str], args: Namespace) -> tuple[list[Result], dict[str, str]]:
    """One case: the results, the fastest first, and why some have none."""
    scripts = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (scripts, os.environ.get("PYTHONPATH"))))
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": path}
    processes: list[Process] = []
    reasons: dict[str, str] = {}
    try:
        for name in names:
            command = [sys.executable, "-m", "bench.child", name, case.name]
            processes.append(Process(name, command, environment))
        fit = []
        for process in processes:
            progress(f"{case.name}: {process.name} gets ready")
            try:
                _make_ready(process, case, args.turn)
                fit.append(process)
            except FailedError as error:
                reasons[process.name] = str(error)
        turns, out = rounds(fit, args.rounds, args.turn, lambda number: progress(f"{case.name}: round {number}"))
        progress("")
        reasons |= out
        results = []
        for process in fit:
            if process.name in turns:
                steps = CONTESTANTS[process.name].steps(case)
                clock = "cpu" if args.clock == "cpu" else "seconds"
                rates = [steps * turn["count"] / turn[clock] for turn in turns[process.name]]
                cores = median(turn["cpu"] / turn["seconds"] for turn in turns[process.name])
                memory = process.ask("peak")
                figure = Figure.of(rates)
                row = Row(case.name, process.name, figure.middle, figure.low, figure.high, **memory)
                results.append(Result(row, rates, cores))
        return sorted(results, key=lambda result: -result.row.steps_per_s), reasons
    finally:
        for process in processes:
            process.close()


def _make_ready(process: Process, case: Case, seconds: float) -> None:
    process.ready()
    contestant = CONTESTANTS[process.name]
    if contestant.checked:
        expected = losses(case, CHECKED_STEPS, contestant.activation)
        actual = process.ask(f"losses {CHECKED_STEPS}")["losses"]
        check(expected, actual)
    process.ask(f"warm {seconds}", seconds)


def check(expected: Sequence[float], actual: Sequence[float]) -> None:
    """Raise unless the losses of the first steps are those of the hand-written step."""
    for step, (want, got) in enumerate(zip(expected, actual, strict=True)):
        if not abs(got - want) <= TOLERANCE * abs(want):
            raise FailedError(f"does other work: the loss of step {step} is {got:.6g}, by hand it is {want:.6g}")


def lines(results: Sequence[Result]) -> list[list[str]]:
    """The table's cells."""
    rates = {result.row.name: result.rates for result in results}
    heading = ["  name", "steps/s", "low", "high", ": numpy", ": matmul", "cores", "peak MB", "growth MB"]
    table = [heading]
    for result in results:
        row = result.row
        shares = [
            f"{ratio(result.rates, rates[yardstick]).middle:.3f}" if yardstick in rates else "–"
            for yardstick in ("numpy", "matmul")
        ]
        table.append([
            f"  {row.name}", short(row.steps_per_s), short(row.low), short(row.high), *shares,
            f"{result.cores:.2f}", f"{row.peak_rss_mb:.0f}", f"{row.growth_mb:.1f}",
        ])  # fmt: skip
    return table


def comparisons(results: Sequence[Result]) -> Iterator[str]:
    """What the goals are about, in words."""
    by_name = {result.row.name: result for result in results}
    pairs = [("karp", "numpy"), ("karp", "jax"), ("karp", "torch"), ("karp-scalar", "micrograd")]
    for over, under in pairs:
        if over in by_name and under in by_name:
            share = ratio(by_name[over].rates, by_name[under].rates)
            yield f"  {over} : {under} = {share.middle:.3f} (rounds {share.low:.3f} to {share.high:.3f})"
    if "karp" in by_name and "numpy" in by_name and by_name["numpy"].row.growth_mb > 1:
        karp, numpy = by_name["karp"].row.growth_mb, by_name["numpy"].row.growth_mb
        yield f"  memory of a step, karp : numpy = {karp / numpy:.2f} ({karp:.1f} MB, {numpy:.1f} MB)"


def draw(path: str, done: dict[str, list[Result]], clock: str) -> None:
    """The table as a picture."""
    panels = [(case, [_bar(result, results) for result in results]) for case, results in done.items() if results]
    second = "second" if clock == "wall" else "second of processor time"
    title = f"Training steps per {second}: forward, backward, SGD; one thread, float32"
    below = "In brackets: ratio to hand-written NumPy. Whiskers: slowest and fastest round."
    if any(result.row.name in SCALARS for results in done.values() for result in results):
        below += f" {' and '.join(SCALARS)}: one value per number, Python floats, ReLU."
    if panels:
        picture.draw(path, title, f"{below}\n{machine.describe()}", panels)


def _bar(result: Result, results: Sequence[Result]) -> picture.Bar:
    row = result.row
    name, color = SHOWN.get(row.name, (row.name, picture.OTHER))
    by_hand = next((one.rates for one in results if one.row.name == "numpy"), None)
    note = f"({ratio(result.rates, by_hand).middle:.2f})" if by_hand else ""
    return picture.Bar(name, Figure(row.steps_per_s, row.low, row.high), note, color)


def _installed(names: Sequence[str]) -> Iterator[str]:
    """Those whose packages are here; the others are named, and how to get them."""
    missing = [name for name in names if find_spec(CONTESTANTS[name].needs) is None]
    if missing:
        packages = " ".join(dict.fromkeys(CONTESTANTS[name].package for name in missing))
        print(f"not installed: {', '.join(missing)} (bench.sh engine --install, or pip install {packages})")
    yield from (name for name in names if name not in missing)


def several(known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of names with commas between them, each one of `known`."""

    def names(argument: str) -> list[str]:
        given = [name.strip() for name in argument.split(",") if name.strip()]
        wrong = [name for name in given if name not in known]
        if wrong or not given:
            raise ArgumentTypeError(f"no {', '.join(wrong) or 'name'}; there are {', '.join(known)}")
        return given

    return names


def progress(line: str) -> None:
    """One line that is written over, for a person who waits."""
    if sys.stderr.isatty():
        print(f"\r{line:<60}" if line else f"\r{'':60}\r", end="", file=sys.stderr, flush=True)
