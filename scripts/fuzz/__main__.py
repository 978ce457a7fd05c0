"""python -m fuzz: what scripts/fuzz.sh calls.

Inputs come in rounds of a thousand, each with a seed of its own, so that one round repeats a failure.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser
from pathlib import Path

from fuzz.targets import files, machine, wire

ROUND = {"wire": 600, "machine": 300, "files": 100}
INPUTS = sum(ROUND.values())
HANG_SECONDS = 30  # A round takes a tenth of a second.
MEMORY = 6 << 30  # bytes of address space: an allocation beyond it fails at once
WARM_ROUNDS = 20  # before memory is looked at
GROWTH_MB = 20.0


def run_round(seed: int, folder: Path) -> dict[str, int]:
    """Try a thousand inputs; return how many of them were accepted, by target."""
    return {
        "wire": wire(ROUND["wire"], random.Random(f"wire {seed}")),
        "machine": machine(ROUND["machine"], random.Random(f"machine {seed}")),
        "files": files(ROUND["files"], random.Random(f"files {seed}"), folder),
    }


def resident_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> int:
    """Run the rounds that the command line asks for; return the exit status."""
    parser = ArgumentParser("fuzz.sh", description="Mutated bytes, messages and files: nothing may come of them.")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many, in rounds of 1,000 (default: 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="the first round's; the others count on (default: 0)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, raise_timeout)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    rounds = -(-options.inputs // INPUTS)
    began, warm = time.monotonic(), 0.0
    accepted, failed = dict.fromkeys(ROUND, 0), 0
    scratch = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="karp-fuzz-", dir=scratch) as folder:
        for number in range(rounds):
            seed = options.seed + number
            if number == min(WARM_ROUNDS, rounds - 1):
                warm = resident_mb()
            signal.alarm(HANG_SECONDS)
            try:
                for target, count in run_round(seed, Path(folder)).items():
                    accepted[target] += count
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"seed {seed} FAILED; to repeat: scripts/fuzz.sh --inputs {INPUTS} --seed {seed}", flush=True)
            signal.alarm(0)
    figures = {
        "inputs": rounds * INPUTS,
        "by_target": {target: rounds * count for target, count in ROUND.items()},
        "accepted": accepted,
        "rounds_failed": failed,
        "growth_mb": round(resident_mb() - warm, 1),
        "seconds": round(time.monotonic() - began, 1),
    }
    for target, count in ROUND.items():
        print(f"{target:8} {rounds * count:9,} inputs, {accepted[target]:9,} of them well formed, the others refused")
    seconds, growth = figures["seconds"], figures["growth_mb"]
    print(f"{rounds - failed} of {rounds} rounds well, {seconds} s, memory grew by {growth} MB")
    if options.json:
        Path(options.json).write_text(json.dumps(figures) + "\n")
    return 1 if failed or figures["growth_mb"] > GROWTH_MB else 0


def raise_timeout(number: int, frame: object) -> None:
    """Raise TimeoutError, as the handler of SIGALRM."""
    raise TimeoutError(f"a round has taken {HANG_SECONDS} s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
