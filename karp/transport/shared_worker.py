"""A worker's side of shared memory: it reads weights and leases there, and writes gradients."""

import contextlib
import os

import numpy as np

from karp import faults
from karp.parameters import Layout
from karp.protocol.messages import Contribution, Lease
from karp.protocol.tree import Vector
from karp.protocol.vectors import no_overflow
from karp.transport.segment import (
    ASLEEP,
    CHANGES,
    CONTRIBUTION,
    COPIES,
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
    wake,
)


class SharedWorker:
    """The server's weights and this worker's slot, opened in the worker's process."""

    def __init__(self, invitation: str, layout: Layout) -> None:
        """Open the memory and the pipes that the server's invitation names; raises OSError if that fails."""
        try:
            process, weights, slot, server_wakeup, wakeup = map(int, invitation.split()[:5])
            weights_token, slot_token = invitation.split()[5:]
        except ValueError:
            raise OSError("the invitation cannot be read") from None
        with contextlib.ExitStack() as undo:
            self.weights = Segment.open(process, weights, weights_token, layout)
            undo.callback(self.weights.close)
            self.slot = Segment.open(process, slot, slot_token, layout)
            undo.callback(self.slot.close)
            descriptors = f"/proc/{process}/fd"
            self.server_wakeup = os.open(f"{descriptors}/{server_wakeup}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            undo.callback(os.close, self.server_wakeup)
            self.wakeup = os.open(f"{descriptors}/{wakeup}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            undo.pop_all()
        self.words = self.slot.words
        self.weights.vector.flags.writeable = False
        self.sent = 0  # the number of contributions written
        self.read = 0  # the number of leases read
        self.changes = 0  # the weights' counter of changes when a lease brought them
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
        """Copy the weights of any one version; if they cannot be read between two writes, copy them as they are."""
        for _ in range(COPIES):
            before = self.weights.words[CHANGES]
            np.copyto(into, self.weights.vector)
            fence()
            if before % 2 == 0 and self.weights.words[CHANGES] == before:
                return
            os.sched_yield()

    def has_lease(self) -> bool:
        """Return whether an unread lease is in the mailbox."""
        return bool(self.words[GIVEN] != self.read)

    def set_asleep(self, asleep: bool) -> None:
        """Tell the server whether this worker has to be woken."""
        self.words[ASLEEP] = asleep
        fence()

    def drain_wakeups(self) -> bool:
        """Empty the wakeup pipe; False if the server is gone."""
        try:
            return bool(os.read(self.wakeup, 1 << 12))
        except BlockingIOError:
            return True

    def close(self) -> None:
        self.weights.close()
        self.slot.close()
        os.close(self.wakeup)
        os.close(self.server_wakeup)
