"""A worker's side of shared memory: it reads weights and leases there, writes gradients, and ends steps in ranges."""

import contextlib
import os
import time

import numpy as np

from karp import faults
from karp.optim import Optimizer
from karp.parameters import Layout
from karp.protocol.messages import Contribution, Lease
from karp.protocol.ranges import CURRENT, RANGE, Copies, Participant, Seat, state_names
from karp.protocol.tree import Vector
from karp.protocol.vectors import no_overflow
from karp.transport.lock import FileLock
from karp.transport.segment import (
    ASLEEP,
    CONTRIBUTION,
    COPIES,
    GIVEN,
    IN,
    LEASE,
    OUT,
    READ,
    READY,
    SENT,
    TABLE,
    TABLE_ENTRY,
    TABLE_HEAD,
    WEIGHTS_HEAD,
    Segment,
    fence,
    open_file,
    open_pipe,
    wake,
)

RANGE_SECONDS = 3.0  # after so long in a range a worker sends a contribution, to learn whether there is a server


class SharedWorker:
    """The server's weights and this worker's slot, opened in the worker's process."""

    def __init__(self, invitation: str, layout: Layout, optimizer: Optimizer) -> None:
        """Open the memory and the pipes that the server's invitation names; raises OSError if that fails."""
        try:
            process, weights, slot, server_wakeup, wakeup, bell, lock = map(int, invitation.split()[:7])
            weights_token, slot_token = invitation.split()[7:]
        except ValueError:
            raise OSError("the invitation cannot be read") from None
        vectors = 1 + len(state_names(optimizer))
        with contextlib.ExitStack() as undo:
            self.weights = Segment.open(process, weights, weights_token, layout, WEIGHTS_HEAD, 2 * vectors)
            undo.callback(self.weights.close)
            self.slot = Segment.open(process, slot, slot_token, layout)
            undo.callback(self.slot.close)
            self.server_wakeup = open_pipe(process, server_wakeup, os.O_WRONLY)
            undo.callback(os.close, self.server_wakeup)
            self.wakeup = open_pipe(process, wakeup, os.O_RDONLY)
            undo.callback(os.close, self.wakeup)
            self.bell = open_pipe(process, bell, os.O_RDONLY)
            undo.callback(os.close, self.bell)
            self.lock = FileLock(open_file(process, lock), patience=0.0)
            undo.pop_all()
        self.process = process
        self.layout = layout
        self.words = self.slot.words
        board = self.weights.board()
        self.board_words = board.words
        copies = [self.weights.vectors[:vectors], self.weights.vectors[vectors:]]
        self.copies = Copies(optimizer, copies, board)
        self.readable = tuple(readable(vectors[0]) for vectors in copies)
        seat = self.slot.seat(0, 0)
        reach = None if faults.PLAN is None else self._reach
        self.participant = Participant(board, self.copies, self.lock, seat.words, seat.numbers, reach)
        self.neighbours: dict[str, Neighbour] = {}  # token -> a worker that has taken part in a range
        self.table = b""  # that of the last range
        self.seats: list[Seat] = []
        self.range_until = 0.0
        self.sent = 0  # the number of contributions written
        self.read = 0  # the number of leases read
        self.words[READY] = 1

    def send(self, contribution: Contribution) -> bool:
        """Put a contribution into the mailbox, and return True.

        Return False if it does not fit: it must be one vector without logs, reason or the program's wish to stop.
        """
        if len(contribution.nodes) != 1 or contribution.logs or contribution.last or contribution.reason:
            return False
        node = contribution.nodes[0]
        if node.vector is None:
            return False
        if node.vector is not self.slot.vector:
            np.copyto(self.slot.vector, node.vector)
        CONTRIBUTION.pack_into(
            self.slot.memory, OUT, contribution.step, contribution.version, node.start, node.stop, node.loss,
            contribution.seconds, no_overflow(node.vector), *(contribution.sample_weights or (0.0, 0.0)),
        )
        faults.reach("half-sent", step=contribution.step)
        fence()
        self.sent += 1
        self.words[SENT] = self.sent
        fence()
        if self.weights.words[ASLEEP]:
            self.weights.words[ASLEEP] = 0
            wake(self.server_wakeup)
        return True

    def read_lease(self) -> Lease | None:
        """Read the lease in the mailbox, which then counts as read; None if its weights have been overwritten already.

        Call it only if there is an unread lease.
        """
        number, step, start, stop, version, new, in_range, end = LEASE.unpack_from(self.slot.memory, IN)
        self.read += 1
        self.words[READ] = self.read
        if new and not self.copies.holds(version):
            return None
        weights = self.readable[version % 2] if new else None
        lease = Lease(number, step, start, stop, version, weights, False, in_range, end)
        if in_range and not self._enter(lease):
            lease.range = 0
        return lease

    # Ranges.

    def _enter(self, lease: Lease) -> bool:
        """Take part in the range of a lease; return False if that is not possible: the lease is an ordinary one."""
        if "raise" in np.geterr().values():  # a setting of the program's must not hold for updates
            return False
        count, shards = TABLE_HEAD.unpack_from(self.weights.memory, TABLE)
        table = self.weights.memory[TABLE : TABLE + TABLE_HEAD.size + count * TABLE_ENTRY.size]
        fence()
        if self.board_words[RANGE] != lease.range:  # the table may be that of a later range
            return False
        if table != self.table:
            try:
                self.seats = self._open_seats(table)
            except OSError:
                return False
            self.table = table
        self.participant.enter(lease.range, lease.end, self.seats, shards)
        self.range_until = time.monotonic() + RANGE_SECONDS
        return True

    def _open_seats(self, table: bytes) -> list[Seat]:
        """Return the seats of a table, in its order, and close those that are not in it; raises OSError."""
        seats, known = [], self.neighbours
        neighbours: dict[str, Neighbour] = {}
        for at in range(TABLE_HEAD.size, len(table), TABLE_ENTRY.size):
            slot, bell, start, stop, raw_token = TABLE_ENTRY.unpack_from(table, at)
            token = raw_token.hex()
            if token == self.slot.token:
                seats.append(self.slot.seat(start, stop)._replace(words=self.participant.words))
                continue
            if token not in known:
                known[token] = Neighbour(self.process, slot, bell, token, self.layout)
            neighbours[token] = known[token]
            seats.append(known[token].slot.seat(start, stop))
        for token in known.keys() - neighbours.keys():
            known[token].close()
        self.neighbours = neighbours
        return seats

    def arrive(self, step: int, loss: float, gradient: Vector, weight: float, seconds: float) -> bool | None:
        """Arrive at a step with a gradient that is finite and moderate; end the step if all have arrived.

        Returns whether it has ended, or None if that is not known yet.
        """
        if gradient is not self.slot.vector:
            np.copyto(self.slot.vector, gradient)
        faults.reach("arriving", step=step)
        ended = self.participant.arrive(step, loss, weight, seconds)
        if ended:
            self.wake_neighbours()
        return ended

    def try_to_end(self, step: int) -> bool:
        """End a step, at which this worker has arrived, if all have and nobody else does it; return whether it did."""
        if not self.participant.try_to_end(step):
            return False
        self.wake_neighbours()
        return True

    def _reach(self, point: str, step: int) -> None:
        """Reach a point of a test's faults; before the update one at which half of the next weights are written."""
        faults.reach(point, step=step)
        if point == "ending":
            target = self.copies.at(step + 1)
            for vector in (target.weights, *target.state.values()):
                vector[: len(vector) // 2] = np.nan
            faults.reach("half-ended", step=step)

    def wake_neighbours(self) -> None:
        """Wake the other workers of the range that sleep."""
        for neighbour in self.neighbours.values():
            if neighbour.words[ASLEEP]:
                neighbour.words[ASLEEP] = 0
                wake(neighbour.bell)

    def silence_bell(self) -> None:
        """Empty the pipe by which the other workers wake this one."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.bell, 1 << 12)

    def copy(self, into: Vector) -> None:
        """Copy the weights of any one version; if they are overwritten again and again meanwhile, as they are."""
        for _ in range(COPIES):
            version = self.board_words[CURRENT]
            np.copyto(into, self.readable[version % 2])
            fence()
            if self.copies.holds(version):
                return
            os.sched_yield()

    def has_lease(self) -> bool:
        """Return whether an unread lease is in the mailbox."""
        return bool(self.words[GIVEN] != self.read)

    def set_asleep(self, asleep: bool) -> None:
        """Tell the server and the other workers whether this worker has to be woken."""
        self.words[ASLEEP] = asleep
        fence()

    def drain_wakeups(self) -> bool:
        """Empty the wakeup pipe; False if the server is gone."""
        try:
            return bool(os.read(self.wakeup, 1 << 12))
        except BlockingIOError:
            return True

    def close(self) -> None:
        for neighbour in self.neighbours.values():
            neighbour.close()
        self.weights.close()
        self.slot.close()
        self.lock.close()
        for pipe in (self.wakeup, self.bell, self.server_wakeup):
            os.close(pipe)


class Neighbour:
    """Another worker in shared memory: its slot, and the pipe that wakes it."""

    def __init__(self, process: int, slot: int, bell: int, token: str, layout: Layout) -> None:
        """Open what the server's process has under these numbers; raises OSError if that fails."""
        self.slot = Segment.open(process, slot, token, layout)
        try:
            self.bell = open_pipe(process, bell, os.O_WRONLY)
        except OSError:
            self.slot.close()
            raise
        self.words = self.slot.words
        self.slot.vector.flags.writeable = False

    def close(self) -> None:
        self.slot.close()
        os.close(self.bell)


def readable(vector: Vector) -> Vector:
    """Return a read-only view of a vector."""
    view = vector.view()
    view.flags.writeable = False
    return view
