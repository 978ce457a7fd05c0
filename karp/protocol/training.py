"""The training that a server steers: the weights, the step under way, the epochs' evaluations. It knows no workers.

Each shard enters the step's tree once, whoever computed it. When the tree is complete and its sum finite, the
optimiser updates the weights in place and `version` goes up by one. Nothing else changes the weights.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from karp.errors import ProtocolError
from karp.optim import Updater
from karp.parameters import Layout
from karp.protocol.actions import Action, Report, Save
from karp.protocol.messages import Contribution, Evaluation, Logs
from karp.protocol.progress import Progress
from karp.protocol.settings import Settings, Steps
from karp.protocol.step import Step, finite, named
from karp.protocol.tree import Node, Vector, parent

SAVE_SECONDS = 10.0  # between two checkpoints


class Store(Protocol):
    """Memory for the weights that others read while they are written to."""

    def allocate(self, layout: Layout) -> Vector: ...

    def writing(self, version: int) -> None:
        """The weights are about to change (-1), or are now those of a version."""


class Training:
    """State and progress of one run's weights.

    Args:
        plan: makes the sampling plan of (samples, batch_size, shards, seed).
        now: the time, in seconds from any origin.
        out: where actions are put.
        save_seconds: between two checkpoints; 0: after every step.
        skip: leave a shard out whose gradient is not finite twice, instead of ending the run.
        store: where the weights are to lie, if others than this process read them.
    """

    def __init__(
        self,
        plan: Callable[[int, int, int, int], Steps],
        now: float,
        out: list[Action],
        save_seconds: float = SAVE_SECONDS,
        skip: bool = False,
        store: "Store | None" = None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.room: Vector | None = None  # for the weights, in the store
        self.out = out
        self.save_seconds = save_seconds
        self.save_at = now + save_seconds
        self.skip = skip
        self.settings: Settings | None = None
        self.steps: Steps
        self.dtype: np.dtype[Any]
        self.shape: tuple[int]
        self.updater: Updater | None = None  # holds the weights
        self.step = Step(0, 0)  # the one under way
        self.final = 0  # training is over at this version
        self.evaluations: list[Evaluation] = []  # due or leased, oldest first
        self.failure = ""  # why the run has failed
        self.dropped = 0  # nodes of contributions that came twice or too late
        self.progress = Progress(now)

    @property
    def version(self) -> int:
        """How many updates have been applied; the step under way has the same number."""
        return 0 if self.updater is None else self.updater.version

    def use(self, settings: Settings) -> None:
        """These are the run's settings."""
        self.settings = settings
        self.dtype, self.shape = np.dtype(settings.layout.dtype), (settings.layout.size,)
        self.steps = self.plan(settings.samples, settings.batch_size, settings.shards, settings.seed)
        self.final = self.steps.steps_per_epoch * settings.epochs
        if self.store is not None:
            self.room = self.store.allocate(settings.layout)

    def start_from(self, weights: Vector) -> None:
        """These are the weights the model starts from; raises ProtocolError if the settings name others."""
        assert self.settings is not None
        layout = self.settings.layout
        if not self._fits(weights):
            raise ProtocolError(self._misfit("the initial weights", weights))
        if layout.sha256(weights) != self.settings.weights_sha256:
            raise ProtocolError("the initial weights are not those that the settings name")
        if self.store is None and weights.flags.writeable:  # in one process: the model's own vector
            self.updater = Updater(self.settings.optimizer, weights)
        else:
            self.updater = Updater(self.settings.optimizer, self.keep(weights, 0))

    def keep(self, weights: Vector, version: int) -> Vector:
        """A copy of the weights of this version, where weights are kept."""
        assert self.settings is not None
        mine = self.settings.layout.zeros() if self.room is None else self.room
        mine[:] = weights
        if self.store is not None:
            self.store.writing(-1)
            self.store.writing(version)
        return mine

    def open_step(self) -> None:
        """The step of the current version is under way."""
        version = self.version
        self.step = Step(version, self.steps.shards_of(version) if version < self.final else 0)

    def enter(self, peer: bytes, worker: int, message: Contribution) -> None:
        """Put a contribution's nodes into the step's tree, each shard once; all of them are checked first.

        Raises ProtocolError for what cannot belong to this step.
        """
        if message.version != self.version:
            raise ProtocolError(f"step {message.step}: a gradient of weights {message.version}, not {self.version}")
        for node in message.nodes:
            if not self._fits(node.vector):
                what = f"the gradient of step {message.step}, {named(node.start, node.stop)}"
                raise ProtocolError(self._misfit(what, node.vector))
        for node in message.nodes:
            if node[:2] != (0, self.step.tree.shards):
                parent(node.start, node.stop, self.step.tree.shards)  # refuses what is no node
        good = [node for node in message.nodes if self._is_finite(peer, worker, node)]
        if self.failure:
            return
        self.dropped += self.step.enter(good)
        if message.last:
            self.final = min(self.final, message.step + 1)
        if message.logs:
            self.log(message.logs, message.step)

    def _is_finite(self, peer: bytes, worker: int, node: Node) -> bool:
        """Whether a gradient can be used; if not, its shards are tried once more, alone and elsewhere."""
        if math.isfinite(node.loss) and node.vector is not None and finite(node.vector):
            return True
        what = f"the gradient of step {self.version}, {named(node.start, node.stop)} from worker {worker}"
        what = f"{what} is not finite (loss {node.loss})"
        if node.stop - node.start > 1 or node.start not in self.step.refusals:
            self.step.refusals |= dict.fromkeys(range(node.start, node.stop), peer)
            self.notice(f"{what}; it is computed once more")
        elif self.skip:
            self.step.leave_out(node.start)
            self.notice(f"{what} again: the shard is left out")
        else:
            self.fail(
                f"{what}, for the second time; the weights are those of version {self.version}. "
                "A smaller learning rate, clip_norm or scaled inputs help most often"
            )
        return False

    def apply(self, now: float, workers: int) -> None:
        """The step is complete: update the weights."""
        assert self.updater is not None
        assert self.settings is not None
        total, number = self._total(), self.step.number
        if total is None:
            return
        assert total.vector is not None
        self._update(self.updater, total.vector)
        self.progress.step(total.loss, self.steps.samples_of(number))
        self.open_step()
        epoch, is_last = number // self.steps.steps_per_epoch, number + 1 == self.final
        ends_epoch = is_last or (number + 1) % self.steps.steps_per_epoch == 0
        if is_last or self.progress.due(now, ends_epoch):
            self.report("progress", self.progress.take(now, number + 1, epoch, workers))
        if ends_epoch:
            self.progress.end_epoch()
            if self.settings.evaluate:
                self.evaluations.append(Evaluation(1, epoch, self.version, self.updater.weights.copy()))
        if now >= self.save_at:
            self.save_at = now + self.save_seconds
            self.out.append(Save())

    def _update(self, updater: Updater, gradient: Vector) -> None:
        if self.store is None:
            updater.update(gradient)
        else:
            self.store.writing(-1)
            updater.update(gradient)
            self.store.writing(updater.version)

    def _total(self) -> Node | None:
        """The step's sum, if it is finite; without the shards that were left out, the others count for them."""
        total = self.step.total
        if total.vector is None:
            self.fail(f"step {self.step.number}: the gradient of none of its shards is finite")
            return None
        if self.step.skipped:
            step, there = self.step.number, self.steps.samples_of(self.step.number)
            kept = there - sum(self.steps.samples_in(step, shard) for shard in self.step.skipped)
            scale = there / kept
            total = Node(total.start, total.stop, total.loss * scale, total.vector * self.dtype.type(scale))
        if self.step.tree.shards > 1 and total.vector is not None and not finite(total.vector):
            self.fail(f"the gradient of step {self.step.number} is not finite, though that of each of its shards is")
            return None
        return total

    @property
    def steering(self) -> bool:
        """Whether a score must be known before the next epoch."""
        return self.settings is not None and self.settings.steering and bool(self.evaluations)

    def weights_for(self, epoch: int) -> Vector | None:
        """The weights of an evaluation that is due."""
        return next((due.weights for due in self.evaluations if due.epoch == epoch), None)

    def score(self, epoch: int, scores: dict[str, float], last: bool) -> None:
        """An epoch has been evaluated; a second score of it is passed over."""
        due = next((due for due in self.evaluations if due.epoch == epoch), None)
        if due is None:
            return
        if last:
            self.final = min(self.final, self.version + (0 if self.steering else 1))
        self.evaluations.remove(due)
        self.progress.metrics(scores, due.version)
        self.report("evaluation", {"step": due.version, "epoch": epoch, "scores": scores})

    def log(self, logs: Logs, step: int) -> None:
        """What the program has logged."""
        for shard, name, value in logs:
            self.progress.metrics({name: value}, step)
            where = {"step": step} if shard < 0 else {"step": step, "shard": shard}
            self.report("log", where | {"name": name, "value": value})

    def fail(self, failure: str) -> None:
        """The run has failed; the first reason counts."""
        if not self.failure:
            self.failure = failure[:10_000]  # as long as a message takes
            self.report("failure", {"step": self.version, "failure": failure})

    def notice(self, text: str) -> None:
        self.report("notice", {"step": self.version, "text": text})

    def report(self, kind: str, values: dict[str, Any]) -> None:
        self.out.append(Report(kind, values))

    def _fits(self, vector: Vector | None) -> bool:
        return vector is not None and vector.shape == self.shape and vector.dtype == self.dtype

    def _misfit(self, what: str, vector: Vector | None) -> str:
        found = "nothing" if vector is None else f"{vector.shape} {vector.dtype}"
        return f"{what}: {found}, but the model has {self.shape} {self.dtype}"
