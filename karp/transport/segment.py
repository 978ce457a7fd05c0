"""Shared memory between a server and the workers on its host: the per-step messages without a socket.

The server owns one segment with two copies of weights and optimiser state, and one for each worker with a gradient slot
and two mailboxes, one in each direction. A segment has no name: it is an anonymous file of the server's (memfd) that a
worker opens through /proc, where only the same user may. So nothing is left behind, whichever process is killed. (The
size of /dev/shm does not matter to it, but `ulimit -f` does.) A worker that cannot open it is on another host, in a
container of its own, or another user's; it says so, and uses frames. A token tells a segment from another program's
file.

A contribution of one vector and a lease fit the mailboxes. Every other message goes over ZeroMQ, and the protocol
allows messages from the two media to arrive in any order. Workers compute on the weights where they are: version v lies
in copy v % 2, and each copy has a word with its version. If that has changed, then others have completed the worker's
step and the next, and its contribution is dropped.

In a range (`karp.protocol.ranges`) a step ends without a message. The board, which every worker may write to, lies
before the copies; each worker's seat is a part of its slot. The board has a table of those that take part: the numbers
by which the other workers open their slots, and the pipes by which they wake each other.

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
from karp.protocol.ranges import BOARD_WORDS, RING, Board, Seat
from karp.protocol.tree import Vector

HEAD = 4096  # bytes before the vector of a slot
WEIGHTS_HEAD = HEAD + RING * 16  # before the vectors of the weights: the ring of losses is between
TOKEN = 16  # bytes
SERVER_SPIN_SECONDS = 0.0005
WORKER_SPIN_SECONDS = 0.002  # a worker has nothing else to do, and after a sleep it may wake on another worker's core
CAN_YIELD = hasattr(os, "sched_yield")
COPIES = 1000  # the most attempts at a copy of the weights of one version
# The indices of the head's uint64 words, after the token.
READY, SENT, GIVEN, READ, ASLEEP = range(2, 7)
OUT, IN, SEAT = 256, 512, 768  # the offsets in a slot of the worker's mailbox, the server's, and the worker's seat
BOARD, TABLE = 256, 512  # the offsets before the weights of the board's words, and of the table of a range
TABLE_HEAD = struct.Struct("<QQ")  # the number of workers, and of the step's shards
TABLE_ENTRY = struct.Struct("<QQQQ16s")  # slot's descriptor, that of its bell, start, stop, the slot's token
MOST_SEATS = (HEAD - TABLE - TABLE_HEAD.size) // TABLE_ENTRY.size
# Step, version, start, stop, loss, seconds, whether no sum can overflow, the sample weights of step and node, or zeros.
CONTRIBUTION = struct.Struct("<QQQQddQdd")
LEASE = struct.Struct("<QQQQQQQQ")  # number, step, start, stop, version, whether the weights are new, range, end

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
    """A piece of memory that processes share: a head of words and mailboxes, then vectors."""

    def __init__(self, descriptor: int, layout: Layout, head: int = HEAD, vectors: int = 1) -> None:
        self.descriptor = descriptor
        self.memory = mmap.mmap(descriptor, head + vectors * layout.nbytes)
        self.words = memoryview(self.memory)[:HEAD].cast("Q")
        offsets = range(head, head + vectors * layout.nbytes, layout.nbytes)
        self.vectors: list[Vector] = [
            np.frombuffer(self.memory, layout.dtype, layout.size, offset) for offset in offsets
        ]

    @property
    def vector(self) -> Vector:
        """The first vector, in a slot the only one."""
        return self.vectors[0]

    def board(self) -> Board:
        """Return the board that lies before the weights."""
        memory = memoryview(self.memory)
        words = memory[BOARD : BOARD + 8 * BOARD_WORDS].cast("Q")
        return Board(words, memory[HEAD:WEIGHTS_HEAD].cast("d"), fence)

    def seat(self, start: int, stop: int) -> Seat:
        """Return the seat of this slot's worker, for these shards."""
        memory = memoryview(self.memory)
        words, numbers = memory[SEAT : SEAT + 8].cast("Q"), memory[SEAT + 8 : SEAT + 32].cast("d")
        return Seat(words, numbers, self.vector, start, stop)

    @classmethod
    def make(cls, layout: Layout, head: int = HEAD, vectors: int = 1) -> "Segment":
        """Allocate a segment of zeros with a token of its own; raises OSError if there is no memory for it."""
        descriptor = os.memfd_create("karp", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, head + vectors * layout.nbytes)
            segment = cls(descriptor, layout, head, vectors)
        except OSError:
            os.close(descriptor)
            raise
        segment.memory[:TOKEN] = os.urandom(TOKEN)
        return segment

    @classmethod
    def open(
        cls, process: int, descriptor: int, token: str, layout: Layout, head: int = HEAD, vectors: int = 1
    ) -> "Segment":
        """Open a segment of another process; raises OSError if that fails or the token differs."""
        opened = open_file(process, descriptor)
        try:
            if os.fstat(opened).st_size != head + vectors * layout.nbytes:
                raise OSError("that number is another server's")
            segment = cls(opened, layout, head, vectors)
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


def open_file(process: int, descriptor: int) -> int:
    """Open an anonymous file of another process; raises OSError if that fails."""
    path = f"/proc/{process}/fd/{descriptor}"
    if not os.readlink(path).startswith("/memfd:karp"):  # opening another kind of file may have effects
        raise OSError("that number is another process's")
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def open_pipe(process: int, descriptor: int, flags: int) -> int:
    """Open one end of a pipe of another process, not blocking; raises OSError if that fails."""
    return os.open(f"/proc/{process}/fd/{descriptor}", flags | os.O_NONBLOCK | os.O_CLOEXEC)


def wake(pipe: int) -> None:
    """Wake the process that sleeps on the other end of this wakeup pipe; do nothing if the pipe is full or closed."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(pipe, b"!")
