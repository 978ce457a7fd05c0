"""Writing predictions as they come: to CSV or Parquet, a batch at a time, the file whole or absent.

The name says the format: it ends in .parquet or .pq, or it is CSV in UTF-8. Without a name, standard output gets CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.errors import RecordError, SettingError
from karp.monitor import streams
from karp.record.files import is_stream, reason, replacing
from karp.tabular.columns.arrow import pyarrow

Columns = Mapping[str, NDArray[Any]]  # name -> cells (n,)
Write = Callable[[Columns], None]
_PARQUET = (".parquet", ".pq")
_GROUP = 1 << 16  # rows of a row group


def check_name(path: str | None) -> None:
    """Raise SettingError for a name that says another format, MissingError for Parquet without pyarrow."""
    if path is None or is_stream(Path(path)):
        return
    suffix = Path(path).suffix.lower()
    if suffix in _PARQUET:
        pyarrow(path)
    elif suffix not in (".csv", ".txt", ""):
        raise SettingError(f"{path}: predictions are written to CSV or Parquet: end the name in .csv or .parquet")


@contextmanager
def writing(path: str | None) -> Iterator[Write]:
    """Yield the function that writes the next rows; each call has the same columns.

    The file has its name when the block has ended without an exception. Raises RecordError if it cannot be written, and
    what `check_name` raises. It is to be the outer block where a file is read in another: each says what it cannot do.
    """
    check_name(path)
    if path is None:
        yield _csv(lambda text: streams.show(text.encode()))
        return
    try:
        with replacing(Path(path)) as file:
            if Path(path).suffix.lower() in _PARQUET:
                with _parquet(file) as write:
                    yield _guarded(write, path)
            else:
                yield _guarded(_csv(lambda text: file.write(text.encode())), path)
    except RecordError:
        raise
    except OSError as error:
        raise _failed(path, error) from None


def _guarded(write: Write, path: str) -> Write:
    """Return a function that writes, and raises RecordError if that fails."""

    def guarded(columns: Columns) -> None:
        try:
            write(columns)
        except OSError as error:
            raise _failed(path, error) from None

    return guarded


def _failed(path: str, error: OSError) -> RecordError:
    return RecordError(f"the predictions cannot be written to {path}: {reason(error)}")


def _csv(out: Callable[[str], object]) -> Write:
    named = False

    def write(columns: Columns) -> None:
        nonlocal named
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not named:
            writer.writerow(columns)
            named = True
        writer.writerows(zip(*map(_cells, columns.values()), strict=True))
        out(text.getvalue())

    return write


def _cells(column: NDArray[Any]) -> list[Any]:
    """Return cells for CSV; float32 has the digits that tell it from others, which are fewer than those of float64."""
    if column.dtype == bool:
        return ["true" if cell else "false" for cell in column]
    cells: list[Any] = (column.astype(str) if column.dtype == np.float32 else column).tolist()
    return cells


@contextmanager
def _parquet(file: Any) -> Iterator[Write]:
    pa = pyarrow("Parquet")
    import pyarrow.parquet as parquet

    writer: Any = None
    waiting: list[Any] = []

    def flush() -> None:
        nonlocal writer
        table = pa.concat_tables(waiting)
        writer = writer or parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
        waiting.clear()

    def write(columns: Columns) -> None:
        waiting.append(pa.table({name: pa.array(column) for name, column in columns.items()}))
        if sum(map(len, waiting)) >= _GROUP:
            flush()

    yield write
    if waiting:
        flush()
    if writer is not None:
        writer.close()
