"""Converting one row in tens of microseconds: a mapping of column names to cells, to the same arrays as a table of it.

Theory of operation. What usually stands in a row (numbers, texts that are levels, nothing) is looked up cell by cell,
without the arrays that a batch is made of. For any other cell `convert` returns None, and the row is converted as a
table of one row (`converting.py`), which also says what is wrong with it. So both ways agree by construction in errors,
and by a test in arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from karp.tabular.columns.calendar_parts import calendar_parts
from karp.tabular.columns.cell_text import EXACT, Kind, number_level
from karp.tabular.columns.cells import remembered_cell
from karp.tabular.columns.column_types import MISSING, Category, Clock, Date, Number, Schema
from karp.tabular.columns.converting import Converted

_NAN = float("nan")
_KINDS = {Number: Kind.NUMBER, Date: Kind.DATE, Clock: Kind.CLOCK}


class RowConverter:
    """Converts rows by the types of a schema, one at a time."""

    def __init__(self, schema: Schema) -> None:
        self._columns: list[tuple[str, Kind | None, Any]] = []  # name, kind of a number, levels or parts
        for column in schema.used:
            if isinstance(column, Category):
                self._columns.append((column.name, None, column.numbers()))
            else:
                parts = column.parts if isinstance(column, Date) else ()
                self._columns.append((column.name, _KINDS[type(column)], parts))

    def convert(self, row: Mapping[Any, Any]) -> Converted | None:
        """Return the row as arrays of one row; None if it has a cell that is not one of the usual ones."""
        numbers: list[float] = []
        categories: list[int] = []
        for name, kind, more in self._columns:
            try:
                given = row[name]
            except KeyError:
                return None
            if kind is None:
                code = _code(given, more)
                if code is None:
                    return None
                categories.append(code)
                continue
            value = _value(given, kind)
            if value is None:
                return None
            numbers.append(value)
            if more:
                parts = calendar_parts(np.array([value]))
                numbers += [parts[part].item() for part in more]
        return Converted(np.array([numbers], np.float64), np.array([categories], np.int32))


def _value(given: object, kind: Kind) -> float | None:
    """Return the value of a cell in a column of this kind, NaN if it is missing; None if this is not certain."""
    if given is None:
        return _NAN
    if type(given) is str:
        found = remembered_cell(given)
        return found.value if found.kind is kind or found.kind is Kind.MISSING else None
    value = _small(given)
    return None if value is None or (kind is not Kind.NUMBER and value == value) else value


def _code(given: object, codes: dict[str, int]) -> int | None:
    """Return the number of a cell's level, MISSING if it is missing; None for a level not learnt."""
    if given is None:
        return MISSING
    if type(given) is str:
        found = remembered_cell(given)
        return codes.get(found.level) if found.kind else MISSING
    if given is True or given is False:
        return codes.get("true" if given else "false")
    value = _small(given)
    if value is None:
        return None
    return codes.get(number_level(value)) if value == value else MISSING


def _small(given: object) -> float | None:
    """Return a number that float64 holds exactly, or NaN, as a float; None for anything else."""
    if type(given) not in (float, int) and not isinstance(given, np.floating | np.integer):
        return None
    value = float(given)  # type: ignore[arg-type]
    return value if abs(value) < EXACT or value != value else None
