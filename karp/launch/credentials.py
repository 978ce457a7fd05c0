"""The keys of a launched server, and the variables of a worker that joins it from elsewhere.

A server on loopback needs no keys; one on any other address has CURVE keys.
"""

import contextlib
import ipaddress
import socket
from pathlib import Path

from karp import environment
from karp.errors import LostError, SettingError
from karp.transport import addresses, keys


def keys_for(host: str, directory: str) -> keys.Keys | None:
    """Return the keys of a server on the address `host`: those in `directory`, else new ones; None on loopback.

    Raises SettingError if `host` is not an IP address, and for keys that cannot be read or that only a worker can use.
    """
    loopback = is_loopback(host)
    if directory:
        given = keys.read(Path(directory))
        if not given.server_secret:
            raise SettingError(f"--keys {directory} lacks the server's secret key: pass what `karp keys` made")
        return given
    return None if loopback else keys.make()


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach this IP address; raises SettingError if it is none."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise SettingError(f"--host is {host!r}; it must be an IP address of this machine") from None


def split(option: str, address: str, least: int = 1) -> tuple[str, int]:
    """Return host and port of an address that an option gives: "tcp://HOST:PORT", with a port from `least` on."""
    with contextlib.suppress(ValueError):
        host, port = addresses.split(address)
        if port >= least:
            return host, port
    raise SettingError(f"{option} is {address!r}; it must be tcp://HOST:PORT, with a port from {least} to 65535")


def resolve(server: str, option: str = "--server", least: int = 1) -> tuple[str, int]:
    """Return IP address and port of an address "tcp://HOST:PORT", whose host may be a name.

    Raises SettingError for an impossible address, LostError if there is no such host.
    """
    host, port = split(option, server, least)
    try:
        return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]), port
    except (OSError, UnicodeError) as error:
        raise LostError(f"{option} is {server!r}, but there is no such host: {error}") from None


def variables_for(server: str, directory: str | None, threads: int) -> dict[str, str]:
    """Return the environment variables of a worker that joins the run of this server.

    Raises SettingError for an impossible address and for keys that cannot be read, LostError for a host that is none.
    """
    resolve(server)
    given = {environment.SERVER: server, environment.THREADS: str(threads)}
    if directory is not None:
        given[environment.KEYS] = keys.read(Path(directory)).for_worker().to_text()
    return given
