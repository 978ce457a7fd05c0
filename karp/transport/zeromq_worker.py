"""A worker's ZeroMQ socket: a DEALER."""

import os
from typing import Any

import zmq

from karp import faults
from karp.errors import LostError, ProtocolError, SettingError
from karp.protocol.messages import FROM_SERVER, FromServer, FromWorker
from karp.transport.buffers import BufferPool, is_large
from karp.transport.frames import ANY_RUN, Envelope, pack, unpack
from karp.transport.handshake_worker import ServerConnection
from karp.transport.keys import Keys
from karp.transport.zeromq import has_message, set_options


class WorkerSocket:
    """The socket to the server; `run` may be ANY_RUN: then the run is learnt from the first answer.

    Raises SettingError if `address` is not an address.
    """

    def __init__(self, address: str, run: str, keys: Keys | None = None) -> None:
        self.address = address
        self.run = run
        self.buffers = BufferPool()  # for gradients
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        set_options(self.socket, keys)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.IDENTITY, b"k" + os.urandom(15))  # the same after a reconnection
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        try:
            self.connection = ServerConnection(self.socket, address, keys is not None)
        except zmq.ZMQError as error:
            self.context.destroy(0)
            raise SettingError(f"the server's address {address!r} cannot be used: {error}") from None

    def send(self, message: FromWorker, incarnation: int, unshared: str = "", borrowed: bool = False) -> None:
        """Send a message; `unshared` says why the worker cannot open the shared memory that it was offered.

        With `borrowed`, a large vector of the message lies in a buffer of the pool, and is sent without a copy. If
        ZeroMQ has given up the server's address, nothing is sent, and the connection is marked as given up.
        """
        *first, last = pack(message, Envelope(self.run, incarnation, unshared=unshared))
        step = getattr(message, "step", -1)
        try:
            for frame in first:
                self._send_frame(frame, borrowed, zmq.SNDMORE | zmq.DONTWAIT)
            faults.reach("half-sent", step=step)
            self._send_frame(last, borrowed, zmq.DONTWAIT)
        except zmq.Again:  # SNDHWM is unlimited, so this means that ZeroMQ has forgotten the address
            self.connection.given_up = True

    def _send_frame(self, frame: Any, borrowed: bool, flags: int) -> None:
        if borrowed and is_large(frame):
            self.buffers.mark_sending(self.socket.send(frame, flags, copy=False, track=True))
        else:
            self.socket.send(frame, flags)

    def has_message(self) -> bool:
        """Return whether a message has arrived."""
        return has_message(self.socket)

    def receive(self) -> tuple[FromServer, Envelope]:
        """Return the next message, which must have arrived, and its envelope.

        Raises LostError for data that are not a message of this run: then another server has the address.
        """
        frames = [frame.buffer for frame in self.socket.recv_multipart(copy=False)]
        try:
            message, envelope = unpack(frames, self.run, FROM_SERVER)
        except ProtocolError as error:
            raise LostError(f"what answers at {self.address} is not the server of this run: {error}") from None
        if self.run == ANY_RUN:
            self.run = envelope.run
        return message, envelope

    def close(self) -> None:
        """Close the connection; ZeroMQ sends the messages that are still to be sent, for at most a second."""
        self.socket.disable_monitor()
        self.connection.close()
        self.socket.close()
        self.context.term()
