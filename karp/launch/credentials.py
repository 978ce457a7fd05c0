"""The keys of a launched server, and the variables of a worker that joins it from elsewhere.

A server on loopback needs no keys; one on any other address has CURVE keys.
"""

import ipaddress
import re
import socket
from pathlib import Path

from karp import environment
from karp.errors import SettingError
from karp.transport import keys


def keys_for(host: str, directory: str) -> keys.Keys | None:
    """Return the keys of a server on the address `host`: those in `directory`, else new ones; None on loopback.

    Raises SettingError if `host` is not an IP address, and for keys that cannot be read or that only a worker can use.
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
    """Return the environment variables of a worker that joins the run of this server.

    Raises SettingError for an impossible address, or for keys that cannot be read.
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
