"""The server's end of ZeroMQ: a ROUTER on a socket that is listening already."""

from functools import partial
from typing import Any

import numpy as np
import zmq

from karp.errors import ProtocolError
from karp.protocol.messages import (
    FROM_WORKER,
    FromServer,
    FromWorker,
    Lease,
    Welcome,
)
from karp.protocol.tree import Vector
from karp.transport.buffers import Rooms, is_large
from karp.transport.frames import Envelope, pack, unpack
from karp.transport.handshake_server import Strangers
from karp.transport.keys import Keys
from karp.transport.segment import SERVER_SPIN_SECONDS, spin
from karp.transport.shared_server import Exchange
from karp.transport.zeromq import LOOK_EVERY, arrival, tune

IO_THREADS = 2  # of the server: what two workers send is read, and what they get is written, at the same time


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
        self.strangers = Strangers(self.socket, keys is not None)
        self.poller = zmq.Poller()
        self.poller.register(self.socket, zmq.POLLIN)
        self.poller.register(self.strangers.monitor, zmq.POLLIN)
        if exchange is not None:
            self.poller.register(exchange.bell, zmq.POLLIN)

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
        if self.strangers.monitor in ready:
            self.strangers.look()
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
        if envelope.unshared and self.exchange is not None and peer in self.exchange.slots:
            self.exchange.unopened[peer] = envelope.unshared
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
        self.strangers.close()
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
