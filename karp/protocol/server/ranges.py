"""The server's part in ranges: it opens and closes them, and takes over the steps that have ended in them.

(`karp.protocol.ranges` describes ranges.) In one process the program's worker is the only one of each range, so it is
always the last to arrive: it updates the weights where they are, with no lock and no second copy. All else is the same.

A step that needs more than an update does not end in a range: the last step of the run, and of an epoch that is
evaluated, and one after which there is another number of shards. A range is closed when a report or a checkpoint is
due, when no step has ended for unusually long, and by every other event of the server, as that may change anything.
"""

import math
from collections.abc import Callable

from karp.protocol.messages import Lease, Rejoin
from karp.protocol.ranges import CURRENT, RANGE, RING, SECONDS, STOPPED, Board, Memory, Seat, local_board
from karp.protocol.server.actions import Action, Save, Send
from karp.protocol.server.leasing import NOTICE_SECONDS, Leasing
from karp.protocol.server.ledger import Step
from karp.protocol.server.progress import EPOCH_SECONDS, REPORT_SECONDS
from karp.protocol.server.states import RunState
from karp.protocol.server.training import Training
from karp.protocol.server.workers import PATIENCE_SECONDS, SLOW, WorkerInfo
from karp.protocol.tree import Node, is_node
from karp.protocol.vectors import no_overflow


class Ranges:
    """The range that is open, if one is."""

    def __init__(self, training: Training, leasing: Leasing, out: list[Action]) -> None:
        self.training = training
        self.leasing = leasing
        self.out = out
        self.is_open = False
        self.shared = False  # whether it is one of workers in shared memory
        self.number = 0  # of the last range
        self.end = 0  # the first step that does not end in it
        self.until = 0.0  # when it has to be closed
        self.leases: list[tuple[WorkerInfo, Lease]] = []
        self.steps = 0  # the steps that have ended in ranges
        self.reach: Callable[[str, int], None] | None = None  # called with the points of faults that are reached
        self.at_work = False  # whether a step is being ended in this process; it stays True after an interruption
        self._board = local_board()  # that of the range
        self._seats: list[Seat] = []
        self._seconds: list[float] = []  # of each seat, when the range was opened
        self._moved = (0, 0.0)  # the current step when the range was last looked at, and when that step was new

    @property
    def _memory(self) -> Memory | None:
        return self.training.weights.memory

    @property
    def current(self) -> int:
        """The current step of the range that is open."""
        return self._board.words[CURRENT]

    # Opening.

    def open_next(self, now: float, until: float) -> None:
        """Open a range with the leases that have just been given, if they are a whole step's and all in shared memory.

        It is closed at the time `until` at the latest. Each lease must be a node of the tree, as a seat has one vector.
        Call this after an event, and before its actions are performed: the leases carry the range's number.
        """
        granted, self.leasing.granted = self.leasing.granted, []
        if not granted or self.training.settings is None:
            return
        memory, step = self._memory, self.training.ledger.step
        if memory is None or not self._find_limits(step, now) or any(isinstance(action, Save) for action in self.out):
            return
        leases = [(member, member.task) for member, _, _ in granted if isinstance(member.task, Lease)]
        if sum(lease.stop - lease.start for _, lease in leases if lease.step == step.number) != step.shards:
            return
        if not all(is_node(lease.start, lease.stop, step.shards) for _, lease in leases):
            return
        leases.sort(key=lambda pair: pair[1].start)
        self._name_next(memory.board)
        seats = memory.seat([(member.peer, lease.start, lease.stop) for member, lease in leases])
        if seats is None:
            return
        self._board, self._seats, self.leases, self.shared = memory.board, seats, leases, True
        self._seconds = [seat.numbers[SECONDS] for seat in seats]
        self.until = min(self.until, until)
        self._begin(now)
        for _, lease in leases:
            lease.range, lease.end = self.number, self.end

    def _name_next(self, board: Board) -> None:
        """Write the number of the next range to the board, before the table: a worker that is late can then tell."""
        self.number += 1
        board.words[RANGE] = self.number
        board.fence()

    def _begin(self, now: float) -> None:
        """Write to the board that the range is open."""
        self.is_open = True
        words, fence, current = self._board.words, self._board.fence, self.training.ledger.step.number
        self._moved = current, now
        words[CURRENT] = current
        words[STOPPED] = 0
        fence()

    def _find_limits(self, step: Step, now: float) -> bool:
        """Set the limits of a range that begins with this step; return False if there can be none."""
        training = self.training
        ledger, steps, settings = training.ledger, training.steps, training.settings
        whole_step_sum = training.weights.whole_step_sum and training.state is RunState.TRAINING
        if not (whole_step_sum and step.fully_leased) or ledger.evaluations or training.failure:
            return False
        assert settings is not None
        per_epoch, number = steps.steps_per_epoch, step.number
        epoch_end = number - number % per_epoch + per_epoch  # the first step of the next epoch
        report_at = training.progress.reported + REPORT_SECONDS
        self.end = min(number + RING, ledger.final - 1)
        if steps.shards_of(per_epoch - 1) != steps.shards_of(0):  # an epoch's last step is divided in another way
            self.end = min(self.end, epoch_end - 2)
        elif settings.evaluate or now >= training.progress.reported + EPOCH_SECONDS:
            self.end = min(self.end, epoch_end - 1)
        elif self.end >= epoch_end:
            report_at = training.progress.reported + EPOCH_SECONDS
        self.until = min(training.save_at, report_at)
        return number < self.end and now < self.until

    # One process.

    def try_to_end(self, peer: bytes, lease: Lease, node: Node, weight: float, now: float) -> bool:
        """End the lease's step, in the process of its only worker, and move the lease on to the next; return True.

        `node` is the sum over the step, `weight` the sum of its sample weights (0: samples have none). Returns False,
        and has changed neither weights nor lease, if the step needs more than an update or its sum may not be finite:
        then the contribution has to be sent.
        """
        if not self.is_open and not self._open_alone(peer, lease, now):
            return False
        step = lease.step
        if not (step < self.end and now < self.until and node.vector is not None):
            return False
        if not (math.isfinite(node.loss) and no_overflow(node.vector)):
            return False
        self.at_work = True
        self.training.weights.update(node.vector)
        self._board.write_losses(step, node.loss, weight)
        lease.step = lease.version = self._board.words[CURRENT] = step + 1
        self.at_work = False
        return True

    def _open_alone(self, peer: bytes, lease: Lease, now: float) -> bool:
        """Open a range for the only worker, if it is in this process and has the whole step; return whether it is."""
        member, step = self.leasing.members.get(peer), self.training.ledger.step
        is_only_task = member is not None and member.task is lease and len(self.leasing.members) == 1
        if not is_only_task or self._memory is not None or not self._find_limits(step, now):
            return False
        assert member is not None
        self.leases, self._seats, self.shared = [(member, lease)], [], False
        self._name_next(self._board)
        self._begin(now)
        return True

    # Closing.

    def check(self, now: float) -> None:
        """Close the range if that is due, or if no step has ended for so long that a worker may be in trouble."""
        if not self.is_open:
            return
        current, (seen, since) = self._board.words[CURRENT], self._moved
        if current != seen:
            self._moved = current, now
        shards = max(lease.stop - lease.start for _, lease in self.leases)
        patience = max(PATIENCE_SECONDS, SLOW * self.leasing.throughput.seconds * shards)
        if now >= self.until or (current == seen and now - since > patience):
            self.close(now)

    def close(self, now: float) -> None:
        """Close the range, if one is open: take over the steps that have ended; the leases are ordinary ones again.

        If a process that is stopped holds the lock, go on in other memory: all workers have to join again.
        """
        if not self.is_open:
            return
        self.is_open = False
        board, memory = self._board, self._memory
        stopped = False  # whether the holder of the lock is
        if self.shared:
            assert memory is not None
            if self.reach is not None:
                self.reach("closing", board.words[CURRENT])
            stopped = not memory.lock.acquire()
            if stopped:
                self._name_next(board)  # so that nobody else begins to end a step there
            else:
                board.words[STOPPED] = board.words[CURRENT] + 1
                board.fence()
                memory.lock.release()
            if self.reach is not None:
                self.reach("closed", board.words[CURRENT])
        self._take_over(board.words[CURRENT], now)
        if stopped:
            self._leave_memory()
        elif self.shared:
            assert memory is not None
            memory.wake()

    def _take_over(self, current: int, now: float) -> None:
        """Take over the steps below `current`, which have ended in the range."""
        training, ledger = self.training, self.training.ledger
        first = ledger.step.number
        count = current - first
        for index, (member, lease) in enumerate(self.leases):
            lease.range = lease.end = 0
            if count:
                self._count(index, member, lease, count, now)
                lease.step = lease.version = current  # the worker may not know of the last: it gets the weights again
        if not count:
            return
        self.steps += count
        training.weights.advance(current)
        ledger.advance_in_place(count)
        progress, steps = training.progress, training.steps
        per_epoch, usual = steps.steps_per_epoch, steps.samples_of(0)
        for number in range(first, current):
            loss, weight = self._board.read_losses(number)
            ends_epoch = (number + 1) % per_epoch == 0
            samples = steps.samples_of(number) if ends_epoch else usual
            progress.step(loss, samples, weight or samples)
            if ends_epoch or number == current - 1:
                training.conclude(number, now, len(self.leasing.members))

    def _count(self, index: int, member: WorkerInfo, lease: Lease, steps: int, now: float) -> None:
        """Count the steps of a worker in the range, and the time that it has computed."""
        shards = lease.stop - lease.start
        member.shards += steps * shards
        if not self._seats:
            member.task_ends(now, 0.0)
            return
        seconds = self._seats[index].numbers[SECONDS] - self._seconds[index]
        self.leasing.throughput.measure(member, shards, seconds / steps, now)
        member.leased += seconds  # the remaining time it has waited for the others
        member.computed += seconds
        member.since, member.notice_at = now, now + NOTICE_SECONDS

    def _leave_memory(self) -> None:
        """Copy the weights to other memory, and have all workers join again to get it."""
        leasing = self.leasing
        self.training.weights.leave_memory()
        self.training.notice(
            f"a worker has stopped while it ended step {self.training.number}: the run goes on in other memory, "
            "without waiting for it"
        )
        leasing.forget_division()
        for peer, member in list(leasing.members.items()):
            del leasing.members[peer]
            leasing.waiting.pop(peer, None)
            leasing.revoke(member)
            self.out.append(Send(peer, Rejoin()))
