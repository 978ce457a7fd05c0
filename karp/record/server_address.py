"""server.json: address, run and keys of a server, while its launch goes on; only its owner can read it.

Workers that the launcher starts get the same as variables. Others read it here, if they see the run's directory.
The file outlives a launcher that is killed, and the address may then be that of another run. So it has the name of the
run that this launch has made up, which every message carries.
"""

import contextlib
from pathlib import Path

from karp.errors import DataError
from karp.record import files

FILE = "server.json"


def publish(directory: Path, address: str, run: str, worker_keys: str) -> None:
    """Write the server's address, its run and its workers' keys ('' without keys); raises OSError if that fails."""
    with files.replacing(directory / FILE, 0o600, durable=False) as file:  # after a loss of power it says nothing true
        file.write(files.to_json({"address": address, "run": run, "keys": worker_keys}))


def withdraw(directory: Path) -> None:
    """Remove the file, as the server has ended; one that is missing or cannot be removed is no error."""
    with contextlib.suppress(OSError):
        (directory / FILE).unlink()


def published(directory: Path) -> tuple[str, str, str]:
    """Return the server's address, its run and its workers' keys ('' without keys).

    Raises DataError if there is no server.json, so no run is under way here, or if it is damaged.
    """
    try:
        plain = files.read_json(directory / FILE)
        address, run, worker_keys = plain["address"], plain["run"], plain["keys"]
        if not all(type(text) is str for text in (address, run, worker_keys)):
            raise TypeError("a text is missing")
    except FileNotFoundError:
        raise DataError(f"no run is under way in {directory}, so no worker can join it") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{directory / FILE} cannot be read, or is damaged: {files.reason(error)}") from None
    return address, run, worker_keys
