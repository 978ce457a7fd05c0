"""The server's side of shared memory: the segments' owner, who reads contributions and writes leases there."""

import contextlib
import os
from collections.abc import Callable

from karp.parameters import Layout
from karp.protocol.messages import Contribution, Lease
from karp.protocol.tree import Node, Vector
from karp.transport.segment import (
    ASLEEP,
    CHANGES,
    CONTRIBUTION,
    GIVEN,
    IN,
    LEASE,
    OUT,
    READ,
    READY,
    SENT,
    VERSION,
    Segment,
    fence,
    not_shared,
    reason,
    wake,
)


class SharedServer:
    """The weights in shared memory, a slot for each worker, and the pipe that wakes the server.

    `say` gets a line where memory cannot be had; messages then travel as frames.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.layout: Layout
        self.weights: Segment | None = None
        self.slots: dict[bytes, SharedSlot] = {}
        self.wakeup, self.wakeup_end = os.pipe()  # the server reads one end, its workers write to the other
        os.set_blocking(self.wakeup, False)
        os.set_blocking(self.wakeup_end, False)

    def allocate(self, layout: Layout) -> Vector | None:
        """Allocate the vector of the weights; if there is no memory for it, tell the user and return None."""
        self.layout = layout
        try:
            self.weights = Segment.make(layout)
        except OSError as error:
            self.say(not_shared("workers", reason(error)))
            return None
        return self.weights.vector

    def begin_write(self) -> None:
        """Mark the weights as being written."""
        assert self.weights is not None
        self.weights.words[CHANGES] += 1
        fence()

    def end_write(self, version: int) -> None:
        """Mark the weights as complete, and of this version."""
        assert self.weights is not None
        self.weights.words[VERSION] = version
        fence()
        self.weights.words[CHANGES] += 1
        fence()

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

    def close(self) -> None:
        for peer in list(self.slots):
            self.forget(peer)
        if self.weights is not None:
            self.weights.close()
        os.close(self.wakeup)
        os.close(self.wakeup_end)


class SharedSlot:
    """The server's side of one worker's segment."""

    def __init__(self, layout: Layout) -> None:
        self.wakeup, self.wakeup_end = os.pipe()  # the worker reads one end, the server writes to the other
        try:
            self.segment = Segment.make(layout)
        except OSError:
            os.close(self.wakeup)
            os.close(self.wakeup_end)
            raise
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
            self.segment.memory, IN, lease.number, lease.step, lease.start, lease.stop, lease.version, new
        )
        fence()
        self.leases_written += 1
        words[GIVEN] = self.leases_written
        fence()
        if words[ASLEEP]:
            words[ASLEEP] = 0
            wake(self.wakeup_end)
        return True

    def close(self) -> None:
        self.segment.close()
        os.close(self.wakeup)
        os.close(self.wakeup_end)
