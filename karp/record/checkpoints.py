"""Checkpoints: the state from which a run can be resumed, in one file that is either complete or absent.

    checkpoints/step-00000120.safetensors     the newest `keep` of them

The vectors of a snapshot are the file's tensors. The rest of it is JSON in the file's metadata, with a SHA-256 over
both. The metadata has one entry, as safetensors writes several in an order that changes from call to call, and the same
state should give the same file. Checkpoints are written in a thread while training goes on. For a file that cannot be
read, or does not match its hash, the one before it is used.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from karp import faults
from karp.errors import DataError
from karp.protocol.vectors import Snapshot
from karp.record.files import reason, replacing

FOLDER = "checkpoints"
ENTRY = "karp"  # the metadata's entry
FORMAT = 3  # the number of the file's format; the first format had no number


class FormatError(DataError):
    """The error for a checkpoint that another version of karp has written."""


def write(directory: Path, snapshot: Snapshot, keep: int, say: Callable[[str], None] = lambda text: None) -> Path:
    """Write a checkpoint, remove older ones beyond the newest `keep`, and return the new one's path.

    Checkpoints of later steps are removed too: the run has gone back because they are damaged. Raises OSError if the
    new one cannot be written; if an old one cannot be removed, `say` gets a line and nothing is raised.
    """
    from safetensors.numpy import save

    plain, vectors = snapshot
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    path = path_of(directory, plain["version"])
    content = memoryview(save(vectors, metadata={ENTRY: entry(json.dumps(plain), vectors)}))
    half = len(content) // 2
    with replacing(path) as file:
        file.write(content[:half])
        file.flush()
        faults.reach("writing", step=plain["version"])
        file.write(content[half:])
        file.flush()
        faults.reach("written", step=plain["version"])
    faults.reach("renamed", step=plain["version"])
    try:
        files = paths(directory)
        index = files.index(path)
        for useless in files[:index] + files[index + max(1, keep) :]:
            useless.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: another process has removed the new one
        say(f"old checkpoints in {folder} cannot be removed ({reason(error)}); it is tried again after the next")
    return path


def read(path: Path) -> Snapshot:
    """Read the snapshot in a file; raises DataError if it is damaged, FormatError if another karp has written it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            vectors: dict[str, np.ndarray[Any, np.dtype[Any]]] = {name: file.get_tensor(name) for name in names}
        text = metadata[ENTRY]
        plain: dict[str, Any] = json.loads(text)
        written_as = 1 if "sha256" in metadata else plain["format"]
        if written_as == FORMAT and text != entry(json.dumps(plain["snapshot"]), vectors):
            raise DataError("its content does not match its hash")
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"the checkpoint {path} cannot be used: {error}") from None
    if written_as != FORMAT:
        raise FormatError(
            f"the checkpoint {path} has the format {written_as!r:.20}, and this karp reads the format {FORMAT}: go on "
            "with the version of karp that wrote it"
        )
    return plain["snapshot"], vectors


def newest(directory: Path, say: Callable[[str], None]) -> Snapshot | None:
    """Return the snapshot of the newest checkpoint that can be read; None if there is none.

    `say` gets a line for each checkpoint that cannot be read.

    Raises FormatError if none can be read, but another version of karp can read one.
    """
    other: FormatError | None = None
    for path in paths(directory):
        try:
            return read(path)
        except DataError as error:
            other = other or (error if isinstance(error, FormatError) else None)
            say(f"{error}; the one before it is tried")
    if other is not None:
        raise other
    return None


def paths(directory: Path) -> list[Path]:
    """Return the files of all checkpoints, newest first."""
    files = (directory / FOLDER).glob("step-*.safetensors")
    return sorted(files, key=lambda path: (len(path.name), path.name), reverse=True)


def path_of(directory: Path, version: int) -> Path:
    """Return the path of the checkpoint of this version, whether there is one or not."""
    return directory / FOLDER / f"step-{version:08d}.safetensors"


def entry(text: str, vectors: dict[str, Any]) -> str:
    """Return the entry for a file's metadata: a snapshot's text, with the hash over it and the vectors."""
    return f'{{"format": {FORMAT}, "sha256": "{digest(text, vectors)}", "snapshot": {text}}}'


def digest(text: str, vectors: dict[str, Any]) -> str:
    """Return the SHA-256 over the text and every vector with its name, dtype and length."""
    sha256 = hashlib.sha256(text.encode())
    for name in sorted(vectors):
        sha256.update(f"{name} {vectors[name].dtype} {vectors[name].shape}".encode())
        sha256.update(np.ascontiguousarray(vectors[name]).data)
    return sha256.hexdigest()


class Writer:
    """Writes checkpoints in a thread; of those submitted while one is being written, only the newest is written."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        # Lines for the user, emptied by `take_troubles`; of failures in a row only the first adds one.
        self.troubles: list[str] = []
        self.failure = ""  # the last file, if it could not be written, and why
        self.unremoved = False  # whether the last removal of old checkpoints failed
        self._next: Snapshot | None = None
        self._busy = False
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def submit(self, snapshot: Snapshot) -> None:
        """Have a snapshot written soon; it replaces an earlier one whose writing has not begun."""
        with self._changed:
            self._next = snapshot
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="karp-checkpoints", daemon=True)
            self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all that was submitted is written, or has failed; return False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._next is None and not self._busy, seconds)

    def close(self) -> None:
        """Write the snapshot that waits, if there is one, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def take_troubles(self) -> list[str]:
        """Return the lines for the user since the last call: the failures of this writer, and what others appended."""
        if not self.troubles:  # without the lock, as this runs after every message; a new one is found the next time
            return []
        with self._changed:
            troubles, self.troubles = self.troubles, []
        return troubles

    def _run(self) -> None:
        """Write the snapshots that wait, each the newest, until the writer is closed: this is the thread's body."""
        while True:
            with self._changed:
                while self._next is None and not self._closing:
                    self._changed.wait()
                snapshot, self._next = self._next, None
                self._busy = snapshot is not None
            if snapshot is None:
                return
            failure = trouble = ""
            unremoved: list[str] = []
            try:
                write(self.directory, snapshot, self.keep, unremoved.append)
            except Exception as error:  # of any kind, as training and this thread go on
                failure, trouble = self._describe(snapshot[0]["version"], reason(error))
            with self._changed:
                if trouble and not self.failure:
                    self.troubles.append(trouble)
                if not self.unremoved:
                    self.troubles += unremoved
                self.unremoved = bool(unremoved)
                self.failure, self._busy = failure, False
                self._changed.notify_all()

    def _describe(self, version: int, why: str) -> tuple[str, str]:
        """Describe a checkpoint that could not be written: a few words for the summary, and a line for the user."""
        try:
            written = paths(self.directory)
            last = f"the last good one is {written[0]}" if written else "there is none yet"
        except OSError as error:  # the same disk may be unreadable
            last = f"which there are cannot be read ({reason(error)})"
        trouble = f"the checkpoint of step {version} could not be written ({why}); {last}"
        trouble = f"{trouble}; a run goes on and tries the next"
        return f"{FOLDER}/{path_of(self.directory, version).name} ({why})", trouble
