"""Arrays on disk: written once from the first byte to the last, with their SHA-256, and mapped read-only.

A file holds the elements and nothing else, little-endian and in row order; the manifest has dtype, shape and digest.
Where there is no directory the files have no names, so nothing is left of them however this process ends: they are in
memory (Linux's memfd), and their size is sealed once they are written, or where the system has temporary files.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError, RecordError
from karp.record import files

MODE = 0o600  # rows of data are nobody else's business


class Store:
    """A folder of arrays, or files without names.

    Attributes:
        folder: None for files without names.
        megabytes: about how much it takes to write all arrays, for messages.
    """

    def __init__(self, folder: Path | None, megabytes: float = 0.0, *, in_memory: bool = False) -> None:
        """Use a folder that is there, or files without names, in memory or not."""
        self.folder, self.megabytes, self._in_memory = folder, megabytes, in_memory
        self._descriptors: dict[str, int] = {}
        self._names: list[str] = []

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn an OSError in the block into a RecordError that says where writing failed, and what to do."""
        try:
            yield
        except RecordError:
            raise
        except OSError as error:
            temporary = f"{'memory and ' * self._in_memory}{gettempdir()}"
            where = f"in {temporary}" if self.folder is None else f"to {self.folder}"
            full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, errno.ENOMEM)
            space = f"it takes about {self.megabytes:,.1f} MB: free space, or " * full
            raise RecordError(
                f"the prepared table cannot be written {where}: {files.reason(error)}: {space}pass another directory"
            ) from None

    @contextmanager
    def writing(self, name: str) -> Iterator[ArrayWriter]:
        """Yield what writes the array `name`; it is there when the block ends without an exception."""
        self._names.append(name)
        if self.folder is not None:
            with files.replacing(self.folder / name, MODE) as file:
                yield ArrayWriter(file)
            return
        if self._in_memory:
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:
            with TemporaryFile() as unnamed:
                descriptor = os.dup(unnamed.fileno())
        self._descriptors[name] = descriptor
        with open(descriptor, "wb", closefd=False) as file:
            yield ArrayWriter(file)
        if not self._in_memory:
            return
        import fcntl

        # Not sealed against writing: before Linux 6.7 such a file cannot be mapped as shared, not even read-only.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)

    def remove(self) -> None:
        """Remove the arrays that were written here, as they may hold the last blocks of a disk."""
        self._close()
        if self.folder is not None:
            for name in self._names:
                with suppress(OSError):
                    (self.folder / name).unlink()

    def mapped(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the array `name`, read-only; raise DataError if it is absent or its size is another.

        A file that is shorter than its array would end the process by a signal when rows are read.
        """
        if self.folder is None:
            return _mapped(self._descriptors[name], dtype, shape)
        path = self.folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({files.reason(error)}): prepare the table again") from None
        try:
            size, wanted = os.fstat(descriptor).st_size, dtype.itemsize * int(np.prod(shape))
            if size != wanted:
                raise DataError(f"{path} has {size:,} bytes, and its manifest says {wanted:,}: it has been cut or "
                                "changed: prepare the table again")  # fmt: skip
            return _mapped(descriptor, dtype, shape)
        finally:
            os.close(descriptor)


def make_store(directory: str | os.PathLike[str] | None, table_bytes: int, file_bytes: int, memory: int) -> Store:
    """Return where to write a table of so many bytes, beside temporary files of `file_bytes`.

    Without a directory it is memory if the table takes at most half of `memory`, else the system's temporary files.
    Raises RecordError if the directory cannot be used.
    """
    megabytes = (table_bytes + file_bytes) / 1e6
    if directory is not None:
        store = Store(Path(directory), megabytes)
        with store.errors():
            Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in Path(directory).glob(".*.part"):  # what a killed process has left of a table
                if part.name.startswith((".train.", ".validation.", ".manifest.json.")):
                    part.unlink(missing_ok=True)
        return store
    return Store(None, megabytes, in_memory=table_bytes <= memory // 2 and hasattr(os, "memfd_create"))


def _mapped(descriptor: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a file as an array; a plain one, as indexing `np.memmap` takes longer."""
    if 0 in shape:
        array: NDArray[Any] = np.empty(shape, dtype)
        array.setflags(write=False)
        return array
    return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), dtype).reshape(shape)


class ArrayWriter:
    """Appends rows to an open file, and hashes them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.rows = 0
        self.dtype = ""
        self.shape: tuple[int, ...] = ()  # of a row

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows to the array."""
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        self._digest.update(data)
        self._file.write(data)
        self.rows += len(rows)
        self.dtype, self.shape = rows.dtype.newbyteorder("<").str, rows.shape[1:]

    def sha256(self) -> str:
        """Return the digest of what has been written."""
        return self._digest.hexdigest()
