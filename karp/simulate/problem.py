"""The imaginary problem that a simulated cluster trains on, and the weights that its training must give.

The problem is a linear model on a table drawn from the seed. Its gradient costs some microseconds, depends on every bit
of the weights and differs from shard to shard. So a shard that is missing, doubled or computed with other weights shows
in the weights ever after. `Reference` trains the model without workers, messages or the protocol's tree: the order in
which gradients are added is written down a second time here, independently.
"""

from copy import copy

import numpy as np

from karp.optim import Updater, to_dict
from karp.parameters import Layout
from karp.protocol.settings import Settings
from karp.protocol.tree import Node, Vector
from karp.protocol.vectors import Snapshot
from karp.simulate.scenario import Scenario

NOISE = 0.1  # standard deviation of the noise in the table's target; the lowest loss is near its square
RANKS = (0.0, 1.0, 1.0, np.nan, np.inf, -np.inf)  # the score `rank` is one of them
SCORED_ROWS = 4096  # the most rows of the table that are scored


class Problem:
    """Hold the table, the model and the settings of a run."""

    def __init__(self, scenario: Scenario) -> None:
        rng = np.random.default_rng([scenario.seed, 0x7AB1E])
        self.layout = Layout({"weight": (scenario.width,)}, "float32")
        self.width = scenario.width
        scale = np.geomspace(1.0, 0.2, scenario.width)  # Some directions are learnt fast and others slowly.
        self.x = (rng.normal(size=(scenario.samples, scenario.width)) * scale).astype(np.float32)
        noise = NOISE * rng.normal(size=scenario.samples)
        self.y = (np.dot(self.x, rng.normal(size=scenario.width)) + noise).astype(np.float32)
        self.initial = self.layout.zeros()
        self.initial[: self.width] = rng.normal(size=scenario.width)
        self.plan = scenario.plan()
        self.settings = self._settings(scenario)

    def _settings(self, scenario: Scenario) -> Settings:
        plain = {
            "program": "simulated",
            "program_sha256": "",
            "layout": self.layout.to_dict(),
            "weights_sha256": self.layout.sha256(self.initial),
            "optimizer": to_dict(scenario.optimizer),
            "samples": scenario.samples,
            "data_sha256": "",
            "batch_size": scenario.batch_size,
            "epochs": scenario.epochs,
            "shards": scenario.shards,
            "seed": scenario.seed,
            "threads": 1,
            "evaluate": scenario.evaluate,
            "wait_for_score": scenario.wait_for_score,
            "staleness": scenario.staleness,
            "local_steps": scenario.local_steps,
            "outer": to_dict(scenario.optimizer) if scenario.local_steps > 1 else None,
            "keep_best": scenario.keep_best,
            "mode": scenario.mode,
            "ties": scenario.ties,
        }
        return Settings.from_dict(plain)

    def sums(self, start: int, stop: int) -> list[Node] | None:
        """Return sums over these shards where they are known without computing gradients; None: they are not."""
        return None

    def gradient(self, weights: Vector, step: int, shard: int) -> tuple[Vector, float]:
        """Return the weighted gradient and loss of a shard: a pure function of the arguments."""
        rows, share = self.plan.rows(step, shard), self.plan.share(step, shard)
        x = self.x[rows]
        error = np.dot(x, weights[: self.width]) - self.y[rows]
        gradient = self.layout.zeros()
        gradient[: self.width] = np.dot(error, x) * np.float32(2.0 * share / len(rows))
        return gradient, float(np.dot(error, error)) / len(rows) * share

    def score(self, weights: Vector) -> float:
        """Return the mean loss of these weights over the first SCORED_ROWS rows of the table."""
        error = np.dot(self.x[:SCORED_ROWS], weights[: self.width]) - self.y[:SCORED_ROWS]
        return float(np.dot(error, error)) / len(error)

    def scores(self, weights: Vector, epoch: int) -> dict[str, float]:
        """Return what the program's evaluation of an epoch returns, under the names of SCORES."""
        rank = np.random.default_rng([self.settings.seed, epoch, 0x4A2C]).choice(RANKS)
        return {"loss": self.score(weights), "rank": float(rank)}

    def lowest_score(self) -> float:
        """Return the score of the best weights there are."""
        best = self.layout.zeros()
        best[: self.width] = np.linalg.lstsq(self.x[:SCORED_ROWS], self.y[:SCORED_ROWS], rcond=None)[0]
        return self.score(best)


class Reference:
    """Compute the weights of every version, and the sum of every node on the way, in one process.

    In a run with staleness, time decides with which weights a gradient is computed. So the checker notes their version
    in `weight_versions`, and the reference repeats everything else. Without staleness a gradient of step t is always
    computed with the weights of version t.

    Args:
        left_out: the (step, shard) that the server leaves out because their gradient is never finite.
    """

    def __init__(self, problem: Problem, scenario: Scenario, left_out: frozenset[tuple[int, int]]) -> None:
        self.problem = problem
        self.left_out = left_out
        self.updater = Updater(scenario.optimizer, problem.initial.copy())
        self.versions = [problem.initial.copy()]
        self.weight_versions: dict[tuple[int, int], int] = {}  # (step, shard) -> version, where it is not the step
        self._sums: dict[tuple[int, int, int], Vector | None] = {}  # (step, start, stop) -> sum

    def restored(self, snapshot: Snapshot) -> "Reference":
        """Return a reference that goes on from the snapshot, and may then differ from this one."""
        plain, vectors = snapshot
        reference = copy(self)
        reference.versions = self.versions[: plain["version"] + 1]
        reference.weight_versions, reference._sums = {}, {}
        state = {name[6:]: vector.copy() for name, vector in vectors.items() if name.startswith("state.")}
        reference.updater = Updater(self.updater.optimizer, vectors["weights"].copy(), state, plain["version"])
        return reference

    def weights(self, version: int) -> Vector:
        """Return the weights of a version; those of an asynchronous run exist once `update` has made them."""
        while len(self.versions) <= version:
            total = self._step_sum(len(self.versions) - 1)
            if total is not None:
                self.updater.update(total)
            self.versions.append(self.updater.weights.copy())
        return self.versions[version]

    def update(self, step: int, shard: int, version: int) -> None:
        """Apply the gradient of one shard, as an asynchronous run does."""
        gradient, _ = self.problem.gradient(self.versions[version], step, shard)
        self.updater.update(gradient)
        self.versions.append(self.updater.weights.copy())

    def _step_sum(self, step: int) -> Vector | None:
        """Return the gradient of a step: the sum over its shards, rescaled where some are left out."""
        plan = self.problem.plan
        total = self.node_sum(step, 0, plan.shards_of(step))
        missing = [shard for left_out_step, shard in self.left_out if left_out_step == step]
        if total is None or not missing:
            return total
        samples = plan.samples_of(step)
        counted = samples - sum(plan.samples_in(step, shard) for shard in missing)
        return total * np.float32(samples / counted)

    def node_sum(self, step: int, start: int, stop: int) -> Vector | None:
        """Return the sum over the shards start … stop-1 of a step; None if all of them are left out.

        A node of n > 1 shards is the sum of two: the first takes as many shards as the largest power of two below n.
        """
        key = step, start, stop
        if key not in self._sums:
            if stop - start == 1:
                self._sums[key] = self._shard_gradient(step, start)
            else:
                middle = start + (1 << ((stop - start - 1).bit_length() - 1))
                left, right = self.node_sum(step, start, middle), self.node_sum(step, middle, stop)
                self._sums[key] = right if left is None else left if right is None else left + right
        return self._sums[key]

    def _shard_gradient(self, step: int, shard: int) -> Vector | None:
        if (step, shard) in self.left_out:
            return None
        version = self.weight_versions.get((step, shard), step)
        gradient, _ = self.problem.gradient(self.weights(version), step, shard)
        return gradient
