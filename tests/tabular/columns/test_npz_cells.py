"""NPZ and IPC files as cells: a batch at a time, whatever the order of elements, and damage is seen."""

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karp.errors import DataError
from karp.tabular.columns.cells import Typed
from karp.tabular.columns.sources import open_cells

ROWS = 20_000
TABLE = np.random.default_rng(0).normal(size=(ROWS, 3))
SAVE: list[Callable[..., None]] = [np.savez, np.savez_compressed]


def column_of(path: Path, name: str) -> list[float]:
    with open_cells(path) as cells:
        columns = [batch.column(name) for batch in cells.batches([name])]
    assert all(isinstance(column, Typed) for column in columns)
    return np.concatenate([column.values for column in columns]).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("table", [TABLE, np.asfortranarray(TABLE), TABLE.astype(">f4"), TABLE[:, :1], TABLE[:0]])
def test_columns_are_those_of_the_array(tmp_path: Path, save: Any, table: Any) -> None:
    save(tmp_path / "t.npz", x=table, y=np.arange(len(table)))
    for place in range(table.shape[1] if len(table) else 0):
        assert table[:, place].tolist() == column_of(tmp_path / "t.npz", f"x{place}")
    with open_cells(tmp_path / "t.npz") as cells:
        sizes = [8192, 8192, 3616] if len(table) else []
        assert [sizes, sizes] == [[batch.rows for batch in cells.batches(None)] for _ in range(2)]
        if sizes:
            assert "row 8195" == list(cells.batches(["y"]))[1].place(3)


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_is_that_of_a_batch(tmp_path: Path, save: Any, order: Any) -> None:
    save(tmp_path / "t.npz", x=np.zeros((200_000, 10), order=order), y=np.zeros(200_000))
    tracemalloc.start()
    try:
        with open_cells(tmp_path / "t.npz") as cells:
            for _ in cells.batches(None):
                pass
        assert tracemalloc.get_traced_memory()[1] < 5e6  # of 17.6 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_bit_that_has_changed_is_seen(tmp_path: Path, save: Any, order: Any) -> None:
    path = tmp_path / "t.npz"
    save(path, x=np.asarray(TABLE, order=order))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.npz: it is damaged or cut short"):
        column_of(path, "x0")


def test_members_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, x=TABLE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "of whom")
    with pytest.raises(DataError, match=r"the array 'readme.txt' cannot be read \("), open_cells(path):
        pass
    with zipfile.ZipFile(path) as archive:
        header = archive.read("x.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header[:-8])
    said = pytest.raises(DataError, match=r"cut short \(the array 'x' of shape \(20000, 3\) has 479,992 bytes\)")
    with said, open_cells(path):
        pass


def test_a_record_batch_of_all_rows_is_not_held(tmp_path: Path) -> None:
    pa: Any = pytest.importorskip("pyarrow")
    table = pa.table({"x": TABLE[:, 0], "y": [f"text {row}" for row in range(ROWS)]})
    for file, write in (("t.arrow", pa.ipc.new_file), ("t.arrows", pa.ipc.new_stream)):
        with write(tmp_path / file, table.schema) as writer:
            writer.write_table(table)
        assert TABLE[:, 0].tolist() == column_of(tmp_path / file, "x")
        before = pa.total_allocated_bytes()
        said = pytest.raises(DataError, match="it was written to while it was read")
        with said, open_cells(tmp_path / file) as cells:
            batches = cells.batches(None)
            first = next(batches)
            assert (8192, True) == (first.rows, pa.total_allocated_bytes() - before < 1e5), file
            content = (tmp_path / file).read_bytes()
            (tmp_path / file).write_bytes(content[:-9000])
            next(batches)
