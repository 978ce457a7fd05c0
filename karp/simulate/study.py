"""A study: one large simulated run, and the figures that a user would measure on a real cluster.

A study trains the imaginary model (problem.py) until the loss of the server's weights is down to the target or all
steps are done. It measures the time to the target, staleness, messages, bytes and shards that were leased again.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from karp import optim
from karp.errors import SettingError
from karp.limits import RANGES
from karp.simulate.cluster import Cluster
from karp.simulate.scenario import Scenario, check_seed

EPOCH_STEPS = 10  # steps of one epoch, at most: the table has so many global batches
WIDTH = 16  # parameters of the model
TARGET_SHARE = 0.02  # the default target's share of the distance from the lowest loss to the first
MAX_TABLE_NUMBERS = 1 << 28
SHARES = ("straggler", "loss", "duplicate")  # options that are shares
MAXIMA = {  # options that are numbers from 0 on
    "compute": 1e6, "spread": 10.0, "latency": 1e6, "factor": 1e6, "message": 1e6, "adding": 1e6, "update": 1e6,
}  # fmt: skip
EXCHANGES = ("server", "workers")


@dataclass(frozen=True, slots=True)
class Study:
    """Describe a study by the options of `karp simulate`; times are in seconds of the virtual clock."""

    workers: int = 100
    shards: int | None = None  # None: one for each worker
    steps: int = 100
    seed: int = 0
    rows: int = 8  # samples of a shard
    lr: float = 0.1
    momentum: float = 0.0
    staleness: int | None = 0
    compute: float = 0.1
    spread: float = 0.1
    latency: float = 0.002
    straggler: float = 0.0
    factor: float = 10.0
    loss: float = 0.0
    duplicate: float = 0.0
    crash: float = 0.0
    target: float | None = None
    exchange: str = "server"
    cores: int | None = None  # None: one for each worker
    message: float = 0.0
    adding: float = 0.0
    update: float = 0.0

    @property
    def shards_of_step(self) -> int:
        """Return the number of shards of a global batch."""
        return self.workers if self.shards is None else self.shards

    def check(self) -> None:
        """Raise SettingError for a study that cannot be simulated."""
        for name in SHARES:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise SettingError(f"--{name} is {getattr(self, name)}; it must be a share: at least 0 and below 1")
        for name, most in MAXIMA.items():
            if not 0.0 <= getattr(self, name) <= most:
                raise SettingError(f"--{name} is {getattr(self, name)}; it must be a number from 0 to {most:g}")
        if not 0.0 <= self.crash * self.compute <= 1.0:
            raise SettingError(f"--crash is {self.crash}; it must be from 0 to one in the time of a shard")
        check_seed(self.seed)
        if self.exchange not in EXCHANGES:
            raise SettingError(f"--exchange is {self.exchange}; it must be one of {', '.join(EXCHANGES)}")
        if self.cores is not None and self.cores < 1:
            raise SettingError(f"--cores is {self.cores}; it must be at least 1")
        if self.target is not None and not math.isfinite(self.target):
            raise SettingError(f"--target is {self.target}; it must be a number")
        shards = self.shards_of_step
        numbers = shards * self.rows * min(self.steps, EPOCH_STEPS) * WIDTH
        if numbers > MAX_TABLE_NUMBERS or shards > RANGES["shards"][1]:
            raise SettingError(f"{shards} shards of {self.rows} rows make too large a table: take fewer")
        if min(self.workers, shards, self.steps, self.rows, self.factor) < 1 or self.compute == 0.0:
            raise SettingError("--workers, --shards, --steps, --rows, --factor must be at least 1, --compute above 0")

    def scenario(self) -> Scenario:
        """Return the scenario of this study; raises SettingError for one that cannot be simulated."""
        self.check()
        batch_size, steps_per_epoch = self.shards_of_step * self.rows, min(self.steps, EPOCH_STEPS)
        turns = 1.0 if self.cores is None else max(1.0, self.workers / self.cores)  # workers share the cores evenly
        return Scenario(
            seed=self.seed,
            workers=self.workers,
            shards=self.shards_of_step,
            samples=batch_size * steps_per_epoch,
            batch_size=batch_size,
            epochs=-(-self.steps // steps_per_epoch),
            width=WIDTH,
            optimizer=optim.SGD(lr=self.lr, momentum=self.momentum),
            staleness=self.staleness,
            compute_seconds=self.compute * turns,
            compute_spread=self.spread,
            slow_share=self.straggler,
            slow_factor=self.factor,
            latency=self.latency,
            loss_rate=self.loss,
            duplicate_rate=self.duplicate,
            crash_rate=self.crash,
            faults_until=math.inf,
            restarts=1 << 30,
            shared=self.exchange == "workers",
            ending_seconds=self.message + (self.workers - 1) * self.adding + self.update,
            waking_seconds=self.latency,
            message_seconds=self.message,
            adding_seconds=self.adding,
            update_seconds=self.update,
        )


@dataclass(slots=True)
class Outcome:
    """Hold what a study has measured."""

    study: Study
    target: float
    lowest: float  # the lowest loss that there is
    curve: list[tuple[float, int, float]]  # (seconds, steps, loss)
    reached: tuple[float, int] | None = None  # (seconds, steps) at the target
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain types, for a file."""
        settings = {name: getattr(self.study, name) for name in self.study.__slots__}
        reached = None if self.reached is None else {"seconds": self.reached[0], "steps": self.reached[1]}
        facts = {"target": self.target, "least": self.lowest, "reached": reached}
        return {"settings": settings, **facts, **self.figures, "curve": self.curve}


def run(study: Study) -> Outcome:
    """Simulate a study until the target or its last step; raises SettingError for a study that cannot be simulated."""
    cluster = Cluster(study.scenario(), check=False, limit=math.inf)
    problem = cluster.problem
    first, lowest = problem.score(problem.initial), problem.lowest_score()
    target = lowest + TARGET_SHARE * (first - lowest) if study.target is None else study.target
    outcome = Outcome(study, target, lowest, [(0.0, 0, first)])

    def go_on() -> bool:
        """Add a point to the curve if a step has been applied; return whether the study goes on.

        It ends, with the point in `reached`, when the loss is down to the target, or when the steps are done.
        """
        server = cluster.server
        if server is None or not server.ready or not server.begun:
            return True
        steps = server.step
        if study.staleness is None:  # A straggler holds a step up, and not the updates by the other workers' shards.
            steps = server.version // cluster.scenario.shards
        if steps > outcome.curve[-1][1]:
            seconds = server.seconds
            assert server.weights is not None
            loss = problem.score(server.weights)
            outcome.curve.append((seconds, steps, loss))
            if loss <= target:
                outcome.reached = seconds, steps
        return steps < study.steps and outcome.reached is None

    cluster.go_on = go_on
    cluster.run()
    outcome.figures = count(cluster, outcome)
    return outcome


def count(cluster: Cluster, outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a run that has ended: seconds of the virtual clock, steps, loss, and counts of the rest."""
    server, counts = cluster.server, cluster.network.counts
    assert server is not None
    seconds, steps, loss = outcome.curve[-1]
    progress = server.training.progress
    contributions = Counter(progress.ages) + Counter(progress.all_ages)
    staleness = {age: contributions[age] for age in sorted(contributions)} or {0: steps * cluster.scenario.shards}
    return {
        "seconds": seconds,
        "steps": steps,
        "loss": loss,
        "samples": progress.samples,
        "stragglers": len(cluster.slow_workers),
        "crashes": cluster.injector.counts["crash"],
        "staleness": staleness,
        "messages": {"up": counts["messages up"], "down": counts["messages down"]},
        "bytes": {"up": counts["bytes up"], "down": counts["bytes down"]},
        "lost": counts["messages lost"],
        "doubled": counts["messages doubled"],
        "leased_again": server.counts["leased_again"],
        "dropped": server.counts["dropped"],
        "events": cluster.clock.events,
    }
