"""The types of columns: what a model knows of each column of its table. Plain data, kept as JSON in the model file.

How a column gets its type, from its cells in the training rows alone (`cell_text.py` says what a cell is). The first
line that fits counts; shares are of the cells that are not missing.

| the column                                                       | becomes                                          |
|------------------------------------------------------------------|--------------------------------------------------|
| is named by `drop`, or is an index (no name, or pandas names it) | left out                                         |
| has no cell that is not missing, or one value in every row       | left out                                         |
| is named by `numeric`                                            | number; other cells are missing, and listed      |
| is named by `categorical`                                        | category                                         |
| holds numbers, at least 99 % (infinite ones are counted here)    | number; other cells are missing, and listed      |
| holds only true and false                                        | category of the levels "false" and "true"        |
| holds dates, at least 99 %                                       | date: Unix seconds, and those of month, day,     |
|                                                                  | weekday and hour that vary; others as above      |
| holds times of day, at least 99 %                                | clock: seconds since midnight; others as above   |
| has more distinct values than half its cells, more than 65,536,  | left out: names, ids or prose                    |
| or more than 4 million characters in them; or, beside other      |                                                  |
| text, more than 1,024 distinct numbers, dates and times          |                                                  |
| is anything else                                                 | category: the 255 levels that are most frequent, |
|                                                                  | of equals the first in order of text; the others |
|                                                                  | are one level, "rare"                            |

A declared type (in Parquet, or a frame) says what its cells are, and nothing else is different. So whole numbers are a
number wherever they come from, and what are categories of numbers is for `categorical` to say. Each column that is left
out, and each cell that is not what its column holds, is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from karp.errors import DataError

PARTS = ("month", "day", "weekday", "hour")
"""The calendar parts of a date, in UTC: 1 to 12, 1 to 31, 0 (Monday) to 6, 0 to below 24 with its fraction."""

MISSING, RARE, UNKNOWN, FIRST_LEVEL = 0, 1, 2, 3
"""The numbers of a category: a missing cell, a rare level, one that training had not, and the first of its levels."""


@dataclass(frozen=True, slots=True)
class Number:
    """A column of numbers; `gaps` says whether cells were missing in training, here and below."""

    name: str
    gaps: bool


@dataclass(frozen=True, slots=True)
class Date:
    """A column of dates, as Unix seconds and as those of `PARTS` that varied in training."""

    name: str
    gaps: bool
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """A column of times of day, as seconds since midnight."""

    name: str
    gaps: bool


@dataclass(frozen=True, slots=True)
class Category:
    """A column of levels; `rare` says whether training had more, which are then one level with all that it had not."""

    name: str
    gaps: bool
    levels: tuple[str, ...]
    rare: bool

    def numbers(self) -> dict[str, int]:
        """Return the number that stands for each level in a prepared table.

        >>> Category("city", True, ("Bern", "Wil"), rare=False).numbers()
        {'Bern': 3, 'Wil': 4}
        """
        return {level: number for number, level in enumerate(self.levels, FIRST_LEVEL)}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A column of the training table that the model does not use, and why."""

    name: str
    reason: str


ColumnType = Number | Date | Clock | Category | LeftOut
_KINDS: dict[str, type[ColumnType]] = {kind.__name__.lower(): kind for kind in (Number, Date, Clock, Category)}
_KINDS["left out"] = LeftOut
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Schema:
    """The types of all columns of a table but its target and weights, in the order of the training table.

    >>> schema = Schema((Number("age", gaps=False), Category("city", True, ("Bern", "Wil"), rare=False)))
    >>> schema.numbers, schema.categories, Schema.from_list(schema.to_list()) == schema
    (('age',), ('city',), True)
    """

    columns: tuple[ColumnType, ...]

    @property
    def used(self) -> tuple[Number | Date | Clock | Category, ...]:
        """The columns that are not left out."""
        return tuple(column for column in self.columns if not isinstance(column, LeftOut))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the columns that are not left out."""
        return tuple(column.name for column in self.used)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the numbers that a row becomes; "when.month" is the month of the date "when"."""
        return tuple(name for column in self.columns for name in number_names(column))

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the columns that are categories."""
        return tuple(column.name for column in self.columns if isinstance(column, Category))

    def to_list(self) -> list[dict[str, Any]]:
        """Return the types as plain data for JSON."""
        return [{"type": _NAMES[type(column)], **_plain(column)} for column in self.columns]

    @classmethod
    def from_list(cls, plain: object) -> Schema:
        """Return the types from plain data; raise DataError for what `to_list` does not write."""
        if not isinstance(plain, list):
            raise DataError(f"the types of the columns are no list: {plain!r:.60}")
        columns = tuple(map(_column, plain))
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise DataError("the types of the columns name a column twice")
        return cls(columns)


def number_names(column: ColumnType) -> tuple[str, ...]:
    """Return the names of the numbers that a column becomes; () for a category."""
    if isinstance(column, Date):
        return (column.name, *(f"{column.name}.{part}" for part in column.parts))
    return (column.name,) if isinstance(column, Number | Clock) else ()


def _plain(column: ColumnType) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(column).items()}


def _column(plain: object) -> ColumnType:
    """Return a type from plain data; raise DataError for data that are not a type of a column."""
    kind: Any = _KINDS.get(plain["type"]) if isinstance(plain, dict) and isinstance(plain.get("type"), str) else None
    if kind is None or not isinstance(plain, dict):
        raise DataError(f"{plain!r:.80} is no type of a column")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    del given["type"]
    checks = {field.name: _CHECKS[str(field.type)] for field in fields(kind)}
    if given.keys() != checks.keys() or not all(check(given[name]) for name, check in checks.items()):
        raise DataError(f"{plain!r:.80} is no type of a column: its fields are {', '.join(checks)}")
    column: ColumnType = kind(**given)
    if isinstance(column, Date) and not set(column.parts) <= set(PARTS):
        raise DataError(f"{plain!r:.80}: a date's parts are {', '.join(PARTS)}")
    return column


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) for text in value) and len(set(value)) == len(value)


_CHECKS = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "tuple[str, ...]": _are_texts,
}


def listing(texts: Iterable[str], most: int = 5) -> str:
    """Return the first texts in one line, and how many more there are.

    >>> listing(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    given = list(texts)
    return ", ".join(given[:most]) + (f" and {len(given) - most:,} more" if len(given) > most else "")
