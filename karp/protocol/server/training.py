"""The training that a server steers: the weights, the steps under way, the epochs' evaluations. It knows no workers.

Each shard enters its step's tree once, whoever computed it. When the tree is complete and its sum finite, the
optimiser updates the weights in place and `version` goes up by one. Nothing else changes the weights.

How many steps may be under way is all that the bound on staleness decides. With a bound of s, step t is opened once
t - s steps are applied, so its gradients come from weights of the versions t - s to t; steps are applied whole and in
order. An asynchronous run (bound None) has no whole steps: a shard's gradient is an update of its own, on arrival, and
the steps are only the order in which shards are given out. It keeps the weight of its share of the step. So it is SGD
whose batch is a shard and whose rate is as much smaller (the linear scaling rule of Goyal et al., 2017): an epoch moves
the weights as far as in a synchronous run and the rate need not be chosen anew. Weighted as a mean over its own samples
instead, digits with momentum 0.9 and 3 workers ends at chance. Momentum and schedules count these smaller updates. An
epoch ends when its last shard is in; shards of the next one are given out before that, unless a score must be known
first, but none beyond.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from karp import codecs
from karp.errors import ProtocolError
from karp.optim import Updater
from karp.protocol.messages import Contribution, Evaluation, Logs
from karp.protocol.server.actions import Action, Report, Save
from karp.protocol.server.progress import Progress
from karp.protocol.server.step import Step, finite, merged, moderate, named
from karp.protocol.settings import Settings, Steps
from karp.protocol.steps import steps_of
from karp.protocol.store import Store
from karp.protocol.tree import Node, Vector
from karp.protocol.vectors import Form

SAVE_SECONDS = 10.0  # between two checkpoints

Ranges = list[tuple[int, int]]  # of shards


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
        store: Store | None = None,
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
        self.form: Form
        self.updater: Updater | None = None  # holds the weights
        self.bound: int | None = 0  # on staleness
        self.rounded = False  # whether leases carry other weights than these
        self.simple = False  # whether the sum of a step's gradients is all that the optimiser needs
        self.encoded: tuple[int, Vector] = (-1, np.empty(0))  # the weights of a version as leases carry them
        self.step = Step(0, 0)  # the oldest one under way: all before it are in
        self.open: dict[int, Step] = {}  # all that are under way, oldest first
        self.opened = 0  # all steps below this have been
        self.final = 0  # training is over after so many steps
        self.evaluations: list[Evaluation] = []  # due or leased, oldest first
        self.failure = ""  # why the run has failed
        self.dropped = 0  # nodes of contributions that came twice or too late
        self.progress = Progress(now)

    @property
    def version(self) -> int:
        """How many updates have been applied; unless the run is asynchronous, as many as steps."""
        return 0 if self.updater is None else self.updater.version

    def use(self, settings: Settings) -> None:
        """These are the run's settings."""
        self.settings = settings
        self.form = Form(settings)
        plan = self.plan(settings.samples, settings.batch_size, settings.shards, settings.seed)
        self.steps = steps_of(plan, settings.local_steps)
        self.final = self.steps.steps_per_epoch * settings.epochs
        self.bound, self.rounded = settings.staleness, settings.codec_weights is not None
        straight = self.bound == 0 and self.form.codec is None and not self.rounded
        self.simple = straight and settings.local_steps == 1
        if not straight:
            self.store = None  # the weights may change while a worker reads them, or are not those it gets
        if self.store is not None:
            self.room = self.store.allocate(settings.layout)
        if self.room is None:
            self.store = None

    def start_from(self, weights: Vector) -> None:
        """These are the weights the model starts from; raises ProtocolError if the settings name others."""
        assert self.settings is not None
        layout = self.settings.layout
        self.form.check_weights("the initial weights", weights)
        if layout.sha256(weights) != self.settings.weights_sha256:
            raise ProtocolError("the initial weights are not those that the settings name")
        own = self.rounded or self.settings.local_steps > 1  # workers go where the server does not
        if self.store is None and weights.flags.writeable and not own:  # in one process: the model's own vector
            self.updater = Updater(self.settings.applied, weights)
        else:
            self.updater = Updater(self.settings.applied, self.keep(weights, 0))

    def keep(self, weights: Vector, version: int) -> Vector:
        """A copy of the weights of this version, where weights are kept."""
        assert self.settings is not None
        mine = self.settings.layout.zeros() if self.room is None else self.room
        mine[:] = weights
        if self.store is not None:
            self.store.writing(-1)
            self.store.writing(version)
        return mine

    def begin(self, opened: int, partly: Iterable[tuple[int, Ranges]] = ()) -> None:
        """All steps below `opened` are in, but for those of which these shards are missing.

        Raises ValueError for steps and shards that there are not.
        """
        self.open.clear()
        for number, missing in partly:
            if not 0 <= number < opened <= self.final or number in self.open:
                raise ValueError(f"step {number} is not one of the {opened} that have been opened")
            step = self.open[number] = Step(number, self.steps.shards_of(number))
            step.lacks([(int(start), int(stop)) for start, stop in missing])
        self.opened = opened
        self._look_for_oldest()

    def under_way(self) -> list[Any]:
        """What `begin` takes to go on from here, as plain types; steps that are applied whole begin afresh."""
        if self.bound is not None:
            return [self.step.number]
        steps = self.open.values()
        return [self.opened, *([step.number, [list(gap) for gap in step.tree.missing()]] for step in steps)]

    def open_another(self) -> Step | None:
        """Open one more step, where the bound on staleness lets it be leased now."""
        if self.opened >= self._horizon():
            return None
        step = self.open[self.opened] = Step(self.opened, self.steps.shards_of(self.opened))
        self.opened += 1
        return step

    def _horizon(self) -> int:
        """Steps from this one on may not be leased yet."""
        assert self.settings is not None
        first, per_epoch = self.step.number, self.steps.steps_per_epoch
        epoch_end = first - first % per_epoch + per_epoch
        horizon = epoch_end + per_epoch if self.bound is None else first + self.bound + 1
        return min(horizon, self.final, epoch_end if self.settings.steering else horizon)

    def _look_for_oldest(self) -> None:
        """The oldest step that is not in is under way; none, when training is over."""
        if self.open:
            self.step = next(iter(self.open.values()))
            return
        number = self.opened
        self.step = Step(number, self.steps.shards_of(number) if number < self.final else 0)
        if number < self.final:
            self.open[number] = self.step
            self.opened = number + 1

    @property
    def finished(self) -> bool:
        """Whether every step is in."""
        return self.step.number >= self.final

    def end_after(self, steps: int) -> None:
        """Training is over after so many steps; an asynchronous one also completes those that are under way."""
        self.final = min(self.final, max(steps, self.opened) if self.bound is None else steps)
        for number in [number for number in self.open if number >= self.final]:
            del self.open[number]
        self.opened = min(self.opened, max(self.final, self.step.number))
        if self.finished:
            self.step = Step(self.final, 0)

    def end_now(self) -> None:
        """Training is over with the steps that are in."""
        self.final = self.opened = self.step.number
        self.open.clear()
        self.step = Step(self.final, 0)

    def enter(self, peer: bytes, worker: int, message: Contribution, step: Step, leased: bool) -> None:
        """Put a contribution's nodes into the step's tree, each shard once; all of them are checked first.

        `leased`: it answers the lease that its worker has now. Of another, which may be a second copy of an earlier
        one, nothing is learnt by a gradient that is not finite.

        Raises ProtocolError for what cannot belong to this step.
        """
        newest, bound = self.version, self.bound
        oldest = 0 if bound is None else step.number - bound
        if not oldest <= message.version <= newest:
            known = f"{newest}" if oldest >= newest else f"{max(0, oldest)} to {newest}"
            raise ProtocolError(f"step {step.number}: a gradient of weights {message.version}, not {known}")
        self.form.check_nodes(message.nodes, step.number, step.tree.shards)
        if message.seconds:
            shards = [shard for start, stop, *_ in message.nodes for shard in range(start, stop)]
            self.progress.timed(sum(self.steps.samples_in(step.number, shard) for shard in shards), message.seconds)
        nodes = message.nodes if self.form.codec is None else [self.form.decoded(node) for node in message.nodes]
        good = [
            node
            for node in nodes
            if (node.vector is not None and math.isfinite(node.loss) and (message.moderate or moderate(node.vector)))
            or self._is_finite(peer, worker, node, step, leased)
        ]
        if self.failure:
            return
        if bound is None:
            for node in good:
                self._update_by(node, step, worker, message.version)
            self._tell_arrivals(step, self.version)  # of what is left out
            if step.tree.complete and step is not self.step:
                del self.open[step.number]
        else:
            if bound > 0:
                new = [node[:2] for node in good if not step.tree.has(node.start, node.stop)]
                step.arrivals += [[worker, message.version, *span] for span in merged(new)]
            self.dropped += step.enter(good)
        if message.last:
            self.end_after(message.step + 1)
        if message.logs:
            self.log(message.logs, message.step)

    def _is_finite(self, peer: bytes, worker: int, node: Node, step: Step, leased: bool) -> bool:
        """Whether a gradient that is not moderate can be used; if not, its shards are tried again, each elsewhere."""
        if math.isfinite(node.loss) and node.vector is not None and finite(node.vector):
            step.large = True
            return True
        if not leased:
            self.dropped += 1
            return False
        what = f"the gradient of step {step.number}, {named(node.start, node.stop)} from worker {worker}"
        what = f"{what} is not finite (loss {node.loss})"
        if node.stop - node.start > 1 or node.start not in step.refusals:
            step.refusals |= dict.fromkeys(range(node.start, node.stop), peer)
            self.notice(f"{what}; it is computed once more")
        elif self.skip:
            step.leave_out(node.start)
            step.arrivals.append([worker, -1, node.start, node.stop])
            self.notice(f"{what} again: the shard is left out")
        else:
            self.fail(
                f"{what}, for the second time; the weights are those of version {self.version}. If the data hold no "
                "NaN, a smaller learning rate, clip_norm or scaled inputs help most often"
            )
        return False

    def _update_by(self, node: Node, step: Step, worker: int, version: int) -> None:
        """This shard is an update by itself."""
        assert self.updater is not None
        assert node.vector is not None
        if step.enter([node._replace(vector=None)]):
            self.dropped += 1
            return
        step.arrivals.append([worker, version, node.start, node.stop])
        self._tell_arrivals(step, self.version)
        self._update(self.updater, node.vector)
        samples = self.steps.samples_in(step.number, node.start)
        self.progress.step(node.loss * self.steps.samples_of(step.number) / samples, samples)

    def _tell_arrivals(self, step: Step, version: int) -> None:
        """For the record: what is applied now, in the order of arrival, and how old its weights were."""
        if step.arrivals:
            self.report("arrivals", {"step": step.number, "of": step.arrivals})
            self.progress.contributions(version - made_with for _, made_with, _, _ in step.arrivals if made_with >= 0)
            step.arrivals = []

    def advance(self, now: float, workers: int) -> None:
        """Apply the steps that are complete, in order."""
        assert self.updater is not None
        while self.step.tree.complete:
            first = self.step.number
            if self.bound is not None:
                loss, vectors = self._total()
                if self.failure:
                    return
                if self.step.arrivals:
                    self._tell_arrivals(self.step, first)
                self._update(self.updater, *vectors)
                self.progress.step(loss, self.steps.samples_of(first))
            del self.open[first]
            self._look_for_oldest()
            for number in range(first, self.step.number):
                self._conclude(number, now, workers)
        if now >= self.save_at:  # once, when all is applied: a checkpoint is of the state after this event
            self.save_at = now + self.save_seconds
            self.out.append(Save())

    def _conclude(self, number: int, now: float, workers: int) -> None:
        """This step is in: is anything to be reported or evaluated?"""
        assert self.updater is not None
        assert self.settings is not None
        is_last = number + 1 == self.final
        ends_epoch = is_last or (number + 1) % self.steps.steps_per_epoch == 0
        if is_last or self.progress.due(now, ends_epoch):
            epoch = number // self.steps.steps_per_epoch
            self.report("progress", self.progress.take(now, number + 1, epoch, workers))
            if rates := self.progress.compare(now):
                together, alone = (f"{rate:,.0f}" for rate in rates)
                who = f"{workers} workers train" if workers > 1 else "1 worker trains"
                self.notice(
                    f"{who} {together} samples/s; one process, without exchange, would train about {alone}: "
                    f"run {self.settings.program} with python instead of karp launch"
                )
        if ends_epoch:
            self.progress.end_epoch()
            if self.settings.evaluate:
                epoch = number // self.steps.steps_per_epoch
                self.evaluations.append(Evaluation(1, epoch, self.version, self.updater.weights.copy()))

    def _update(self, updater: Updater, *gradient: Vector) -> None:
        if self.store is None:
            updater.update(*gradient)
        else:
            self.store.writing(-1)
            updater.update(*gradient)
            self.store.writing(updater.version)

    def _total(self) -> tuple[float, list[Vector]]:
        """The step's loss, and what its gradient is the sum of; fails the run if that is not finite.

        Without the shards that were left out, the others count for them.
        """
        step, loss, vectors = self.step, 0.0, []
        for node in step.tree.nodes.values():
            loss += node.loss
            if node.vector is not None:
                vectors.append(node.vector)
        if not vectors:
            self.fail(f"step {step.number}: the gradient of none of its shards is finite")
        elif step.skipped or step.large:
            total = step.tree.total()
            assert total.vector is not None
            there = self.steps.samples_of(step.number)
            kept = there - sum(self.steps.samples_in(step.number, shard) for shard in step.skipped)
            loss, vectors = total.loss * (there / kept), [total.vector * self.form.dtype.type(there / kept)]
            if not finite(vectors[0]):
                what = f"the gradient of step {step.number} is not finite"
                self.fail(f"{what}, though that of each of its shards is")
        return loss, vectors

    def outgoing(self) -> Vector:
        """The weights as a lease carries them."""
        assert self.updater is not None
        assert self.settings is not None
        codec = self.settings.codec_weights
        if codec is None:
            return self.updater.weights
        if self.encoded[0] != self.version:
            self.encoded = self.version, codecs.encode(codec, self.updater.weights)
        return self.encoded[1]

    @property
    def passing(self) -> bool:
        """Whether a worker has the weights of a lease in another form, or only as long as its step lasts."""
        return self.rounded or self.store is not None

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
            self.end_after(self.step.number + (0 if self.steering else 1))
        self.evaluations.remove(due)
        step = due.version if self.bound is not None else min(self.final, (epoch + 1) * self.steps.steps_per_epoch)
        self.progress.metrics(scores, step)
        self.report("evaluation", {"step": step, "epoch": epoch, "scores": scores})

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
            self.report("failure", {"step": self.step.number, "failure": failure})

    def notice(self, text: str) -> None:
        self.report("notice", {"step": self.step.number, "text": text})

    def report(self, kind: str, values: dict[str, Any]) -> None:
        self.out.append(Report(kind, values))
