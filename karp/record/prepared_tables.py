"""The prepared tables in a run's directory, as a launcher sees them: files, of which it checks and removes some.

A table is a folder with `manifest.json`, which names its arrays with their SHA-256; it is DIR/prepared itself, or one
in it (`tabular/preparation/`). Whoever prepares one in DIR/prepared holds a lock there until the run's own files say
that there is a run, so one that was killed before is known by a lock that nobody holds.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from karp.errors import RecordError
from karp.record import files, launched
from karp.record.paths import PREPARED, RUN_FILES

MANIFEST = "manifest.json"
_LOCK = ".preparing"


def check_prepared(directory: Path) -> list[str]:
    """Read the prepared tables of a run that is resumed, and compare them with the digests in their manifests.

    Returns a line for each table that has changed and is prepared again, as its program can do that. Raises RecordError
    for another one that has changed.
    """
    lines = []
    for manifest in sorted((directory / PREPARED).glob(f"**/{MANIFEST}")):
        try:
            why = _damage(manifest)
        except OSError as error:
            why = f"{error.filename or manifest} cannot be read: {files.reason(error)}"
        if why and manifest.parent == directory / PREPARED:
            raise RecordError(f"{why}; fit again, in another directory")
        if why:
            manifest.unlink(missing_ok=True)
            lines.append(f"{why}; the table is prepared again")
    return lines


def _damage(manifest: Path) -> str:
    """Return what of a table is not as it was written; '' if all of it is."""
    try:
        plain: Any = files.read_json(manifest)
        if plain.pop("sha256") != digest(plain):
            return f"{manifest} has changed since it was written"
        arrays = [(part, name, array["sha256"]) for part, entry in plain["parts"].items()
                  for name, array in entry["arrays"].items()]  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{manifest} is damaged"
    for part, name, wanted in arrays:
        path = manifest.with_name(f"{part}.{name}")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                return f"{path} has changed since it was written"
    return ""


def digest(plain: Any) -> str:
    """Return the SHA-256 of plain data, as JSON of one form."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=False).encode()).hexdigest()


def remove_prepared(directory: Path, whole: bool = False) -> str:
    """Remove the prepared tables of a run, or its `whole` directory; return why that fails, or '' if they are gone."""
    import shutil  # as it takes a launcher milliseconds

    try:
        shutil.rmtree(directory if whole else directory / PREPARED)
    except FileNotFoundError:
        pass
    except OSError as error:
        return files.reason(error)
    return ""


@contextmanager
def lock_prepared(directory: Path, made: bool) -> Iterator[None]:
    """Hold the lock on the prepared table of a run that is about to begin, while the block runs.

    After an exception before it has begun the table is gone, and the directory, too, if it was `made` for the run.
    Raises RecordError if another process holds the lock, or it cannot be made.
    """
    folder = directory / PREPARED
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        why = f"the run directory {directory} cannot be used: {files.reason(error)}; pass another"
        raise RecordError(why) from None
    try:
        if files.lock(descriptor) is False:
            raise RecordError(f"another process prepares a table in {directory}: pass another directory")
        try:
            yield
        except BaseException:
            if not _has_begun(directory):
                remove_prepared(directory, made)
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(directories: Iterable[Path]) -> list[str]:
    """Remove the prepared tables of runs that have not begun, as their process was killed; return a line for each.

    Their directories go, too, if they hold nothing else.
    """
    lines = []
    for directory in directories:
        lock = directory / PREPARED / _LOCK
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:  # there is none, or it is somebody else's
            continue
        try:
            left = files.lock(descriptor) and os.path.samestat(os.fstat(descriptor), lock.stat())
            if left and not _has_begun(directory) and not remove_prepared(directory):
                lines.append(f"{directory / PREPARED} is removed: the process that prepared it was killed")
                directory.rmdir()
        except OSError:  # it holds other files, or has gone
            continue
        finally:
            os.close(descriptor)
    return lines


def _has_begun(directory: Path) -> bool:
    """Return whether a directory holds a run, which needs its prepared table."""
    return any((directory / name).exists() for name in (launched.FILE, *RUN_FILES))
