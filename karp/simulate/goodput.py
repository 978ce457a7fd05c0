"""Goodput: which share of a cluster's computation reaches the weights, as its workers fail more and more often.

The server's, the workers' and the launcher's machines run here as in every simulation; only the gradients are zeros, as
nobody looks at them. Each worker fails at a rate of its own, all with the same; half of the failures close the
connection, the others are noticed by heartbeats that are missing. A worker that has failed is back after a time.

The goodput is the time that a step would take if nothing failed and messages took none, divided by the time that it
does take. So it counts as lost whatever does not reach the weights: workers that are down, work that died with them,
waiting, and work that was done twice.

The parameters were fixed before the first run, from two published sources, and are the same for all contestants:

    a step takes 8.1 s, and a checkpoint is written every 100 steps
        Clockwork's comparison of checkpoint restarts, TorchFT and TorchPass, 2026: 3,000 steps of TorchTitan's Llama 4
        Scout on 64 H200 take 405 minutes where nearly no time is lost to failures
        (https://clockwork.io/blog/keeping-distributed-training-running-through-failures).
    a failure costs 600 s until all go on, or until the one worker is back
        Llama 3 (https://arxiv.org/abs/2407.21783, section 3.3.4): 466 interruptions in 54 days on 16,384 GPUs at an
        effective training time above 90 %. So one of them costs at most 1,001 s, of which half of the 100 steps are
        work that is lost. The first source's 818 minutes with checkpoint restarts and a failure every 3,600 s come to
        30 minutes for each failure, so 600 s favour restarts of all.

Restart-all is no part of karp, and is a model: all workers compute until one fails; what they have done since the last
checkpoint is lost; `RESTART_SECONDS` later they go on from there. Checkpoints take no time there, and nobody fails
during a restart.

A shard is an eighth of what a worker computes in a step. All times are those of the virtual clock; messages take 2 ms,
and the server takes none, which is far from the truth with 1,000 workers and one server: what is compared here is what
failures cost.
"""

import gc
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from karp import optim
from karp.checks import whole
from karp.launch.options import cores
from karp.protocol.tree import Node
from karp.simulate.cluster import Cluster
from karp.simulate.network import read_only_copy
from karp.simulate.problem import Problem
from karp.simulate.randomness import Randomness
from karp.simulate.scenario import Scenario, check_seed

STEP_SECONDS = 8.1  # that a step takes all workers if nothing fails and messages take no time
CHECKPOINT_STEPS = 100
RESTART_SECONDS = 600.0
LATENCY = 0.002  # seconds that a message takes one way
SHARDS_PER_WORKER = 8
RATES = (0.0, 0.01, 0.1, 1.0)  # failures of the cluster in the time of a step
WORKERS = (100, 1_000)  # more take hours
WORKER_STEPS = 10_000  # the steps that are measured, times the workers; at least LEAST_STEPS of them
LEAST_STEPS = 8
SEEDS = 3  # runs of each point
MOST_WORKERS = 100_000
WARM_STEPS = 4  # before the steps that are measured: with staleness the first end late, and the next soon after
DOWN_SECONDS = 1.0  # from the first start until those workers fail that are down as the measured steps begin
RESTART_ALL = "restart all"
RESTART_ALL_STEPS = 100_000  # the length of a run of the model
MODES: dict[str, dict[str, Any]] = {  # fields of the scenario
    "synchronous": {"backups": False},
    "backup leases": {},
    "staleness 2": {"staleness": 2},
    "8 local steps": {"local_steps": 8},
}


@dataclass(frozen=True, slots=True)
class Point:
    """Describe one run: so many workers, and failures of the cluster in the time of a step."""

    mode: str
    workers: int
    rate: float
    seed: int
    steps: int  # that are measured; one of 8 local steps is one


@dataclass(frozen=True, slots=True)
class Band:
    """The goodput of the runs of a mode, a number of workers and a rate: one number for each seed."""

    mode: str
    workers: int
    rate: float
    goodput: list[float]

    @property
    def mean(self) -> float:
        """Return the mean of all seeds."""
        return sum(self.goodput) / len(self.goodput)


class NoProblem(Problem):
    """A problem whose gradients are zeros: only the time that they take counts here."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.zeros = read_only_copy(self.initial * 0)

    def sums(self, start: int, stop: int) -> list[Node]:
        """Return sums over these shards, of nodes of any tree that has so many: pairs, fours, … of shards."""
        nodes = []
        while start < stop:
            size = start & -start or 1 << 30
            while start + size > stop:
                size >>= 1
            nodes.append(Node(start, start + size, 0.0, self.zeros))
            start += size
        return nodes


def kept_steps(failures: list[float], end: float) -> float:
    """Return the steps of computation that reach the weights with restart-all.

    `failures` are the times of the failures, and `end` is the time of the end, in steps of computation: the restarts
    are not in them.

    >>> kept_steps([250.0, 380.0], 400.0)  # 200 steps, 100 of the next 130, all of the last 20
    320.0
    """
    kept, since = 0.0, 0.0
    for failure in failures:
        kept += (failure - since) // CHECKPOINT_STEPS * CHECKPOINT_STEPS
        since = failure
    return kept + end - since


def restart_all(rate: float, seed: int, steps: int = RESTART_ALL_STEPS) -> float:
    """Return the goodput of restart-all at this rate: the steps kept in `steps` of computation and the restarts."""
    if rate == 0.0:
        return 1.0
    rng, failures, time = np.random.default_rng([seed, 0x4E57A47]), [], 0.0
    while (time := time + rng.exponential(1.0 / rate)) < steps:
        failures.append(time)
    return kept_steps(failures, steps) / (steps + len(failures) * RESTART_SECONDS / STEP_SECONDS)


def share_up(workers: int, rate: float) -> float:
    """Return the share of the workers that are up on average, which karp's goodput cannot exceed for long.

    >>> share_up(100, 0.0), round(share_up(100, 1.0), 3)
    (1.0, 0.574)
    """
    return 1.0 / (1.0 + RESTART_SECONDS * rate / (workers * STEP_SECONDS))


def scenario_of(point: Point) -> Scenario:
    """Return the scenario of a run with karp's machines."""
    changes = MODES[point.mode]
    local_steps = changes.get("local_steps", 1)
    shards = point.workers * SHARDS_PER_WORKER
    return Scenario(
        seed=point.seed,
        workers=point.workers,
        shards=shards,
        samples=shards * local_steps,
        batch_size=shards,
        epochs=WARM_STEPS + point.steps,
        width=1,
        optimizer=optim.SGD(lr=0.0),
        compute_seconds=STEP_SECONDS / SHARDS_PER_WORKER,
        compute_spread=0.0,
        latency=LATENCY,
        signs_of_life=False,
        crash_rate=point.rate / (point.workers * STEP_SECONDS),
        faults_until=math.inf,
        restarts=1 << 30,
        restart_seconds=RESTART_SECONDS,
        save_seconds=math.inf,
        **changes,
    )


def run(point: Point) -> float:
    """Return the goodput of one run, of karp's machines or of the model of restart-all.

    The run begins with as many workers down as are on average, drawn at random.
    """
    if point.mode == RESTART_ALL:
        return restart_all(point.rate, point.seed)
    scenario = scenario_of(point)
    cluster = Cluster(scenario, check=False, limit=math.inf)
    cluster.problem = NoProblem(scenario)
    rng = Randomness(point.seed, 0xD0)
    down = 1.0 - share_up(point.workers, point.rate)

    def fail_some() -> None:
        for process in list(cluster.processes):
            if rng.bernoulli(down):
                process.end(-9)

    cluster.clock.call_later(DOWN_SECONDS, fail_some)
    begun, ended = math.inf, math.inf
    last = WARM_STEPS + point.steps

    def go_on() -> bool:
        nonlocal begun, ended
        server = cluster.server
        if server is not None and server.ready and server.step >= WARM_STEPS:
            begun = min(begun, cluster.clock.now)
            if server.step >= last:
                ended = cluster.clock.now
                return False
        return True

    cluster.go_on = go_on
    gc.disable()  # there are millions of objects and hardly a cycle: it would take a seventh of the time
    cluster.run()
    gc.enable()
    return point.steps * scenario.local_steps * STEP_SECONDS / (ended - begun)


def points_of(workers: int, seed: int, seeds: int) -> Iterator[list[Point]]:
    """Yield the runs with so many workers: those of each mode and rate, with another seed each.

    Without failures there is nothing that a seed could change, so it is one run.
    """
    steps = max(LEAST_STEPS, WORKER_STEPS // max(workers, 100))
    for mode in (*MODES, RESTART_ALL):
        measured = max(LEAST_STEPS, steps // 8) if MODES.get(mode, {}).get("local_steps") else steps
        for rate in RATES:
            yield [Point(mode, workers, rate, seed + number, measured) for number in range(seeds if rate else 1)]


def study(workers: Sequence[int] = WORKERS, seed: int = 0, seeds: int = SEEDS) -> Iterator[Band]:
    """Run all points in as many processes as there are cores, and yield each band in order as soon as it is there.

    Raises SettingError for a number of workers or a seed that cannot be simulated.
    """
    check_seed(seed)
    for count in workers:
        whole("--workers", count, 1, MOST_WORKERS)
    groups = [group for count in workers for group in points_of(count, seed, seeds)]
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        outcomes = pool.map(run, [point for group in groups for point in group])
        for group in groups:
            first = group[0]
            yield Band(first.mode, first.workers, first.rate, [next(outcomes) for _ in group])


def to_dict(bands: Sequence[Band]) -> dict[str, Any]:
    """Return the bands and the parameters that they depend on as plain types, for a file."""
    names = ("STEP_SECONDS", "CHECKPOINT_STEPS", "RESTART_SECONDS", "LATENCY", "SHARDS_PER_WORKER")
    return {"settings": {name.lower(): globals()[name] for name in names}, "bands": [asdict(band) for band in bands]}
