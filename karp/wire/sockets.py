"""The two ends of the wire: ROUTER at the server, DEALER at the worker, over tcp.

The server listens on a socket that the launcher has bound to port 0 before it started any process: the address is
known to all of them, and outlives the server, so a server that is started again is found without being looked for.

ZeroMQ's own heartbeats, answered by its I/O threads while a program computes, tell a dead peer from a busy one: the
server learns of it when it next sends to that peer, which it does every second.

Both ends spin before they sleep, as with shared memory (`karp.wire.shared`): waking a core that has gone to sleep costs
more than a message of up to a MiB or two. A worker whose vector is longer sleeps at once, as its core has other work:
the I/O threads, of the other workers too.
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import zmq

from karp import faults
from karp.errors import LostError, ProtocolError, SettingError
from karp.parameters import Layout
from karp.protocol.messages import (
    FROM_SERVER,
    FROM_WORKER,
    Contribution,
    FromServer,
    FromWorker,
    Lease,
    Rejoin,
    Waiting,
    Welcome,
)
from karp.protocol.tree import Node, Vector
from karp.protocol.worker import Worker
from karp.wire.frames import ANY_RUN, Envelope, pack, unpack
from karp.wire.keys import Keys
from karp.wire.shared import SERVER_SPIN_SECONDS, WORKER_SPIN_SECONDS, Exchange, Place, spin

MESSAGE_BYTES = 1 << 32  # ZeroMQ drops the connection of a peer that announces a longer frame
HEARTBEAT_SECONDS = 2.0
DEAD_SECONDS = 6.0  # a peer whose heart has not beaten for so long is gone
FAILED_HANDSHAKES = {
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "a connection was closed or spoke no ZeroMQ",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "a connection did not speak this server's ZeroMQ",
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "a connection had not the key",
}
# Every so many turns a busy server does not spin but sleeps. It looks at all that may come then, and the kernel at its
# cores: beside one that never sleeps, two workers may stay on another core for ever.
LOOK_EVERY = 256
IO_THREADS = 2  # of the server: what two workers send is read, and what they get is written, at the same time
LARGE_BYTES = 1 << 16  # of a vector that is not to be copied on its way; smaller ones are faster with a copy
SPIN_BYTES = 1 << 21  # of the model's vector; for a longer one a worker does not spin
EVENTS, POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)  # plain numbers: they are used often
UNREAD_MESSAGES = 1000  # kept for a peer that does not read; then it counts as gone


def tune(end: "zmq.Socket[bytes]", keys: Keys | None) -> None:
    """What both ends have in common."""
    end.setsockopt(zmq.LINGER, 1000)
    end.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
    end.setsockopt(zmq.RCVHWM, 0)
    end.setsockopt(zmq.SNDHWM, UNREAD_MESSAGES)
    end.setsockopt(zmq.HEARTBEAT_IVL, int(HEARTBEAT_SECONDS * 1000))
    end.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(DEAD_SECONDS * 1000))
    end.setsockopt(zmq.IPV6, 1)
    if keys is not None and keys.server_secret:
        end.curve_server = True
        end.curve_publickey, end.curve_secretkey = keys.server_public.encode(), keys.server_secret.encode()
    elif keys is not None:
        end.curve_serverkey = keys.server_public.encode()
        end.curve_publickey, end.curve_secretkey = keys.worker_public.encode(), keys.worker_secret.encode()


def is_large(frame: Any) -> bool:
    """Whether it is a vector that is not to be copied."""
    return isinstance(frame, np.ndarray) and frame.nbytes >= LARGE_BYTES


def arrival(end: "zmq.Socket[bytes]") -> bool:
    """Whether a message has arrived."""
    return bool(int(end.getsockopt(EVENTS)) & POLLIN)


class Rooms:
    """Vectors that are sent without being copied, none of which is written to while ZeroMQ may still read it."""

    def __init__(self) -> None:
        self.rooms: list[tuple[Vector, list[Any]]] = []  # each with what tells whether it is sent
        self.sending: list[Any] = []  # of the room that was named last

    def free(self, like: Vector) -> Vector:
        """One that may be written to, of this size and dtype."""
        for vector, sending in self.rooms:
            if vector.dtype == like.dtype and vector.shape == like.shape and all(one.done for one in sending):
                sending.clear()
                self.sending = sending
                return vector
        self.sending = []
        self.rooms.append((np.zeros_like(like), self.sending))
        return self.rooms[-1][0]

    def busy(self, tracker: Any) -> None:
        """The room named last is being sent."""
        self.sending.append(tracker)


class ServerSocket:
    """The server's end, on the descriptor of a socket that listens at `address`."""

    def __init__(
        self,
        descriptor: int,
        address: str,
        run: str,
        incarnation: int = 0,
        keys: Keys | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self.exchange = exchange
        self.turns = 0
        self.look = True  # there may be something on the socket
        self.idle = False  # nothing came in the last wait: a spin would be for nothing, too
        self.rooms = Rooms()  # for weights
        self.copied: tuple[Vector, int, Vector] = (np.empty(0), -1, np.empty(0))  # weights, their version, a copy
        self.envelope = Envelope(run, incarnation)
        self.context: zmq.Context[Any] = zmq.Context(IO_THREADS)
        self.gate: Any = None
        if keys is not None:
            self._guard(keys)
        self.socket = self.context.socket(zmq.ROUTER)
        tune(self.socket, keys)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # sending to a peer that is gone is an error, not silence
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a worker that reconnects is the one it was
        self.socket.setsockopt(zmq.USE_FD, descriptor)
        self.socket.bind(address)
        self.handshakes = self.socket.get_monitor_socket(zmq.Event(sum(FAILED_HANDSHAKES)))
        self.poller = zmq.Poller()
        self.poller.register(self.socket, zmq.POLLIN)
        if exchange is not None:
            self.poller.register(exchange.bell, zmq.POLLIN)

    def strangers(self) -> Iterator[str]:
        """Why connections were turned away since the last call: they do not speak ZeroMQ, or have not the key."""
        while self.handshakes.poll(0):
            from zmq.utils.monitor import recv_monitor_message  # which imports asyncio, as long as half of karp takes

            event = recv_monitor_message(self.handshakes)["event"]
            yield FAILED_HANDSHAKES.get(event, "a connection failed")

    def _guard(self, keys: Keys) -> None:
        """Let in only those who prove the workers' key."""
        from zmq.auth.thread import ThreadAuthenticator

        self.gate = ThreadAuthenticator(self.context)
        self.gate.start()
        self.gate.configure_curve_callback(credentials_provider=Gatekeeper(keys))

    def wait(self, seconds: float, orders: int) -> bool:
        """Until something has arrived, at most so long; whether it is something on the descriptor of the orders."""
        exchange = self.exchange if self.exchange is not None and self.exchange.slots else None
        self.look = exchange is None
        self.turns += 1
        if not self.idle and self.turns % LOOK_EVERY:
            arrived = exchange.waiting if exchange is not None else partial(arrival, self.socket)
            if spin(arrived, SERVER_SPIN_SECONDS):
                return False
        if exchange is not None:
            exchange.sleep(True)
            if exchange.waiting():
                seconds = 0.0
        ready = dict(self.poller.poll(int(seconds * 1000)))
        self.idle = not ready
        if exchange is not None:
            exchange.sleep(False)
            if exchange.bell in ready:
                exchange.drain()
        self.look = self.socket in ready
        return orders in ready

    def receive(self) -> tuple[bytes, FromWorker | ProtocolError, int] | None:
        """The next message, its sender, and the incarnation it is meant for, without waiting; None if there is none.

        What is not a message of this run comes back as the ProtocolError that says why.
        """
        if self.exchange is not None and (found := self.exchange.receive()) is not None:
            return *found, self.envelope.incarnation
        if not self.look:
            return None
        try:
            frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        peer = frames[0].bytes
        try:
            message, envelope = unpack([frame.buffer for frame in frames[1:]], self.envelope.run, FROM_WORKER)
        except ProtocolError as error:
            return peer, error, 0
        return peer, message, envelope.incarnation

    def send(self, peer: bytes, message: FromServer) -> bool:
        """Send; False if the peer is gone, or reads nothing."""
        if self.exchange is not None:
            slot = self.exchange.slots.get(peer)
            if slot is not None and type(message) is Lease and slot.give(message):
                return True
            if type(message) is Welcome:
                message.shared = self.exchange.invite(peer)
        *first, last = [peer, *pack(message, self.envelope)]
        try:
            for frame in first:
                self.socket.send(frame, zmq.SNDMORE | zmq.DONTWAIT)
            if is_large(last):
                weights = self._steady(last, getattr(message, "version", -1))
                self.rooms.busy(self.socket.send(weights.data, zmq.DONTWAIT, copy=False, track=True))
            else:
                self.socket.send(last, zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def _steady(self, weights: Vector, version: int) -> Vector:
        """One copy for all who get the weights of a version: an update may come before the last of them has."""
        if self.copied[0] is not weights or self.copied[1] != version:
            room = self.rooms.free(weights)
            np.copyto(room, weights)
            self.copied = weights, version, room
        return self.copied[2]

    def close(self) -> None:
        if self.exchange is not None:
            self.exchange.close()
        self.socket.disable_monitor()
        self.handshakes.close()
        self.socket.close()
        if self.gate is not None:
            self.gate.stop()
        self.context.term()


class Gatekeeper:
    """What ZeroMQ's authenticator asks about a key."""

    def __init__(self, keys: Keys) -> None:
        self.key = keys.worker_public.encode()

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self.key


class WorkerSocket:
    """The worker's end. `run` may be ANY_RUN: then it is learnt from the first answer."""

    def __init__(self, address: str, run: str, worker: Worker, layout: Layout, keys: Keys | None = None) -> None:
        self.address = address
        self.worker = worker  # that the server may lend its weights to
        self.layout = layout
        self.place: Place | None = None
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
        try:
            self.socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise SettingError(f"the server's address {address!r} cannot be used: {error}") from None

    def send(self, message: FromWorker, incarnation: int) -> None:
        """Send; of the vectors, the one that `gradients` has named must stay as it is, until that names it again."""
        if self.place is not None and type(message) is Contribution and self.place.send(message):
            faults.reach("sent", step=message.step)
            return
        *first, last = pack(message, Envelope(self.run, incarnation))
        for frame in first:
            self._send(message, frame, zmq.SNDMORE)
        step = getattr(message, "step", -1)
        faults.reach("half-sent", step=step)
        self._send(message, last, 0)
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
        if not invitation:
            return
        try:
            self.place = Place(invitation, self.layout)
            self.worker.lent = self.place.weights.vector
        except OSError:  # the server notices, and says so
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
        self.socket.close()
        self.context.term()
