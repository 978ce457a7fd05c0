"""The server's side of shared memory: the weights, a slot for each worker, the pipe that wakes the server."""

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
    ring,
)


class Exchange:
    """The server's side: the weights, a slot for each worker, the pipe that wakes the server.

    `say` is told where memory cannot be had; frames then do.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.layout: Layout
        self.weights: Segment | None = None
        self.slots: dict[bytes, Slot] = {}
        self.unopened: dict[bytes, str] = {}  # workers that cannot open theirs, and why
        self.bell, self.bell_end = os.pipe()
        os.set_blocking(self.bell, False)
        os.set_blocking(self.bell_end, False)

    def allocate(self, layout: Layout) -> Vector | None:
        """The vector of the weights; None if there is no memory for it."""
        self.layout = layout
        try:
            self.weights = Segment.make(layout)
        except OSError as error:
            self.say(not_shared("workers", reason(error)))
            return None
        return self.weights.vector

    def begin_write(self) -> None:
        """The weights are about to change."""
        assert self.weights is not None
        self.weights.words[CHANGES] += 1
        fence()

    def end_write(self, version: int) -> None:
        """The weights are now those of this version."""
        assert self.weights is not None
        self.weights.words[VERSION] = version
        fence()
        self.weights.words[CHANGES] += 1
        fence()

    def invite(self, peer: bytes) -> str:
        """A slot for a worker that has joined, in the words of a Welcome; '' before there are weights."""
        if self.weights is None:
            return ""
        self.forget(peer)
        try:
            slot = self.slots[peer] = Slot(self.layout)
        except OSError as error:
            self.say(not_shared("a worker", reason(error)))
            return ""
        process = os.readlink("/proc/self")  # its number as /proc has it, which may be that of another PID namespace
        numbers = [self.weights.descriptor, slot.segment.descriptor, self.bell_end, slot.bell]
        return " ".join([process, *map(str, numbers), self.weights.token, slot.segment.token])

    def forget(self, peer: bytes) -> None:
        """This worker needs no slot any more; what it has contributed stays as long as it is needed."""
        slot = self.slots.pop(peer, None)
        if slot is not None:
            slot.close()

    def receive(self) -> tuple[bytes, Contribution] | None:
        """A contribution from a mailbox, if there is one."""
        for peer, slot in self.slots.items():
            words = slot.words
            if words[SENT] != slot.taken:
                slot.taken = words[SENT]
                return peer, slot.contribution()
        return None

    def waiting(self) -> bool:
        """Whether a contribution is in a mailbox."""
        for slot in self.slots.values():  # noqa: SIM110  (a generator takes three times as long)
            if slot.words[SENT] != slot.taken:
                return True
        return False

    def sleep(self, asleep: bool) -> None:
        """Workers are to ring the bell, or need not."""
        if self.weights is not None:
            self.weights.words[ASLEEP] = asleep
            fence()

    def drain(self) -> None:
        """The bell has been heard."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.bell, 1 << 12)

    def close(self) -> None:
        for peer in list(self.slots):
            self.forget(peer)
        if self.weights is not None:
            self.weights.close()
        os.close(self.bell)
        os.close(self.bell_end)


class Slot:
    """The server's side of one worker's segment."""

    def __init__(self, layout: Layout) -> None:
        self.bell, self.bell_end = os.pipe()
        try:
            self.segment = Segment.make(layout)
        except OSError:
            os.close(self.bell)
            os.close(self.bell_end)
            raise
        self.words = self.segment.words
        self.taken = 0
        self.given = 0
        os.set_blocking(self.bell_end, False)

    def contribution(self) -> Contribution:
        step, version, start, stop, loss, seconds, fine = CONTRIBUTION.unpack_from(self.segment.memory, OUT)
        nodes = [Node(start, stop, loss, self.segment.vector)]
        return Contribution(step, version, nodes, [], False, 0, seconds, fine == 1)

    def give(self, lease: Lease) -> bool:
        """Put a lease into the mailbox; False if the worker has not opened it, or not read the last one."""
        words = self.words
        if not words[READY] or words[READ] != self.given or lease.suspect:
            return False
        new = lease.weights is not None
        LEASE.pack_into(
            self.segment.memory, IN, lease.number, lease.step, lease.start, lease.stop, lease.version, new
        )
        fence()
        self.given += 1
        words[GIVEN] = self.given
        fence()
        if words[ASLEEP]:
            words[ASLEEP] = 0
            ring(self.bell_end)
        return True

    def close(self) -> None:
        self.segment.close()
        os.close(self.bell)
        os.close(self.bell_end)
