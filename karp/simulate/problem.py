"""The imaginary model that a simulated cluster trains, and what its training must give.

A linear model on a table drawn from the seed: its gradient costs some microseconds, depends on every bit of the
weights and differs from shard to shard, so a shard that is missing, doubled or computed with other weights shows in the
weights ever after. `Reference` trains it step by step without workers, messages or the protocol's tree: it states the
order of the sum once more, in its own words.
"""

from copy import copy
from typing import Any

import numpy as np

from karp.data import Plan
from karp.optim import Updater, to_dict
from karp.parameters import Layout
from karp.protocol.server.snapshot import Snapshot
from karp.protocol.settings import Settings
from karp.simulate.scenario import Schedule

Vector = np.ndarray[Any, np.dtype[Any]]
NOISE = 0.1  # in the table's target: the loss ends near its square
SEEN = 4096  # rows of the table that a score looks at


class Problem:
    """The table, the model and the settings of a run."""

    def __init__(self, schedule: Schedule) -> None:
        rng = np.random.default_rng([schedule.seed, 0x7AB1E])
        self.layout = Layout({"weight": (schedule.width,)}, "float32")
        self.width = schedule.width
        scale = np.geomspace(1.0, 0.2, schedule.width)  # directions that are learnt fast and slowly
        self.x = (rng.normal(size=(schedule.samples, schedule.width)) * scale).astype(np.float32)
        noise = NOISE * rng.normal(size=schedule.samples)
        self.y = (np.dot(self.x, rng.normal(size=schedule.width)) + noise).astype(np.float32)
        self.initial = self.layout.zeros()
        self.initial[: self.width] = rng.normal(size=schedule.width)
        self.plan = Plan(schedule.samples, schedule.batch_size, schedule.shards, schedule.seed % (1 << 63))
        self.settings = self._settings(schedule)

    def _settings(self, schedule: Schedule) -> Settings:
        plain = {
            "program": "simulated",
            "program_sha256": "",
            "layout": self.layout.to_dict(),
            "weights_sha256": self.layout.sha256(self.initial),
            "optimizer": to_dict(schedule.optimizer),
            "samples": schedule.samples,
            "data_sha256": "",
            "batch_size": schedule.batch_size,
            "epochs": schedule.epochs,
            "shards": schedule.shards,
            "seed": schedule.seed % (1 << 63),
            "threads": 1,
            "evaluate": schedule.evaluate,
            "steering": schedule.steering,
            "staleness": schedule.staleness,
        }
        return Settings.from_dict(plain)

    def gradient(self, weights: Vector, step: int, shard: int) -> tuple[Vector, float]:
        """The weighted gradient and loss of a shard: a pure function of what it is given."""
        rows, share = self.plan.rows(step, shard), self.plan.share(step, shard)
        x = self.x[rows]
        error = np.dot(x, weights[: self.width]) - self.y[rows]  # dot, as matmul may warn of what a BLAS left behind
        found = self.layout.zeros()
        found[: self.width] = np.dot(error, x) * np.float32(2.0 * share / len(rows))
        return found, float(np.dot(error, error)) / len(rows) * share

    def score(self, weights: Vector) -> float:
        """The mean loss over the table's first rows."""
        error = np.dot(self.x[:SEEN], weights[: self.width]) - self.y[:SEEN]
        return float(np.dot(error, error)) / len(error)

    def least(self) -> float:
        """The lowest loss there is."""
        best = self.layout.zeros()
        best[: self.width] = np.linalg.lstsq(self.x[:SEEN], self.y[:SEEN], rcond=None)[0]
        return self.score(best)


class Reference:
    """The weights of every version, and the sum of every node on the way, computed alone.

    A run with staleness is no function of its settings: which weights a shard was computed with is decided by time.
    So the reference is told, and repeats the rest. Without staleness it needs to be told nothing.

    Args:
        absent: the (step, shard) that are left out because their gradient is never finite.
    """

    def __init__(self, problem: Problem, schedule: Schedule, absent: frozenset[tuple[int, int]]) -> None:
        self.problem = problem
        self.absent = absent
        self.updater = Updater(schedule.optimizer, problem.initial.copy())
        self.versions = [problem.initial.copy()]
        self.made_with: dict[tuple[int, int], int] = {}  # (step, shard) -> version, where it is not the step's number
        self._nodes: dict[tuple[int, int, int], Vector | None] = {}

    def restored(self, snapshot: Snapshot) -> "Reference":
        """The reference of a run that goes on from here, and may take other turns than this one."""
        plain, vectors = snapshot
        found = copy(self)
        found.versions = self.versions[: plain["version"] + 1]
        found.made_with, found._nodes = {}, {}
        state = {name[6:]: vector.copy() for name, vector in vectors.items() if name.startswith("state.")}
        found.updater = Updater(self.updater.optimizer, vectors["weights"].copy(), state, plain["version"])
        return found

    def weights(self, version: int) -> Vector:
        """The weights after so many steps (in an asynchronous run: of those updates that it was told)."""
        while len(self.versions) <= version:
            step = len(self.versions) - 1
            total = self.node(step, 0, self.problem.plan.shards_of(step))
            if total is not None and (missing := [shard for number, shard in self.absent if number == step]):
                samples = self.problem.plan.samples_of(step)
                kept = samples - sum(self.problem.plan.samples_in(step, shard) for shard in missing)
                total = total * np.float32(samples / kept)
            if total is not None:
                self.updater.update(total)
            self.versions.append(self.updater.weights.copy())
        return self.versions[version]

    def update(self, step: int, shard: int, version: int) -> None:
        """An asynchronous update by one shard."""
        gradient, _ = self.problem.gradient(self.versions[version], step, shard)
        self.updater.update(gradient)
        self.versions.append(self.updater.weights.copy())

    def node(self, step: int, start: int, stop: int) -> Vector | None:
        """The sum over the shards start … stop-1: that of as many as the largest power of two, and that of the rest."""
        key = step, start, stop
        if key not in self._nodes:
            if stop - start == 1 and (step, start) in self.absent:
                self._nodes[key] = None
            elif stop - start == 1:
                made_with = self.made_with.get((step, start), step)
                self._nodes[key], _ = self.problem.gradient(self.weights(made_with), step, start)
            else:
                half = 1
                while 2 * half < stop - start:
                    half *= 2
                parts = self.node(step, start, start + half), self.node(step, start + half, stop)
                there = [part for part in parts if part is not None]
                self._nodes[key] = there[0] + there[1] if len(there) == 2 else next(iter(there), None)
        return self._nodes[key]
