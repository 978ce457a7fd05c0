"""What a worker needs to know of its server, and which keys: none on loopback, CURVE keys on any other address."""

import ipaddress
import re
import socket
from pathlib import Path

from karp.errors import SettingError
from karp.wire import keys


def keys_for(host: str, directory: str) -> keys.Keys | None:
    """The keys of a server that listens on this address: those in the directory, or fresh ones where it needs any.

    Raises SettingError for what is not an address.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise SettingError(f"--host is {host!r}; it must be an IP address of this machine") from None
    if directory:
        return keys.read(Path(directory))
    return None if address.is_loopback else keys.make()


def environment_of(server: str, directory: str | None, threads: int, program: str) -> dict[str, str]:
    """The variables of a worker that joins the run of this server.

    Raises SettingError for an address, keys or a program that cannot be.
    """
    match = re.fullmatch(r"tcp://(.+):(\d{1,5})", server)
    if match is None or not 1 <= int(match[2]) < 1 << 16:
        raise SettingError(f"--server is {server!r}; it must be tcp://HOST:PORT, with a port from 1 to 65535")
    try:
        socket.getaddrinfo(match[1].strip("[]"), int(match[2]))
    except (OSError, UnicodeError) as error:
        raise SettingError(f"--server is {server!r}, but there is no such host: {error}") from None
    if not Path(program).is_file():
        raise SettingError(f"there is no program {program!r}: pass the path of a Python file")
    found = {"KARP_SERVER": server, "KARP_THREADS": str(threads)}
    if directory is not None:
        found["KARP_KEYS"] = keys.read(Path(directory)).for_worker().to_text()
    return found
