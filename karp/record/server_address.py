"""server.json: where a run's server is, for as long as the run goes on; only its owner can read it.

Workers that the launcher starts get the same as variables. Others find it here, if they see the run's directory.
"""

import contextlib
from pathlib import Path

from karp.errors import DataError
from karp.record import files

FILE = "server.json"


def publish(directory: Path, address: str, worker_keys: str) -> None:
    """Write the address of the server and its workers' keys as text, '' for none; raises OSError if that cannot be."""
    with files.replacing(directory / FILE, 0o600) as file:
        file.write(files.to_json({"address": address, "keys": worker_keys}))


def withdraw(directory: Path) -> None:
    """Remove what was published: the server is there no more."""
    with contextlib.suppress(OSError):
        (directory / FILE).unlink()


def published(directory: Path) -> tuple[str, str]:
    """Return what was published; raises DataError if no run is under way in this directory."""
    try:
        plain = files.read_json(directory / FILE)
        address, worker_keys = plain["address"], plain["keys"]
        if type(address) is not str or type(worker_keys) is not str:
            raise TypeError("a text is missing")
    except FileNotFoundError:
        raise DataError(f"no run is under way in {directory}, so no worker can join it") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{directory / FILE} cannot be read, or is damaged: {files.reason(error)}") from None
    return address, worker_keys
