"""The worker's end of the ZeroMQ connection: a DEALER."""

import contextlib
import os
import sys
import time
from functools import partial
from typing import Any

import zmq

from karp import faults
from karp.errors import LostError, ProtocolError, SettingError
from karp.parameters import Layout
from karp.protocol.messages import (
    FROM_SERVER,
    Contribution,
    Evaluation,
    FromServer,
    FromWorker,
    Lease,
    Rejoin,
    Waiting,
    Welcome,
)
from karp.protocol.tree import Node, Vector
from karp.protocol.worker import LOST_SECONDS, Worker
from karp.transport.buffers import BufferPool, is_large
from karp.transport.frames import ANY_RUN, SHARED_TEXT, Envelope, pack, unpack
from karp.transport.handshake_worker import ServerConnection
from karp.transport.keys import Keys
from karp.transport.segment import WORKER_SPIN_SECONDS, reason, spin
from karp.transport.shared_worker import SharedWorker
from karp.transport.zeromq import POLL_EVERY, has_message, set_options

FIRST_NOTICE_SECONDS = 5.0  # a worker that has no answer for so long says why; again after twice as long, and so on
SPIN_BYTES = 1 << 21  # with a model's vector of this size or more a worker does not spin


class WorkerSocket:
    """The worker's end of the connection. `run` may be ANY_RUN: then it is learnt from the first answer."""

    def __init__(self, address: str, run: str, worker: Worker, layout: Layout, keys: Keys | None = None) -> None:
        self.address = address
        self.worker = worker  # its `lent` is set to weights that it may read where they lie
        self.layout = layout
        self.shared: SharedWorker | None = None
        self.unshared = ""  # why the shared memory that the server has offered cannot be opened
        self.buffers = BufferPool()  # for gradients
        self.waits = 0
        self.idle = False  # no work arrived in the last wait, so the next does not spin
        self.run = run
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        set_options(self.socket, keys)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.IDENTITY, b"k" + os.urandom(15))  # the same after a reconnection
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self.diagnosis = ""  # why there is no answer, as far as it is known
        self.next_notice = FIRST_NOTICE_SECONDS
        try:
            self.connection = ServerConnection(self.socket, address, keys is not None)
        except zmq.ZMQError as error:
            self.context.destroy(0)
            raise SettingError(f"the server's address {address!r} cannot be used: {error}") from None

    def send(self, message: FromWorker, incarnation: int) -> None:
        """Send a message; the vector from `gradients` must not be written to until `gradients` returns it again."""
        if self.shared is not None and type(message) is Contribution and self.shared.send(message):
            faults.reach("sent", step=message.step)
            return
        *first, last = pack(message, Envelope(self.run, incarnation, unshared=self.unshared))
        step = getattr(message, "step", -1)
        try:
            for frame in first:
                self._send_frame(message, frame, zmq.SNDMORE | zmq.DONTWAIT)
            faults.reach("half-sent", step=step)
            self._send_frame(message, last, zmq.DONTWAIT)
        except zmq.Again:  # SNDHWM is unlimited, so this means that ZeroMQ has forgotten the address
            self.connection.given_up = True
        faults.reach("sent", step=step)

    def _send_frame(self, message: FromWorker, frame: Any, flags: int) -> None:
        """Send one frame, a large gradient without a copy."""
        if is_large(frame) and self.shared is None and type(message) is Contribution:
            self.buffers.mark_sending(self.socket.send(frame, flags, copy=False, track=True))
        else:
            self.socket.send(frame, flags)

    def receive(self, seconds: float) -> tuple[FromServer, int] | None:
        """Return the next message and the server's incarnation, waiting at most `seconds`; None if none came.

        Raises LostError for what is not a message of this run: then the address is not its server's.
        """
        self.waits += 1
        if self.shared is not None and (self.waits % POLL_EVERY or not self.socket.poll(0)):
            lease = self._receive_lease(seconds)
            if lease is not None:
                self.idle = False
                return lease, self.worker.incarnation
        elif self.shared is None and not self.idle and self.layout.nbytes < SPIN_BYTES:
            spin(partial(has_message, self.socket), WORKER_SPIN_SECONDS)
        if not self.socket.poll(int(seconds * 1000) if self.shared is None else 0):
            self.idle = True
            self._check_silence()
            return None
        frames = [frame.buffer for frame in self.socket.recv_multipart(copy=False)]
        try:
            message, envelope = unpack(frames, self.run, FROM_SERVER)
        except ProtocolError as error:
            raise LostError(f"what answers at {self.address} is not the server of this run: {error}") from None
        if self.run == ANY_RUN:
            self.run = envelope.run
        self.idle = isinstance(message, Waiting)
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
        self.diagnosis = self.connection.diagnose(due)
        if due:
            self.next_notice *= 2
            left = f"this worker waits for {max(0.0, LOST_SECONDS - silent):.0f} s more"
            text = f"karp: the server at {self.address} has not answered for {silent:.0f} s: {self.diagnosis}; {left}\n"
            with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may be closed or missing
                sys.stderr.write(text)
                sys.stderr.flush()

    def _receive_lease(self, seconds: float) -> FromServer | None:
        """Return the next lease from the mailbox; None if none came in time, or a message came on the socket."""
        shared = self.shared
        assert shared is not None
        if self.idle or not spin(shared.has_lease, WORKER_SPIN_SECONDS):
            shared.set_asleep(True)
            if not shared.has_lease():
                self.poller.poll(int(seconds * 1000))
            shared.set_asleep(False)
            if not shared.drain_wakeups():
                self._close_shared()
                return None
            if not shared.has_lease():
                return None
        lease = shared.read_lease()
        return Rejoin() if lease is None else lease  # None: the lease's weights have been overwritten already

    def _open_shared(self, invitation: str) -> None:
        """Open the shared memory that the server invites to, if there is any and it can be opened."""
        self._close_shared()
        self.unshared = ""
        if not invitation:
            return
        try:
            self.shared = SharedWorker(invitation, self.layout)
        except OSError as error:
            self.unshared = reason(error)[:SHARED_TEXT]
            return
        self.poller = zmq.Poller()
        self.poller.register(self.socket, zmq.POLLIN)
        self.poller.register(self.shared.wakeup, zmq.POLLIN)

    def _close_shared(self) -> None:
        if self.shared is not None:
            self.shared.close()
            self.shared = None

    @property
    def overtaken(self) -> bool:
        """Whether the weights that the worker computes on have changed, as others have completed its step."""
        shared = self.shared
        return shared is not None and self.worker.current is shared.weights.vector and shared.changed

    def try_apply(self, lease: Lease, node: Node, weight: float) -> bool:
        """Return False: the server is another process, so a contribution has to be sent."""
        return False

    def release_weights(self) -> None:
        """Copy the weights that the worker computes on to its own vector, where they stay as they are."""
        worker, shared = self.worker, self.shared
        if shared is not None and worker.current is shared.weights.vector:
            shared.copy(worker.weights)
            worker.keep_weights(worker.weights)
        else:
            worker.keep_weights(worker.current)

    @property
    def gradients(self) -> Vector | None:
        """A vector to write the next gradient to, which is then sent without a copy."""
        if self.shared is not None:
            return self.shared.slot.vector
        return self.buffers.get(self.worker.weights)

    def close(self, status: int = 0) -> None:
        """Close the connection; ZeroMQ sends what is still to be sent."""
        self._close_shared()
        self.socket.disable_monitor()
        self.connection.close()
        self.socket.close()
        self.context.term()
