"""Shared memory between a server and the workers on its host: the per-step messages without a socket.

The server owns one segment with the weights and one for each worker with a gradient slot and two mailboxes, one each
way. A segment has no name: it is an anonymous file of the server's (memfd) which a worker opens through /proc, where
only the same user may, so nothing can be left behind, whoever is killed. (The size of /dev/shm does not matter to it,
but `ulimit -f` does.) A worker that cannot open it is on another host, in a container of its own or another user's; it
says so, and goes on with frames. A token tells a segment from a stranger's.

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
import errno
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable

import numpy as np

from karp.parameters import Layout
from karp.protocol.tree import Vector

HEAD = 4096  # bytes before the vector of a segment
TOKEN = 16
SERVER_SPIN_SECONDS = 0.0005
WORKER_SPIN_SECONDS = 0.002  # a worker has nothing else to do, and once asleep it may be woken on another's core
CAN_YIELD = hasattr(os, "sched_yield")
COPIES = 1000  # tried
# uint64 words of a head, after the token
READY, SENT, TAKEN, GIVEN, READ, ASLEEP, VERSION, CHANGES = range(2, 10)
OUT, IN = 256, 512  # where the worker's and the server's mailbox begin
CONTRIBUTION = struct.Struct("<QQQQddQ")  # step, version, start, stop, loss, seconds, whether no sum of it can overflow
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
        return f"memfd_create: {reason(error)}"
    return ""


def reason(error: OSError) -> str:
    """Why there is no memory to share, in the system's words, and what that means here.

    >>> reason(OSError(errno.EFBIG, "File too large"))
    'File too large: ulimit -f counts for it, too'
    """
    said = error.strerror or str(error)
    means = MEANINGS.get(error.errno or errno.ENOENT)
    return f"{said}: {means}" if means else said


ELSEWHERE = "it is on another host, or in a container with processes of its own (docker run --pid=… shares them)"
FORBIDDEN = "it is another user's process, or its container forbids it"
MEANINGS = {
    errno.ENOENT: ELSEWHERE,
    errno.ESRCH: ELSEWHERE,
    errno.EACCES: FORBIDDEN,
    errno.EPERM: FORBIDDEN,
    errno.ENOSYS: "its container forbids it",
    errno.EFBIG: "ulimit -f counts for it, too",
    errno.EMFILE: "raise ulimit -n",
    errno.ENOMEM: "memory is short, or limited by ulimit -v",
}


def not_shared(who: str, why: str) -> str:
    """Return the line that says with whom no memory is shared, why, and what that costs."""
    costs = "travel as frames over tcp, with which small networks take up to three times as long"
    return f"no memory is shared with {who} ({why}): gradients and weights {costs}"


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
        path = f"/proc/{process}/fd/{descriptor}"
        if not os.readlink(path).startswith("/memfd:karp"):  # who knows what opening it would do
            raise OSError("that number is another process's")
        mine = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(mine).st_size != HEAD + layout.nbytes:
                raise OSError("that number is another server's")
            segment = cls(mine, layout)
            if segment.token != token:
                raise OSError("that number is another server's")
        except OSError:
            os.close(mine)
            raise
        return segment

    @property
    def token(self) -> str:
        return self.memory[:TOKEN].hex()

    def close(self) -> None:
        """Let go of the descriptor; the memory goes with the last array on it."""
        os.close(self.descriptor)


def ring(bell: int) -> None:
    """Wake whoever sleeps on the other end; a pipe that is full has rung already."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(bell, b"!")
