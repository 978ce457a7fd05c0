"""What a worker needs to know of its server, and which keys: none on loopback, CURVE keys on any other address."""

import ipaddress
from pathlib import Path

from karp.errors import SettingError
from karp.transport import keys


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


