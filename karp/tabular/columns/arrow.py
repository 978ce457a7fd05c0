"""Arrow data as cells: a column of pyarrow, and Parquet and Feather (Arrow IPC) files.

Theory of operation. What pyarrow yields comes in any size (a Parquet batch ends where a dictionary changes), so it is
re-cut to batches of `batch_rows`. A dictionary is another one in each row group, so its codes mean nothing beyond a
batch: it is turned into its values. Parquet is read with `pre_buffer=False`, as else the whole file may be held, and
with a buffer for each column, as else a whole row group is, which may be as large as the file. An IPC file is mapped:
some programs write all rows as one record batch, of which then only what is read is in memory; a compressed one is held
as a whole all the same.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError, MissingError
from karp.tabular.columns.cell_text import EXACT, Kind
from karp.tabular.columns.cells import Batch, Cells, Column, Texts, Typed, batch_rows, check_names, chosen, seconds_of

Lines = NDArray[np.int64]
_WAITING = 8  # parts that are kept before they are made one
_BUFFER, _LEAST_BUFFER, _BUFFERS = 1 << 16, 1 << 12, 1 << 24  # bytes read at once, of a column and of all columns
PARQUET, IPC, STREAM = b"PAR1", b"ARROW1\x00\x00", b"\xff\xff\xff\xff"


def pyarrow(what: str) -> Any:
    """Import pyarrow and return it; if it is not installed, raise a MissingError that says that `what` needs it."""
    try:
        import pyarrow
        import pyarrow.compute  # part of what is returned
    except ImportError:
        raise MissingError(f"{what} needs pyarrow: pip install 'karp[table]'") from None
    return pyarrow


def is_arrow(head: bytes) -> bool:
    """Return whether a file with these first bytes is one of Parquet or Arrow."""
    return head.startswith((IPC, STREAM)) or (head.startswith(PARQUET) and b"\x00" in head)


def file_cells(name: str, raw: IO[bytes], head: bytes) -> Cells:
    """Return the cells of an open Parquet, Feather or Arrow file."""
    pa = pyarrow(name)
    try:
        if head.startswith(PARQUET):
            return _parquet(name, raw, pa)
        return _ipc(name, raw, pa, is_file=head.startswith(IPC))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error) from error


def table_cells(name: str, table: Any) -> Cells:
    """Return the cells of a table of pyarrow."""
    return _cells(name, table.schema, lambda names: _slices(table, batch_rows(table.num_columns)), len(table))


def _parquet(name: str, raw: IO[bytes], pa: Any) -> Cells:
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(pa.PythonFile(raw, "r"))
    size = max(_LEAST_BUFFER, min(_BUFFER, _BUFFERS // max(metadata.num_columns, 1)))
    file = pyarrow.parquet.ParquetFile(pa.PythonFile(raw, "r"), metadata=metadata, pre_buffer=False, buffer_size=size)
    schema = file.schema_arrow
    rows = batch_rows(len(schema))

    def parts(names: Collection[str]) -> Any:
        return file.iter_batches(rows, columns=list(names), use_threads=False)

    return _cells(name, schema, parts, file.metadata.num_rows)


def _ipc(name: str, raw: IO[bytes], pa: Any, is_file: bool) -> Cells:
    size = os.fstat(raw.fileno()).st_size
    data = pa.py_buffer(mmap.mmap(raw.fileno(), size, access=mmap.ACCESS_READ))

    def opened() -> Any:  # not for some fields alone: those would be copied
        return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(pa.BufferReader(data))

    schema = opened().schema
    rows = batch_rows(len(schema))

    def parts(names: Collection[str]) -> Iterator[Any]:
        reader = opened()
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
            for part in _slices(batch, rows):
                if os.fstat(raw.fileno()).st_size < size:  # else the system would end the process
                    raise OSError("the file has become shorter")
                yield part

    return _cells(name, schema, parts, None)


def _slices(part: Any, rows: int) -> Iterator[Any]:
    """Yield a table or a record batch in parts of so many rows; they share its memory."""
    for start in range(0, len(part), rows):
        yield part.slice(start, rows)


def _cells(name: str, schema: Any, parts: Callable[[Collection[str]], Iterable[Any]], rows: int | None) -> Cells:
    """Return cells from a schema and what yields tables or record batches that have at least the named columns."""
    names = check_names(name, schema.names)
    described = schema.pandas_metadata or {}
    index = [column for column in described.get("index_columns", []) if isinstance(column, str) and column in names]
    index += [column for column in names if not column]
    left_out = tuple((column, "it is the index of pandas" if column else "it has no name") for column in index)
    kept = tuple(column for column in names if column not in index)

    def batches(only: Collection[str] | None) -> Iterator[Batch]:
        wanted = chosen(kept, only)
        yield from recut(name, numbered(parts(wanted)), wanted, batch_rows(len(names)), "row")

    return Cells(name, kept, rows, batches, left_out)


def numbered(parts: Iterable[Any]) -> Iterator[tuple[Any, Lines]]:
    """Yield tables and record batches with the numbers of their rows, from 0."""
    first = 0
    for part in parts:
        yield part, np.arange(first, first + len(part))
        first += len(part)


def recut(
    name: str, parts: Iterable[tuple[Any, Lines]], names: tuple[str, ...], rows: int, word: str
) -> Iterator[Batch]:
    """Yield batches of `rows` rows, the last one smaller, from tables and record batches of any size.

    `parts` are pairs of a table and the numbers of its rows, in the file `name` or in memory; `word` ("line", "row")
    says what these numbers count. A batch has the columns `names`. Raises DataError for a part that cannot be read.
    """
    pa = pyarrow(name)
    waiting: list[tuple[Any, Lines]] = []
    count = 0
    try:
        for part, lines in parts:
            table = part if isinstance(part, pa.Table) else pa.Table.from_batches([part])
            waiting.append((table.select(names), lines))
            count += len(lines)
            if count < rows:
                if len(waiting) == _WAITING:  # a part of many columns is more overhead than data
                    table, lines = _joined(pa, waiting)
                    waiting = [(table.combine_chunks(), lines)]
            else:
                table, lines = _joined(pa, waiting)
                while count >= rows:
                    yield _batch(name, table.slice(0, rows), lines[:rows], word)
                    table, lines, count = table.slice(rows), lines[rows:], count - rows
                waiting = [(table, lines)] if count else []
        if count:
            yield _batch(name, *_joined(pa, waiting), word)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error) from error


def _joined(pa: Any, parts: list[tuple[Any, Lines]]) -> tuple[Any, Lines]:
    """Return tables and the numbers of their rows as one; each part keeps its own dictionaries."""
    if len(parts) == 1:
        return parts[0]
    tables, lines = zip(*parts, strict=True)
    return pa.concat_tables(tables), np.concatenate(lines)


def _batch(name: str, table: Any, lines: Lines, word: str) -> Batch:
    return Batch(
        tuple(table.column_names),
        len(table),
        lambda column: arrow_column(name, column, table.column(column)),
        lambda row: f"{word} {lines[row]}",
    )


def _damaged(name: str, error: Exception) -> DataError:
    """Return the error for a file that pyarrow cannot read."""
    return DataError(f"{name}: it is damaged or cut short ({str(error).splitlines()[0]:.200}): write or fetch it again")


def arrow_column(table: str, name: str, array: Any) -> Column:
    """Return a (chunked) array of pyarrow as cells; raise DataError for a type that has none, such as a list."""
    pa = pyarrow(table)
    types = pa.types
    kind = array.type
    if types.is_dictionary(kind):
        return arrow_column(table, name, _decoded(pa, array))
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    if types.is_null(kind):
        return Texts([None] * len(array))
    if types.is_string(kind) or types.is_large_string(kind):
        return Texts(array)
    if types.is_string_view(kind):
        return Texts(array.cast(pa.large_string()))
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        try:
            return Texts(array.cast(pa.large_binary()).cast(pa.large_string()))
        except pa.ArrowInvalid:
            raise DataError(f"{table}, column {name!r}: it holds bytes that are no UTF-8: turn them into texts, or "
                            "drop it") from None  # fmt: skip
    if types.is_boolean(kind):
        return Typed(Kind.TRUTH, _floats(pa, array.cast(pa.int8())))
    if types.is_integer(kind):
        floats = _floats(pa, array)
        large = kind.bit_width == 64 and len(array) and np.nanmax(np.abs(floats), initial=0.0) >= EXACT
        return Typed(Kind.NUMBER, floats, array.fill_null(0).to_numpy(zero_copy_only=False) if large else None)
    if types.is_floating(kind):
        return Typed(Kind.NUMBER, _floats(pa, array))
    if types.is_decimal(kind):
        return Typed(Kind.NUMBER, _floats(pa, array.cast(pa.float64())))
    if types.is_date32(kind):
        return Typed(Kind.DATE, _seconds(array.cast(pa.int32()).cast(pa.int64()), "s", 86_400))
    if types.is_date64(kind):
        return Typed(Kind.DATE, _seconds(array.cast(pa.int64()), "ms"))
    if types.is_timestamp(kind):
        return Typed(Kind.DATE, _seconds(array.cast(pa.int64()), kind.unit))
    if types.is_time(kind):
        ticks = array.cast(pa.int32()).cast(pa.int64()) if types.is_time32(kind) else array.cast(pa.int64())
        return Typed(Kind.CLOCK, _seconds(ticks, kind.unit))
    if types.is_duration(kind):
        return Typed(Kind.NUMBER, _seconds(array.cast(pa.int64()), kind.unit))
    raise DataError(f"{table}, column {name!r}: it holds {kind}, and a cell is one number or text: turn it into such "
                    "columns, or drop it")  # fmt: skip


def _decoded(pa: Any, array: Any) -> Any:
    """Return the values of a dictionary column; each chunk has a dictionary of its own."""
    values = array.type.value_type
    if pa.types.is_string_view(values):  # what polars passes, and pyarrow cannot cast within a dictionary
        values = pa.large_string()
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    return pa.chunked_array([chunk.dictionary.cast(values).take(chunk.indices) for chunk in chunks], values)


def _floats(pa: Any, array: Any) -> NDArray[np.float64]:
    """Return numbers as float64, rounded, with NaN for null."""
    floats = array.cast(pa.float64(), safe=False)
    result: NDArray[np.float64] = floats.fill_null(float("nan")).to_numpy(zero_copy_only=False)
    return result


def _seconds(ticks: Any, unit: str, count: int = 1) -> NDArray[np.float64]:
    """Return pyarrow's ticks as seconds, with NaN for null; a tick is `count` times `unit` (see `seconds_of`)."""
    seconds = seconds_of(ticks.fill_null(0).to_numpy(zero_copy_only=False), unit, count)
    seconds[ticks.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return seconds
