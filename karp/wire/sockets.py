"""The two ends of the wire: ROUTER at the server, DEALER at the worker, over tcp.

The server listens on a socket that somebody has bound for it (the launcher binds it to port 0 before any process is
started, so that the address is known to all of them and outlives the server), or binds one itself.
"""

import socket

import zmq

from karp.errors import LostError, ProtocolError, SettingError
from karp.protocol.messages import FROM_SERVER, FROM_WORKER, FromServer, FromWorker
from karp.wire.frames import Envelope, pack, unpack

MESSAGE_BYTES = 1 << 32  # ZeroMQ drops the connection of a peer that announces a longer frame


def listen(host: str = "127.0.0.1") -> socket.socket:
    """A listening TCP socket on a free port of this host, to be handed to the server process."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, 0))
    listener.listen(1024)
    return listener


def address_of(listener: socket.socket) -> str:
    """Its address as ZeroMQ writes it: 'tcp://127.0.0.1:40123'."""
    host, port = listener.getsockname()[:2]
    return f"tcp://{host}:{port}"


class ServerSocket:
    """The server's end, on the descriptor of a socket that listens at `address`; it is closed with this one."""

    def __init__(self, descriptor: int, address: str, run: str, incarnation: int = 0) -> None:
        self.envelope = Envelope(run, incarnation)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 1000)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # sending to a peer that is gone is an error, not silence
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.USE_FD, descriptor)
        self.socket.bind(address)

    def receive(self) -> tuple[bytes, FromWorker | ProtocolError] | None:
        """The next message and its sender, without waiting; None if there is none.

        What is not a message of this run comes back as the ProtocolError that says why.
        """
        try:
            frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        peer = frames[0].bytes
        try:
            message, incarnation = unpack([frame.buffer for frame in frames[1:]], self.envelope.run, FROM_WORKER)
        except ProtocolError as error:
            return peer, error
        if incarnation != self.envelope.incarnation:
            return peer, ProtocolError(f"a message to incarnation {incarnation} of the server")
        return peer, message

    def send(self, peer: bytes, message: FromServer) -> None:
        """Send; a peer that is gone is passed over, its launcher or its lease tells of it."""
        try:
            self.socket.send_multipart([peer, *pack(message, self.envelope)])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def close(self) -> None:
        self.socket.close()
        self.context.term()


class WorkerSocket:
    """The worker's end."""

    def __init__(self, address: str, run: str) -> None:
        self.address = address
        self.envelope = Envelope(run)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 5000)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        try:
            self.socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise SettingError(f"the server's address {address!r} cannot be used: {error}") from None

    def send(self, message: FromWorker) -> None:
        """Send; ZeroMQ copies the vectors, so they may change as soon as this returns."""
        self.socket.send_multipart(pack(message, self.envelope))

    def receive(self, seconds: float) -> FromServer | None:
        """The next message, waiting at most so long; None if none came.

        Raises LostError for what is not a message of this run: then the address is not its server's.
        """
        if not self.socket.poll(int(seconds * 1000)):
            return None
        frames = [frame.buffer for frame in self.socket.recv_multipart(copy=False)]
        try:
            return unpack(frames, self.envelope.run, FROM_SERVER)[0]
        except ProtocolError as error:
            raise LostError(f"what answers at {self.address} is not the server of this run: {error}") from None

    def close(self, status: int = 0) -> None:
        """Send what is still to be sent, and close."""
        self.socket.close()
        self.context.term()
