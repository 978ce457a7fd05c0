"""What a worker needs to know of its server, and which keys: none on loopback, CURVE keys on any other address."""

import ipaddress
import re
import socket
from pathlib import Path

from karp import environment
from karp.errors import SettingError
from karp.transport import keys


def keys_for(host: str, directory: str) -> keys.Keys | None:
    """The keys of a server that listens on this address: those in the directory, or fresh ones where it needs any.

    Raises SettingError for what is not an address, and for keys that only a worker can use.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise SettingError(f"--host is {host!r}; it must be an IP address of this machine") from None
    if directory:
        given = keys.read(Path(directory))
        if not given.server_secret:
            raise SettingError(f"--keys {directory} lacks the server's secret key: pass what `karp keys` made")
        return given
    return None if address.is_loopback else keys.make()


def variables_for(server: str, directory: str | None, threads: int) -> dict[str, str]:
    """Return the variables of a worker that joins the run of this server.

    Raises SettingError for an address or keys that cannot be.
    """
    match = re.fullmatch(r"tcp://(.+):(\d{1,5})", server)
    if match is None or not 1 <= int(match[2]) < 1 << 16:
        raise SettingError(f"--server is {server!r}; it must be tcp://HOST:PORT, with a port from 1 to 65535")
    try:
        socket.getaddrinfo(match[1].strip("[]"), int(match[2]))
    except (OSError, UnicodeError) as error:
        raise SettingError(f"--server is {server!r}, but there is no such host: {error}") from None
    given = {environment.SERVER: server, environment.THREADS: str(threads)}
    if directory is not None:
        given[environment.KEYS] = keys.read(Path(directory)).for_worker().to_text()
    return given
