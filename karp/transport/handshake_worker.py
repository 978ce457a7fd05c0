"""Why a worker's server does not answer: the events of the socket's monitor, and a probe of the address.

After a fault of key or protocol that this end has found, ZeroMQ does not try again and forgets the address: from then
on a send would block for ever. Where the other end has found the fault, this end learns only that the connection was
closed, and tries again without end. So a worker that gets no answer reads the monitor, ends at once where waiting
cannot help, and now and then probes the address with a connection of its own: the system says why it is refused, or
the greeting shows what listens there.
"""

import socket
from enum import Enum

import zmq

from karp.errors import KarpError, LostError, RefusedError
from karp.transport.addresses import compose, split
from karp.transport.handshake import (
    AUTH,
    CONNECTED,
    CRYPTOGRAPHIC,
    DISCONNECTED,
    FAILURES,
    MISMATCH,
    PROTOCOL,
    SUCCEEDED,
    open_monitor,
    read_events,
)

CONNECT_SECONDS = 2.0  # the most that a probe waits for a connection
ANSWER_SECONDS = 1.0  # the most that a probe waits for a greeting
CLOSED_OFTEN = 20  # so many handshakes broken off in a row by a server with keys: the keys are at fault
GREETING = b"\xff" + bytes(8) + b"\x7f\x03"  # ZMTP 3.0: signature and version; a peer answers with its whole greeting
GREETING_BYTES, MECHANISM = 64, slice(12, 32)


class ConnectionState(Enum):
    """How far a worker's connection to the server has come; the value is what a message says of it."""

    NONE = "there is no connection"
    CONNECTED = "something accepts connections there, but does not answer as a karp server would"
    OPEN = "it is reached, but says nothing"


class ServerConnection:
    """A worker's connection to the server at `address`, and what is known of its failures."""

    def __init__(self, end: "zmq.Socket[bytes]", address: str, with_keys: bool) -> None:
        """Connect the socket `end` to `address`; raises ZMQError if that is not an address."""
        self.end = end
        self.monitor = open_monitor(end, CONNECTED, DISCONNECTED, SUCCEEDED, *FAILURES)
        self.address = address
        self.endpoints = endpoints(address)  # of several addresses, ZeroMQ tries only the first
        self.with_keys = with_keys
        self.state = ConnectionState.NONE
        self.closed = 0  # handshakes that the other end has broken off since the last that succeeded
        self.given_up = False  # whether ZeroMQ has stopped trying to connect
        self.finding = ""  # what the last probe has found, since the last handshake that succeeded
        end.connect(self.endpoints[0])

    def diagnose(self, probe_address: bool) -> str:
        """Return why there is no answer, as far as it is known; `probe_address` finds out more and may take 3 s.

        Raises RefusedError for keys that do not match, LostError if no karp server listens there: waiting cannot help.
        """
        for event, value in read_events(self.monitor):
            self._handle_event(event, value)
        if probe_address or self.given_up:
            self._probe()
        if self.given_up:
            finding = self.finding or "its ZeroMQ is not that of one"
            raise LostError(f"what listens at {self.address} is no karp server: {finding}; is that its address?")
        if self.state is ConnectionState.NONE and not self.closed and len(self.endpoints) > 1:
            self._try_next_endpoint()
        return self.finding or self.state.value

    def _try_next_endpoint(self) -> None:
        """Disconnect from the current address of the host and connect to the next, after the last to the first again.

        ZeroMQ itself tries only the first address that a name like 'localhost' stands for.
        """
        self.end.disconnect(self.endpoints[0])
        self.endpoints.append(self.endpoints.pop(0))
        self.end.connect(self.endpoints[0])

    def _handle_event(self, event: int, value: int) -> None:
        """Update the state by one event of the monitor; raises RefusedError for a fault of keys."""
        if event == CONNECTED:
            self.state = ConnectionState.CONNECTED
        elif event == SUCCEEDED:
            self.state, self.closed, self.finding = ConnectionState.OPEN, 0, ""
        elif event == DISCONNECTED:
            self.closed += self.state is ConnectionState.CONNECTED
            self.state = ConnectionState.NONE
        elif event == AUTH:
            raise self._wrong_keys("does not let this worker's key in")
        elif event == PROTOCOL and value == MISMATCH:
            raise self._missing_keys()
        elif event == PROTOCOL and value == CRYPTOGRAPHIC:
            raise self._wrong_keys("has not the key that this worker expects")
        elif event == PROTOCOL:
            self.given_up = True

    def _wrong_keys(self, why: str) -> KarpError:
        what = "pass those of its run, which karp launch --keys was given"
        return RefusedError(f"the server at {self.address} {why}: these are not its keys; {what}")

    def _missing_keys(self) -> KarpError:
        """Return the error for keys that only one end has."""
        if self.with_keys:
            return RefusedError(f"the server at {self.address} has no keys, but this worker has: leave out --keys")
        return RefusedError(
            f"the server at {self.address} takes workers with its keys alone, and this one has none: pass --keys DIR "
            "with those that karp launch --keys was given"
        )

    def _probe(self) -> None:
        """Probe the address, unless a connection is open or its handshake is still under way; sets `finding`.

        Raises RefusedError if the probe shows that keys are missing, or that they are at fault.
        """
        self.finding = ""
        if self.state is ConnectionState.OPEN or (self.state is ConnectionState.CONNECTED and not self.closed):
            return
        mechanism, self.finding = probe(self.address)
        if mechanism and (mechanism == "CURVE") != self.with_keys:
            raise self._missing_keys()
        if mechanism and self.with_keys and self.closed >= CLOSED_OFTEN:
            raise self._wrong_keys("breaks off every handshake")

    def close(self) -> None:
        self.monitor.close()


def endpoints(address: str) -> list[str]:
    """Return one endpoint for each IP address of the host in `address`; only `address` if there are not several.

    >>> endpoints("tcp://127.0.0.1:5555")
    ['tcp://127.0.0.1:5555']
    """
    try:
        host, port = split(address)
        name = host.encode() if host.isascii() else host  # of a str, Python would import the tables of foreign names
        resolved = [found[0] for *_, found in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    except (OSError, ValueError):  # the name may be resolved later
        return [address]
    several = [compose(str(ip), port) for ip in dict.fromkeys(resolved)]
    return several if len(several) > 1 else [address]


def probe(address: str) -> tuple[str, str]:
    """Connect to an address; return the mechanism of its ZeroMQ ('NULL', 'CURVE', …) and '', or '' and what is wrong.

    Takes 3 s at most, and raises nothing.
    """
    try:
        where = split(address)
    except ValueError:
        return "", "that is no address"
    try:
        with socket.create_connection(where, CONNECT_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            return read_greeting(connection)
    except TimeoutError:
        return "", "nothing answers there, as if it were behind a firewall or switched off"
    except (OSError, UnicodeError, OverflowError) as error:
        return "", f"it cannot be reached ({getattr(error, 'strerror', None) or error})"


def read_greeting(connection: socket.socket) -> tuple[str, str]:
    """Exchange ZeroMQ's greetings; return the peer's mechanism and '', or '' and a sentence on what it did instead.

    Errors of the connection are not raised: the sentence says that the peer is silent or closes it.
    """
    received, silent = b"", False
    try:
        connection.sendall(GREETING)
        while len(received) < GREETING_BYTES and (more := connection.recv(GREETING_BYTES - len(received))):
            received += more
    except TimeoutError:
        silent = True
    except OSError:
        pass
    if len(received) == GREETING_BYTES and received[0] == 0xFF and received[9] == 0x7F:
        return received[MECHANISM].rstrip(b"\0").decode("ascii", "replace"), ""
    if received:
        does = f"speaks no ZeroMQ, but says {received[:24]!r}"
    else:
        does = "says nothing" if silent else "closes them at once"
    return "", f"what accepts connections there {does}"
