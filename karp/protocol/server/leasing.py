"""Leases: which worker computes which shards of the open steps, and which worker evaluates an epoch.

A worker holds one task at a time, a lease or an evaluation. A lease is revoked when its worker or a message is lost:
the shards that have not arrived are leased again. A lease that is overdue is not revoked; its shards are leased to an
idle worker as well (a backup lease), and the first contribution of a shard counts. Which worker computed a shard never
shows in the weights, so all of this may follow the clock.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice

from karp.protocol.messages import Contribution, Evaluation, Lease
from karp.protocol.server.actions import Action, Send
from karp.protocol.server.ledger import Step
from karp.protocol.server.states import WorkerState
from karp.protocol.server.training import Training
from karp.protocol.server.workers import Throughput, WorkerInfo
from karp.protocol.tree import Vector

TRAINING = WorkerState.TRAINING  # looking up a member of an enum takes 0.1 us in Python 3.11
NOTICE_SECONDS = 10.0  # a wait of so long is reported, then one of twice the length, and so on


@dataclass(frozen=True, slots=True)
class Division:
    """The division of a whole step among idle workers of the same speed; the next step is usually divided as it."""

    waiting: int
    shards: int
    ranges: list[tuple[WorkerInfo, int, int]]  # member, start, stop

    def fits(self, waiting: Collection[bytes], shards: int) -> bool:
        """Whether a whole step of so many shards can be divided in the same way among these idle workers."""
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
        self.known: dict[int, WorkerInfo] = {}  # the newest of each number, whether it is here or gone
        self.waiting: dict[bytes, WorkerInfo] = {}  # the idle ones
        self.throughput = Throughput()
        self.evaluators: dict[int, WorkerInfo] = {}  # epoch -> the worker that was last given its evaluation
        self.portions: dict[int, dict[bytes, int]] = {}  # open step -> how many shards each gets, with staleness
        self.division: Division | None = None  # of the last step that was shared out at once
        self.given = 0  # how many tasks have been given
        self.leased_again = 0  # shards that were leased again

    def mark_idle(self, member: WorkerInfo) -> None:
        """This worker has no task."""
        member.task = None
        if member.state is TRAINING:
            self.waiting[member.peer] = member

    def forget_division(self) -> None:
        """Divide the next step afresh: workers have come or gone."""
        self.portions.clear()
        self.division = None

    def hand_out(self, now: float) -> None:
        """Give leases and evaluations to the idle workers."""
        training = self.training
        if training.ledger.evaluations:
            self._evaluate(now)
            if training.ledger.waits_for_score:
                return
        if self.waiting and (training.ledger.max_staleness != 0 or training.ledger.step.unleased):
            self._lease(now)

    def _evaluate(self, now: float) -> None:
        for epoch, version in self.training.ledger.evaluations.items():
            if self.waiting and not self._is_evaluated(epoch):
                last = max(self.waiting.values(), key=lambda member: member.worker)
                self._give(last, Evaluation(0, epoch, version, self.training.weights_for(epoch)), now)
                self.evaluators[epoch] = last

    def _is_evaluated(self, epoch: int) -> bool:
        """Whether a worker holds this evaluation as its task."""
        member = self.evaluators.get(epoch)
        if member is None or self.members.get(member.peer) is not member:
            return False
        return isinstance(member.task, Evaluation) and member.task.epoch == epoch

    def _lease(self, now: float) -> None:
        """Lease what is unleased, oldest step first, and open further steps for workers that are still idle."""
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
        """Lease what is unleased of a step to the idle workers, in the order of their numbers."""
        division, whole = self.division, step.untouched
        if division is not None and whole and self.throughput.even(now) and division.fits(self.waiting, step.shards):
            step.unleased = []
            for member, start, stop in division.ranges:  # almost every step is shared out as the one before
                self._grant(member, step, start, stop, now)
            return
        waiting = sorted(self.waiting.values(), key=lambda member: member.worker)
        if step.not_finite:
            self._lease_refused(step, waiting, now)
            return
        ranges = []
        for member, portion in zip(waiting, self._portions(step, waiting, now), strict=True):
            if (cut := step.cut(portion)) is not None:
                self._grant(member, step, *cut, now)
                ranges.append((member, *cut))
        if whole and self.training.ledger.max_staleness == 0 and self.throughput.even(now):
            self.division = Division(len(waiting), step.shards, ranges)

    def _portions(self, step: Step, waiting: list[WorkerInfo], now: float) -> list[int]:
        """Return how many shards of the step each of these workers gets."""
        bound = self.training.ledger.max_staleness
        if bound == 0:
            return self.throughput.allocate(waiting, step.count_unleased, now)
        if bound is None:  # each shard is an update of its own
            return [1] * len(waiting)
        if step.number not in self.portions:  # workers that are not idle now get theirs later
            everybody = sorted(self.members.values(), key=lambda member: member.worker)
            there = [member for member in everybody if member.state is TRAINING]
            portions = self.throughput.allocate(there, step.shards, now)
            open_steps = self.training.ledger.open
            self.portions = {number: shares for number, shares in self.portions.items() if number in open_steps}
            self.portions[step.number] = {member.peer: each for member, each in zip(there, portions, strict=True)}
        return [self.portions[step.number].get(member.peer, 0) for member in waiting]

    def _lease_refused(self, step: Step, waiting: list[WorkerInfo], now: float) -> None:
        """Lease shards whose gradient was not finite to other workers than before, if there are any."""
        for member in waiting:
            if not step.unleased:
                return
            if step.not_finite.get(step.unleased[0][0]) == member.peer and len(self.members) > 1:
                continue
            if (cut := step.cut(1 if self.training.ledger.max_staleness is None else step.count_unleased)) is not None:
                self._grant(member, step, *cut, now)

    def _grant(self, member: WorkerInfo, step: Step, start: int, stop: int, now: float) -> None:
        """Lease this range of the step, to be computed with the newest weights."""
        weights, suspect = self.training.weights, start in step.not_finite  # which is leased alone
        self._give(member, Lease(0, step.number, start, stop, weights.version, weights.outgoing(), suspect), now)

    def _give(self, member: WorkerInfo, task: Lease | Evaluation, now: float) -> None:
        del self.waiting[member.peer]
        self.given += 1
        task.number = member.number = self.given
        others = isinstance(task, Evaluation) and self.training.weights.borrowed  # other weights than those of leases
        if member.version == task.version and not others:  # this worker has these weights already
            task.weights = None
        member.task, member.version = task, -1 if others else task.version
        member.since, member.backed_up = now, False
        member.notice_at = now + NOTICE_SECONDS
        self.out.append(Send(member.peer, task))

    def send_task_again(self, member: WorkerInfo) -> None:
        """Send a worker its task once more: the message was lost."""
        assert member.task is not None
        weights = self._weights_of(member.task)
        if weights is None:  # these weights exist no longer: the worker gets another task and its weights
            self.revoke(member)
            self.mark_idle(member)
            member.version = -1
        else:
            member.task.weights = weights
            self.out.append(Send(member.peer, member.task))

    def _weights_of(self, task: Lease | Evaluation) -> Vector | None:
        weights = self.training.weights
        if isinstance(task, Evaluation):
            return self.training.weights_for(task.epoch)
        return weights.outgoing() if task.version == weights.version else None

    def revoke(self, member: WorkerInfo) -> None:
        """Take a worker's task away; what has not arrived of its lease is leased again, unless another has it too."""
        task, member.task = member.task, None
        step = self.training.ledger.open.get(task.step) if isinstance(task, Lease) else None
        if not isinstance(task, Lease) or step is None or step.complete:
            return
        gaps = step.missing(task.start, task.stop)
        if not gaps:
            return
        tasks = [other.task for other in self.members.values() if isinstance(other.task, Lease)]
        held = {shard for other in tasks if other.step == task.step for shard in range(other.start, other.stop)}
        for shard in (shard for gap in gaps for shard in range(*gap)):
            if shard not in held:
                self.leased_again += 1
                step.lease_again(shard, shard + 1)

    def returned(self, member: WorkerInfo, message: Contribution, now: float) -> Lease | None:
        """A worker has contributed; return the lease that this ends, if the worker still holds it."""
        lease = member.task
        if not isinstance(lease, Lease) or lease.step != message.step or message.lease not in (0, lease.number):
            return None
        self.throughput.measure(member, lease, now)
        member.shards += lease.stop - lease.start
        member.task_ends(now, message.seconds)
        self.mark_idle(member)
        return lease

    def evaluated(self, member: WorkerInfo, now: float) -> None:
        """A worker has done the evaluation that it held."""
        member.task_ends(now, 0.0)
        self.mark_idle(member)

    @property
    def restless(self) -> bool:
        """Whether a worker is idle while another holds a lease of which no backup has been given."""
        if not self.waiting:
            return False
        for member in self.members.values():  # noqa: SIM110  (a generator takes twice as long)
            if isinstance(member.task, Lease) and not member.backed_up:
                return True
        return False

    def lease_backups(self, now: float) -> None:
        """Give backup leases of what is overdue to idle workers."""
        open_steps = self.training.ledger.open
        if any(step.unleased for step in open_steps.values()):
            return
        found = 0
        for member in list(self.members.values()):
            if found >= len(self.waiting):
                break
            lease = member.task
            if not isinstance(lease, Lease) or lease.step not in open_steps or member.backed_up:
                continue
            step = open_steps[lease.step]
            if now >= self.throughput.overdue_at(member, lease):
                member.backed_up = True
                for start, stop in step.missing(lease.start, lease.stop):
                    found += stop - start
                    step.lease_again(start, stop)
        if found:
            self.leased_again += found
            self._lease(now)

    def waited_for(self, now: float) -> str:
        """Describe the tasks of the first workers that have one."""
        busy = (member.doing(now) for member in self.members.values() if member.task is not None)
        return "waiting for " + (", ".join(islice(busy, 4)) or "nobody")

    def overdue(self, now: float) -> list[WorkerInfo]:
        """Return the workers whose tasks are due for a notice; each of them again after twice as long."""
        found = []
        for member in self.members.values():
            task = member.task
            here = isinstance(task, Evaluation) or (isinstance(task, Lease) and task.step in self.training.ledger.open)
            if here and now >= member.notice_at:
                member.notice_at = now + 2 * (now - member.since)
                found.append(member)
        return found
