"""The server's side of shared memory: the segments' owner, who reads contributions and writes leases there."""

import contextlib
import os
from collections.abc import Callable, Sequence

from karp.parameters import Layout
from karp.protocol.messages import Contribution, Lease
from karp.protocol.ranges import Board, Seat
from karp.protocol.tree import Node, Vector
from karp.transport.lock import FileLock
from karp.transport.segment import (
    ASLEEP,
    CONTRIBUTION,
    GIVEN,
    IN,
    LEASE,
    MOST_SEATS,
    OUT,
    READ,
    READY,
    SENT,
    TABLE,
    TABLE_ENTRY,
    TABLE_HEAD,
    TOKEN,
    WEIGHTS_HEAD,
    Segment,
    fence,
    not_shared,
    reason,
    wake,
)

HOLD_SECONDS = 1.0  # who holds the lock for so long, and for these more of a byte of weights and state, is stopped
HOLD_SECONDS_PER_BYTE = 2e-8


class SharedServer:
    """The weights in shared memory, a slot for each worker, and the pipe that wakes the server.

    `say` gets a line where memory cannot be had; messages then travel as frames.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.layout: Layout
        self.weights: Segment | None = None
        self.board: Board
        self.lock: FileLock
        self.seated: list[tuple[SharedSlot, int, int]] = []  # the table of the last range
        self.seats: list[Seat] = []
        self.slots: dict[bytes, SharedSlot] = {}
        self.wakeup, self.wakeup_end = os.pipe()  # the server reads one end, its workers write to the other
        os.set_blocking(self.wakeup, False)
        os.set_blocking(self.wakeup_end, False)

    def allocate(self, layout: Layout, vectors: int) -> list[list[Vector]] | None:
        """Allocate two copies of so many vectors; if there is no memory for them, tell the user and return None.

        The slots of all workers are closed, as they belong to earlier memory.
        """
        self._close_memory()
        self.layout = layout
        try:
            lock = FileLock.make(HOLD_SECONDS + 2 * vectors * layout.nbytes * HOLD_SECONDS_PER_BYTE)
            try:
                self.weights = Segment.make(layout, WEIGHTS_HEAD, 2 * vectors)
            except OSError:
                lock.close()
                raise
        except OSError as error:
            self.say(not_shared("workers", reason(error)))
            return None
        self.board, self.lock = self.weights.board(), lock
        return [self.weights.vectors[:vectors], self.weights.vectors[vectors:]]

    def seat(self, leases: Sequence[tuple[bytes, int, int]]) -> list[Seat] | None:
        """Write the table of the next range: (peer, start, stop) in order of shards; return the seats.

        Return None, and change nothing, if a worker has not opened its slot, or if they are too many.
        """
        slots = [self.slots.get(peer) for peer, _, _ in leases]
        opened = [slot for slot in slots if slot is not None and slot.words[READY]]
        if len(opened) < len(leases) or len(leases) > MOST_SEATS:
            return None
        seated = [(slot, start, stop) for slot, (_, start, stop) in zip(opened, leases, strict=True)]
        if seated != self.seated:
            assert self.weights is not None
            TABLE_HEAD.pack_into(self.weights.memory, TABLE, len(seated), leases[-1][2])
            for index, (slot, start, stop) in enumerate(seated):
                at = TABLE + TABLE_HEAD.size + index * TABLE_ENTRY.size
                segment = slot.segment
                token = segment.memory[:TOKEN]
                TABLE_ENTRY.pack_into(
                    self.weights.memory, at, segment.descriptor, slot.bell_end, start, stop, token
                )
            fence()
            self.seated = seated
            self.seats = [slot.segment.seat(start, stop) for slot, start, stop in seated]
        return self.seats

    def wake(self) -> None:
        """Wake the workers that sleep."""
        for slot in self.slots.values():
            slot.wake()

    def invite(self, peer: bytes) -> str:
        """Allocate a slot for a worker that has joined; return the invitation to it, which goes with the Welcome.

        Returns '' if the weights are not in shared memory, or there is no memory for the slot (the user is told).
        """
        if self.weights is None:
            return ""
        self.forget(peer)
        try:
            slot = self.slots[peer] = SharedSlot(self.layout)
        except OSError as error:
            self.say(not_shared("a worker", reason(error)))
            return ""
        process = os.readlink("/proc/self")  # the number that /proc uses, which may be of another PID namespace
        numbers = [self.weights.descriptor, slot.segment.descriptor, self.wakeup_end, slot.wakeup]
        numbers += [slot.bell, self.lock.descriptor]
        return " ".join([process, *map(str, numbers), self.weights.token, slot.segment.token])

    def forget(self, peer: bytes) -> None:
        """Close the slot of a worker; a contribution in it stays readable as long as an array refers to it."""
        slot = self.slots.pop(peer, None)
        if slot is not None:
            slot.close()

    def receive(self) -> tuple[bytes, Contribution] | None:
        """Return an unread contribution and its worker; None if every mailbox is read."""
        for peer, slot in self.slots.items():
            words = slot.words
            if words[SENT] != slot.contributions_read:
                slot.contributions_read = words[SENT]
                return peer, slot.contribution()
        return None

    def has_contribution(self) -> bool:
        """Return whether an unread contribution is in a mailbox."""
        for slot in self.slots.values():  # noqa: SIM110  (a generator takes three times as long)
            if slot.words[SENT] != slot.contributions_read:
                return True
        return False

    def set_asleep(self, asleep: bool) -> None:
        """Tell the workers whether the server has to be woken."""
        if self.weights is not None:
            self.weights.words[ASLEEP] = asleep
            fence()

    def drain_wakeups(self) -> None:
        """Empty the wakeup pipe."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup, 1 << 12)

    def _close_memory(self) -> None:
        """Close the weights and the slots of all workers; what lies there stays readable while arrays refer to it."""
        for peer in list(self.slots):
            self.forget(peer)
        if self.weights is not None:
            self.weights.close()
            self.lock.close()
            self.weights, self.seated, self.seats = None, [], []

    def close(self) -> None:
        self._close_memory()
        os.close(self.wakeup)
        os.close(self.wakeup_end)


class SharedSlot:
    """The server's side of one worker's segment."""

    def __init__(self, layout: Layout) -> None:
        with contextlib.ExitStack() as undo:
            self.wakeup, self.wakeup_end = os.pipe()  # the worker reads one end, the server writes to the other
            undo.callback(self._close_pipes, self.wakeup, self.wakeup_end)
            self.bell, self.bell_end = os.pipe()  # the same for the other workers
            undo.callback(self._close_pipes, self.bell, self.bell_end)
            self.segment = Segment.make(layout)
            undo.pop_all()
        self.words = self.segment.words
        self.contributions_read = 0
        self.leases_written = 0
        os.set_blocking(self.wakeup_end, False)

    def contribution(self) -> Contribution:
        """Return the contribution in the mailbox; its vector is the slot's own, not a copy."""
        step, version, start, stop, loss, seconds, no_overflow, *sums = CONTRIBUTION.unpack_from(
            self.segment.memory, OUT
        )
        nodes = [Node(start, stop, loss, self.segment.vector)]
        return Contribution(step, version, nodes, [], False, 0, seconds, no_overflow == 1, "", sums if sums[0] else [])

    def put(self, lease: Lease) -> bool:
        """Put a lease into the mailbox and return True.

        Return False, and change nothing, if the worker has not opened the slot or has not read the last lease, or if
        the lease is suspect, which does not fit.
        """
        words = self.words
        if not words[READY] or words[READ] != self.leases_written or lease.suspect:
            return False
        new = lease.weights is not None
        LEASE.pack_into(
            self.segment.memory, IN, lease.number, lease.step, lease.start, lease.stop, lease.version, new,
            lease.range, lease.end,
        )  # fmt: skip
        fence()
        self.leases_written += 1
        words[GIVEN] = self.leases_written
        fence()
        self.wake()
        return True

    def wake(self) -> None:
        """Wake the worker if it sleeps."""
        if self.words[ASLEEP]:
            self.words[ASLEEP] = 0
            wake(self.wakeup_end)

    def close(self) -> None:
        self.segment.close()
        self._close_pipes(self.wakeup, self.wakeup_end, self.bell, self.bell_end)

    @staticmethod
    def _close_pipes(*descriptors: int) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
