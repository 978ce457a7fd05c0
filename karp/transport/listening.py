"""The socket that a run's server listens on: the launcher binds it before it starts any process."""

import contextlib
import socket

from karp.errors import SettingError
from karp.transport.addresses import compose


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Open a listening TCP socket, to be handed to the server process; port 0 takes a free one.

    Raises SettingError if the host is not one of this machine's or the port is in use.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        where = f"{host}:{port}" if port else host
        raise SettingError(f"the server cannot listen on {where}: {error}; name another host or port") from None
    listener.listen(1024)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket as ZeroMQ writes it: 'tcp://127.0.0.1:40123'."""
    return compose(*listener.getsockname()[:2])


def address_for_others(listener: socket.socket) -> str:
    """Return the address at which processes of other hosts can reach a listening socket.

    One that listens at all addresses of this host ('0.0.0.0' or '::') is reached at the one that the host's packets to
    others bear, or else at the one that its name stands for; if it has neither, at loopback.
    """
    host, port = listener.getsockname()[:2]
    if host not in ("0.0.0.0", "::"):
        return address_of(listener)
    return compose(outward_host(listener.family), port)


def outward_host(family: socket.AddressFamily) -> str:
    """Return the IP address that packets of this host to others bear; no packet is sent."""
    example, loopback = ("2001:db8::1", "::1") if family == socket.AF_INET6 else ("192.0.2.1", "127.0.0.1")
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((example, 9))
        return str(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, family, socket.SOCK_STREAM):
            if not str(address[0]).startswith(("127.", "::1")):
                return str(address[0])
    return loopback
