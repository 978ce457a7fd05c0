"""What a worker needs to know of its server, and which keys: none on loopback, CURVE keys on any other address."""

import ipaddress
from pathlib import Path

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


