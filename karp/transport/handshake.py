"""The events of ZeroMQ's socket monitors: how a connection comes about, or does not.

    CONNECTED --greetings, keys--> HANDSHAKE_SUCCEEDED
        |
        +--> HANDSHAKE_FAILED_*, DISCONNECTED

The end that finds a fault knows its kind (a mechanism, a key, the protocol) and closes the connection. The other end is
often told no more than that it was closed, and tries again, many times a second.
"""

import struct
from collections.abc import Iterator

import zmq

ACCEPTED, CONNECTED, DISCONNECTED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_CONNECTED), int(zmq.EVENT_DISCONNECTED)
SUCCEEDED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
NO_DETAIL = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)  # its value is an errno
PROTOCOL = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)  # its value is one of PROTOCOL_ERROR_*
AUTH = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)  # its value is a status of ZAP: 400, not let in
FAILURES = (NO_DETAIL, PROTOCOL, AUTH)
MISMATCH = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)  # one end has keys, the other has none
CRYPTOGRAPHIC = int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)  # what was sent does not open with this end's keys


def monitor(end: "zmq.Socket[bytes]", *events: int) -> "zmq.Socket[bytes]":
    """A socket that gets these events of another one; to be closed before its context ends."""
    return end.get_monitor_socket(zmq.Event(sum(events)))


def happened(monitor: "zmq.Socket[bytes]") -> Iterator[tuple[int, int]]:
    """The events that have come, with their values, without waiting for more.

    (pyzmq's `recv_monitor_message` does the same, but to import it takes as long as half of karp.)
    """
    while monitor.poll(0):
        event, value = struct.unpack("=HI", monitor.recv_multipart()[0])
        yield event, value
