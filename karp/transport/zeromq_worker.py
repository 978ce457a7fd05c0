"""The worker's end of ZeroMQ: a DEALER."""

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
    FromServer,
    FromWorker,
    Lease,
    Rejoin,
    Waiting,
    Welcome,
)
from karp.protocol.tree import Node, Vector
from karp.protocol.worker import LOST_SECONDS, Worker
from karp.transport.buffers import Rooms, is_large
from karp.transport.frames import ANY_RUN, UNSHARED, Envelope, pack, unpack
from karp.transport.handshake_worker import Approach
from karp.transport.keys import Keys
from karp.transport.segment import WORKER_SPIN_SECONDS, reason, spin
from karp.transport.shared_worker import Place
from karp.transport.zeromq import LOOK_EVERY, arrival, tune

FIRST_WORD_SECONDS = 5.0  # of silence, after which a worker says what it waits for; then after twice as long
SPIN_BYTES = 1 << 21  # of the model's vector; for a longer one a worker does not spin


class WorkerSocket:
    """The worker's end. `run` may be ANY_RUN: then it is learnt from the first answer."""

    def __init__(self, address: str, run: str, worker: Worker, layout: Layout, keys: Keys | None = None) -> None:
        self.address = address
        self.worker = worker  # that the server may lend its weights to
        self.layout = layout
        self.place: Place | None = None
        self.unshared = ""  # why there is none, though the server has offered it
        self.rooms = Rooms()  # for gradients
        self.turns = 0
        self.idle = False  # nothing to do came in the last wait: a spin would be for nothing, too
        self.run = run
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        tune(self.socket, keys)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.IDENTITY, b"k" + os.urandom(15))  # the same after a reconnection
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self.trouble = ""  # why there is no answer, as far as it is known
        self.next_word = FIRST_WORD_SECONDS
        try:
            self.approach = Approach(self.socket, address, keys is not None)
        except zmq.ZMQError as error:
            self.context.destroy(0)
            raise SettingError(f"the server's address {address!r} cannot be used: {error}") from None

    def send(self, message: FromWorker, incarnation: int) -> None:
        """Send; of the vectors, the one that `gradients` has named must stay as it is, until that names it again."""
        if self.place is not None and type(message) is Contribution and self.place.send(message):
            faults.reach("sent", step=message.step)
            return
        *first, last = pack(message, Envelope(self.run, incarnation, self.unshared))
        step = getattr(message, "step", -1)
        try:
            for frame in first:
                self._send(message, frame, zmq.SNDMORE | zmq.DONTWAIT)
            faults.reach("half-sent", step=step)
            self._send(message, last, zmq.DONTWAIT)
        except zmq.Again:  # there is no limit to what may wait to be sent, but there is no way to send it any more
            self.approach.forgotten = True
        faults.reach("sent", step=step)

    def _send(self, message: FromWorker, frame: Any, flags: int) -> None:
        """One frame; a large gradient is not copied, and kept as it is until it is sent (`gradients`)."""
        if is_large(frame) and self.place is None and type(message) is Contribution:
            self.rooms.busy(self.socket.send(frame, flags, copy=False, track=True))
        else:
            self.socket.send(frame, flags)

    def receive(self, seconds: float) -> tuple[FromServer, int] | None:
        """The next message and the server's incarnation, waiting at most so long; None if none came.

        Raises LostError for what is not a message of this run: then the address is not its server's.
        """
        self.turns += 1
        if self.place is not None and (self.turns % LOOK_EVERY or not self.socket.poll(0)):
            lease = self._lease(seconds)
            if lease is not None:
                self.idle = False
                return lease, self.worker.incarnation
        elif self.place is None and not self.idle and self.layout.nbytes < SPIN_BYTES:
            spin(partial(arrival, self.socket), WORKER_SPIN_SECONDS)
        if not self.socket.poll(int(seconds * 1000) if self.place is None else 0):
            self.idle = True
            self._silent()
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
            self._enter(message.shared)
        elif isinstance(message, Lease) and message.weights is not None and is_large(message.weights):
            self._lend(message.weights)
        return message, envelope.incarnation

    def _silent(self) -> None:
        """Nothing has come: look why, and from time to time say so; raises what `Approach.trouble` does."""
        silent = time.monotonic() - self.worker.heard
        if silent < FIRST_WORD_SECONDS:
            self.next_word = FIRST_WORD_SECONDS
        due = silent >= self.next_word
        self.trouble = self.approach.trouble(due)
        if due:
            self.next_word *= 2
            left = f"this worker waits for {max(0.0, LOST_SECONDS - silent):.0f} s more"
            text = f"karp: the server at {self.address} has not answered for {silent:.0f} s: {self.trouble}; {left}\n"
            with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody can be told
                sys.stderr.write(text)
                sys.stderr.flush()

    def _lease(self, seconds: float) -> FromServer | None:
        """A lease from the mailbox, waiting for it or for a message on the socket."""
        place = self.place
        assert place is not None
        if self.idle or not spin(place.waiting, WORKER_SPIN_SECONDS):
            place.sleep(True)
            if not place.waiting():
                self.poller.poll(int(seconds * 1000))
            place.sleep(False)
            if not place.drain():
                self._leave()
                return None
            if not place.waiting():
                return None
        lease = place.lease()
        return Rejoin() if lease is None else lease  # its weights have been overwritten already

    def _enter(self, invitation: str) -> None:
        """Use the server's memory, if it can be had."""
        self._leave()
        self.unshared = ""
        if not invitation:
            return
        try:
            self.place = Place(invitation, self.layout)
            self.worker.lent = self.place.weights.vector
        except OSError as error:
            self.unshared = reason(error)[:UNSHARED]
            return
        self.poller = zmq.Poller()
        self.poller.register(self.socket, zmq.POLLIN)
        self.poller.register(self.place.bell, zmq.POLLIN)

    def _lend(self, weights: Vector) -> None:
        """They need no copy, unless the server's own are read."""
        if self.place is None:
            weights.flags.writeable = False  # as those are
            self.worker.lent = weights

    def _leave(self) -> None:
        if self.place is not None:
            self.place.close()
            self.place = self.worker.lent = None

    @property
    def overtaken(self) -> bool:
        """Whether the worker computes on weights that have changed since: others have completed its step."""
        return self.place is not None and self.worker.current is self.worker.lent and self.place.changed

    def at_once(self, lease: Lease, node: Node) -> bool:
        """The server is another process."""
        return False

    def settle(self) -> None:
        """Give the worker weights of its own."""
        worker, place = self.worker, self.place
        if place is not None and worker.current is worker.lent:
            place.copy(worker.weights)
            worker.keep(worker.weights)
        else:
            worker.keep(worker.current)
            if place is None:
                worker.lent = None

    @property
    def gradients(self) -> Vector | None:
        """Where gradients may be written so that they need not be copied: not where one still waits to be sent."""
        if self.place is not None:
            return self.place.slot.vector
        return self.rooms.free(self.worker.weights)

    def close(self, status: int = 0) -> None:
        """Send what is still to be sent, and close."""
        self._leave()
        self.socket.disable_monitor()
        self.approach.close()
        self.socket.close()
        self.context.term()
