"""Shared memory between a server and the workers on its host: the per-step messages without a socket.

The server owns one segment with the weights and one for each worker with a gradient slot and two mailboxes, one each
way. A segment has no name: it is an anonymous file of the server's (memfd) which a worker opens through /proc, where
only the same user may, so nothing can be left behind, whoever is killed. A worker that cannot open it is on another
host, in another container or another user's, and goes on with frames; a token tells a segment from a stranger's.

A contribution of one vector and a lease fit the mailboxes; everything else goes over ZeroMQ as ever, and the protocol
does not mind which of two messages on different ways comes first. Workers compute on the weights where they are. A
counter that is odd while they are written tells a worker that it is too late to begin; if they change later, then its
step has been completed by others, and what it contributes to it is dropped.

Whether a gradient is finite is looked at by its worker, all of them at the same time and each in its own cache. The
server looks at those that are not, and at all that come over a wire. (Who has this memory is believed, as he could
write to the weights themselves.)

Whoever waits spins, that is tries its mailbox for a bounded time, yielding the processor between the tries, and then
sleeps on a pipe: it says so in the segment, and the other end writes a byte. A flag that is seen too late costs the
time of one poll, not the run. A spin in vain takes little from anybody: whoever else wants the processor gets it at
each try.
"""

import contextlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable

import numpy as np

from karp import faults
from karp.parameters import Layout
from karp.protocol.messages import Contribution, Lease
from karp.protocol.step import moderate
from karp.protocol.tree import Node, Vector

HEAD = 4096  # bytes before the vector of a segment
TOKEN = 16
SERVER_SPIN_SECONDS = 0.0005
WORKER_SPIN_SECONDS = 0.002  # a worker has nothing else to do, and once asleep it may be woken on another's core
CAN_YIELD = hasattr(os, "sched_yield")
COPIES = 1000  # tried
# uint64 words of a head, after the token
READY, SENT, TAKEN, GIVEN, READ, ASLEEP, VERSION, CHANGES = range(2, 10)
OUT, IN = 256, 512  # where the worker's and the server's mailbox begin
CONTRIBUTION = struct.Struct("<QQQQddQ")  # step, version, start, stop, loss, seconds, whether the vector is moderate
LEASE = struct.Struct("<QQQQQQ")  # number, step, start, stop, version, whether the weights are new

_fence = threading.Lock()


def fence() -> None:
    """What was written before is seen before what is written after, on processors that reorder writes too."""
    _fence.acquire()
    _fence.release()


def spin(ready: Callable[[], object], seconds: float) -> bool:
    """Try for so long at most, yielding the processor between the tries; whether it is ready."""
    until = time.perf_counter() + seconds
    while not ready():
        if not CAN_YIELD or time.perf_counter() > until:
            return False
        os.sched_yield()
    return True


def trouble() -> str:
    """Why this system has not what the segments need; '' if it has."""
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        return "it takes Linux with /proc"
    try:
        os.close(os.memfd_create("karp", os.MFD_CLOEXEC))
    except OSError as error:
        return f"memfd_create: {error.strerror}"
    return ""


class Segment:
    """A head of words and mailboxes, then a vector."""

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self.descriptor = descriptor
        self.memory = mmap.mmap(descriptor, HEAD + layout.nbytes)
        self.words = memoryview(self.memory)[:HEAD].cast("Q")
        self.vector: Vector = np.frombuffer(self.memory, layout.dtype, layout.size, HEAD)

    @classmethod
    def make(cls, layout: Layout) -> "Segment":
        """A fresh one, zero but for its token."""
        descriptor = os.memfd_create("karp", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, HEAD + layout.nbytes)
            segment = cls(descriptor, layout)
        except OSError:
            os.close(descriptor)
            raise
        segment.memory[:TOKEN] = os.urandom(TOKEN)
        return segment

    @classmethod
    def find(cls, process: int, descriptor: int, token: str, layout: Layout) -> "Segment":
        """Another process's; raises OSError if it cannot be had, or is not the one that was meant."""
        mine = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(mine).st_size != HEAD + layout.nbytes:
            os.close(mine)
            raise OSError("it is another process's file")
        segment = cls(mine, layout)
        if segment.token != token:
            segment.close()
            raise OSError("it is another run's file")
        return segment

    @property
    def token(self) -> str:
        return self.memory[:TOKEN].hex()

    def close(self) -> None:
        """Let go of the descriptor; the memory goes with the last array on it."""
        os.close(self.descriptor)


class Exchange:
    """The server's side: the weights, a slot for each worker, the pipe that wakes the server.

    `say` is told where memory cannot be had; frames then do.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.layout: Layout
        self.weights: Segment | None = None
        self.slots: dict[bytes, Slot] = {}
        self.bell, self.bell_end = os.pipe()
        os.set_blocking(self.bell, False)
        os.set_blocking(self.bell_end, False)

    def allocate(self, layout: Layout) -> Vector | None:
        """The vector of the weights; None if there is no memory for it."""
        self.layout = layout
        try:
            self.weights = Segment.make(layout)
        except OSError as error:
            self.say(f"no memory is shared with workers ({error.strerror}): gradients and weights travel as frames")
            return None
        return self.weights.vector

    def writing(self, version: int) -> None:
        """The weights are about to change, or, with the version they have now, have changed."""
        if self.weights is not None:
            words = self.weights.words
            if version >= 0:
                words[VERSION] = version
                fence()
            words[CHANGES] += 1
            fence()

    def invite(self, peer: bytes) -> str:
        """A slot for a worker that has joined, in the words of a Welcome; '' before there are weights."""
        if self.weights is None:
            return ""
        self.forget(peer)
        try:
            slot = self.slots[peer] = Slot(self.layout)
        except OSError as error:
            self.say(f"no memory is shared with a worker ({error.strerror}): its gradients travel as frames")
            return ""
        numbers = [os.getpid(), self.weights.descriptor, slot.segment.descriptor, self.bell_end, slot.bell]
        return " ".join([*map(str, numbers), self.weights.token, slot.segment.token])

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
        self.missed = 0  # leases while the worker had not opened it
        os.set_blocking(self.bell_end, False)

    @property
    def unopened(self) -> bool:
        """Whether the worker cannot open it: it has answered a lease, and so had read the invitation before."""
        return self.missed > 1 and not self.words[READY]

    def contribution(self) -> Contribution:
        step, version, start, stop, loss, seconds, fine = CONTRIBUTION.unpack_from(self.segment.memory, OUT)
        nodes = [Node(start, stop, loss, self.segment.vector)]
        return Contribution(step, version, nodes, [], False, 0, seconds, fine == 1)

    def give(self, lease: Lease) -> bool:
        """Put a lease into the mailbox; False if the worker has not opened it, or not read the last one."""
        words = self.words
        if not words[READY] or words[READ] != self.given:
            self.missed += not words[READY]
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


class Place:
    """The worker's side: where it reads weights and leases, and writes gradients."""

    def __init__(self, invitation: str, layout: Layout) -> None:
        """Raises OSError where the server's segments cannot be had."""
        try:
            process, weights, slot, bell, mine = map(int, invitation.split()[:5])
            weights_token, slot_token = invitation.split()[5:]
        except ValueError:
            raise OSError("the invitation cannot be read") from None
        self.weights = Segment.find(process, weights, weights_token, layout)
        self.slot = Segment.find(process, slot, slot_token, layout)
        self.words = self.slot.words
        self.weights.vector.flags.writeable = False
        self.server_bell = os.open(f"/proc/{process}/fd/{bell}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.bell = os.open(f"/proc/{process}/fd/{mine}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.sent = 0
        self.read = 0
        self.changes = 0  # of the weights, when a lease brought them
        self.words[READY] = 1

    def send(self, contribution: Contribution) -> bool:
        """Put a contribution into the mailbox; False if it does not fit, or the last one has not been taken."""
        if len(contribution.nodes) != 1 or contribution.logs or contribution.last:
            return False
        node = contribution.nodes[0]
        if node.vector is None:
            return False
        if node.vector is not self.slot.vector:
            np.copyto(self.slot.vector, node.vector)
        CONTRIBUTION.pack_into(
            self.slot.memory, OUT, contribution.step, contribution.version, node.start, node.stop, node.loss,
            contribution.seconds, moderate(node.vector),
        )
        faults.reach("half-sent", step=contribution.step)
        fence()
        self.sent += 1
        self.words[SENT] = self.sent
        fence()
        if self.weights.words[ASLEEP]:
            self.weights.words[ASLEEP] = 0
            ring(self.server_bell)
        return True

    def lease(self) -> Lease | None:
        """The lease in the mailbox; None if its weights have been overwritten already."""
        number, step, start, stop, version, new = LEASE.unpack_from(self.slot.memory, IN)
        self.read += 1
        self.words[READ] = self.read
        if new:
            self.changes = self.weights.words[CHANGES]
            if self.changes % 2 or self.weights.words[VERSION] != version:
                return None
        return Lease(number, step, start, stop, version, self.weights.vector if new else None)

    @property
    def changed(self) -> bool:
        """Whether the weights have been written to since a lease brought them."""
        fence()
        return bool(self.weights.words[CHANGES] != self.changes)

    def copy(self, into: Vector) -> None:
        """The weights of one version, whichever it is; of a server that died while it wrote, what is there."""
        for _ in range(COPIES):
            before = self.weights.words[CHANGES]
            np.copyto(into, self.weights.vector)
            fence()
            if before % 2 == 0 and self.weights.words[CHANGES] == before:
                return
            os.sched_yield()

    def waiting(self) -> bool:
        """Whether a lease is in the mailbox."""
        return bool(self.words[GIVEN] != self.read)

    def sleep(self, asleep: bool) -> None:
        """The server is to ring the bell, or need not."""
        self.words[ASLEEP] = asleep
        fence()

    def drain(self) -> bool:
        """The bell has been heard, if it rang; False if the server is gone."""
        try:
            return bool(os.read(self.bell, 1 << 12))
        except BlockingIOError:
            return True

    def close(self) -> None:
        self.weights.close()
        self.slot.close()
        os.close(self.bell)
        os.close(self.server_bell)


def ring(bell: int) -> None:
    """Wake whoever sleeps on the other end; a pipe that is full has rung already."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(bell, b"!")
