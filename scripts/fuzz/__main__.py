"""python -m fuzz: what scripts/fuzz.sh calls.

Inputs come in rounds of a thousand, each with a seed of its own, so that what has failed is repeated by one round.
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
HANG_SECONDS = 30  # a round takes a tenth of a second
MEMORY = 6 << 30  # bytes of address space: what asks for more fails at once
WARM_ROUNDS = 20  # before memory is looked at
GROWTH_MB = 20.0


def one_round(seed: int, folder: Path) -> dict[str, int]:
    """A thousand inputs; returns how many of them were accepted, by target."""
    return {
        "wire": wire(ROUND["wire"], random.Random(f"wire {seed}")),
        "machine": machine(ROUND["machine"], random.Random(f"machine {seed}")),
        "files": files(ROUND["files"], random.Random(f"files {seed}"), folder),
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> int:
    """Parse and run."""
    parser = ArgumentParser("fuzz.sh", description="Mutated bytes, messages and files: nothing may come of them.")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many, in rounds of 1,000 (default: 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="the first round's; the others count on (default: 0)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, hang)
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
                for target, count in one_round(seed, Path(folder)).items():
                    accepted[target] += count
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"seed {seed} FAILED; to repeat: scripts/fuzz.sh --inputs {INPUTS} --seed {seed}", flush=True)
            signal.alarm(0)
    found = {
        "inputs": rounds * INPUTS,
        "by_target": {target: rounds * count for target, count in ROUND.items()},
        "accepted": accepted,
        "rounds_failed": failed,
        "growth_mb": round(resident_mb() - warm, 1),
        "seconds": round(time.monotonic() - began, 1),
    }
    for target, count in ROUND.items():
        print(f"{target:8} {rounds * count:9,} inputs, {accepted[target]:9,} of them well formed, the others refused")
    print(f"{rounds - failed} of {rounds} rounds well, {found['seconds']} s, memory grew by {found['growth_mb']} MB")
    if options.json:
        Path(options.json).write_text(json.dumps(found) + "\n")
    return 1 if failed or found["growth_mb"] > GROWTH_MB else 0


def hang(number: int, frame: object) -> None:
    raise TimeoutError(f"a round has taken {HANG_SECONDS} s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
