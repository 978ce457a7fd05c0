"""Tables out of CSV files.

Theory of operation. A file is read once by NumPy's parser, which is fast and says little when it fails.
Then, and only then, a careful pass reads it again, line by line, to name the line, the column, the text
found and what to do. Both see the same lines, so what one reads the other would. The parser gets every
column, with a converter in the target's place that puts the text aside: what the target is can only be told
from all of it.

Nothing is dropped in silence: comments and blank lines are no rows, all else is read or is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from karp.data.table import Table
from karp.errors import DataError, SettingError

TargetAs = Literal["classes", "names", "numbers"]
Lines = Generator[tuple[int, str], None, None]  # (number from 1, line with its end)

_GZIP = b"\x1f\x8b"
_MOST_CLASSES = 2**20  # a class number past this is no class number


def read(
    path: str | os.PathLike[str],
    target: str | None = None,
    dtype: DTypeLike = np.float32,
    *,
    target_as: TargetAs | None = None,
    delimiter: str = ",",
) -> Table:
    """The table in a CSV file, which may be compressed with gzip.

    The first line names the columns; every later one is a row. Lines that begin with '#' are comments. All
    columns but `target` are features and must hold finite numbers, read as `dtype`, float32 or float64. Text
    is UTF-8.

    What the target becomes, where `target_as` does not say it:

        every cell is an integer    "classes": class numbers from 0; y (n,) int64, classes "0", "1", ...
        every cell is a number      "numbers": values to predict; y (n, 1) of `dtype`, no classes
        no cell is a number         "names": y (n,) int64, the place in `classes`, the names in sorted order
        some are, some are not      an error

    Integers that are negative, or more classes than there are rows, are an error as well: say what they are.
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
    _check(target, target_as, delimiter)
    name = os.fsdecode(path)
    with closing(_lines(name)) as lines:
        columns = _header(name, lines, delimiter)
        place = _place(name, columns, target, delimiter)
        parsed = _fast(name, lines, len(columns), place, number, delimiter)
    if parsed is None:
        parsed = _careful(name, columns, place, number, delimiter)
    x, cells = parsed
    if place is None:
        return Table(x, np.empty((len(x), 0), number), tuple(columns))

    def where(row: int) -> str:
        return f"{name}, line {_line_of(name, row)}, column {target!r}"

    y, classes = _targets(cells, target_as or _guess(cells, where), number, where)
    return Table(np.delete(x, place, axis=1), y, (*columns[:place], *columns[place + 1 :]), target, classes)


# The arguments


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        number = np.dtype(dtype)
    except TypeError:
        number = None
    if number not in (np.float32, np.float64) or number is None or dtype is None:
        raise SettingError(f"dtype is {dtype!r}: pass np.float32 or np.float64")
    return number


def _check(target: str | None, target_as: str | None, delimiter: str) -> None:
    if target is not None and not isinstance(target, str):
        raise SettingError(f"target is {target!r}: pass the name of a column")
    if target_as not in (None, "classes", "names", "numbers"):
        raise SettingError(f'target_as is {target_as!r}: pass "classes", "names" or "numbers"')
    marks = isinstance(delimiter, str) and len(delimiter) == 1 and not delimiter.isalnum()
    if not marks or delimiter in '"#.+-_\r\n':
        raise SettingError(f"delimiter is {delimiter!r}: pass one character such as ',', ';' or '\\t'")


# Lines and their fields


def _lines(name: str) -> Lines:
    """The lines that are neither comments nor blank, with their numbers."""
    import gzip
    import io
    import zlib

    number = 0
    try:
        with open(name, "rb") as raw:
            # By its content: a browser may have unpacked a .gz and kept the name.
            packed = raw.peek(2).startswith(_GZIP)
            data = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
            # Bytes that are no UTF-8 come through as lone surrogates, so the line with them can be named.
            text = io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape")
            for number, line in enumerate(text, 1):
                # Tabs alone are no blank line: they may delimit empty cells.
                if line[0] == "#" or (line.isspace() and not line.strip(" \n")):
                    continue
                if not line.isascii():
                    _check_utf8(name, number, line)
                yield number, line
    except FileNotFoundError:
        looked = "" if os.path.isabs(name) else f" in {os.getcwd()}"
        raise DataError(f"{name}: there is no such file{looked}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{name}: compressed data cut short or damaged after line {number} ({error}): fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error


def _check_utf8(name: str, number: int, line: str) -> None:
    for character in line:
        if "\udc80" <= character <= "\udcff":
            byte = ord(character) - 0xDC00
            raise DataError(f"{name}, line {number}: byte {byte:#04x} is not UTF-8: save the file as UTF-8")


def _fields(name: str, number: int, line: str, delimiter: str) -> list[str]:
    import csv

    try:
        (fields,) = csv.reader([line], delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise DataError(f"{name}, line {number}: quotes do not match ({error}): repair it") from None
    return [field.strip() for field in fields]


def _header(name: str, lines: Lines, delimiter: str) -> list[str]:
    number, line = next(lines, (0, ""))
    if number == 0:
        raise DataError(f"{name}: the file is empty: its first line must name the columns")
    columns = _fields(name, number, line, delimiter)
    where = f"{name}, line {number}"
    for place, column in enumerate(columns):
        if not column:
            raise DataError(
                f"{where}: column {place + 1} of {len(columns)} has no name: name it, or remove it "
                "(pandas leaves its index out with to_csv(index=False))"
            )
        if column in columns[:place]:
            raise DataError(f"{where}: two columns are named {column!r}: rename one")
    # Plain 0, 1, 2, ... is how pandas names columns that have no names.
    if all(map(_is_number, columns)) and columns != [str(place) for place in range(len(columns))]:
        raise DataError(f"{where}: the first line holds only numbers: add a line of column names above it")
    return columns


def _place(name: str, columns: list[str], target: str | None, delimiter: str) -> int | None:
    """The place of the target among the columns."""
    if target is None:
        return None
    if target not in columns:
        found = ", ".join(columns[:10]) + (f", ... ({len(columns)} columns)" if len(columns) > 10 else "")
        other = next((mark for mark in ";\t," if mark != delimiter and mark in columns[0]), None)
        hint = f"pass delimiter={other!r}" if len(columns) == 1 and other else "pass target=<one of them>"
        raise DataError(f"{name}: there is no column {target!r} among {found}: {hint}")
    if len(columns) == 1:
        raise DataError(f"{name}: {target!r} is the only column: a table needs features beside its target")
    return columns.index(target)


# The two passes


def _fast(
    name: str, lines: Lines, width: int, place: int | None, dtype: np.dtype[Any], delimiter: str
) -> tuple[NDArray[Any], list[str]] | None:
    """All columns (n, width) and the target's cells by NumPy's parser; None if anything is wrong."""
    first = next(lines, None)
    if first is None:
        raise DataError(f"{name}: there is no row below the names of the columns")
    cells: list[str] = []
    count = 0

    def text() -> Generator[str, None, None]:
        nonlocal count
        for number, line in chain([first], lines):
            if '"' in line:
                _fields(name, number, line, delimiter)  # NumPy lets a quote run on to the end of the file
            count += 1
            yield line

    def put_aside(cell: str) -> float:
        cells.append(cell.strip())
        return 0.0

    try:
        x = np.loadtxt(
            text(),
            dtype=dtype,
            comments=None,  # a '#' inside a line is text
            delimiter=delimiter,
            quotechar='"',
            converters=None if place is None else {place: put_aside},
            encoding="utf-8",
            ndmin=2,
        )
    except DataError:
        raise
    except ValueError:
        return None
    sound = x.shape == (count, width) and np.isfinite(x).all() and all(cells)
    return (x, cells) if sound else None


def _careful(
    name: str, columns: list[str], place: int | None, dtype: np.dtype[Any], delimiter: str
) -> tuple[NDArray[Any], list[str]]:
    """As `_fast`, with an error that says what is wrong where."""
    rows: list[NDArray[Any]] = []
    cells: list[str] = []
    with closing(_lines(name)) as lines:
        next(lines)  # the header
        for number, line in lines:
            where = f"{name}, line {number}"
            fields = _fields(name, number, line, delimiter)
            if len(fields) != len(columns):
                raise DataError(
                    f"{where}: {len(fields)} fields, and the header names {len(columns)} "
                    "columns: repair the line"
                )
            for column, field in zip(columns, fields, strict=True):
                if not field:
                    raise DataError(
                        f"{where}, column {column!r}: the cell is empty: fill it, or remove the row"
                    )
            if place is not None:
                cells.append(fields[place])
                fields[place] = "0"
            rows.append(_numbers(where, columns, fields, dtype))
    return np.stack(rows), cells


def _numbers(where: str, columns: list[str], fields: list[str], dtype: np.dtype[Any]) -> NDArray[Any]:
    """One row of numbers, or an error that names the first field that is none."""
    for column, field in zip(columns, fields, strict=True):
        if not _is_number(field):
            raise DataError(
                f"{where}, column {column!r}: {field!r} is not a finite number: repair it, remove the row, "
                "or turn a column of text into numbers first"
            )
    row = _cast(fields, dtype)
    for column, field, sound in zip(columns, fields, np.isfinite(row), strict=True):
        if not sound:
            raise DataError(f"{where}, column {column!r}: {field} is too large for {dtype}: pass np.float64")
    return row


def _cast(numbers: Iterable[str], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Texts of numbers as an array, infinite where `dtype` does not reach."""
    with np.errstate(over="ignore"):
        return np.array([float(number) for number in numbers]).astype(dtype)


def _line_of(name: str, row: int) -> int:
    """The number of the line that holds a row, found by reading again: only errors ask for it."""
    with closing(_lines(name)) as lines:
        next(lines)  # the header
        return next(number for place, (number, _) in enumerate(lines) if place == row)


# The target


def _is_number(text: str) -> bool:
    """Whether it is a finite number as NumPy's parser understands it, without Python's 1_000 and ١٢."""
    try:
        return text.isascii() and "_" not in text and abs(float(text)) < float("inf")
    except ValueError:
        return False


def _integer(text: str) -> int | None:
    """The integer in a text, 3 or 3.0; None if there is none."""
    if not _is_number(text):
        return None
    try:
        return int(text)
    except ValueError:
        return int(float(text)) if float(text).is_integer() else None


def _guess(cells: list[str], where: Callable[[int], str]) -> TargetAs:
    """What the target column holds, if that is plain."""
    distinct = dict.fromkeys(cells)  # in the order they were found
    others = [cell for cell in distinct if not _is_number(cell)]
    if len(others) == len(distinct):
        return "names"
    if others:
        raise DataError(
            f"{where(cells.index(others[0]))}: {others[0]!r} among numbers is not a finite number: "
            'repair it, or pass target_as="names" if each text is a class'
        )
    if any(set(cell) & set(".eE") for cell in distinct):
        return "numbers"
    for cell in distinct:
        if not 0 <= float(cell) < len(cells):
            raise DataError(
                f"{where(cells.index(cell))}: {cell} is no class number in a table of {len(cells)} rows: "
                'pass target_as="numbers" for values to predict, "names" if each is a class, '
                '"classes" if there are that many classes'
            )
    return "classes"


def _targets(
    cells: list[str], target_as: TargetAs, dtype: np.dtype[Any], where: Callable[[int], str]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """y and the names of the classes."""
    distinct = dict.fromkeys(cells)
    if target_as == "names":
        classes = tuple(sorted(distinct))
        places = {name: place for place, name in enumerate(classes)}
        return np.array([places[cell] for cell in cells], np.int64), classes
    if target_as == "numbers":
        values = _cast((cell if _is_number(cell) else "nan" for cell in cells), dtype)
        sound = np.isfinite(values)
        if not sound.all():
            row = int(sound.argmin())
            raise DataError(f"{where(row)}: {cells[row]!r} is no finite {dtype}: repair it")
        return values.reshape(-1, 1), ()
    numbers = {cell: _integer(cell) for cell in distinct}
    for cell, number in numbers.items():
        if number is None or not 0 <= number < _MOST_CLASSES:
            raise DataError(
                f"{where(cells.index(cell))}: {cell!r} is no class number from 0 to {_MOST_CLASSES - 1}: "
                'repair it, or pass target_as="names" if each text is a class'
            )
    y = np.array([numbers[cell] for cell in cells], np.int64)
    return y, tuple(map(str, range(int(y.max()) + 1)))
