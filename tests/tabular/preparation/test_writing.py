"""Writing a prepared table: in little memory, with nothing left where the disk is full, and sorted whatever comes."""

import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.errors import RecordError
from karp.tabular.preparation.arrays import ArrayWriter, Store
from karp.tabular.preparation.preparing import prepare
from karp.tabular.preparation.sorting import Sorter, chunk_rows

DTYPE = np.dtype([("key", "<u8"), ("numbers", "<f8", (2,)), ("categories", "<i4", (0,))], align=True)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let files grow to `size` bytes, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(1, 2000), st.integers(0, 300), st.integers(0, 99))
def test_records_come_in_the_order_of_their_keys(sizes: list[int], memory: int, expected: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sorter = Sorter(DTYPE, expected, memory, Store(None))
    keys: list[int] = []
    for size in sizes:
        records = np.zeros(size, DTYPE)
        records["key"] = rng.integers(0, 2**64, size, np.uint64)
        records["numbers"] = (records["key"] % 1000)[:, None]
        keys += records["key"].tolist()
        sorter.add(records)
    for _ in range(2):
        chunks = list(sorter.chunks())
        assert sorted(keys) == [key for chunk in chunks for key in chunk["key"].tolist()]
        assert all((chunk["numbers"][:, 1] == chunk["key"] % 1000).all() for chunk in chunks)
    assert len(keys) == sorter.rows
    sorter.close()


@pytest.mark.parametrize("memory", [1 << 10, 1 << 30])
def test_chunks_have_one_size_however_much_memory_there_is(memory: int) -> None:
    dtype = np.dtype([("key", "<u8"), ("numbers", "<f8", (1 << 14,))])
    sorter = Sorter(dtype, 80, memory, Store(None))
    for first in range(0, 80, 10):
        records = np.zeros(10, dtype)
        records["key"] = np.arange(first, first + 10).astype(np.uint64) << np.uint64(57)
        sorter.add(records)
    assert 31 == chunk_rows(dtype.itemsize)
    assert [31, 31, 18] == [len(chunk) for chunk in sorter.chunks()]
    sorter.close()


@pytest.mark.parametrize("memory", [1 << 20, 1 << 30])
def test_a_full_disk_is_an_error_that_says_where_and_leaves_nothing(tmp_path: Path, memory: int) -> None:
    columns = {"x": np.arange(20_000) * 1.0, "y": np.tile(["a", "b"], 10_000)}
    folder = tmp_path / "prepared"
    with largest_file(30_000), pytest.raises(RecordError, match=rf"written to {folder}.*MB: free space, or pass"):
        prepare(columns, target="y", memory=memory, directory=folder)
    assert [] == list(folder.iterdir())
    assert 20_000 == prepare(columns, target="y", memory=memory, directory=folder).counts.read


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="file/prepared: Not a directory"):
        prepare({"x": [1, 2, 3, 4], "y": [0, 1, 0, 1]}, target="y", directory=tmp_path / "file" / "prepared")


def test_a_table_larger_than_half_the_memory_is_in_files_without_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a process that is killed while it writes leaves nothing."""
    named: list[Path] = []
    append = ArrayWriter.append

    def observed(writer: ArrayWriter, rows: Any) -> None:
        append(writer, rows)
        named.extend(tmp_path.iterdir())

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(ArrayWriter, "append", observed)
    columns = {"x": np.arange(60_000) * 1.0, "y": np.tile(["a", "b"], 30_000)}
    prepared = prepare(columns, target="y", memory=1 << 20)
    assert (None, [], []) == (prepared.manifest, named, list(tmp_path.iterdir()))
    assert prepare(columns, target="y").fingerprint == prepared.fingerprint
    assert 48_000 == np.unique(prepared.train.numbers).size
    with largest_file(30_000), pytest.raises(RecordError, match="MB: free space"):
        prepare(columns, target="y", memory=1 << 20)
    assert [] == list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("karp.tabular.preparation.writing.SAMPLE_NUMBERS", 1 << 14)
    monkeypatch.setattr("karp.tabular.preparation.sorting.CHUNK_BYTES", 1 << 16)
    columns = {f"x{place}": np.random.default_rng(place).random(1 << 17) for place in range(16)}
    columns["y"] = np.arange(1 << 17) % 2
    tracemalloc.start()
    try:
        prepared = prepare(columns, target="y", memory=1 << 20, directory=tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 8 << 20 <= sum(file.stat().st_size for file in tmp_path.iterdir())
    assert peak < 9 << 20, f"{peak:,}"  # the rows as they are sorted take 18 MB
    assert len(prepared.train) + len(prepared.validation) == 1 << 17
