"""Preparing once for all workers of a host: the first one does it, the others wait for it and map the result.

Theory of operation. Workers of a run know its directory (KARP_RUN_DIR). There, a table that is read from a file has a
folder whose name is a digest of all that its rows depend on: path, size and time of the file, and the options. Whoever
holds the lock beside it prepares the table, unless it is there already; a folder that the program names is locked, too.
The system releases the lock when its process ends, so if that dies, the next one prepares. A run that is resumed finds
the table, and the launcher removes it when the run has ended well. In all other cases each process prepares for itself:
for a table in memory, of which nobody else knows, without a run's directory, and where there are no locks.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from karp import environment
from karp.errors import DataError
from karp.record import files
from karp.record.paths import PREPARED
from karp.record.prepared_tables import MANIFEST
from karp.tabular.preparation.passes import Options, Progress, prepare_table
from karp.tabular.preparation.prepared import FORMAT, Prepared, open_prepared

_LOOK_SECONDS, _SAY_SECONDS = 0.05, 10.0


def prepare_once(
    source: Any,
    validation: Any,
    options: Options,
    directory: str | os.PathLike[str] | None,
    progress: Progress | None,
) -> Prepared:
    """Prepare a table, or map what another worker of this host has prepared. Raises what `prepare_table` does."""
    run = environment.read(environment.RUN_DIR)
    request = _request(source, validation, options)
    if not environment.read(environment.SERVER) or (directory is None and not (request and os.path.isdir(run))):
        return prepare_table(source, validation, options, directory, progress)
    folder = Path(run) / PREPARED / request[:16] if directory is None else Path(directory)
    with _locked(folder.with_name(f"{folder.name}.lock"), _named(source)) as locked:
        if not locked:
            return prepare_table(source, validation, options, directory, progress)
        if request and _requested(folder / MANIFEST) == request:
            with suppress(DataError):  # one that was damaged is prepared again
                return open_prepared(folder / MANIFEST)
        return prepare_table(source, validation, options, folder, progress, request)


def _request(source: Any, validation: Any, options: Options) -> str:
    """Return a digest of all that the rows depend on; '' if they are not all in files."""
    states = [_file(path) for path in ((source,) if validation is None else (source, validation))]
    if None in states:
        return ""
    text = repr((FORMAT, states, options._replace(memory=0)))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _requested(manifest: Path) -> str:
    """Return the digest in a manifest; '' if there is none."""
    try:
        return str(files.read_json(manifest)["request"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _named(source: Any) -> str:
    """Return what a message calls a table."""
    return f"{os.fsdecode(source):.200}" if isinstance(source, str | bytes | os.PathLike) else "a table"


def _file(path: Any) -> tuple[str, int, int] | None:
    """Return path, size and time of change of a file; None if it is no regular file."""
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    try:
        name = os.path.abspath(os.fsdecode(path))
        state = os.stat(name)
    except (OSError, ValueError):
        return None
    return (name, state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None


@contextmanager
def _locked(path: Path, what: str) -> Iterator[bool]:
    """Hold the lock in a file while the block runs; yield whether it is held, as some systems have no such locks.

    Waiting has no deadline, as the process that is waited for does what would have to be done; every ten seconds it is
    named on standard error.
    """
    descriptor = -1
    locked: bool | None = None
    with suppress(OSError):  # the directory cannot be written
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        began = said = time.monotonic()
        while (locked := files.lock(descriptor)) is False:
            now = time.monotonic()
            if now - said >= _SAY_SECONDS:
                said = now
                holder = os.pread(descriptor, 20, 0).decode(errors="replace") or "another"
                print(f"karp: waiting for process {holder} to prepare {what} ({now - began:.0f} s)",
                      file=sys.stderr, flush=True)  # fmt: skip
            time.sleep(_LOOK_SECONDS)
        if locked:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    try:
        yield bool(locked)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
