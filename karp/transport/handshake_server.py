"""Who was turned away at the server's door, and why."""

import os
import socket

import zmq

from karp.transport.handshake import (
    ACCEPTED,
    AUTH,
    CRYPTOGRAPHIC,
    DISCONNECTED,
    FAILURES,
    MISMATCH,
    PROTOCOL,
    happened,
    monitor,
)


class Strangers:
    """Connections to the server's socket that did not become a worker's."""

    def __init__(self, end: "zmq.Socket[bytes]", with_keys: bool) -> None:
        self.monitor = monitor(end, ACCEPTED, DISCONNECTED, *FAILURES)
        self.with_keys = with_keys
        self.addresses: dict[int, str] = {}  # of connections, by their descriptors
        self.reasons: list[str] = []  # of failures whose connections are not closed yet
        self.turned_away: list[str] = []

    def look(self) -> None:
        """Take note of what has happened; an address is known only to who looks while its connection is open."""
        events = list(happened(self.monitor))
        closed = {value for event, value in events if event == DISCONNECTED}
        for event, value in events:
            if event == ACCEPTED and value not in closed:
                self.addresses[value] = address_of_peer(value)
            elif event in FAILURES:
                self.reasons.append(why(event, value, self.with_keys))
            elif event == DISCONNECTED:
                address = self.addresses.pop(value, "")
                if self.reasons:
                    who = f"a connection from {address}" if address else "a connection"
                    self.turned_away.append(f"{who} {self.reasons.pop(0)}")

    def take(self) -> list[str]:
        """Who was turned away since the last call, each with the reason."""
        self.look()
        turned_away, self.turned_away = self.turned_away, []
        return turned_away

    def close(self) -> None:
        self.monitor.close()


def why(event: int, value: int, with_keys: bool) -> str:
    """What a stranger did, as the server's monitor says it.

    >>> why(AUTH, 400, True)
    "came with a workers' key that is not this run's"
    """
    if event == AUTH:
        return "came with a workers' key that is not this run's"
    if event == PROTOCOL and value == MISMATCH:
        return "came without keys, but this run has some" if with_keys else "came with keys, but this run has none"
    if event == PROTOCOL and value == CRYPTOGRAPHIC:
        return "came with another server's public key, or with a key of its own that is damaged"
    if event == PROTOCOL:
        return f"did not keep to ZeroMQ's protocol ({value:#x})"
    which = "without keys" if with_keys else "with keys"  # that end may have been the first to see it
    return f"broke off the handshake ({os.strerror(value)}), as a port scanner does, or a worker {which}"


def address_of_peer(descriptor: int) -> str:
    """The address at the other end of a connection of ZeroMQ's; '' if that is not known any more."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return ""
    try:
        return str(connection.getpeername()[0]).removeprefix("::ffff:")
    except (OSError, IndexError):
        return ""
    finally:
        connection.detach()  # it is not this one's to close
