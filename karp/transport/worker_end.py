"""A worker's end of its connection to the server: ZeroMQ, and shared memory besides where it can be opened.

The worker cannot tell which of the two a message has taken. Contributions and leases go through shared memory where
both ends have it; all other messages, and those that do not fit there, go over the socket.
"""

import contextlib
import math
import sys
import time

import zmq

from karp import faults
from karp.parameters import Layout
from karp.protocol.messages import Contribution, Evaluation, FromServer, FromWorker, Lease, Rejoin, Waiting, Welcome
from karp.protocol.tree import Node, Vector
from karp.protocol.vectors import no_overflow
from karp.protocol.worker import LOST_SECONDS, PING_SECONDS, Worker
from karp.transport.buffers import is_large
from karp.transport.frames import SHARED_TEXT
from karp.transport.segment import WORKER_SPIN_SECONDS, reason, spin
from karp.transport.shared_worker import SharedWorker
from karp.transport.zeromq import POLL_EVERY
from karp.transport.zeromq_worker import WorkerSocket

FIRST_NOTICE_SECONDS = 5.0  # a worker that has no answer for so long says why; again after twice as long, and so on
RANGE_WAITS = 4  # a worker that has waited so often for others sends its contribution, to learn if there is a server
SPIN_BYTES = 1 << 21  # with a model's vector of this size or more a worker does not spin


class WorkerEnd:
    """The socket to the server, and the shared memory that the server offers."""

    def __init__(self, socket: WorkerSocket, worker: Worker, layout: Layout) -> None:
        self.socket = socket
        self.address = socket.address
        self.worker = worker
        self.layout = layout
        self.shared: SharedWorker | None = None
        self.unshared = ""  # why the shared memory that the server has offered cannot be opened
        self.began = 0.0  # when the worker began to compute the lease, or its next step
        self.computed = 0.0  # how long it has computed, if it has arrived at the step; else 0
        self.waits = 0
        self.idle = False  # no work arrived in the last wait, so the next does not spin
        self.diagnosis = ""  # why there is no answer, as far as it is known
        self.next_notice = FIRST_NOTICE_SECONDS

    def send(self, message: FromWorker, incarnation: int) -> None:
        """Send a message; the vector from `gradients` must not be written to until `gradients` returns it again."""
        if isinstance(message, Contribution):
            message.seconds = self.computed or time.perf_counter() - self.began
        if self.shared is None:
            self.socket.send(message, incarnation, self.unshared, borrowed=isinstance(message, Contribution))
        elif not (isinstance(message, Contribution) and self.shared.send(message)):
            self.socket.send(message, incarnation)
        faults.reach("sent", step=getattr(message, "step", -1))

    def receive(self, seconds: float) -> tuple[FromServer, int] | None:
        """Return the next message and the server's incarnation, waiting at most `seconds`; None if none came.

        Returns None at once when the server is found to be gone.

        Raises LostError for data that are not a message of this run (then another server has the address), and where
        waiting cannot help LostError or RefusedError, as `ServerConnection.diagnose` does.
        """
        socket = self.socket
        self.waits += 1
        if self.shared is not None and (self.waits % POLL_EVERY or not socket.socket.poll(0)):
            lease, gone = self._receive_lease(self.shared, seconds)
            if lease is not None:
                self.idle = False
                self.began, self.computed = time.perf_counter(), 0.0
                return lease, self.worker.incarnation
            if gone:  # the worker asks at once, and the next server answers
                self.worker.asked = None
                return None
        elif self.shared is None and not self.idle and self.layout.nbytes < SPIN_BYTES:
            spin(socket.has_message, WORKER_SPIN_SECONDS)
        if not socket.socket.poll(int(seconds * 1000) if self.shared is None else 0):
            self.idle = True
            self._check_silence()
            return None
        message, envelope = socket.receive()
        self.idle = isinstance(message, Waiting)
        self.began, self.computed = time.perf_counter(), 0.0
        if isinstance(message, Welcome):
            self._open_shared(envelope.invitation)
        elif isinstance(message, Lease | Evaluation) and message.weights is not None and is_large(message.weights):
            message.weights.flags.writeable = False  # so that the worker computes on them where they lie
        return message, envelope.incarnation

    def _check_silence(self) -> None:
        """Find out why no message comes, and say so now and then; raises what `ServerConnection.diagnose` does."""
        silent = time.monotonic() - self.worker.heard
        if silent < FIRST_NOTICE_SECONDS:
            self.next_notice = FIRST_NOTICE_SECONDS
        due = silent >= self.next_notice
        self.diagnosis = self.socket.connection.diagnose(due)
        if due:
            self.next_notice *= 2
            left = f"this worker waits for {max(0.0, LOST_SECONDS - silent):.0f} s more"
            text = f"karp: the server at {self.address} has not answered for {silent:.0f} s: {self.diagnosis}; {left}\n"
            with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may be closed or missing
                sys.stderr.write(text)
                sys.stderr.flush()

    def _receive_lease(self, shared: SharedWorker, seconds: float) -> tuple[FromServer | None, bool]:
        """Return the next lease from the mailbox, and whether the server is gone.

        The lease is None if none came in time, or a message came on the socket. It is Rejoin, as if the server had sent
        it, if the lease's weights have been overwritten already.
        """
        if self.idle or not spin(shared.has_lease, WORKER_SPIN_SECONDS):
            shared.set_asleep(True)
            if not shared.has_lease():
                self.poller.poll(int(seconds * 1000))
            shared.set_asleep(False)
            if not shared.drain_wakeups():
                self._close_shared()
                return None, True
            if not shared.has_lease():
                return None, False
        return shared.read_lease() or Rejoin(), False

    def _open_shared(self, invitation: str) -> None:
        """Open the shared memory of an invitation ('': none); if it cannot be opened, keep the reason in `unshared`."""
        self._close_shared()
        self.unshared = ""
        if not invitation:
            return
        try:
            self.shared = SharedWorker(invitation, self.layout, self.worker.settings.applied)
        except OSError as error:
            self.unshared = reason(error)[:SHARED_TEXT]
            return
        self.poller = zmq.Poller()
        self.poller.register(self.socket.socket, zmq.POLLIN)
        self.poller.register(self.shared.wakeup, zmq.POLLIN)
        self.range_poller = zmq.Poller()
        self.range_poller.register(self.shared.bell, zmq.POLLIN)
        self.range_poller.register(self.shared.wakeup, zmq.POLLIN)

    def _close_shared(self) -> None:
        if self.shared is not None:
            self.shared.close()
            self.shared = None

    @property
    def overtaken(self) -> bool:
        """Whether the weights that the worker computes on have changed, as others have completed its step."""
        shared = self.shared
        return shared is not None and self._computes_there(shared) and not shared.copies.holds(self.worker.version)

    def _computes_there(self, shared: SharedWorker) -> bool:
        """Return whether the worker computes on the server's memory."""
        return any(self.worker.current is copy for copy in shared.readable)

    def try_apply(self, lease: Lease, node: Node, weight: float) -> bool:
        """End a step in a range (`karp.protocol.ranges`); return False if a contribution has to be sent."""
        shared, step, vector = self.shared, lease.step, node.vector
        if not lease.range or shared is None or vector is None:
            return False
        fits = step < lease.end and time.monotonic() < shared.range_until
        if not (fits and math.isfinite(node.loss) and no_overflow(vector)):
            return False
        self.computed = time.perf_counter() - self.began
        ended = shared.arrive(step, node.loss, vector, weight, self.computed)
        if ended is None:
            ended = self._wait_for_end(shared, step)
        if not ended:
            lease.range = 0
            shared.participant.leave()
            return False
        lease.step = lease.version = step + 1
        self.worker.current = shared.readable[lease.version % 2]
        self.began, self.computed = time.perf_counter(), 0.0
        return True

    def _wait_for_end(self, shared: SharedWorker, step: int) -> bool:
        """Wait until a step has ended in its range, or the range is closed; return which (`Participant.ended`)."""
        participant = shared.participant
        self.waits += 1
        for _ in range(RANGE_WAITS):
            sleeps = self.waits % POLL_EVERY == 0
            if sleeps or not spin(lambda: participant.changed(step), WORKER_SPIN_SECONDS):
                if shared.try_to_end(step):  # another worker has died while it did
                    return True
                shared.set_asleep(True)
                if not participant.changed(step):
                    self.range_poller.poll(int(PING_SECONDS * 1000))
                shared.set_asleep(False)
                shared.silence_bell()
                if not shared.drain_wakeups():  # the server is gone, or goes on in other memory
                    return False
            if (ended := participant.ended(step)) is not None:
                return ended
        return False

    @property
    def copies(self) -> tuple[Vector, ...]:
        """The vectors in which the weights lie by turns; () if they always come in others."""
        return () if self.shared is None else self.shared.readable

    def release_weights(self) -> None:
        """Copy the weights that the worker computes on to its own vector, which nobody else changes."""
        worker, shared = self.worker, self.shared
        if shared is not None and self._computes_there(shared):
            shared.copy(worker.weights)
            worker.keep_weights(worker.weights)
        else:
            worker.keep_weights(worker.current)

    @property
    def gradients(self) -> Vector | None:
        """A vector to write the next gradient to, which is then sent without a copy."""
        return self.socket.buffers.get(self.worker.weights) if self.shared is None else self.shared.slot.vector

    def close(self, status: int = 0) -> None:
        """Close the shared memory and the connection."""
        self._close_shared()
        self.socket.close()
