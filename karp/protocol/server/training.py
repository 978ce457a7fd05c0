"""The training of a run: contributions update the weights, steps are concluded, epochs are evaluated.

It joins two parts that do not know each other. The ledger knows which shards of which steps have arrived and which step
is next; the weights add gradients and apply them. This file decides what a contribution, a score or a log entry means
for both, and what is reported of it. It knows no workers either.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Concatenate, ParamSpec

from karp.errors import ProtocolError
from karp.optim import OptimizerState
from karp.protocol import best, reports
from karp.protocol.fields import Logs
from karp.protocol.messages import Contribution, Evaluation
from karp.protocol.ranges import Memory
from karp.protocol.server.actions import Action, Save
from karp.protocol.server.ledger import Ledger, Step, Verdict
from karp.protocol.server.progress import Progress
from karp.protocol.server.states import RunState, changed
from karp.protocol.server.weights import Weights
from karp.protocol.settings import Settings
from karp.protocol.steps import Steps, steps_of
from karp.protocol.tree import Node, Vector, in_words, merge_ranges
from karp.text import REASON_CHARACTERS

SAVE_SECONDS = 10.0  # between two checkpoints
NO_WEIGHTS: Mapping[int, float] = {}
P = ParamSpec("P")


class Training:
    """The state and progress of a run's training.

    Args:
        plan: returns the sampling plan of (samples, batch_size, shards, seed).
        now: the time, in seconds from any origin.
        out: the list that actions are appended to.
        save_seconds: between two checkpoints; 0: after every step.
        skip: leave a shard out whose gradient is not finite twice, instead of ending the run.
        memory: the memory for the weights, if other processes read them.
    """

    settings: Settings | None
    ledger: Ledger  # it exists once `use` has been called, as do the weights
    weights: Weights

    def __init__(
        self,
        plan: Callable[[int, int, int, int], Steps],
        now: float,
        out: list[Action],
        save_seconds: float = SAVE_SECONDS,
        skip: bool = False,
        memory: Memory | None = None,
    ) -> None:
        self.plan = plan
        self.memory = memory
        self.out = out
        self.save_seconds = save_seconds
        self.save_at = now + save_seconds
        self.skip = skip
        self.settings = None
        self.state = RunState.JOINING
        self.failure = ""  # why the run has failed
        self.best: best.Best | None = None  # the best epoch so far, in a run that keeps it
        self.initial_state: OptimizerState | None = None  # to start from, in one process
        self.epoch_losses: dict[int, float] = {}  # epoch -> its mean loss, for the evaluation that is due
        self.scores: dict[str, float] = {}  # of the last epoch that was evaluated
        self.dropped = 0  # nodes that arrived twice or too late
        self.progress = Progress(now)
        self.now = now  # the time of the event that is being handled

    def use(self, settings: Settings) -> None:
        """Set the run's settings, and make the ledger and the weights (still unknown) for them."""
        plan = self.plan(settings.samples, settings.batch_size, settings.shards, settings.seed)
        self.settings = settings
        self.steps = steps_of(plan, settings.local_steps)
        self.ledger = Ledger(settings, self.steps)
        self.weights = Weights(settings, self.memory)
        self.weights.initial_state = self.initial_state

    def change_state(self, to: RunState) -> None:
        """Change the state of the run; once training is over, its clock stands still."""
        self.state = changed(self.state, to)
        if self.over:
            self.progress.end(self.now)

    @property
    def over(self) -> bool:
        """Whether training has ended, well or not: workers that ask are told so."""
        return self.state is RunState.OVER or self.state is RunState.CLOSED

    @property
    def seconds(self) -> float:
        """The seconds of training until now."""
        return self.progress.seconds(self.now)

    @property
    def ready(self) -> bool:
        """Whether the settings and the weights to start from are known."""
        return self.settings is not None and self.weights.known

    @property
    def version(self) -> int:
        """The number of updates applied; unless the run is asynchronous, that of steps."""
        return 0 if self.settings is None else self.weights.version

    @property
    def number(self) -> int:
        """The number of the oldest step that is not applied."""
        return 0 if self.settings is None else self.ledger.step.number

    @property
    def finished(self) -> bool:
        """Whether every step is applied."""
        return self.settings is not None and self.ledger.finished

    @property
    def done(self) -> bool:
        """Whether every step is applied and every score is known."""
        return self.settings is not None and self.ledger.done

    @property
    def has_best_weights(self) -> bool:
        """Whether the run has ended with the weights of its best epoch."""
        return self.best is not None and self.over and self.done and not self.failure

    def accept(self, peer: bytes, worker: int, message: Contribution, step: Step, current: bool) -> None:
        """Check a contribution's nodes, enter them in the ledger, each shard once, and add up their gradients.

        In an asynchronous run, update the weights by each. `current` says that the contribution answers the lease that
        its worker holds. A gradient that is not finite is not added: its shards are leased again, and the second time
        the shard is left out or the run fails. Then take over the program's logs and its wish to stop.

        Raises ProtocolError, and has changed neither ledger nor weights, for nodes that cannot belong to this step.
        """
        weights, max_staleness = self.weights, self.ledger.max_staleness
        oldest = 0 if max_staleness is None else step.number - max_staleness
        if not oldest <= message.version <= weights.version:
            expected = f"{weights.version}" if oldest >= weights.version else f"{max(0, oldest)} to {weights.version}"
            raise ProtocolError(f"step {step.number}: a gradient of weights {message.version}, not {expected}")
        weights.spec.check_nodes(message.nodes, step.number, step.shards)
        weighted = message.sample_weights or weights.settings.weighted
        weight_of = self._weights_of(message, step) if weighted else NO_WEIGHTS
        finite = []
        for node in weights.spec.decode(message.nodes):
            if weights.finite(node, step, message.no_overflow):
                finite.append(node)
                continue
            verdict = step.reject(node.start, node.stop, peer, current)
            self._not_finite(verdict, node, step, worker, message.reason, weight_of.get(node.start, 0.0))
        if self.failure:
            return
        entered = [node for node in finite if step.enter(node.start, node.stop)]
        self.dropped += len(finite) - len(entered)
        if max_staleness is None:
            for node in entered:
                self._update_by(node, step, worker, message.version, weight_of.get(node.start, 0.0))
            self._report_arrivals(step, self.version)  # of shards that are left out
            self.ledger.close_complete(step)
        else:
            for node in entered:
                weights.add(node, step)
            if max_staleness:
                spans = merge_ranges([(node.start, node.stop) for node in entered])
                step.entries += [[worker, message.version, *span] for span in spans]
        if message.last:
            self.end_after(message.step + 1)
        if message.logs:
            self.log(message.logs, message.step)

    def _weights_of(self, message: Contribution, step: Step) -> Mapping[int, float]:
        """Return node's first shard -> sum of its sample weights, and keep the sum of the whole step.

        Raises ProtocolError for sums that are not positive and finite, of a wrong number or for another step's weight,
        and for any sum if samples have no weights.
        """
        sums, nodes = message.sample_weights, message.nodes
        expected = len(nodes) + 1 if nodes and self.weights.settings.weighted else 0
        if len(sums) != expected:
            raise ProtocolError(f"step {step.number}: {len(sums)} sums of sample weights, not {expected}")
        if not sums:
            return NO_WEIGHTS
        if not all(0.0 < total < inf for total in sums) or step.weight not in (0.0, sums[0]):
            earlier = f", but its weight is {step.weight}" if step.weight else ""
            raise ProtocolError(f"step {step.number}: the sums of sample weights are {sums!r:.80}{earlier}")
        step.weight = sums[0]
        return {node.start: total for node, total in zip(nodes, sums[1:], strict=True)}

    def _not_finite(
        self, verdict: Verdict, node: Node, step: Step, worker: int, reason: str, weight: float
    ) -> None:
        """Report that a gradient is not finite; for the second time of a shard, leave it out or fail the run.

        A copy (`verdict` DROPPED) is only counted.
        """
        if verdict is Verdict.DROPPED:
            self.dropped += 1
            return
        gradient = f"the gradient of step {step.number}, {in_words(node.start, node.stop)} from worker {worker}"
        trouble = f"{gradient} is not finite (loss {node.loss})"
        why = f" ({reason})" if reason else ""
        if verdict is Verdict.RETRIED:
            self.notice(f"{trouble}; it is computed once more")
        elif self.skip:
            self.leave_out(step, node.start, weight)
            step.entries.append([worker, -1, node.start, node.stop])
            self.notice(f"{trouble} again{why}: the shard is left out")
        else:
            self.fail(f"{trouble}, for the second time{why}; the weights are those of version {self.version}")

    def leave_out(self, step: Step, shard: int, weight: float) -> None:
        """Leave out a shard; the gradient of its step is scaled up instead.

        `weight` is the sum of its sample weights; 0 where samples have none.
        """
        new = step.leave_out(shard, weight or self.steps.samples_in(step.number, shard))
        if new and self.ledger.max_staleness is not None:
            self.weights.add(Node(shard, shard + 1, 0.0, None), step)

    def _update_by(self, node: Node, step: Step, worker: int, version: int, weight: float) -> None:
        """Update the weights of an asynchronous run by the gradient of one shard, whose samples have this weight."""
        assert node.vector is not None
        step.entries.append([worker, version, node.start, node.stop])
        self._report_arrivals(step, self.version)
        self.weights.update(node.vector)
        samples = self.steps.samples_in(step.number, node.start)
        shard_weight, step_weight = weight or samples, step.weight or self.steps.samples_of(step.number)
        self.progress.step(node.loss * step_weight / shard_weight, samples, shard_weight)

    def _report_arrivals(self, step: Step, version: int) -> None:
        """Report the contributions that are applied now, in the order of arrival, and count their staleness."""
        if step.entries:
            self.out.append(reports.Arrivals(self.seconds, step.number, step.entries))
            self.progress.contributions(version - made_with for _, made_with, _, _ in step.entries if made_with >= 0)
            step.entries = []

    def advance(self, now: float, workers: int) -> None:
        """Apply the complete steps, oldest first, up to one that is not complete; report and save what is due then.

        Stops where a step fails the run. In an asynchronous run complete steps are closed only, as applied already.
        """
        ledger = self.ledger
        while ledger.step.complete:
            step, first = ledger.step, ledger.step.number
            if ledger.max_staleness is not None and not self._apply(step):
                return
            ledger.close_oldest()
            for number in range(first, ledger.step.number):
                self.conclude(number, now, workers)
        if now >= self.save_at:  # once, when all steps are applied, as a checkpoint has the state after this event
            self.save_at = now + self.save_seconds
            self.out.append(Save())

    def _apply(self, step: Step) -> bool:
        """Update the weights by a complete step, and return True.

        Fail the run and return False if the step's sum is not finite, or all of its shards are left out.
        """
        samples = self.steps.samples_of(step.number)
        weight: float = step.weight or samples
        present = weight - sum(step.left_out[shard] for shard in sorted(step.left_out)) if step.left_out else weight
        if len(step.left_out) == step.shards:
            present = 0.0  # the sum of weights may have been rounded differently
        loss = self.weights.apply(step, weight / present) if present > 0 else None
        if loss is None:
            self.fail(
                f"step {step.number}: the gradient of none of its shards is finite"
                if present <= 0
                else f"the gradient of step {step.number} is not finite, though that of each of its shards is"
            )
            return False
        if step.entries:
            self._report_arrivals(step, step.number)
        samples -= sum(self.steps.samples_in(step.number, shard) for shard in step.left_out)
        self.progress.step(loss, samples, present)
        return True

    def conclude(self, number: int, now: float, workers: int) -> None:
        """Report progress after a step if that is due, and have its epoch evaluated if it is the last of one."""
        assert self.settings is not None
        ends_epoch = self.ledger.ends_epoch(number)
        epoch = number // self.steps.steps_per_epoch
        if number + 1 == self.ledger.final or self.progress.due(now, ends_epoch):
            self.out.append(self.progress.take(now, number + 1, epoch, workers))
        if ends_epoch:
            self.progress.end_epoch()
            if self.settings.evaluate:
                self.ledger.evaluations[epoch] = self.version
                self.epoch_losses[epoch] = self.progress.loss_by_samples
                self.weights.of_epochs[epoch] = self.weights.vector.copy()

    def weights_for(self, epoch: int) -> Vector | None:
        """Return the weights for an epoch's evaluation that is due; None if it is not."""
        return self.weights.of_epochs.get(epoch)

    def evaluation_of(self, epoch: int, version: int) -> Evaluation:
        """Return the task to evaluate an epoch, which is due.

        It tells the scores of the epoch before only where they are known for sure, as the epoch has waited for them.
        """
        scores = self.scores if self.ledger.settings.wait_for_score else {}
        return Evaluation(0, epoch, version, self.weights_for(epoch), self.epoch_losses[epoch], scores)

    def end_after(self, steps: int) -> None:
        """End training after so many steps."""
        self.ledger.end_after(steps)
        self.weights.forget_sums(self.ledger.open)

    def end_now(self) -> None:
        """End training with the steps that are applied, and drop the evaluations that are due."""
        self.ledger.end_now()
        self.forget_evaluations()
        self.weights.forget_sums(self.ledger.open)

    def forget_evaluations(self) -> None:
        """Drop the evaluations that are due, and the weights kept for them."""
        self.ledger.evaluations.clear()
        self.epoch_losses.clear()
        self.weights.of_epochs.clear()

    def check_scores(self, scores: dict[str, float]) -> None:
        """Raise ProtocolError for scores without the one that decides which epoch is best."""
        keep_best = self.weights.settings.keep_best
        if keep_best is not None and keep_best not in scores:
            raise ProtocolError(best.missing(keep_best, scores))

    def score(self, epoch: int, scores: dict[str, float], last: bool) -> None:
        """Record the scores of an epoch whose evaluation is due; otherwise ignore them. `last` ends training early."""
        ledger = self.ledger
        if epoch not in ledger.evaluations:
            return
        if last:
            self.end_after(ledger.step.number + (0 if ledger.waits_for_score else 1))
        version = ledger.evaluations.pop(epoch)
        vector, settings = self.weights.of_epochs.pop(epoch), ledger.settings
        del self.epoch_losses[epoch]
        self.scores = scores
        if settings.keep_best is not None:
            scored = best.Best(epoch, scores[settings.keep_best])
            self.best = best.choose(self.best, scored, settings.mode, settings.ties)
            if self.best is scored:
                self.weights.best = vector
        updates_are_steps = ledger.max_staleness is not None
        step = version if updates_are_steps else min(ledger.final, (epoch + 1) * self.steps.steps_per_epoch)
        self.progress.metrics(scores, step)
        self.out.append(reports.Evaluation(self.seconds, step, epoch, scores))

    def finish(self) -> None:
        """Make the weights those of the best epoch, if the run keeps it, as its training has come to its end."""
        settings = self.weights.settings
        if self.best is not None:
            self.weights.use_best()
        elif settings.keep_best is not None:
            self.notice(f"no epoch has a score {settings.keep_best!r} that is a number: the last weights are kept")

    def log(self, logs: Logs, step: int) -> None:
        """Report the numbers that the program has logged, at this step."""
        for shard, name, value in logs:
            self.progress.metrics({name: value}, step)
            self.out.append(reports.Log(self.seconds, step, name, value, None if shard < 0 else shard))

    def fail(self, failure: str) -> None:
        """Mark the run as failed for this reason, and report that; if it has failed before, the first reason stays."""
        if not self.failure:
            self.failure = failure[:REASON_CHARACTERS]  # as much as a message takes
            self.report(reports.Failure, failure)

    def report_begin(self, workers: int) -> None:
        """Report that the run begins, or is resumed, with so many workers."""
        self.report(reports.Begin, self.ledger.final, self.steps.steps_per_epoch, workers)

    def notice(self, text: str) -> None:
        """Report a text that the user should read, on the terminal and in the record."""
        self.report(reports.Notice, text)

    def report(
        self, kind: Callable[Concatenate[float, int, P], reports.Report], *values: P.args, **named: P.kwargs
    ) -> None:
        """Append a report of this kind, about the oldest open step, to the actions."""
        self.out.append(kind(self.seconds, self.number, *values, **named))
