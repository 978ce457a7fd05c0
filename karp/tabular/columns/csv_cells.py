"""CSV as cells: karp's dialect says what a record is, pyarrow cuts it.

Theory of operation. The file comes in blocks of whole records (`Dialect.blocks`), with the number of each record's
line; what needs more than a look (quotes, blank lines, bytes that are no UTF-8) has been put in order or refused there.
Each block goes through pyarrow's parser with every column as text: no type is inferred, and nothing is null.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from karp.data import header
from karp.data.dialect import Dialect, detect_delimiter
from karp.data.reading import width_advice
from karp.data.text_file import TextFile
from karp.errors import DataError
from karp.tabular.columns.arrow import pyarrow, recut
from karp.tabular.columns.cells import Batch, Cells, batch_rows, chosen


def csv_cells(file: TextFile, delimiter: str | None = None, known: Collection[str] = ()) -> Cells:
    """Return the cells of a CSV file; `delimiter` is detected if it is None, `known` names columns it should have.

    Raises DataError for a file that is not a table, now or while its batches are read.
    """
    pyarrow(file.name)
    dialect = Dialect(delimiter or detect_delimiter(file), detected=delimiter is None)
    with closing(dialect.records(file)) as records:
        number, record = next(records, (0, ""))
    if not number:
        note = header.comment_note(file, dialect)
        raise DataError(f"{file.name}: the file is empty{note}: its first line must name the columns")
    columns = header.column_names(file, dialect, number, record, index=True, known=known)
    names = tuple(column for column in columns if column)
    left_out = () if columns[0] else (("", "it has no name, as the names of the rows"),)
    notes = []
    if delimiter is None and dialect.delimiter != ",":
        notes.append(f"{file.name}: its cells are separated by {dialect.delimiter!r}")
    if len(columns) == 1 and (other := dialect.suggest_delimiter(record)):
        notes.append(f"{file.name}: it has one column: if there are several, {other}")
    elif advice := header.row_advice(file, dialect, columns):
        notes.append(f"{file.name}, line {number}: the names of the columns look like a row: {advice}")

    def batches(only: Collection[str] | None) -> Iterator[Batch]:
        wanted = chosen(names, only)
        with closing(_parts(file, dialect, columns, wanted)) as parts:
            yield from recut(file.name, parts, wanted, batch_rows(len(columns)), "line")

    return Cells(file.name, names, None, batches, left_out, tuple(notes))


def _parts(
    file: TextFile, dialect: Dialect, columns: list[str], wanted: tuple[str, ...]
) -> Generator[tuple[Any, NDArray[np.int64]], None, None]:
    """Yield tables of text and the lines of their rows, one for each block of the file."""
    pa = pyarrow(file.name)
    import pyarrow.csv as csv

    keep = csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.string()),
        include_columns=list(wanted),
        strings_can_be_null=False,
        quoted_strings_can_be_null=False,
        check_utf8=False,  # it has been
    )
    with closing(dialect.blocks(file)) as blocks:
        next(blocks)  # the names
        for numbers, text in blocks:
            data = text.encode()
            ragged: list[Any] = []

            def refuse(row: Any, ragged: list[Any] = ragged) -> str:
                ragged.append(row)
                return "error"

            read = csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=columns)
            parse = csv.ParseOptions(
                delimiter=dialect.delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=refuse,
            )
            try:
                table = csv.read_csv(pa.BufferReader(data), read, parse, keep)
            except pa.ArrowInvalid as error:
                if ragged:
                    _refuse(file, dialect, columns, numbers[ragged[0].number - 1], ragged[0].text)
                raise DataError(f"{file.name}, from line {numbers[0]} to {numbers[-1]}: it cannot be cut into cells "
                                f"({str(error).splitlines()[0]:.200}): repair it there") from error  # fmt: skip
            lines = np.arange(numbers.start, numbers.stop) if isinstance(numbers, range) else np.array(numbers)
            yield table, lines


def _refuse(file: TextFile, dialect: Dialect, columns: list[str], line: int, record: str) -> NoReturn:
    """Raise DataError for a record with too many or too few cells."""
    row = dialect.split(record)
    raise DataError(f"{file.name}, line {line}: {len(row)} fields, and the header names {len(columns)} columns: "
                    f"{width_advice(dialect, columns, record, row)}")  # fmt: skip
