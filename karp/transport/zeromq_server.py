"""The server's ZeroMQ socket: a ROUTER on a socket that is listening already."""

from typing import Any

import numpy as np
import zmq

from karp.errors import ProtocolError
from karp.protocol.messages import FROM_WORKER, FromServer, FromWorker
from karp.protocol.tree import Vector
from karp.transport.buffers import BufferPool, is_large
from karp.transport.frames import Envelope, pack, unpack
from karp.transport.handshake_server import RejectedConnections
from karp.transport.keys import Keys
from karp.transport.zeromq import has_message, set_options

UNREADABLE = Envelope("", 0)  # stands for the envelope of data that are no message
IO_THREADS = 2  # ZeroMQ reads from two workers, and writes to two, at the same time


class ServerSocket:
    """The socket to all workers, on the descriptor of one that listens at `address`."""

    def __init__(
        self, descriptor: int, address: str, run: str, incarnation: int = 0, keys: Keys | None = None
    ) -> None:
        self.buffers = BufferPool()  # copies of weights that are being sent
        self.copied: tuple[Vector, int, Vector] = (np.empty(0), -1, np.empty(0))  # weights, their version, a copy
        self.envelope = Envelope(run, incarnation)
        self.bytes_received = self.bytes_sent = 0  # in frames of messages, without what ZeroMQ and TCP add
        self.context: zmq.Context[Any] = zmq.Context(IO_THREADS)
        self.authenticator: Any = None
        if keys is not None:
            self._guard(keys)
        self.socket = self.context.socket(zmq.ROUTER)
        set_options(self.socket, keys)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # sending to a peer that is gone is an error, not silence
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a worker that reconnects is the one it was
        self.socket.setsockopt(zmq.USE_FD, descriptor)
        self.socket.bind(address)
        self.rejected = RejectedConnections(self.socket, keys is not None)
        self.poller = zmq.Poller()
        self.poller.register(self.socket, zmq.POLLIN)
        self.poller.register(self.rejected.monitor, zmq.POLLIN)

    def _guard(self, keys: Keys) -> None:
        """Authenticate connections: only workers that prove the run's key are let in."""
        from zmq.auth.thread import ThreadAuthenticator

        self.authenticator = ThreadAuthenticator(self.context)
        self.authenticator.start()
        self.authenticator.configure_curve_callback(credentials_provider=CredentialsProvider(keys))

    def has_message(self) -> bool:
        """Return whether a message has arrived."""
        return has_message(self.socket)

    def receive(self) -> tuple[bytes, FromWorker | ProtocolError, Envelope] | None:
        """Return the next message's sender, the message, and its envelope; None if none is there.

        For data that are not a message of this run, the message is a ProtocolError, returned and not raised.
        """
        try:
            frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        peer, received = frames[0].bytes, [frame.buffer for frame in frames[1:]]
        self.bytes_received += sum(map(len, received))
        try:
            message, envelope = unpack(received, self.envelope.run, FROM_WORKER)
        except ProtocolError as error:
            return peer, error, UNREADABLE
        return peer, message, envelope

    def send(self, peer: bytes, message: FromServer, invitation: str = "") -> bool:
        """Send a message to a peer, with an invitation to shared memory if there is one.

        Returns False if the peer is gone, or has UNREAD_MESSAGES unread messages. A large vector is copied first.
        """
        envelope = self.envelope._replace(invitation=invitation) if invitation else self.envelope
        frames = pack(message, envelope)
        *first, last = [peer, *frames]
        try:
            for frame in first:
                self.socket.send(frame, zmq.SNDMORE | zmq.DONTWAIT)
            if is_large(last):
                weights = self._copy_of(last, getattr(message, "version", -1))
                self.buffers.mark_sending(self.socket.send(weights.data, zmq.DONTWAIT, copy=False, track=True))
            else:
                self.socket.send(last, zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        head, *vectors = frames
        self.bytes_sent += len(head)
        for vector in vectors:
            self.bytes_sent += vector.nbytes
        return True

    def _copy_of(self, weights: Vector, version: int) -> Vector:
        """Copy the weights once per version, for all workers that get them: an update may come before all is sent."""
        if self.copied[0] is not weights or self.copied[1] != version:
            buffer = self.buffers.get(weights)
            np.copyto(buffer, weights)
            self.copied = weights, version, buffer
        return self.copied[2]

    def close(self) -> None:
        self.socket.disable_monitor()
        self.rejected.close()
        self.socket.close()
        if self.authenticator is not None:
            self.authenticator.stop()
        self.context.term()


class CredentialsProvider:
    """Tells ZeroMQ's authenticator whether a key is the workers' key of this run."""

    def __init__(self, keys: Keys) -> None:
        self.key = keys.worker_public.encode()

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self.key
