"""`bench.sh exchange`: samples per second of N workers together that train one model, karp's among peers.

Every worker has the case's batch, one BLAS thread, and gathers its part of a shuffled batch from an array in memory at
every step. Training is synchronous: a step is N batches. karp trains through `karp.Trainer` in a program under
`karp launch`, its server a process of its own. `mpi` and `free` compute with the hand-written NumPy step, `free`
without a word between the processes: the limit. `bare` and `karp-one` are one process, without a Trainer and with.

A turn starts the processes afresh, lets all of them meet, leaves the first 0.3 s of training out and counts the rest.
In a round everybody has a turn, in an order that rotates; ratios are medians of the rounds' ratios. Nobody can be timed
doing other work: the losses of the tenth step are compared with those of the hand-written step.
"""

from __future__ import annotations

import os
import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench import footprint, gate, machine, picture
from bench.cases import CASES, RATE, Case
from bench.clock import WARM_SECONDS, Clock
from bench.contest import FailedError
from bench.contestants import ENVIRONMENT
from bench.engine import TOLERANCE, progress, several
from bench.feed import orders, table
from bench.handwritten import Vectors, empty, stepping
from bench.table import Figure, ratio, short, text, write_json

PROGRAM = Path(__file__).parent / "programs" / "exchange.py"
MPI_ENVIRONMENT = {  # of OpenMPI: more workers than cores, and root in a container
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
OTHER_ENVIRONMENT = {"RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0", "GLOO_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Contestant:
    """One of the names in the table."""

    commands: Callable[[str, Case, int, float], list[list[str]]]  # of (name, case, workers, seconds)
    shown: str  # in the picture
    needs: tuple[str, ...] = ()  # modules
    package: str = ""  # and what to install for them
    alone: bool = False  # one process
    checked: bool = True  # its losses are those of the hand-written step
    color: str = picture.OTHER


def launched(exchange: str) -> Callable[[str, Case, int, float], list[list[str]]]:
    """karp under its launcher."""

    def commands(name: str, case: Case, workers: int, seconds: float) -> list[list[str]]:
        launch = [sys.executable, "-m", "karp.cli", "launch", "-n", str(workers), "--exchange", exchange]
        return [[*launch, "--run-dir", "run", str(PROGRAM), case.name, str(workers), str(seconds)]]

    return commands


def one(name: str, case: Case, workers: int, seconds: float) -> list[list[str]]:
    """karp in one process."""
    return [[sys.executable, str(PROGRAM), case.name, "1", str(seconds)]]


def peers(name: str, case: Case, workers: int, seconds: float) -> list[list[str]]:
    """A process per worker."""
    return [
        [sys.executable, "-m", "bench.peers", name, case.name, str(workers), str(seconds), str(rank)]
        for rank in range(workers)
    ]


def led(name: str, case: Case, workers: int, seconds: float) -> list[list[str]]:
    """One process that starts the others."""
    return peers(name, case, workers, seconds)[:1]


def by_mpiexec(name: str, case: Case, workers: int, seconds: float) -> list[list[str]]:
    """The MPI's own launcher."""
    return [[mpiexec() or "mpiexec", "-n", str(workers), *led(name, case, workers, seconds)[0]]]


CONTESTANTS = {
    "free": Contestant(peers, "free: never talk", checked=False, color=picture.LIMIT),
    "karp-shared": Contestant(launched("auto"), "karp", color=picture.OWN),
    "karp-zeromq": Contestant(launched("zeromq"), "karp, ZeroMQ over tcp", color=picture.OWN),
    "mpi": Contestant(by_mpiexec, "MPI Allreduce", ("mpi4py",), "mpi4py mpich", color=picture.YARDSTICK),
    "ddp": Contestant(peers, "torch DDP, gloo", ("torch",), "torch"),
    "torch-flat": Contestant(peers, "torch, one all_reduce", ("torch",), "torch"),
    "ray": Contestant(led, "Ray parameter server", ("ray",), "ray"),
    "karp-one": Contestant(one, "karp, one process", alone=True, color=picture.OWN),
    "bare": Contestant(peers, "engine alone, one process", alone=True, color=picture.LIMIT),
}
PAIRS = (
    ("karp-shared", "free"), ("karp-shared", "mpi"), ("karp-shared", "ddp"), ("karp-zeromq", "ddp"),
    ("karp-one", "bare"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of JSON."""

    case: str
    name: str
    workers: int
    samples_per_s: float
    low: float
    high: float


Rates = dict[tuple[str, int], list[float]]  # (name, workers) -> a round each


def add_arguments(parser: ArgumentParser) -> None:
    """The options after `bench.sh exchange`."""
    add = parser.add_argument
    add("--rounds", type=int, default=3, metavar="N", help="turns of each contestant (3)")
    add("--seconds", type=float, default=1.0, metavar="S", help="counted of a turn (1.0)")
    add("--cases", type=several([*"SML"]), default=[*"SML"], metavar="S,M,L", help="all by default")
    add("--workers", type=numbers, default=[2], metavar="N,N", help="processes that train together (2)")
    add("--names", type=several(CONTESTANTS), default=[*CONTESTANTS], metavar="A,B", help=", ".join(CONTESTANTS))
    add("--json", metavar="FILE", help="write one object per row")
    add("--picture", metavar="FILE", help="draw the table (.svg, .png); needs matplotlib")
    what = parser.add_argument_group("instead of the table")
    what.add_argument("--start", action="store_true", help="time from `karp launch` to the first step")
    what.add_argument("--memory", action="store_true", help="growth over 1,000 steps on S, and shared memory")
    what.add_argument("--idle", action="store_true", help="processor time of a worker and a server that wait")


def run(args: Namespace) -> int:
    """Make the table; 1 if karp was asked for and could not take part."""
    print(f"{machine.describe()}; {load()}")
    environment = surroundings()
    if args.start or args.memory or args.idle:
        for wanted, measure in (
            (args.start, footprint.start), (args.memory, footprint.memory), (args.idle, footprint.idle)
        ):  # fmt: skip
            for workers in args.workers if wanted else []:
                measure(workers, args.rounds, environment)
        return 0
    names = list(installed(args.names))
    done: dict[str, Rates] = {}
    failed = False
    for case in (CASES[name] for name in args.cases):
        contestants = [
            (name, workers)
            for name in names
            for workers in ([1] if CONTESTANTS[name].alone else args.workers)
        ]  # fmt: skip
        rates, reasons = contest(case, contestants, args, environment)
        print(f"\n{case} for each worker, float32; {args.rounds} rounds of {args.seconds} s; {load()}")
        if rates:
            print(text(lines(rates, args.workers)))
            print("".join(f"{line}\n" for line in comparisons(rates)), end="")
        for (name, workers), reason in reasons.items():
            print(f"  {name} with {workers} is out: {reason}")
            failed = failed or name.startswith("karp")
        sys.stdout.flush()
        done[case.name] = rates
    if args.json:
        write_json(args.json, (asdict(row) for case, rates in done.items() for row in rows(case, rates)))
    if args.picture:
        draw(args.picture, done, args.workers)
    return int(failed)


def contest(
    case: Case, contestants: Sequence[tuple[str, int]], args: Namespace, environment: dict[str, str]
) -> tuple[Rates, dict[tuple[str, int], str]]:
    """The rates of everybody, and why some have none."""
    rates: Rates = {one: [] for one in contestants}
    reasons: dict[tuple[str, int], str] = {}
    for number in range(args.rounds):
        at = number * len(contestants) // args.rounds
        for who in (*contestants[at:], *contestants[:at]):
            if who in reasons:
                continue
            progress(f"{case.name}: round {number + 1}, {who[0]} with {who[1]}")
            try:
                rates[who].append(turn(case, *who, args.seconds, environment))
            except FailedError as error:
                reasons[who] = str(error)
                del rates[who]
    progress("")
    return rates, reasons


def turn(case: Case, name: str, workers: int, seconds: float, environment: dict[str, str]) -> float:
    """Samples per second of all workers together; raises FailedError."""
    contestant = CONTESTANTS[name]
    commands = contestant.commands(name, case, workers, seconds)
    meeting = 1 if name == "ray" else workers
    reports = gate.run(commands, meeting, environment, seconds + WARM_SECONDS)
    if contestant.checked:
        check(expected(case.name, workers), [report["losses"] for report in reports])
    counted = [report["samples_per_s"] for report in reports if report["samples_per_s"]]
    if not counted or (len(counted) < len(reports) and not contestant.checked):
        raise FailedError("no step was counted: the turn is too short")
    return len(reports) * float(np.mean(counted))  # a worker that was held up had its shards computed by others


@cache
def expected(name: str, workers: int) -> list[float]:
    """The losses of the shards of step `Clock.CHECKED`, by the hand-written step in one process."""
    case, vectors = CASES[name], Vectors(CASES[name])
    x, y = table(case, workers)
    batch, aims = empty(case.batch, case.sizes[0]), np.empty(case.batch, y.dtype)
    shards = [orders(len(x), case, workers, shard) for shard in range(workers)]
    total, count = np.zeros_like(vectors.gradient), 0

    def gather() -> None:
        rows = next(shards[count % workers])
        x.take(rows, 0, batch, "clip")
        y.take(rows, 0, aims, "clip")

    def update() -> None:
        nonlocal count
        count += 1
        total[:] += vectors.gradient
        if count % workers == 0:
            vectors.weights[:] -= np.float32(RATE / workers) * total
            total[:] = 0

    run = stepping(case, batch, aims, vectors, update, gather)
    run(Clock.CHECKED * workers)
    return [run(1) for _ in range(workers)]


def check(losses: Sequence[float], told: Sequence[dict[str, float]]) -> None:
    """Raise unless the losses that were told are these; a shard that was held up may have been told twice or not."""
    found = {int(shard): loss for one in told for shard, loss in one.items()}
    for shard, loss in found.items():
        if not abs(loss - losses[shard]) <= TOLERANCE * abs(losses[shard]):
            raise FailedError(
                f"does other work: the loss of step {Clock.CHECKED}, shard {shard} is {loss:.6g}, "
                f"by hand it is {losses[shard]:.6g}"
            )
    if not found:
        raise FailedError(f"the loss of step {Clock.CHECKED} was not told")


def lines(rates: Rates, workers: Sequence[int]) -> list[list[str]]:
    """The table's cells, the fastest first; ratios to those with as many workers."""
    table = [["  name", "workers", "samples/s", "low", "high", ": free", ": mpi"]]
    for (name, count), every in sorted(rates.items(), key=lambda item: -Figure.of(item[1]).middle):
        figure = Figure.of(every)
        shares = [
            f"{ratio(every, rates[yardstick, count]).middle:.3f}" if (yardstick, count) in rates else "–"
            for yardstick in ("free", "mpi")
        ]
        table.append([f"  {name}", str(count), *map(short, (figure.middle, figure.low, figure.high)), *shares])
    return table


def comparisons(rates: Rates) -> Iterator[str]:
    """What the goals are about, in words."""
    for over, under in PAIRS:
        for name, count in rates:
            if name == over and (under, count) in rates:
                share = ratio(rates[over, count], rates[under, count])
                among = f" ({count} workers)" if count > 1 else ""
                yield f"  {over} : {under} = {share.middle:.3f} (rounds {share.low:.3f} to {share.high:.3f}){among}"
    for name, count in rates:
        if name.startswith("karp-") and count > 2 and (name, 2) in rates:
            share = ratio(rates[name, count], rates[name, 2])
            yield f"  {name}, {count} workers : 2 = {share.middle:.3f} (rounds {share.low:.3f} to {share.high:.3f})"


def rows(case: str, rates: Rates) -> Iterator[Row]:
    """For the JSON file."""
    for (name, workers), every in rates.items():
        figure = Figure.of(every)
        yield Row(case, name, workers, figure.middle, figure.low, figure.high)


def draw(path: str, done: dict[str, Rates], workers: Sequence[int]) -> None:
    """A panel per case, and per number of workers if there are several."""
    panels = []
    for name, rates in done.items():
        for count in workers:
            bars = [_bar(who, rates, count) for who in rates if who[1] == count or CONTESTANTS[who[0]].alone]
            if bars:
                case = CASES[name]
                layers = "-".join(map(str, case.sizes))
                panels.append((f"{name}: {layers}, {count} × {case.batch} samples a step", bars))
    title = f"Samples per second of {' or '.join(map(str, workers))} workers that train together, one thread each"
    below = "In brackets: ratio to as many processes that never talk. Whiskers: slowest and fastest round."
    if panels:
        picture.draw(path, title, f"{below}\n{machine.describe()}", panels)


def _bar(who: tuple[str, int], rates: Rates, count: int) -> picture.Bar:
    contestant = CONTESTANTS[who[0]]
    measured = ("free", count) in rates and not contestant.alone
    note = f"({ratio(rates[who], rates['free', count]).middle:.2f})" if measured else ""
    return picture.Bar(contestant.shown, Figure.of(rates[who]), note, contestant.color)


def installed(names: Sequence[str]) -> Iterator[str]:
    """Those whose packages are here; the others are named, and how to get them."""
    missing = [name for name in names if not all(map(find_spec, CONTESTANTS[name].needs))]
    if "mpi" in names and "mpi" not in missing and mpiexec() is None:
        missing.append("mpi")
    if missing:
        packages = " ".join(dict.fromkeys(CONTESTANTS[name].package for name in missing))
        print(f"not installed: {', '.join(missing)} (bench.sh exchange --install, or pip install {packages})")
    yield from (name for name in names if name not in missing)


def mpiexec() -> str | None:
    """That of this environment, then that of the system."""
    return shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")


def surroundings() -> dict[str, str]:
    """Of every process: one thread, the bench to be found, and modules compiled once, as everybody's Python does."""
    scripts = Path(__file__).parent.parent
    path = os.pathsep.join(filter(None, (str(scripts), str(scripts.parent), os.environ.get("PYTHONPATH"))))
    own = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return own | ENVIRONMENT | MPI_ENVIRONMENT | OTHER_ENVIRONMENT | {"PYTHONPATH": path}


def load() -> str:
    """What else the machine does."""
    return f"load {os.getloadavg()[0]:.1f}"


def numbers(argument: str) -> list[int]:
    """Whole numbers with commas between them."""
    try:
        given = [int(one) for one in argument.split(",")]
    except ValueError:
        given = []
    if not given or min(given) < 1:
        raise ArgumentTypeError(f"{argument!r} is no number of workers")
    return given
