"""Sorting rows by their keys in memory that does not grow with them.

Theory of operation. Rows are collected as records (a structured array). When they take more than the memory, they are
sorted by key and appended to a temporary file: a run. Keys are uniform, so cutting their range into equal parts gives
buckets of nearly equal numbers of rows; of each run it is known where its buckets begin. Reading takes one bucket after
the other, a slice of each run, and sorts it. As long as the rows fit into memory, there is no file.

    run 0:  | bucket 0 | bucket 1 | bucket 2 |
    run 1:  | bucket 0 | bucket 1 | bucket 2 |      reading bucket 1: the second slice of each

What is read comes in chunks of one size, which depends on the size of a row alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from karp.tabular.preparation.arrays import Store

Records = NDArray[Any]  # structured, with a field "key" of uint64

CHUNK_BYTES = 1 << 22


def chunk_rows(row_bytes: int) -> int:
    """Return the number of rows of a chunk."""
    return max(1, min(1 << 16, CHUNK_BYTES // row_bytes))


class Sorter:
    """Takes records in any order, and returns them in the order of their keys, as often as asked.

    Args:
        dtype: of a record.
        rows: about how many there will be; more rows, or fewer, make larger buckets, or smaller ones.
        memory: bytes; it holds about four times as many while it works.
        store: in whose folder its file is made, if one is needed; that of a store in memory is where the system has
            temporary files.
    """

    def __init__(self, dtype: np.dtype[Any], rows: int, memory: int, store: Store) -> None:
        self.dtype = dtype
        self.rows = 0
        self._most = max(1, memory // dtype.itemsize)  # rows in memory
        self.expect(rows)
        self._store = store
        self._waiting: list[Records] = []
        self._count = 0  # of the rows that are waiting
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, NDArray[np.int64]]] = []  # the row of the file that a run begins with; its buckets

    def expect(self, rows: int) -> None:
        """Say about how many rows there will be; before the first is added."""
        self._buckets = -(-max(rows, 1) // self._most)

    def add(self, records: Records) -> None:
        """Take records; they are the sorter's from now on."""
        if not len(records):
            return
        self._waiting.append(records)
        self._count += len(records)
        self.rows += len(records)
        if self._count > self._most:
            self._write_run()

    def chunks(self) -> Iterator[Records]:
        """Yield all records in the order of their keys, in chunks of `chunk_rows` but for the last."""
        size = chunk_rows(self.dtype.itemsize)
        rest = np.empty(0, self.dtype)
        for bucket in self._sorted_buckets():
            start = 0
            if len(rest):
                start = size - len(rest)
                rest = np.concatenate([rest, bucket[:start]])
                if len(rest) < size:
                    continue
                yield rest
            while start + size <= len(bucket):
                yield bucket[start : start + size]
                start += size
            rest = bucket[start:].copy()
        if len(rest):
            yield rest

    def close(self) -> None:
        """Remove the file."""
        self._waiting = []
        if self._file is not None:
            self._file.close()

    def _sorted_buckets(self) -> Iterator[Records]:
        if self._file is None:
            if self._waiting:
                records = self._sorted()
                self._waiting = [records]
                yield records
            return
        if self._waiting:
            self._write_run()
        for place in range(self._buckets):
            yield self._read_bucket(self._file, place)

    def _sorted(self) -> Records:
        """Return the records that are waiting, sorted."""
        records = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting = []
        return records[np.argsort(records["key"])]

    def _write_run(self) -> None:
        """Sort the rows that are waiting, and append them to the file."""
        records = self._sorted()
        bounds = [bucket * (1 << 64) // self._buckets for bucket in range(self._buckets)]
        starts = np.searchsorted(records["key"], np.array(bounds, np.uint64))
        self._runs.append((self.rows - self._count, np.append(starts, len(records))))
        self._count = 0
        with self._store.errors():
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._store.folder, prefix=".rows.")  # noqa: SIM115
            self._file.write(records.view(np.uint8).data)

    def _read_bucket(self, file: IO[bytes], bucket: int) -> Records:
        """Return the rows of a bucket, sorted."""
        total = sum(int(starts[bucket + 1] - starts[bucket]) for _, starts in self._runs)
        records = np.empty(total, self.dtype)
        position = 0
        for first, starts in self._runs:
            start, stop = int(starts[bucket]), int(starts[bucket + 1])
            part = records[position : position + stop - start]
            position += len(part)
            with self._store.errors():
                file.seek((first + start) * self.dtype.itemsize)
                if len(part) and file.readinto(part.view(np.uint8).data) != part.nbytes:  # type: ignore[attr-defined]
                    raise OSError("a temporary file has been cut")
        return records[np.argsort(records["key"])]
