"""Where cells come from: files of any format that karp reads, and what programs hold in memory.

| source                                                          | read                                             |
|-----------------------------------------------------------------|--------------------------------------------------|
| CSV, also compressed with gzip; a pipe is copied first          | in blocks, every cell as text                    |
| Parquet                                                         | in batches                                       |
| Feather or Arrow IPC (file and stream)                          | in batches; a compressed one as it was written   |
| NPZ: an array (n,) is a column, one (n, d) the columns x0, x1 … | in batches; one in Fortran order is copied first |
| pandas, and whatever gives Arrow data (polars, pyarrow, duckdb) | in batches                                       |
| a dict of columns, an array (n, d) of NumPy: columns x0, x1 …   | in batches, without pyarrow                      |

The first bytes decide what a file is, not its name.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.data.formats import HEAD
from karp.data.text_file import opened
from karp.errors import DataError, SettingError
from karp.tabular.columns import arrow
from karp.tabular.columns.cells import (
    Batch,
    Cells,
    Column,
    array_column,
    batch_rows,
    check_names,
    chosen,
    object_texts,
    typed_array,
)
from karp.tabular.columns.csv_cells import csv_cells
from karp.tabular.columns.npz_cells import is_npz, npz_cells

_FRAME = "the table"  # what a source without a name is called in messages


@contextmanager
def open_cells(source: Any, delimiter: str | None = None, known: Collection[str] = ()) -> Iterator[Cells]:
    """Open a file or something in memory as cells; `delimiter` is for CSV, and detected if it is None.

    `known` names columns that it should have: a first line of CSV with all of them is none of numbers.

    Raises DataError for a source that cannot be read, SettingError for an object that is not a source, MissingError if
    pyarrow is needed and not installed.

    >>> with open_cells({"age": [31, 45], "city": ["Bern", None]}) as cells:
    ...     [batch.column("city")[0] for batch in cells.batches(None)]
    ['Bern']
    """
    if isinstance(source, str | bytes | os.PathLike):
        with opened(source, lambda head: arrow.is_arrow(head) or is_npz(head)) as file:
            file.raw.seek(0)
            head = file.raw.read(HEAD)
            if arrow.is_arrow(head):
                yield arrow.file_cells(file.name, file.raw, head)
            elif is_npz(head):
                with npz_cells(file.name, file.raw) as cells:
                    yield cells
            else:
                yield csv_cells(file, delimiter, known)
    else:
        yield _in_memory(source)


def _in_memory(source: Any) -> Cells:
    if isinstance(source, Mapping):
        return array_cells(_FRAME, {name: _array(_FRAME, name, column) for name, column in source.items()})
    if isinstance(source, np.ndarray):
        if source.ndim != 2:
            raise SettingError(f"an array of shape {source.shape} is no table: pass one of shape (n, d)")
        return array_cells(_FRAME, {f"x{place}": _unmasked(column) for place, column in enumerate(source.T)})
    if type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "iloc") and hasattr(source, "columns"):
        return _pandas(source)
    if hasattr(source, "__arrow_c_stream__"):
        pa = arrow.pyarrow(f"a table of {type(source).__module__.partition('.')[0]}")
        try:
            return arrow.table_cells(_FRAME, source if isinstance(source, pa.Table) else pa.table(source))
        except (pa.ArrowException, TypeError) as error:
            raise SettingError(f"{type(source).__name__} is no table ({error}): pass a frame with columns") from None
    lazy = "call its collect(), or " if hasattr(source, "collect") else ""
    raise SettingError(f"{' '.join(repr(source).split()):.60} is no table: {lazy}pass the path of a file, a frame "
                       "of pandas, polars or pyarrow, a dict of columns, or an array (n, d)")  # fmt: skip


def array_cells(table: str, columns: Mapping[Any, NDArray[Any]]) -> Cells:
    """Return arrays (n,) of NumPy as cells."""
    names = check_names(table, list(columns))
    arrays = dict(zip(names, columns.values(), strict=True))
    lengths = {name: len(array) for name, array in arrays.items()}
    for name, length in lengths.items():
        if length != lengths[names[0]]:
            raise DataError(f"{table}: {names[0]!r} has {lengths[names[0]]:,} rows and {name!r} {length:,}: all "
                            "columns have one length")  # fmt: skip
    rows = lengths[names[0]] if names else 0

    def column(name: str, start: int, stop: int) -> Column:
        return array_column(table, name, arrays[name][start:stop])

    return Cells(table, names, rows, lambda only: _cut(names, only, rows, column))


def _cut(names: tuple[str, ...], only: Collection[str] | None, rows: int, column: Any) -> Iterator[Batch]:
    """Yield batches of a table in memory; `column(name, start, stop)` makes the cells of these rows."""
    kept = chosen(names, only)
    size = batch_rows(len(names))
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        yield Batch(
            kept,
            stop - start,
            lambda name, start=start, stop=stop: column(name, start, stop),  # type: ignore[misc]
            lambda row, start=start: f"row {start + row}",  # type: ignore[misc]
        )


def _array(table: str, name: object, column: Any) -> NDArray[Any]:
    """Return a column of a dict as an array (n,); unlike objects stay what they are, also lists, which are no cells."""
    listed = isinstance(column, list | tuple)
    try:
        array = _unmasked(np.asanyarray(column))
    except ValueError:  # lists of several lengths
        return _objects(column)
    if array.ndim == 0:
        raise DataError(f"{table}: {name!r:.60} has the shape {array.shape}: a column is a list of cells")
    kind = array.dtype.kind
    merged = listed and (kind in "US" or (kind in "iuf" and any(type(cell) is bool for cell in column)))
    return _objects(column) if merged or array.ndim > 1 else array  # NumPy may have made one type of several


def _objects(column: Collection[Any]) -> NDArray[Any]:
    """Return the elements of a column as they are, (n,)."""
    array = np.empty(len(column), object)
    for row, cell in enumerate(column):
        array[row] = cell
    return array


def _unmasked(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array whose masked elements are missing cells."""
    if not isinstance(array, np.ma.MaskedArray):
        return np.asarray(array)
    kind = array.dtype.kind
    if kind in "fmM":
        return array.filled(array.dtype.type("NaN" if kind == "f" else "NaT"))
    return np.array(array.tolist(), object) if array.mask.any() else np.asarray(array.data)


def _pandas(frame: Any) -> Cells:
    """Return a frame of pandas as cells; its index is none of its columns."""
    pa = arrow.pyarrow("a frame of pandas")
    names = check_names(_FRAME, list(frame.columns))
    places = {name: place for place, name in enumerate(names)}

    def column(name: str, start: int, stop: int) -> Column:
        series = frame.iloc[start:stop, places[name]]
        if isinstance(series.dtype, np.dtype):
            array = series.to_numpy()
            typed = typed_array(array)
            if typed is not None:
                return typed
            try:
                return arrow.arrow_column(_FRAME, name, pa.array(array, pa.large_string(), from_pandas=True))
            except (pa.ArrowException, TypeError):
                return object_texts(_FRAME, name, array.tolist())
        try:
            return arrow.arrow_column(_FRAME, name, pa.array(series, from_pandas=True))
        except pa.ArrowException:
            return object_texts(_FRAME, name, series.tolist())

    return Cells(_FRAME, names, len(frame), lambda only: _cut(names, only, len(frame), column))
