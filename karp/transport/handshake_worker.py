"""Why a worker's server does not answer: what the socket's monitor says, and a look of one's own.

After a fault of key or protocol that this end has found, ZeroMQ does not try again and forgets the address: from then
on a send would block for ever. Where the other end has found it, this one is told that the connection was closed, and
tries again without end. So a worker that waits in silence looks at the monitor, ends at once where no waiting helps,
and now and then knocks at the server's door: the system says why nobody opens, and whoever opens says what it is.
"""

import re
import socket
from enum import Enum

import zmq

from karp.errors import KarpError, LostError, RefusedError
from karp.transport.handshake import (
    AUTH,
    CONNECTED,
    CRYPTOGRAPHIC,
    DISCONNECTED,
    FAILURES,
    MISMATCH,
    PROTOCOL,
    SUCCEEDED,
    happened,
    monitor,
)

CONNECT_SECONDS = 2.0  # for a look of one's own
ANSWER_SECONDS = 1.0
CLOSED_OFTEN = 20  # broken off so often, handshakes with a server of keys fail by the keys
GREETING = b"\xff" + bytes(8) + b"\x7f\x03"  # ZMTP 3.0: signature and version, upon which a peer says the rest
GREETING_BYTES, MECHANISM = 64, slice(12, 32)


class Way(Enum):
    """How far a worker has come on its way to the server."""

    NONE = "there is no connection"
    CONNECTED = "something accepts connections there, but does not answer as a karp server would"
    OPEN = "it is reached, but says nothing"


class Approach:
    """A worker's way to the server at `address`."""

    def __init__(self, end: "zmq.Socket[bytes]", address: str, with_keys: bool) -> None:
        """Raises ZMQError for what is no address."""
        self.end = end
        self.monitor = monitor(end, CONNECTED, DISCONNECTED, SUCCEEDED, *FAILURES)
        self.address = address
        self.endpoints = endpoints(address)  # the first of them is tried
        self.with_keys = with_keys
        self.way = Way.NONE
        self.closed = 0  # handshakes that the other end has broken off since one succeeded
        self.forgotten = False  # ZeroMQ does not try again
        self.seen = ""  # what a look has found since
        end.connect(self.endpoints[0])

    def trouble(self, look: bool) -> str:
        """Why there is no answer, as far as it is known; with `look` more is found out, for which it may take 3 s.

        Raises RefusedError or LostError where no waiting helps.
        """
        for event, value in happened(self.monitor):
            self._take(event, value)
        if look or self.forgotten:
            self._look()
        if self.forgotten:
            seen = self.seen or "its ZeroMQ is not that of one"
            raise LostError(f"what listens at {self.address} is no karp server: {seen}; is that its address?")
        if self.way is Way.NONE and not self.closed and len(self.endpoints) > 1:
            self._try_another()
        return self.seen or self.way.value

    def _try_another(self) -> None:
        """A name has several addresses, as 'localhost' often has, of which ZeroMQ tries the first alone."""
        self.end.disconnect(self.endpoints[0])
        self.endpoints.append(self.endpoints.pop(0))
        self.end.connect(self.endpoints[0])

    def _take(self, event: int, value: int) -> None:
        """One event of the monitor."""
        if event == CONNECTED:
            self.way = Way.CONNECTED
        elif event == SUCCEEDED:
            self.way, self.closed, self.seen = Way.OPEN, 0, ""
        elif event == DISCONNECTED:
            self.closed += self.way is Way.CONNECTED
            self.way = Way.NONE
        elif event == AUTH:
            raise self._refused("does not let this worker's key in")
        elif event == PROTOCOL and value == MISMATCH:
            raise self._mismatch()
        elif event == PROTOCOL and value == CRYPTOGRAPHIC:
            raise self._refused("has not the key that this worker expects")
        elif event == PROTOCOL:
            self.forgotten = True

    def _refused(self, why: str) -> KarpError:
        what = "pass those of its run, which karp launch --keys was given"
        return RefusedError(f"the server at {self.address} {why}: these are not its keys; {what}")

    def _mismatch(self) -> KarpError:
        if self.with_keys:
            return RefusedError(f"the server at {self.address} has no keys, but this worker has: leave out --keys")
        return RefusedError(
            f"the server at {self.address} takes workers with its keys alone, and this one has none: pass --keys DIR "
            "with those that karp launch --keys was given"
        )

    def _look(self) -> None:
        """Knock, where there is no connection; one that waits for the handshake is left alone, and so is its server."""
        self.seen = ""
        if self.way is Way.OPEN or (self.way is Way.CONNECTED and not self.closed):
            return
        mechanism, self.seen = knock(self.address)
        if mechanism and (mechanism == "CURVE") != self.with_keys:
            raise self._mismatch()
        if mechanism and self.with_keys and self.closed >= CLOSED_OFTEN:
            raise self._refused("breaks off every handshake")

    def close(self) -> None:
        self.monitor.close()


def endpoints(address: str) -> list[str]:
    """The address itself, or, if it names a host that has several, each of them.

    >>> endpoints("tcp://127.0.0.1:5555")
    ['tcp://127.0.0.1:5555']
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        found = [place[0] for *_, place in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):  # it may be known later
        found = []
    several = [f"tcp://[{one}]:{port}" if ":" in str(one) else f"tcp://{one}:{port}" for one in dict.fromkeys(found)]
    return several if len(several) > 1 else [address]


def knock(address: str) -> tuple[str, str]:
    """How the ZeroMQ at an address lets others in ('NULL', 'CURVE', …) and '', or else '' and what is there instead."""
    match = re.fullmatch(r"tcp://(.+):(\d{1,5})", address)
    if match is None:
        return "", "that is no address"
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), CONNECT_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            return greet(connection)
    except TimeoutError:
        return "", "nothing answers there, as if it were behind a firewall or switched off"
    except (OSError, UnicodeError, OverflowError) as error:
        return "", f"it cannot be reached ({getattr(error, 'strerror', None) or error})"


def greet(connection: socket.socket) -> tuple[str, str]:
    """What whoever accepted a connection says of itself."""
    said, silent = b"", False
    try:
        connection.sendall(GREETING)
        while len(said) < GREETING_BYTES and (more := connection.recv(GREETING_BYTES - len(said))):
            said += more
    except TimeoutError:
        silent = True
    except OSError:
        pass
    if len(said) == GREETING_BYTES and said[0] == 0xFF and said[9] == 0x7F:
        return said[MECHANISM].rstrip(b"\0").decode("ascii", "replace"), ""
    found = f"speaks no ZeroMQ, but says {said[:24]!r}" if said else "says nothing" if silent else "closes them at once"
    return "", f"what accepts connections there {found}"
