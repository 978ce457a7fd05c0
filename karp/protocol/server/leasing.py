"""Who computes what: the shards of the open steps and the evaluations that are due, given to the workers that wait.

What a worker has not contributed, because it or a message was lost, is given again; so is what takes too long. It
never shows in the weights who computed a shard, so all of this may follow the clock.
"""

from collections.abc import Collection
from dataclasses import dataclass

from karp.protocol.messages import Contribution, Evaluation, Lease
from karp.protocol.server.actions import Action, Send
from karp.protocol.server.ledger import Step
from karp.protocol.server.training import Training
from karp.protocol.server.workers import Member, Pace
from karp.protocol.tree import Vector

NOTICE_SECONDS = 10.0  # a wait of this length is reported, then one of twice the length, and so on


@dataclass(frozen=True, slots=True)
class Division:
    """How so many shards were shared out among so many workers that waited, all of them about as fast."""

    waiting: int
    shards: int
    ranges: list[tuple[Member, int, int]]  # member, start, stop

    def fits(self, waiting: Collection[bytes], shards: int) -> bool:
        """Whether a whole step of so many shards is to be shared out among these in the same way."""
        if len(waiting) != self.waiting or shards != self.shards:
            return False
        for member, _, _ in self.ranges:  # noqa: SIM110  (a generator takes three times as long)
            if member.peer not in waiting:
                return False
        return True


class Leasing:
    """The workers that have joined, and what each of them is at."""

    def __init__(self, training: Training, out: list[Action]) -> None:
        self.training = training
        self.out = out
        self.members: dict[bytes, Member] = {}
        self.waiting: dict[bytes, Member] = {}  # those that have nothing to do
        self.pace = Pace()
        self.evaluators: dict[int, Member] = {}  # epoch -> who was given its evaluation last
        self.portions: dict[int, dict[bytes, int]] = {}  # open step -> how many shards each gets, with staleness
        self.division: Division | None = None  # of the last step that was shared out at once
        self.given = 0  # tasks
        self.released = 0  # shards that were given again

    def rest(self, member: Member) -> None:
        """This member has nothing to do."""
        member.task = None
        if not member.stopped and not member.told:
            self.waiting[member.peer] = member

    def changed(self) -> None:
        """Others are here than were, or fewer of them take part: what each gets is to be thought over."""
        self.portions.clear()
        self.division = None

    def hand_out(self, now: float) -> None:
        """Give what there is to do to those that wait."""
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
        """Whether a member has this evaluation as its task."""
        member = self.evaluators.get(epoch)
        if member is None or self.members.get(member.peer) is not member:
            return False
        return isinstance(member.task, Evaluation) and member.task.epoch == epoch

    def _lease(self, now: float) -> None:
        """Share out what is unleased, oldest steps first, and open others for those that still wait."""
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
        """Share what is unleased of a step among the workers that wait, in the order of their numbers."""
        division, whole = self.division, step.untouched
        if division is not None and whole and self.pace.even(now) and division.fits(self.waiting, step.shards):
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
        if whole and self.training.ledger.max_staleness == 0 and self.pace.even(now):
            self.division = Division(len(waiting), step.shards, ranges)

    def _portions(self, step: Step, waiting: list[Member], now: float) -> list[int]:
        """How many shards each of these workers gets."""
        bound = self.training.ledger.max_staleness
        if bound == 0:
            return self.pace.portions(waiting, step.count_unleased, now)
        if bound is None:  # each shard is an update of its own
            return [1] * len(waiting)
        if step.number not in self.portions:  # the others come for theirs
            everybody = sorted(self.members.values(), key=lambda member: member.worker)
            there = [member for member in everybody if not member.stopped and not member.told]
            portions = self.pace.portions(there, step.shards, now)
            open_steps = self.training.ledger.open
            self.portions = {number: shares for number, shares in self.portions.items() if number in open_steps}
            self.portions[step.number] = {member.peer: each for member, each in zip(there, portions, strict=True)}
        return [self.portions[step.number].get(member.peer, 0) for member in waiting]

    def _lease_refused(self, step: Step, waiting: list[Member], now: float) -> None:
        """A shard whose gradient was not finite goes to another worker than before, if there is one."""
        for member in waiting:
            if not step.unleased:
                return
            if step.not_finite.get(step.unleased[0][0]) == member.peer and len(self.members) > 1:
                continue
            if (cut := step.cut(1 if self.training.ledger.max_staleness is None else step.count_unleased)) is not None:
                self._grant(member, step, *cut, now)

    def _grant(self, member: Member, step: Step, start: int, stop: int, now: float) -> None:
        """This range of the step, to be computed with the newest weights."""
        weights = self.training.weights
        self._give(member, Lease(0, step.number, start, stop, weights.version, weights.outgoing()), now)

    def _give(self, member: Member, task: Lease | Evaluation, now: float) -> None:
        del self.waiting[member.peer]
        self.given += 1
        task.number = member.number = self.given
        others = isinstance(task, Evaluation) and self.training.weights.borrowed  # than those of leases
        if member.version == task.version and not others:  # it has these weights already
            task.weights = None
        member.task, member.version = task, -1 if others else task.version
        member.since, member.doubled = now, False
        member.notice_at = now + NOTICE_SECONDS
        self.out.append(Send(member.peer, task))

    def give_once_more(self, member: Member) -> None:
        """The message with this member's task was lost."""
        assert member.task is not None
        weights = self._weights_of(member.task)
        if weights is None:  # they are no more: the worker gets another task, and what weights that needs
            self.withdraw(member)
            self.rest(member)
            member.version = -1
        else:
            member.task.weights = weights
            self.out.append(Send(member.peer, member.task))

    def _weights_of(self, task: Lease | Evaluation) -> Vector | None:
        weights = self.training.weights
        if isinstance(task, Evaluation):
            return self.training.weights_for(task.epoch)
        return weights.outgoing() if task.version == weights.version else None

    def withdraw(self, member: Member) -> None:
        """What a member has not contributed of its task can be given again."""
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
                self.released += 1
                step.release(shard, shard + 1)

    def returned(self, member: Member, message: Contribution, now: float) -> Lease | None:
        """A contribution has come from a member; returns the lease that it ends, if the member has it still."""
        lease = member.task
        if not isinstance(lease, Lease) or lease.step != message.step or message.lease not in (0, lease.number):
            return None
        self.pace.measure(member, lease, now)
        self.rest(member)
        return lease

    def double(self, now: float) -> None:
        """Give leases that take too long a second time, to workers that have nothing to do."""
        open_steps = self.training.ledger.open
        if any(step.unleased for step in open_steps.values()):
            return
        found = 0
        for member in list(self.members.values()):
            if found >= len(self.waiting):
                break
            lease = member.task
            if not isinstance(lease, Lease) or lease.step not in open_steps or member.doubled:
                continue
            step = open_steps[lease.step]
            if now >= self.pace.overdue_at(member, lease):
                member.doubled = True
                for start, stop in step.missing(lease.start, lease.stop):
                    found += stop - start
                    step.release(start, stop)
        if found:
            self.released += found
            self._lease(now)

    def overdue(self, now: float) -> list[Member]:
        """Those that keep the run waiting for long enough to be named; each of them again after twice as long."""
        found = []
        for member in self.members.values():
            task = member.task
            here = isinstance(task, Evaluation) or (isinstance(task, Lease) and task.step in self.training.ledger.open)
            if here and now >= member.notice_at:
                member.notice_at = now + 2 * (now - member.since)
                found.append(member)
        return found
