"""NPZ files as cells: the arrays are read together, some rows at a time, so memory does not grow with the file.

Theory of operation. An NPZ file is a zip archive with a member for each array: a header, then its elements. An array
(n,) is a column, one (n, d) d columns. Members are streams, compressed or not, whose checksums are verified as they
end, and each pass over the table opens those that it needs. An array in Fortran order has its columns one after the
other, so a row is all over the member: it is unpacked to a temporary file at first use, and its columns read from
there.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from karp.errors import DataError
from karp.tabular.columns.cells import Batch, Cells, Column, array_column, batch_rows, check_names, chosen

Read = Callable[[int, int], NDArray[Any]]  # start, stop -> these rows, (stop - start,) or (stop - start, d)


class _Member(NamedTuple):
    """A member of the archive: an array (n,) or (n, d), whose elements begin `skip` bytes after the member's start."""

    key: str
    path: str
    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]
    skip: int


def is_npz(head: bytes) -> bool:
    """Return whether a file with these first bytes is an NPZ file."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return head.startswith(b"PK\x03\x04") and name.endswith(b".npy")


@contextmanager
def npz_cells(name: str, raw: IO[bytes]) -> Iterator[Cells]:
    """Yield the arrays of an open NPZ file as cells; raise DataError for a file that is none, or has other arrays."""
    columns: dict[str, tuple[str, int]] = {}  # column -> its member, and its place in that
    with _errors(name):
        archive = zipfile.ZipFile(raw)
        members = {info.filename: _member(name, archive, info) for info in archive.infolist()}
    for path, member in members.items():
        several = len(member.shape) == 2
        for place in range(member.shape[1] if several else 1):
            column = f"{member.key}{place}" if several else member.key
            if column in columns:
                raise DataError(f"{name}: two columns are named {column!r}: rename an array")
            columns[column] = path, place
    names = check_names(name, list(columns))
    first = next(iter(members.values()))
    for member in members.values():
        if member.shape[0] != first.shape[0]:
            raise DataError(f"{name}: {first.key!r} has {first.shape[0]:,} rows and {member.key!r} "
                            f"{member.shape[0]:,}: all arrays have one length")  # fmt: skip
    rows = first.shape[0]
    unpacked: dict[str, IO[bytes]] = {}

    def batches(only: Collection[str] | None) -> Iterator[Batch]:
        kept = chosen(names, only)
        size = batch_rows(len(names))
        with _errors(name), ExitStack() as stack:
            needed = dict.fromkeys(columns[column][0] for column in kept)
            readers = {path: _reader(archive, members[path], unpacked, stack) for path in needed}
            for start in range(0, rows, size):
                stop = min(start + size, rows)
                yield _batch(name, kept, start, stop, columns, {path: readers[path](start, stop) for path in readers})

    try:
        yield Cells(name, names, rows, batches)
    finally:
        for file in unpacked.values():
            file.close()


def _batch(
    name: str, kept: tuple[str, ...], start: int, stop: int, columns: dict[str, tuple[str, int]],
    parts: dict[str, NDArray[Any]],
) -> Batch:  # fmt: skip
    def column(wanted: str) -> Column:
        path, place = columns[wanted]
        part = parts[path]
        return array_column(name, wanted, part if part.ndim == 1 else part[:, place])

    return Batch(kept, stop - start, column, lambda row: f"row {start + row}")


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Turn what reading an archive raises into a DataError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{name}: it is damaged or cut short ({error}): write or fetch it again") from error


def _member(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    """Read the header of a member; raise DataError for one that is no array of numbers or texts, (n,) or (n, d)."""
    key = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        try:
            major, _ = npy.read_magic(file)
            read_header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
            shape, by_columns, dtype = read_header(file)
        except ValueError as error:
            raise DataError(f"{name}: the array {key!r} cannot be read ({error}): store numbers or texts") from None
        skip = file.tell()
    if dtype.hasobject:
        raise DataError(f"{name}: the array {key!r} cannot be read (it holds objects): store numbers or texts, no "
                        "objects")  # fmt: skip
    if len(shape) not in (1, 2):
        raise DataError(f"{name}: the array {key!r} has the shape {shape}: pass (n,) or (n, d)")
    if info.file_size != skip + dtype.itemsize * math.prod(shape):
        raise EOFError(f"the array {key!r} of shape {shape} has {info.file_size - skip:,} bytes")
    return _Member(key, info.filename, shape, by_columns and len(shape) == 2 and shape[1] > 1, dtype, skip)


def _reader(archive: zipfile.ZipFile, member: _Member, unpacked: dict[str, IO[bytes]], stack: ExitStack) -> Read:
    """Return what reads the rows of a member, which are asked for in order."""
    if not member.by_columns:
        stream = stack.enter_context(archive.open(member.path))
        stream.read(member.skip)
        return lambda start, stop: _elements(stream, member.dtype, (stop - start, *member.shape[1:]))
    if member.path not in unpacked:
        unpacked[member.path] = tempfile.TemporaryFile()  # noqa: SIM115
        with archive.open(member.path) as packed:
            shutil.copyfileobj(packed, unpacked[member.path], 1 << 20)
    return lambda start, stop: _columns(unpacked[member.path], member, start, stop)


def _columns(file: IO[bytes], member: _Member, start: int, stop: int) -> NDArray[Any]:
    """Return rows of an unpacked array in Fortran order, (stop - start, d)."""
    rows, columns = member.shape
    result = np.empty((columns, stop - start), member.dtype)
    for place in range(columns):
        file.seek(member.skip + (place * rows + start) * member.dtype.itemsize)
        result[place] = _elements(file, member.dtype, (stop - start,))
    return result.T


def _elements(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Read an array; raise EOFError if the file ends before it."""
    size = dtype.itemsize * math.prod(shape)
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"{size - len(data):,} bytes are missing")
    return np.frombuffer(data, dtype).reshape(shape) if size else np.empty(shape, dtype)
