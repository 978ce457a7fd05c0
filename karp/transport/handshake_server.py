"""The server's view of connections that fail: where they came from, and why they were rejected."""

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
    open_monitor,
    read_events,
)


class RejectedConnections:
    """The connections to the server's socket whose handshake failed."""

    def __init__(self, end: "zmq.Socket[bytes]", with_keys: bool) -> None:
        self.monitor = open_monitor(end, ACCEPTED, DISCONNECTED, *FAILURES)
        self.with_keys = with_keys
        self.addresses: dict[int, str] = {}  # descriptor of an open connection -> its peer's address
        self.reasons: list[str] = []  # those of failures whose connections are not closed yet
        self.rejected: list[str] = []

    def read_events(self) -> None:
        """Read the monitor's events, and keep a line in `rejected` for each connection that failed.

        Call it often, as a peer's address is known only while it is connected.
        """
        events = list(read_events(self.monitor))
        closed = {value for event, value in events if event == DISCONNECTED}
        for event, value in events:
            if event == ACCEPTED and value not in closed:
                self.addresses[value] = peer_address(value)
            elif event in FAILURES:
                self.reasons.append(describe_failure(event, value, self.with_keys))
            elif event == DISCONNECTED:
                address = self.addresses.pop(value, "")
                if self.reasons:
                    who = f"a connection from {address}" if address else "a connection"
                    self.rejected.append(f"{who} {self.reasons.pop(0)}")

    def take_reasons(self) -> list[str]:
        """Return a line for each connection rejected since the last call: its address and the reason."""
        self.read_events()
        rejected, self.rejected = self.rejected, []
        return rejected

    def close(self) -> None:
        self.monitor.close()


def describe_failure(event: int, value: int, with_keys: bool) -> str:
    """Describe what the other end did, from the monitor's event of a failed handshake.

    >>> describe_failure(AUTH, 400, True)
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
    which = "without keys" if with_keys else "with keys"  # the other end may have been the first to see the mismatch
    return f"broke off the handshake ({os.strerror(value)}), as a port scanner does, or a worker {which}"


def peer_address(descriptor: int) -> str:
    """Return the IP address, without port, at the other end of this open connection; '' if that is no longer known."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return ""
    try:
        return str(connection.getpeername()[0]).removeprefix("::ffff:")
    except (OSError, IndexError):
        return ""
    finally:
        connection.detach()  # ZeroMQ closes the descriptor
