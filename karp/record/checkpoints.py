"""Checkpoints: all that steers a run, in one file that is either whole or not there.

    checkpoints/step-00000120.safetensors     the newest `keep` of them

The vectors of a snapshot are the file's tensors; the rest of it stands in its metadata as JSON, with a SHA-256 over
both. All of that is one entry: safetensors writes several in an order that changes from call to call, and one state is
to be one file. It is written in a thread of its own while training goes on. What cannot be read, or does not match its
hash, is passed over for the one before it.
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
ENTRY = "karp"  # of the metadata
FORMAT = 2  # of the snapshot and of how it stands there; the first had no number


class FormatError(DataError):
    """A checkpoint is one of another version of karp."""


def write(directory: Path, snapshot: Snapshot, keep: int, say: Callable[[str], None] = lambda text: None) -> Path:
    """Write a checkpoint and remove all but the newest `keep`; raises OSError if the disk is full or gone.

    One of a later step is of no use: the run has gone back behind it because it is damaged. So it goes first. `say` is
    told what cannot be removed; the new checkpoint is whole all the same.
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
        place = files.index(path)
        for useless in files[:place] + files[place + max(1, keep) :]:
            useless.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: somebody has removed the new one
        say(f"old checkpoints in {folder} cannot be removed ({reason(error)}); it is tried again after the next")
    return path


def read(path: Path) -> Snapshot:
    """Return the snapshot in a file; raises DataError, saying why, if it is not whole."""
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
    """Return the newest checkpoint that is whole; each that is not is named to `say`.

    Raises FormatError if there is none, but one that another version of karp can read.
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
    """Return where the checkpoint of this version is, or would be."""
    return directory / FOLDER / f"step-{version:08d}.safetensors"


def entry(text: str, vectors: dict[str, Any]) -> str:
    """Return the entry of a file's metadata: the text of a snapshot, with the hash of it and the vectors."""
    return f'{{"format": {FORMAT}, "sha256": "{digest(text, vectors)}", "snapshot": {text}}}'


def digest(text: str, vectors: dict[str, Any]) -> str:
    """Return the SHA-256 over the text and every vector with its name, dtype and length."""
    sha256 = hashlib.sha256(text.encode())
    for name in sorted(vectors):
        sha256.update(f"{name} {vectors[name].dtype} {vectors[name].shape}".encode())
        sha256.update(np.ascontiguousarray(vectors[name]).data)
    return sha256.hexdigest()


class Writer:
    """Writes checkpoints in a thread; of those that come while one is being written, the newest is next."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self.troubles: list[str] = []  # to be said; `take_troubles` empties it
        self.failure = ""  # which file could not be written last, and why; said once until it is over
        self.unremoved = False  # old ones could not be removed last; that is said once until it is over, too
        self._next: Snapshot | None = None
        self._busy = False
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def submit(self, snapshot: Snapshot) -> None:
        """Have a snapshot written soon; of several that wait only the newest is."""
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
        """Write what is waiting, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def take_troubles(self) -> list[str]:
        """Return what is to be said, once."""
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
            failure = trouble = ""
            unremoved: list[str] = []
            try:
                write(self.directory, snapshot, self.keep, unremoved.append)
            except Exception as error:  # whatever it is: training goes on, and so does this thread
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
        """Return that a checkpoint could not be written, in short and as it is said."""
        try:
            written = paths(self.directory)
            last = f"the last good one is {written[0]}" if written else "there is none yet"
        except OSError as error:  # of the same disk
            last = f"which there are cannot be read ({reason(error)})"
        trouble = f"the checkpoint of step {version} could not be written ({why}); {last}"
        trouble = f"{trouble}; a run goes on and tries the next"
        return f"{FOLDER}/{path_of(self.directory, version).name} ({why})", trouble
