"""The names of the columns: reading the first record, and recognising one that is a row or a comment instead."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import closing
from itertools import pairwise

from karp.data.dialect import Dialect
from karp.data.number_text import is_number
from karp.data.text_file import TextFile
from karp.errors import DataError

ADD_NAMES = "add a line of column names above it"

_COMMENTS = ("#", "%", "//", "--", "!")  # marks with which comments begin in published files


def column_names(
    file: TextFile, dialect: Dialect, number: int, record: str, *, index: bool = False, known: Collection[str] = ()
) -> list[str]:
    """Return the names of the columns in the record of a line.

    Raises DataError for a column without a name or with an earlier column's, and for a record that is a row or a note
    for Excel. With `index` the first column may have no name: pandas and R write the names of the rows so. A record
    that has all `known` names, where there are any, is no row, though they be numbers.
    """
    where = f"{file.name}, line {number}"
    if note := re.fullmatch(r'"?sep=(.)"?\s*', record):
        other = "" if note[1] == dialect.delimiter else f" and pass delimiter={note[1]!r}"
        raise DataError(f"{where}: {note[0].strip()!r} is a note for Excel: remove the line{other}")
    columns = dialect.split(record)
    expected = bool(known) and set(known) <= set(columns)
    # The columns 0, 1, 2, ... may be names; not if a comment above has as many names.
    if not expected and (
        may_be_values(columns) or (all(map(is_number, columns)) and _comment_advice(file, dialect, columns))
    ):
        advice = _comment_advice(file, dialect, columns) or ADD_NAMES
        raise DataError(f"{where}: the first line holds only numbers: {advice}")
    fault = _name_fault(dialect, columns, index and len(columns) > 1 and any(columns[1:]))
    if fault and looks_like_row(columns):
        advice = _comment_advice(file, dialect, columns) or ADD_NAMES
        raise DataError(f"{where}: the first line looks like a row ({_preview(columns)}): {advice}")
    if fault:
        raise DataError(f"{where}: {fault}")
    return columns


def target_index(file: TextFile, dialect: Dialect, columns: list[str], target: str | None) -> int | None:
    """Return the index of the target's column, None without a target.

    Raises DataError if there is no such column, or if there is no other column.
    """
    if target is None:
        return None
    if target not in columns:
        raise DataError(f"{file.name}: there is no column {target!r} among {_preview(columns)}: "
                        f"{_target_advice(file, dialect, columns, target)}")  # fmt: skip
    if len(columns) == 1:
        raise DataError(f"{file.name}: {target!r} is the only column: a table needs features beside its target")
    return columns.index(target)


def may_be_values(columns: list[str]) -> bool:
    """Return whether all names are numbers, so that they may be a row of values.

    The names 0, 1, 2, … are an exception: pandas names unnamed columns so.
    """
    return all(map(is_number, columns)) and columns != [str(place) for place in range(len(columns))]


def looks_like_row(columns: list[str]) -> bool:
    """Return whether the names of the columns look like a row: some are numbers that are no plausible names."""
    numbers = [column for column in columns if is_number(column)]
    return bool(numbers) and not _are_names(numbers)


def row_advice(file: TextFile, dialect: Dialect, columns: list[str]) -> str:
    """Return the advice for names of columns that look like a row; "" if they do not."""
    above = _comment_advice(file, dialect, columns) if any(map(is_number, columns)) else ""
    return above or (ADD_NAMES if looks_like_row(columns) else "")


def _name_fault(dialect: Dialect, columns: list[str], index: bool = False) -> str:
    """Describe the first column that has no name or an earlier column's, and what to do; "" if all names are good."""
    seen: set[str] = set()
    for place, column in enumerate(columns):
        if not column and not (index and place == 0):
            hint = "pandas leaves its index out with to_csv(index=False)"
            if dialect.delimiter == " ":
                hint = "put one delimiter in the place of each run of blanks"
            elif not any(columns[place:]):
                hint = f"{dialect.delimiter!r} may end each line: remove it there"
            return f"column {place + 1} of {len(columns)} has no name: name it, or remove it ({hint})"
        if column in seen:
            return f"two columns are named {column!r}: rename one; if the first line is a row, {ADD_NAMES}"
        seen.add(column)
    return ""


def _target_advice(file: TextFile, dialect: Dialect, columns: list[str], target: str) -> str:
    """Return what the user can do about a target that is not among the columns."""
    if above := _comment_advice(file, dialect, columns, target):
        return above
    for mark in _COMMENTS:
        if columns[0].startswith(mark):
            return f"pass comments={mark!r} if lines that begin so are comments"
    if len(columns) == 1 and (other := dialect.suggest_delimiter(columns[0])):
        return other
    if looks_like_row(columns):
        return f"the first line looks like a row: {ADD_NAMES}"
    if any(map(is_number, columns)):
        return f"name one of them, or, if the first line is a row, {ADD_NAMES}"
    return "pass target=<one of them>"


def _are_names(numbers: list[str]) -> bool:
    """Return whether these numbers may name columns: each is above the one before, as in 0, 1, 2 or wave lengths.

    A single number may if it has digits alone.
    """
    values = [float(number) for number in numbers]
    return all(value < following for value, following in pairwise(values)) and (len(values) > 1 or numbers[0].isdigit())


def comment_note(file: TextFile, dialect: Dialect) -> str:
    """Return a note on the file's last comment, for the error that it has no record; "" if it has none."""
    number, comment = _last_comment(file, dialect)
    return f" but for comments, the last in line {number} ({comment!r:.60})" if number else ""


def _comment_advice(file: TextFile, dialect: Dialect, columns: list[str], target: str | None = None) -> str:
    """Return the advice for a file whose last comment may name the columns, as numpy.savetxt writes them; else ""."""
    number, comment = _last_comment(file, dialect)
    named = dialect.split(comment)
    if number and (target in named if target is not None else len(named) == len(columns)):
        # If nothing stands between the mark and the first delimiter, the mark itself is a name.
        advice = f"remove its {dialect.comment!r}" if named[0] else f"put its {dialect.comment!r} in quotes"
        return f"if line {number} names them ({_preview(named)}), {advice}; if not, {ADD_NAMES}"
    return ""


def _last_comment(file: TextFile, dialect: Dialect) -> tuple[int, str]:
    """Return the number of the line of the last comment above the first record, 0 if there is none, and its text."""
    last = 0, ""
    with closing(file.lines()) as lines:
        for number, line in lines:
            if line.startswith(dialect.comment):
                last = number, line.removeprefix(dialect.comment).strip()
            elif line.strip():
                break
    return last


def _preview(columns: list[str]) -> str:
    """Return the names of the first ten columns, and the number of all if there are more, for a message."""
    first = ", ".join(columns[:10]).replace("\n", "\\n")
    return first + (f", ... ({len(columns)} columns)" if len(columns) > 10 else "")
