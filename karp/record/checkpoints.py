"""Checkpoints: all that steers a run, in one file that is either whole or not there.

    checkpoints/step-00000120.safetensors     the newest `keep` of them

The vectors of a snapshot are the file's tensors; the rest of it stands in its metadata as JSON, with a SHA-256 over
both. A file is written aside, flushed to the disk and renamed, in a thread of its own while training goes on. What
cannot be read, or does not match its hash, is passed over for the one before it.
"""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from karp import faults
from karp.errors import DataError
from karp.protocol.server.snapshot import Snapshot

FOLDER = "checkpoints"


def write(directory: Path, snapshot: Snapshot, keep: int) -> Path:
    """Write a checkpoint and remove all but the newest `keep`; raises OSError if the disk is full or gone.

    One of a later step is of no use: the run has gone back behind it because it is damaged. So it goes first.
    """
    from safetensors.numpy import save

    plain, vectors = snapshot
    text = json.dumps(plain)
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{plain['version']:08d}.safetensors"
    aside = path.with_suffix(".part")
    try:
        with aside.open("wb") as file:
            content = memoryview(save(vectors, metadata={"karp": text, "sha256": digest(text, vectors)}))
            half = len(content) // 2
            file.write(content[:half])
            file.flush()
            faults.reach("writing", step=plain["version"])
            file.write(content[half:])
            file.flush()
            os.fsync(file.fileno())
        faults.reach("written", step=plain["version"])
        os.replace(aside, path)
        faults.reach("renamed", step=plain["version"])
        flush_directory(folder)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    there = paths(directory)
    mine = there.index(path)
    for useless in there[:mine] + there[mine + max(1, keep) :]:
        useless.unlink(missing_ok=True)
    return path


def read(path: Path) -> Snapshot:
    """The snapshot in a file; raises DataError, saying why, if it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            vectors: dict[str, np.ndarray[Any, np.dtype[Any]]] = {name: file.get_tensor(name) for name in names}
        text = metadata["karp"]
        plain = json.loads(text)
        if metadata["sha256"] != digest(text, vectors):
            raise DataError("its content does not match its hash")
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"the checkpoint {path} cannot be used: {error}") from None
    return plain, vectors


def newest(directory: Path, say: Callable[[str], None]) -> Snapshot | None:
    """The newest checkpoint that is whole; each that is not is named to `say`."""
    for path in paths(directory):
        try:
            return read(path)
        except DataError as error:
            say(f"{error}; the one before it is tried")
    return None


def paths(directory: Path) -> list[Path]:
    """The checkpoints, newest first."""
    return sorted((directory / FOLDER).glob("step-*.safetensors"), reverse=True)


def digest(text: str, vectors: dict[str, Any]) -> str:
    """SHA-256 over the text and every vector with its name, dtype and length."""
    found = hashlib.sha256(text.encode())
    for name in sorted(vectors):
        found.update(f"{name} {vectors[name].dtype} {vectors[name].shape}".encode())
        found.update(np.ascontiguousarray(vectors[name]).data)
    return found.hexdigest()


def flush_directory(path: Path) -> None:
    """Make a renaming in this directory outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Writer:
    """Writes checkpoints in a thread; of those that come while one is being written, the newest is next."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self.troubles: list[str] = []  # to be said; `take_troubles` empties it
        self._failing = False  # and that has been said
        self._next: Snapshot | None = None
        self._busy = False
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def submit(self, snapshot: Snapshot) -> None:
        """Have this written soon."""
        with self._changed:
            self._next = snapshot
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="karp-checkpoints", daemon=True)
            self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Until all that was submitted is written, or has failed; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._next is None and not self._busy, seconds)

    def close(self) -> None:
        """Write what is waiting, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def take_troubles(self) -> list[str]:
        if not self.troubles:  # as after almost every message; what comes now is said after the next
            return []
        with self._changed:
            troubles, self.troubles = self.troubles, []
        return troubles

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._closing:
                    self._changed.wait()
                snapshot, self._next = self._next, None
                self._busy = snapshot is not None
            if snapshot is None:
                return
            trouble = self._write(snapshot)
            with self._changed:
                if trouble and not self._failing:  # said once until it is over
                    self.troubles.append(trouble)
                self._failing, self._busy = bool(trouble), False
                self._changed.notify_all()

    def _write(self, snapshot: Snapshot) -> str:
        """What is to be said of it: '' if it was written."""
        try:
            write(self.directory, snapshot, self.keep)
        except Exception as error:  # whatever it is: training goes on, and so does this thread
            why = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            there = paths(self.directory)
            last = f"the last good one is {there[0]}" if there else "there is none yet"
            return (
                f"the checkpoint of step {snapshot[0]['version']} could not be written ({why}); {last}; "
                "training goes on, and the next one is tried"
            )
        return ""
