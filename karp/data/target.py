"""Converting the target column to class numbers, names of classes or numbers, depending on all its cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from karp.data.number_text import advise, integer, integers_below, is_decorated, is_number, lost_digits, merged, rounded
from karp.errors import DataError

TargetAs = Literal["classes", "names", "numbers"]
Where = Callable[[int], str]  # returns a row's file, line and column, for a message

_MOST_CLASSES = 2**20  # a number from here on is no class number


def targets(
    cells: list[str], target_as: TargetAs | None, dtype: np.dtype[Any], missing: frozenset[str], where: Where
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Convert the cells of the target column to y and the names of the classes.

    `missing` are texts that are no class, case-folded. Raises DataError for a cell that is not what the column holds.
    """
    distinct = dict.fromkeys(cells)  # in the order of the rows
    for cell in distinct:
        if cell.casefold() in missing:
            raise DataError(
                f"{where(cells.index(cell))}: {cell!r} stands for a missing value: fill it, or remove the row; if it "
                "is a class, pass the texts that do stand for missing values, such as missing=() for none"
            )
        if "\0" in cell:
            raise DataError(f"{where(cells.index(cell))}: {cell!r:.60} holds a zero byte: the file is damaged")
    target_as = target_as or _guess(cells, distinct, where)
    if target_as == "names":
        classes = tuple(sorted(distinct))
        places = {name: place for place, name in enumerate(classes)}
        return np.array([places[cell] for cell in cells], np.int64), classes
    if target_as == "numbers":
        return _numbers(cells, dtype, where), ()
    return _class_numbers(cells, distinct, where)


def _guess(cells: list[str], distinct: dict[str, None], where: Where) -> TargetAs:
    """Return what the target column holds; raise DataError where that is not clear."""
    others = [cell for cell in distinct if not is_number(cell)]
    if len(others) == len(distinct):
        if not all(map(is_decorated, distinct)):
            return "names"
        raise DataError(
            f"{where(0)}: {cells[0]!r:.60} looks like a number: {advise(cells[0])}, or "
            'pass target_as="names" if each text is a class'
        )
    if others:
        raise DataError(
            f"{where(cells.index(others[0]))}: {others[0]!r:.60} among numbers is not a finite number: "
            f'{advise(others[0], "repair it")}, or pass target_as="names" if each text is a class'
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


def _numbers(cells: list[str], dtype: np.dtype[Any], where: Where) -> NDArray[Any]:
    """Return the cells as numbers to predict, (n, 1); raise DataError for one that `dtype` cannot hold or no number."""
    values = rounded((cell if is_number(cell) else "nan" for cell in cells), dtype)
    sound = np.isfinite(values)
    if not sound.all():
        row = int(sound.argmin())
        advice = "pass dtype=np.float64" if is_number(cells[row]) else advise(cells[row], "repair it")
        raise DataError(f"{where(row)}: {cells[row]!r:.60} is no finite {dtype}: {advice}")
    for row in np.flatnonzero(np.abs(values) >= integers_below(dtype)).tolist():
        if loss := lost_digits(cells[row], dtype):
            raise DataError(f"{where(row)}: {loss}: {_more_digits(dtype)}")
    if merger := merged(rounded(cells, np.dtype(np.float64)), dtype):
        raise DataError(f"{where(merger[0])}: {merger[1]}: {_more_digits(dtype)}")
    return values.reshape(-1, 1)


def _more_digits(dtype: np.dtype[Any]) -> str:
    """Return the advice for a target that `dtype` cannot hold."""
    return "pass dtype=np.float64" if dtype == np.float32 else 'pass target_as="names" if each is a class'


def _class_numbers(cells: list[str], distinct: dict[str, None], where: Where) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the cells as class numbers, (n,), and the classes' names, "0" to the largest.

    Raises DataError for a cell that is no class number, and for two spellings of one.
    """
    numbers: dict[str, int] = {}
    spelt: dict[int, str] = {}
    for cell in distinct:
        number = integer(cell)
        if number is None or not 0 <= number < _MOST_CLASSES:
            raise DataError(
                f"{where(cells.index(cell))}: {cell!r:.60} is no class number from 0 to {_MOST_CLASSES - 1}: "
                'repair it, or pass target_as="names" if each text is a class'
            )
        other = spelt.setdefault(number, cell)
        if other != cell:
            raise DataError(
                f"{where(cells.index(cell))}: {cell!r:.60} and {other!r:.60} would be one class: write them alike, or "
                'pass target_as="names" if each text is a class'
            )
        numbers[cell] = number
    return np.array([numbers[cell] for cell in cells], np.int64), tuple(map(str, range(max(spelt) + 1)))
