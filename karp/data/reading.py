"""Reading tables from CSV files.

Theory of operation. A file is read once by NumPy's parser, which is fast and says little when it fails. Only if it
fails, a careful pass reads the file again, record by record, to name the line, the column, the text and what to do.
Both see the same bytes (`text_file.py`) and the same records (`dialect.py`), so they agree on what can be read. The
parser gets every column, with a converter for the target's that stores the text: the kind of the target is known only
from all of its cells (`target.py`).

Nothing is dropped in silence: comments and blank lines are no rows, every other line is read or is an error.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Generator, Iterable
from contextlib import closing
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from karp.data import header
from karp.data.dialect import Dialect
from karp.data.number_text import MISSING, REPAIR, advise, integers_below, is_number, lost_digits, merged, rounded
from karp.data.table import Table
from karp.data.target import TargetAs, targets
from karp.data.text_file import TextFile, opened
from karp.errors import DataError, SettingError

_CONFLICT = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")


def read(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    target: str | None = None,
    dtype: DTypeLike = np.float32,
    *,
    target_as: TargetAs | None = None,
    delimiter: str = ",",
    comments: str | None = None,
    missing: Collection[str] = MISSING,
) -> Table:
    """Read the table in a CSV file, which may be compressed with gzip.

    The first line names the columns; every later one is a row. Text is UTF-8, and a cell in quotes may hold
    delimiters and line ends (RFC 4180); blanks around a cell, in quotes or not, do not count. Blank lines are no rows,
    nor are comments: lines above the names that begin with '#', or, where `comments` is given, lines anywhere that
    begin with it. A pipe is read to its end first.

    All columns but `target` are features and must hold finite numbers, read as `dtype`, float32 or float64. Decimals
    are rounded to it. A whole number that it cannot hold exactly is an error (float32 holds all up to 2**24, float64
    up to 2**53), and so are numbers with a point or an exponent whose whole parts differ, below 2**53, where they
    would be one number.

    What the target becomes, where `target_as` does not say it:

        every cell is an integer    "classes": class numbers from 0; y (n,) int64, classes "0", "1", ...
        every cell is a number      "numbers": values to predict; y (n, 1) of `dtype`, no classes
        no cell is a number         "names": y (n,) int64, the place in `classes`, the names in sorted order
        some are, some are not      an error

    An error as well, since it must be said what they are: integers that are negative, or more classes than there are
    rows; two spellings of a class number, such as 01 and 1; texts that all look like numbers, such as 1,5 or $3. And
    so is a target that holds one of `missing` in whatever case. As it stands (`karp.data.MISSING`) these are NA, N/A,
    #N/A, <NA>, nan, NaT, None, null, (null), \\N, ?, inf, infinity, the same with a sign, what C prints for them on
    Windows (1.#IND) and Excel's errors (#DIV/0!, ...). `missing=()` makes a class of each text.
    Without a target, y is (n, 0).

    Raises DataError with file, line and column for a file that cannot be read as said, SettingError for an
    argument.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "iris.csv")
    ...     _ = file.write_text("# petals\\nlength,width,species\\n5.1,3.5,setosa\\n6.2,2.9,virginica\\n")
    ...     table = read(file, target="species")
    >>> table.x.shape, table.columns, table.y.tolist(), table.classes
    ((2, 2), ('length', 'width'), [0, 1], ('setosa', 'virginica'))
    """
    number = _dtype(dtype)
    _check(target, target_as, delimiter, comments, missing)
    dialect = Dialect(delimiter, comments)
    with opened(path) as file:
        columns = _columns(file, dialect)
        place = header.target_index(file, dialect, columns, target)
        parsed = _fast(file, dialect, len(columns), place, number)
        x, texts = _careful(file, dialect, columns, place, number) if parsed is None else parsed
        _check_whole_numbers(file, dialect, columns, x)
        if place is None or target is None:
            return Table(x, np.empty((len(x), 0), number), tuple(columns))

        def where(row: int) -> str:
            return f"{file.name}, line {_line_of(file, dialect, row)}, column {target!r}"

        y, classes = targets(texts, target_as, number, frozenset(text.casefold() for text in missing), where)
        if target in classes and header.may_be_values(columns[:place] + columns[place + 1 :]):
            raise DataError(
                f"{where(texts.index(target))}: the column's name stands in the column, and the other names are "
                f"numbers: the first line looks like a row: {header.ADD_NAMES}"
            )
    return Table(np.delete(x, place, axis=1), y, (*columns[:place], *columns[place + 1 :]), target, classes)


# The arguments


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        number = np.dtype(dtype)
    except (TypeError, ValueError):
        number = None
    if number not in (np.float32, np.float64) or number is None or dtype is None:
        raise SettingError(f"dtype is {dtype!r:.80}: pass np.float32 or np.float64")
    return number


def _check(target: object, target_as: object, delimiter: object, comments: object, missing: object) -> None:
    if target is not None and not isinstance(target, str):
        raise SettingError(f"target is {target!r:.80}: pass the name of a column")
    if target_as is not None and (not isinstance(target_as, str) or target_as not in ("classes", "names", "numbers")):
        raise SettingError(f'target_as is {target_as!r:.80}: pass "classes", "names" or "numbers"')
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter.isalnum() or delimiter in '"#.+-_\r\n\0':
        raise SettingError(f"delimiter is {delimiter!r:.80}: pass one character such as ',', ';' or '\\t'")
    if comments is not None and (not isinstance(comments, str) or not comments or set(comments) & set("\r\n")):
        raise SettingError(f"comments is {comments!r:.80}: pass what comments begin with, such as '#' or '%'")
    texts = missing if isinstance(missing, Collection) and not isinstance(missing, str | bytes) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise SettingError(f"missing is {missing!r:.80}: pass a tuple of texts such as ('NA', '?')")


def _columns(file: TextFile, dialect: Dialect) -> list[str]:
    """Read the names of the columns from the first record; raise DataError if there is none, or it has no names."""
    with closing(dialect.records(file)) as records:
        number, record = next(records, (0, ""))
    if number == 0:
        raise DataError(f"{file.name}: the file is empty{header.comment_note(file, dialect)}: its first line must "
                        "name the columns")  # fmt: skip
    return header.column_names(file, dialect, number, record)


# The two passes


def _fast(
    file: TextFile, dialect: Dialect, width: int, place: int | None, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], list[str]] | None:
    """Read all columns (n, width), 0 in the target's, and the target's cells with NumPy's parser.

    Returns None if a row or a cell cannot be read so. Raises DataError for a table without rows, and what
    `Dialect.records` raises.
    """
    texts: list[str] = []
    count = 0

    def rows(records: Iterable[tuple[int, str]]) -> Generator[str, None, None]:
        nonlocal count
        for _, record in records:
            count += 1
            yield record

    def store_text(cell: str) -> float:
        texts.append(cell.strip())
        return 0.0

    with closing(dialect.records(file)) as records:
        next(records)  # the record of the names is skipped
        first = next(records, None)
        if first is None:
            raise DataError(f"{file.name}: there is no row below the names of the columns")
        try:
            x = np.loadtxt(
                rows(chain([first], records)),
                dtype=dtype,
                comments=None,  # a '#' inside a line is text
                delimiter=dialect.delimiter,
                quotechar='"',
                converters=None if place is None else {place: store_text},
                encoding="utf-8",
                ndmin=2,
            )
        except DataError:
            raise
        except ValueError:
            return None
    sound = x.shape == (count, width) and np.isfinite(x).all() and all(texts)
    return (x, texts) if sound else None


def _careful(
    file: TextFile, dialect: Dialect, columns: list[str], place: int | None, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], list[str]]:
    """Return what `_fast` would, or raise DataError that says what is wrong where."""
    rows: list[NDArray[Any]] = []
    texts: list[str] = []
    with closing(dialect.records(file)) as records:
        next(records)  # the record of the names is skipped
        for number, record in records:
            where = f"{file.name}, line {number}"
            row = dialect.split(record)
            if len(row) != len(columns):
                raise DataError(f"{where}: {len(row)} fields, and the header names {len(columns)} columns: "
                                f"{width_advice(dialect, columns, record, row)}")  # fmt: skip
            for column, cell in zip(columns, row, strict=True):
                if not cell:
                    raise DataError(f"{where}, column {column!r}: the cell is empty: fill it, or remove the row")
            if place is not None:
                texts.append(row[place])
                row[place] = "0"
            for column, cell in zip(columns, row, strict=True):
                if not is_number(cell):
                    raise DataError(f"{where}, column {column!r}: {cell!r:.60} is not a finite number: "
                                    f"{_text_advice(file, dialect, columns, place, record, column, cell)}")  # fmt: skip
            values = rounded(row, dtype)
            for column, cell, sound in zip(columns, row, np.isfinite(values), strict=True):
                if not sound:
                    raise DataError(f"{where}, column {column!r}: {cell} is too large for {dtype}: pass np.float64")
            rows.append(values)
    return np.stack(rows), texts


def width_advice(dialect: Dialect, columns: list[str], record: str, row: list[str]) -> str:
    """Return the advice for a row of another number of cells than there are columns."""
    if record.startswith(_CONFLICT):
        return "a merge has left a conflict: resolve it"
    if record.startswith("#") and dialect.comments is None:
        return "pass comments='#' if lines that begin so are comments"
    if 1 in (len(row), len(columns)) and (other := dialect.suggest_delimiter(record if len(row) == 1 else columns[0])):
        return other
    if len(row) > len(columns) and not any(row[len(columns) :]):
        return f"if {dialect.delimiter!r} ends the line, remove it there"
    if len(row) == len(columns) + 1:
        return (
            "repair the line; if all are so, the names of the rows have no name (R's write.csv leaves them out with "
            "row.names = FALSE)"
        )
    return f"repair the line; a cell that holds {dialect.delimiter!r} stands in quotes"


def _text_advice(
    file: TextFile, dialect: Dialect, columns: list[str], place: int | None, record: str, column: str, cell: str
) -> str:
    """Return the advice for a feature that is no number."""
    if cell == column:
        return "remove the line if the names of the columns stand in it again"
    if record.startswith("#") and dialect.comments is None:
        return "pass comments='#' if lines that begin so are comments"
    if len(columns) == 1 and (other := dialect.suggest_delimiter(record)):
        return other
    names = header.row_advice(file, dialect, columns)
    otherwise = REPAIR if place is not None else f"{REPAIR}; if it is to be predicted, pass target={column!r}"
    return advise(cell, otherwise) + (f"; if the first line is a row, {names}" if names else "")


def _check_whole_numbers(file: TextFile, dialect: Dialect, columns: list[str], x: NDArray[Any]) -> None:
    """Raise DataError where rounding to the dtype changes a whole number among the features."""
    large = np.maximum(x.max(axis=0), -x.min(axis=0)) >= integers_below(x.dtype)
    numbers: dict[int, array[float]] = {place: array("d") for place in np.flatnonzero(large).tolist()}
    if not numbers:
        return
    advice = "pass dtype=np.float64" if x.dtype == np.float32 else "leave out a column of row names"
    with closing(dialect.records(file)) as records:
        next(records)  # the record of the names is skipped
        for number, record in records:
            row = dialect.split(record)
            for place, values in numbers.items():
                if loss := lost_digits(row[place], x.dtype):
                    raise DataError(f"{file.name}, line {number}, column {columns[place]!r}: {loss}: {advice}")
                values.append(float(row[place]))
    for place, values in numbers.items():
        if merger := merged(np.array(values), x.dtype):
            line = _line_of(file, dialect, merger[0])
            raise DataError(f"{file.name}, line {line}, column {columns[place]!r}: {merger[1]}: {advice}")


def _line_of(file: TextFile, dialect: Dialect, row: int) -> int:
    """Return the number of the line in which a row begins; it reads the file again, so it is used only for errors."""
    with closing(dialect.records(file)) as records:
        next(records)  # the record of the names is skipped
        return next(number for place, (number, _) in enumerate(records) if place == row)
