"""Leases: which worker computes which shards of the open steps, and which worker evaluates an epoch.

A worker holds one task at a time, a lease or an evaluation. A lease is revoked when its worker or a message is lost:
the shards that have not arrived are leased again. A lease that is overdue is not revoked; its shards are leased to an
idle worker as well (a backup lease), and the first contribution of a shard counts. The weights do not depend on which
worker computed a shard, so all of this may depend on the clock.
"""

from collections.abc import Collection
from itertools import islice
from typing import NamedTuple

from karp.protocol import reports
from karp.protocol.messages import Contribution, Evaluation, Lease
from karp.protocol.server.actions import Action, Send
from karp.protocol.server.ledger import Step
from karp.protocol.server.states import RunState, WorkerState
from karp.protocol.server.training import Training
from karp.protocol.server.workers import Throughput, WorkerInfo
from karp.protocol.tree import Vector

TRAINING = WorkerState.TRAINING  # looking up a member of an enum takes 0.1 us in Python 3.11
NOTICE_SECONDS = 10.0  # a wait of so long is reported, then one of twice the length, and so on


class Division(NamedTuple):
    """The division of a step's shards among idle workers of the same speed, kept as the next step is usually the same.

    `waiting` is the number of the idle workers, `shards` that of the step's shards.
    """

    waiting: int
    shards: int
    ranges: list[tuple[WorkerInfo, int, int]]  # member, start, stop

    def fits(self, waiting: Collection[bytes], shards: int) -> bool:
        """Return whether a step of so many shards can be divided in the same way among these idle workers."""
        if len(waiting) != self.waiting or shards != self.shards:
            return False
        for member, _, _ in self.ranges:  # noqa: SIM110  (a generator takes three times as long)
            if member.peer not in waiting:
                return False
        return True


class Leasing:
    """The workers that have joined and the tasks they hold."""

    def __init__(self, training: Training, out: list[Action]) -> None:
        self.training = training
        self.out = out
        self.members: dict[bytes, WorkerInfo] = {}
        self.by_number: dict[int, WorkerInfo] = {}  # the newest worker of each number, whether it is here or gone
        self.waiting: dict[bytes, WorkerInfo] = {}  # the idle workers
        self.busy: dict[bytes, WorkerInfo] = {}  # those that hold a task, in the order in which they got it
        self.backups = True  # whether overdue leases get backups, as always but where a study compares
        self.throughput = Throughput()
        self.evaluators: dict[int, WorkerInfo] = {}  # epoch -> the worker that was given its evaluation last
        self.portions: dict[int, dict[bytes, int]] = {}  # open step -> peer -> number of shards, with staleness
        self.division: Division | None = None  # the division of the last step that was leased all at once
        self.granted: list[tuple[WorkerInfo, int, int]] = []  # the leases of a step that was new in this event
        self.task_count = 0  # how many tasks have been given
        self.leased_again = 0  # shards that were leased again
        self.released: set[int] = set()  # the numbers of workers that are to end
        self.notice_at = training.now + NOTICE_SECONDS  # when a notice is due that no worker is here
        self.no_notice_before = 0.0  # no worker's task has a notice that is due earlier

    def mark_idle(self, member: WorkerInfo) -> None:
        """Mark a worker as having no task; a worker that takes tasks (TRAINING) is idle from now on."""
        member.task = None
        self.busy.pop(member.peer, None)
        if member.state is TRAINING:
            self.waiting[member.peer] = member
        elif member.state is WorkerState.RELEASED:
            self.training.report(reports.Released, member.worker)

    def release_all(self, workers: Collection[int]) -> None:
        """Release the workers with these numbers, also those that join later, and no others."""
        self.released = set(workers)
        for member in self.members.values():
            if member.worker in self.released:
                self.release(member)

    def release(self, member: WorkerInfo) -> None:
        """Give a worker no task any more, as it is to end; the one that it has is its last."""
        if member.state is not TRAINING:
            return
        member.change_state(WorkerState.RELEASED)
        self.waiting.pop(member.peer, None)
        self.forget_division()
        if member.task is None:
            self.mark_idle(member)

    def forget_division(self) -> None:
        """Divide the next step anew, as workers have come or gone."""
        self.portions.clear()
        self.division = None

    def hand_out(self, now: float) -> None:
        """Give evaluations and leases to the idle workers; no leases while the next epoch waits for a score."""
        training = self.training
        if training.ledger.evaluations:
            self._evaluate(now)
            if training.ledger.waits_for_score:
                return
        if self.waiting and (training.ledger.max_staleness != 0 or training.ledger.step.unleased):
            self._lease(now)

    def _evaluate(self, now: float) -> None:
        """Give each evaluation that is due and that no worker holds to the idle worker with the highest number."""
        for epoch, version in self.training.ledger.evaluations.items():
            if self.waiting and not self._is_evaluated(epoch):
                last = max(self.waiting.values(), key=lambda member: member.worker)
                self._give(last, self.training.evaluation_of(epoch, version), now)
                self.evaluators[epoch] = last

    def _is_evaluated(self, epoch: int) -> bool:
        """Return whether a worker holds this evaluation as its task."""
        member = self.evaluators.get(epoch)
        if member is None or self.members.get(member.peer) is not member:
            return False
        return isinstance(member.task, Evaluation) and member.task.epoch == epoch

    def _lease(self, now: float) -> None:
        """Lease the unleased shards, oldest step first, and open further steps for workers that are still idle."""
        ledger = self.training.ledger
        if ledger.max_staleness == 0:
            self._lease_of(ledger.step, now)
            return
        for step in list(ledger.open.values()):
            if step.unleased and self.waiting:
                self._lease_of(step, now)
        while self.waiting and (another := ledger.open_next()) is not None:
            self._lease_of(another, now)

    def _lease_of(self, step: Step, now: float) -> None:
        """Lease the unleased shards of a step to the idle workers, in the order of their numbers.

        Each worker gets a range as large as `_portions` says, or that of the step before where nothing has changed.
        """
        division, is_new, even = self.division, step.fully_unleased, self.throughput.even(now)
        if division is not None and is_new and even and division.fits(self.waiting, step.shards):
            step.unleased = []
            for member, start, stop in division.ranges:  # almost every step is divided as the one before
                self._grant(member, step, start, stop, now)
            self.granted = division.ranges
            return
        waiting = sorted(self.waiting.values(), key=lambda member: member.worker)
        if step.not_finite:
            self._lease_not_finite(step, waiting, now)
            return
        ranges = []
        for member, portion in zip(waiting, self._portions(step, waiting, now), strict=True):
            if (shards := step.take_range(portion)) is not None:
                self._grant(member, step, *shards, now)
                ranges.append((member, *shards))
        if is_new and self.training.ledger.max_staleness == 0:
            self.granted = ranges
            if even:
                self.division = Division(len(waiting), step.shards, ranges)

    def _portions(self, step: Step, waiting: list[WorkerInfo], now: float) -> list[int]:
        """Return how many shards of the step each idle worker may be leased now: one number for each, perhaps 0.

        Synchronous: the unleased shards, divided by throughput. Asynchronous: one for each. With a bound on staleness:
        the portions of all workers, idle or not, which are kept for the step until workers come or go.
        """
        bound = self.training.ledger.max_staleness
        if bound == 0:
            return self.throughput.allocate(waiting, step.count_unleased, now)
        if bound is None:  # each shard is an update of its own
            return [1] * len(waiting)
        if step.number not in self.portions:  # workers that are not idle now get their portions later
            members = sorted(self.members.values(), key=lambda member: member.worker)
            active = [member for member in members if member.state is TRAINING]
            portions = self.throughput.allocate(active, step.shards, now)
            open_steps = self.training.ledger.open
            self.portions = {number: shares for number, shares in self.portions.items() if number in open_steps}
            self.portions[step.number] = {member.peer: count for member, count in zip(active, portions, strict=True)}
        return [self.portions[step.number].get(member.peer, 0) for member in waiting]

    def _lease_not_finite(self, step: Step, waiting: list[WorkerInfo], now: float) -> None:
        """Lease the unleased shards of a step in which some gradient was not finite.

        The shard of such a gradient is leased alone, and not to the worker that sent it unless it is the only worker.
        """
        for member in waiting:
            if not step.unleased:
                return
            if step.not_finite.get(step.unleased[0][0]) == member.peer and len(self.members) > 1:
                continue
            most = 1 if self.training.ledger.max_staleness is None else step.count_unleased
            if (shards := step.take_range(most)) is not None:
                self._grant(member, step, *shards, now)

    def _grant(self, member: WorkerInfo, step: Step, start: int, stop: int, now: float) -> None:
        """Lease a range of the step's shards to a worker, to be computed with the newest weights."""
        weights, suspect = self.training.weights, start in step.not_finite  # a suspect shard is leased alone
        self._give(member, Lease(0, step.number, start, stop, weights.version, weights.outgoing(), suspect), now)

    def _give(self, member: WorkerInfo, task: Lease | Evaluation, now: float) -> None:
        """Send a task to an idle worker, without the weights if it has them."""
        del self.waiting[member.peer]
        self.busy[member.peer] = member
        self.task_count += 1
        task.number = member.number = self.task_count
        differ = isinstance(task, Evaluation) and self.training.weights.borrowed  # its weights are not a lease's
        if member.version == task.version and not differ:  # the worker has these weights already
            task.weights = None
        member.task, member.version = task, -1 if differ else task.version
        member.since, member.backed_up = now, False
        member.notice_at = now + NOTICE_SECONDS
        self.out.append(Send(member.peer, task))

    def send_task_again(self, member: WorkerInfo) -> None:
        """Send a worker its task again, as the message was lost.

        If the weights of the task's version exist no longer, revoke the task instead: the worker is idle then.
        """
        assert member.task is not None
        weights = self._weights_of(member.task)
        if weights is None:  # the weights of the task's version exist no longer
            self.revoke(member)
            self.mark_idle(member)
            member.version = -1
        else:
            member.task.weights = weights
            self.out.append(Send(member.peer, member.task))

    def _weights_of(self, task: Lease | Evaluation) -> Vector | None:
        """Return the weights of a task's version; None if they exist no longer."""
        weights = self.training.weights
        if isinstance(task, Evaluation):
            return self.training.weights_for(task.epoch)
        return weights.outgoing() if task.version == weights.version else None

    def revoke(self, member: WorkerInfo) -> None:
        """Revoke a worker's task: shards that have not arrived are leased again, unless another worker has them too."""
        task, member.task = member.task, None
        self.busy.pop(member.peer, None)
        step = self.training.ledger.open.get(task.step) if isinstance(task, Lease) else None
        if not isinstance(task, Lease) or step is None or step.complete:
            return
        gaps = step.missing(task.start, task.stop)
        if not gaps:
            return
        tasks = [other.task for other in self.busy.values() if isinstance(other.task, Lease)]
        held = {shard for other in tasks if other.step == task.step for shard in range(other.start, other.stop)}
        for shard in (shard for gap in gaps for shard in range(*gap)):
            if shard not in held:
                self.leased_again += 1
                step.lease_again(shard, shard + 1)

    def returned(self, member: WorkerInfo, message: Contribution, now: float) -> Lease | None:
        """End the lease that a contribution answers, and return it; None if the worker does not hold that lease now."""
        lease = member.task
        if not isinstance(lease, Lease) or lease.step != message.step or message.lease not in (0, lease.number):
            return None
        shards = lease.stop - lease.start
        self.throughput.measure(member, shards, now - member.since, now)
        member.shards += shards
        member.task_ends(now, message.seconds)
        self.mark_idle(member)
        return lease

    def evaluated(self, member: WorkerInfo, now: float) -> None:
        """End the evaluation that a worker held."""
        member.task_ends(now, 0.0)
        self.mark_idle(member)

    @property
    def restless(self) -> bool:
        """Whether a worker is idle while another holds a lease without a backup, so that one may be due soon."""
        if not self.waiting or not self.backups:
            return False
        for member in self.busy.values():  # noqa: SIM110  (a generator takes twice as long)
            if isinstance(member.task, Lease) and not member.backed_up:
                return True
        return False

    def lease_backups(self, now: float) -> None:
        """Give backups of overdue leases to idle workers; none while a shard of an open step is unleased."""
        open_steps = self.training.ledger.open
        if any(step.unleased for step in open_steps.values()):
            return
        backups = 0  # the number of shards to lease again
        for member in self.busy.values():
            if backups >= len(self.waiting):
                break
            lease = member.task
            if not isinstance(lease, Lease) or lease.step not in open_steps or member.backed_up:
                continue
            step = open_steps[lease.step]
            if now >= self.throughput.overdue_at(member, lease):
                member.backed_up = True
                for start, stop in step.missing(lease.start, lease.stop):
                    backups += stop - start
                    step.lease_again(start, stop)
        if backups:
            self.leased_again += backups
            self._lease(now)

    def describe_wait(self, now: float) -> str:
        """Describe what the run waits for: 'waiting for ' and the tasks of at most four workers, or 'nobody'."""
        busy = (member.describe_task(now) for member in self.busy.values())
        return "waiting for " + (", ".join(islice(busy, 4)) or "nobody")

    def check_waits(self, now: float) -> None:
        """Report what the run has waited for so long that a notice is due: a worker's task, or that a worker joins."""
        training = self.training
        if training.state is RunState.TRAINING and not self.members and now >= self.notice_at:
            self.notice_at = now + NOTICE_SECONDS
            training.notice(f"no worker is here to compute step {training.number}; the run goes on when one joins")
        if now < self.no_notice_before:
            return
        self.no_notice_before = now + NOTICE_SECONDS  # a task that is given from now on has no earlier notice
        for member in self.busy.values():
            task = member.task
            is_open = isinstance(task, Evaluation) or (isinstance(task, Lease) and task.step in training.ledger.open)
            if is_open and now >= member.notice_at:
                member.notice_at = now + 2 * (now - member.since)
                training.notice(f"waiting for {member.describe_task(now)}; it has not failed, so the run waits on")
            self.no_notice_before = min(self.no_notice_before, member.notice_at)
