"""Shared memory between a server and the workers on its host: the per-step messages without a socket.

The server owns one segment with the weights, and one for each worker with a gradient slot and two mailboxes, one in
each direction. A segment has no name: it is an anonymous file of the server's (memfd) that a worker opens through
/proc, where only the same user may. So nothing is left behind, whichever process is killed. (The size of /dev/shm does
not matter to it, but `ulimit -f` does.) A worker that cannot open it is on another host, in a container of its own, or
another user's; it says so, and uses frames. A token tells a segment from another program's file.

A contribution of one vector and a lease fit the mailboxes. Every other message goes over ZeroMQ, and the protocol
allows messages from the two media to arrive in any order. Workers compute on the weights where they are. A counter
that is odd while they are written tells a worker that it is too late to begin. If they change later, then others have
completed its step, and its contribution is dropped.

Each worker checks whether its gradient is finite: all of them at the same time, each in its own cache. The server
checks those that are not, and all that come as frames. (A process that has this memory is trusted, as it could write
to the weights themselves.)

An end that waits spins first: it polls its mailbox for a bounded time and yields the processor between the polls. Then
it sleeps on a pipe, says so in the segment, and the other end writes a byte to wake it. A flag that is seen too late
costs the time of one poll, not the run. A spin costs others little, as they get the processor at each yield.
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
TOKEN = 16  # bytes
SERVER_SPIN_SECONDS = 0.0005
WORKER_SPIN_SECONDS = 0.002  # a worker has nothing else to do, and after a sleep it may wake on another worker's core
CAN_YIELD = hasattr(os, "sched_yield")
COPIES = 1000  # the most attempts at a copy of the weights of one version
# The indices of the head's uint64 words, after the token.
READY, SENT, TAKEN, GIVEN, READ, ASLEEP, VERSION, CHANGES = range(2, 10)
OUT, IN = 256, 512  # the offsets of the worker's and of the server's mailbox
# Step, version, start, stop, loss, seconds, whether no sum can overflow, the sample weights of step and node, or zeros.
CONTRIBUTION = struct.Struct("<QQQQddQdd")
LEASE = struct.Struct("<QQQQQQ")  # number, step, start, stop, version, whether the weights are new

_fence = threading.Lock()


def fence() -> None:
    """Order memory accesses: a write before the fence is visible before one after it, on any processor."""
    _fence.acquire()
    _fence.release()


def spin(ready: Callable[[], object], seconds: float) -> bool:
    """Poll `ready` for at most `seconds`, yielding the processor between the polls; return whether it became true.

    Where a process cannot yield, `ready` is asked only once.
    """
    until = time.perf_counter() + seconds
    while not ready():
        if not CAN_YIELD or time.perf_counter() > until:
            return False
        os.sched_yield()
    return True


def why_unavailable() -> str:
    """Return why this system has no shared segments; '' if it has."""
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        return "it takes Linux with /proc"
    try:
        os.close(os.memfd_create("karp", os.MFD_CLOEXEC))
    except OSError as error:
        return f"memfd_create: {reason(error)}"
    return ""


def reason(error: OSError) -> str:
    """Explain why memory cannot be shared: the system's words and what they mean here.

    >>> reason(OSError(errno.EFBIG, "File too large"))
    'File too large: ulimit -f counts for it, too'
    """
    text = error.strerror or str(error)
    meaning = MEANINGS.get(error.errno or errno.ENOENT)
    return f"{text}: {meaning}" if meaning else text


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
    """Return a line for the user: memory is not shared with `who`, for this reason, and what that costs."""
    costs = "travel as frames over tcp, with which small networks take up to three times as long"
    return f"no memory is shared with {who} ({why}): gradients and weights {costs}"


class Segment:
    """A piece of memory that two processes share: a head of words and mailboxes, then a vector."""

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self.descriptor = descriptor
        self.memory = mmap.mmap(descriptor, HEAD + layout.nbytes)
        self.words = memoryview(self.memory)[:HEAD].cast("Q")
        self.vector: Vector = np.frombuffer(self.memory, layout.dtype, layout.size, HEAD)

    @classmethod
    def make(cls, layout: Layout) -> "Segment":
        """Allocate a segment of zeros with a token of its own; raises OSError if there is no memory for it."""
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
    def open(cls, process: int, descriptor: int, token: str, layout: Layout) -> "Segment":
        """Open a segment of another process; raises OSError if that fails or the token differs."""
        path = f"/proc/{process}/fd/{descriptor}"
        if not os.readlink(path).startswith("/memfd:karp"):  # opening another kind of file may have effects
            raise OSError("that number is another process's")
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(opened).st_size != HEAD + layout.nbytes:
                raise OSError("that number is another server's")
            segment = cls(opened, layout)
            if segment.token != token:
                raise OSError("that number is another server's")
        except OSError:
            os.close(opened)
            raise
        return segment

    @property
    def token(self) -> str:
        """The random text that tells this segment from any other."""
        return self.memory[:TOKEN].hex()

    def close(self) -> None:
        """Close the descriptor; the memory is freed with the last array on it."""
        os.close(self.descriptor)


def wake(pipe: int) -> None:
    """Wake the process that sleeps on the other end of this wakeup pipe; do nothing if the pipe is full or closed."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(pipe, b"!")
