"""What karp's processes cost beside the steps: `bench.sh exchange --start`, `--memory` and `--idle`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench import gate
from bench.cases import CASES
from bench.contest import FailedError
from bench.table import Figure, ratio

PROGRAM = Path(__file__).parent / "programs" / "footprint.py"
STEPS = 1000
IDLE_SECONDS = 3.0
# A Python that imports NumPy and starts N others that do.
PLAIN = """
import subprocess, sys
import numpy
others = [subprocess.Popen([sys.executable, "-c", "import numpy"]) for _ in range(int(sys.argv[1]))]
sys.exit(any([other.wait() for other in others]))
"""


def launched(what: str, workers: int, environment: dict[str, str], seconds: float) -> list[gate.Report]:
    """The workers' reports of a run of the footprint program."""
    launch = [sys.executable, "-m", "karp.cli", "launch", "-n", str(workers), "--run-dir", "run"]
    return gate.run([[*launch, str(PROGRAM), what, str(workers)]], workers, environment, seconds)


def start(workers: int, rounds: int, environment: dict[str, str]) -> None:
    """From `karp launch` until the first step is applied, beside Pythons that import NumPy and no more."""
    first: list[float] = []
    plain: list[float] = []
    for _ in range(rounds + 1):
        begin = time.monotonic()
        reports = launched("start", workers, environment, 10)
        first.append(min(report["at"] for report in reports) - begin)
        begin = time.monotonic()
        done = subprocess.run([sys.executable, "-c", PLAIN, str(workers)], env=environment, check=False)
        if done.returncode:
            raise FailedError("the Pythons that import NumPy fail")
        plain.append(time.monotonic() - begin)
    del first[0], plain[0]  # caches of files
    share = ratio(first, plain)
    print(f"\nStart with {workers} workers, {rounds} rounds")
    for what, every in (("karp launch to the end of the first step", first), (f"NumPy, and {workers} like it", plain)):
        figure = Figure.of(every)
        print(f"  {what}: {figure.middle:.3f} s ({figure.low:.3f} to {figure.high:.3f})")
    print(f"  ratio: {share.middle:.2f} (rounds {share.low:.2f} to {share.high:.2f})")


def memory(workers: int, rounds: int, environment: dict[str, str]) -> None:
    """How processes grow in a thousand steps on S, and how much memory they share."""
    reports = launched("memory", workers, environment, 60)
    server = next(report["server"] for report in reports if report["server"])
    print(f"\nMemory with {workers} workers, {STEPS} steps on {CASES['S']}")
    print(f"  server: {server['before']:,} KiB resident, growth {server['growth']:,} KiB")
    for worker, report in enumerate(reports):
        print(f"  worker {worker}: {report['before']:,} KiB resident, growth {report['growth']:,} KiB")
    vectors = workers + 2  # two copies of the weights, as plain SGD has no state, and a gradient of each worker
    heads = server["shared"] - vectors * server["vector"]
    print(
        f"  shared: {server['segments']} files, {server['shared']:,} bytes, "
        f"that is {vectors} vectors of {server['vector']:,} bytes, and {heads:,} for mailboxes, words and losses"
    )


def idle(workers: int, rounds: int, environment: dict[str, str]) -> None:
    """Processor time while all wait for one worker's evaluation, which steers the run."""
    reports = launched("idle", workers, environment, 4 * IDLE_SECONDS)
    print(f"\nIdle: one of {workers} workers holds all others for {IDLE_SECONDS} s")
    for worker, report in enumerate(reports):
        who, spent = ("server", report["server"]) if report["server"] else (f"worker {worker}", report)
        print(f"  {who}: {1e3 * spent['cpu'] / spent['wall']:.2f} ms of processor time a second")
