"""server.json: the address and keys of a run's server, while the run goes on; only its owner can read it.

Workers that the launcher starts get the same as variables. Others read it here, if they see the run's directory.
"""

import contextlib
from pathlib import Path

from karp.errors import DataError
from karp.record import files

FILE = "server.json"


def publish(directory: Path, address: str, worker_keys: str) -> None:
    """Write the server's address and its workers' keys as text, '' for none; raises OSError if that fails."""
    with files.replacing(directory / FILE, 0o600, durable=False) as file:  # after a loss of power it says nothing true
        file.write(files.to_json({"address": address, "keys": worker_keys}))


def withdraw(directory: Path) -> None:
    """Remove the file when the server has ended."""
    with contextlib.suppress(OSError):
        (directory / FILE).unlink()


def published(directory: Path) -> tuple[str, str]:
    """Read the server's address and its workers' keys; raises DataError if no run is under way in this directory."""
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
