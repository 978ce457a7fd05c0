"""The events of ZeroMQ's socket monitors: how a handshake succeeds or fails.

    CONNECTED --greetings, keys--> HANDSHAKE_SUCCEEDED
        |
        +--> HANDSHAKE_FAILED_*, DISCONNECTED

The end that finds a fault knows its kind (a mechanism, a key, the protocol) and closes the connection. The other end
often learns only that it was closed, and tries again, many times a second.
"""

import struct
from collections.abc import Iterator

import zmq

ACCEPTED, CONNECTED, DISCONNECTED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_CONNECTED), int(zmq.EVENT_DISCONNECTED)
SUCCEEDED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
NO_DETAIL = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)  # its value is an errno
PROTOCOL = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)  # its value is one of PROTOCOL_ERROR_*
AUTH = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)  # its value is a ZAP status: 400 is a key that was refused
FAILURES = (NO_DETAIL, PROTOCOL, AUTH)
MISMATCH = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)  # one end has keys, the other has none
CRYPTOGRAPHIC = int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)  # this end's keys cannot decrypt what was sent


def open_monitor(end: "zmq.Socket[bytes]", *events: int) -> "zmq.Socket[bytes]":
    """Open a socket that receives these events of the socket `end`; the caller closes it before the context ends."""
    return end.get_monitor_socket(zmq.Event(sum(events)))


def read_events(monitor: "zmq.Socket[bytes]") -> Iterator[tuple[int, int]]:
    """Yield the events that have arrived, with their values, without waiting for more.

    (pyzmq's `recv_monitor_message` does the same, but importing it takes as long as half of karp.)
    """
    while monitor.poll(0):
        event, value = struct.unpack("=HI", monitor.recv_multipart()[0])
        yield event, value
