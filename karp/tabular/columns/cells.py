"""Cells: the rows of a file or a frame as a stream of batches of named columns.

Theory of operation. A column of a batch is one of two things. `Texts` are cells whose types are not declared: those of
CSV, and of text and object columns elsewhere; each is recognised by itself (`cell_text.py`). `Typed` are numbers, truth
values, dates or times of day that the file or frame declares as such, as float64. A batch makes a column only when it
is asked for, so one that nobody needs may hold whatever it likes. All sources are cut into batches of one size, so
nothing depends on how a file was written; nothing that is learnt or converted depends on that size either.
"""

from __future__ import annotations

import datetime
import decimal
import numbers
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError
from karp.tabular.columns.cell_text import (
    COMMON_MISSING,
    EXACT,
    Cell,
    Kind,
    cell,
    clock_level,
    date_level,
    number_level,
)

Floats = NDArray[np.float64]
_MOST_ROWS, _LEAST_ROWS, _MOST_CELLS = 8192, 1024, 1 << 20


class Recognised(NamedTuple):
    """The distinct cells of `Texts`: `codes` (n,) are places in the others, of which the last is a missing cell."""

    codes: NDArray[np.int32]
    kinds: NDArray[np.int8]
    values: Floats
    levels: list[str]


class Texts:
    """The texts of a column's cells in a batch: a list of str and None, or an array of pyarrow."""

    __slots__ = ("_recognised", "_source")

    def __init__(self, source: Any) -> None:
        self._source = source
        self._recognised: Recognised | None = None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> str:
        """Return a cell's text without the blanks around it; "" for one that is null."""
        text = self._source[row]
        return ((text if text is None or isinstance(text, str) else text.as_py()) or "").strip()

    def plain_numbers(self) -> Floats | None:
        """Return the cells as numbers, NaN for missing cells, if pyarrow finds that all are numbers or missing.

        Otherwise return None; then `recognised` may still find that they are.
        """
        if isinstance(self._source, list):
            return None
        import pyarrow as pa
        import pyarrow.compute as pc

        array = self._source
        try:
            missing = pc.is_in(array, value_set=_missing_words(array.type))
            array = pc.if_else(missing, pa.scalar(None, array.type), array)
            floats: Floats = pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            return None
        finite = np.count_nonzero(np.isfinite(floats)) == len(floats) - array.null_count
        return floats if finite else None  # "nan" and "inf" are words

    def recognised(self) -> Recognised:
        """Return what each cell is."""
        if self._recognised is None:
            codes, texts = self._distinct()
            cells = list(map(remembered_cell, texts))
            cells.append(_NULL)
            kinds = np.array([each.kind for each in cells], np.int8)
            values = np.array([each.value for each in cells])
            self._recognised = Recognised(codes, kinds, values, [each.level for each in cells])
        return self._recognised

    def _distinct(self) -> tuple[NDArray[np.int32], list[str]]:
        if isinstance(self._source, list):
            places: dict[str, int] = {}
            codes = [-1 if text is None else places.setdefault(text, len(places)) for text in self._source]
            return np.array(codes, np.int32) % np.int32(len(places) + 1), list(places)
        encoded = self._source.dictionary_encode()
        texts: list[str] = encoded.dictionary.to_pylist()
        return encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.int32), texts


_SHORT = 40
_short_cell = lru_cache(1 << 14)(cell)


def remembered_cell(text: str) -> Cell:
    """Return `cell` of a text; it remembers short texts, as a batch has many that the one before had."""
    return _short_cell(text) if len(text) < _SHORT else cell(text)


@lru_cache
def _missing_words(kind: Any) -> Any:
    """Return the usual texts of missing cells as an array of pyarrow, of the type `kind`."""
    import pyarrow as pa

    return pa.array(COMMON_MISSING, kind)


_NULL = Cell(Kind.MISSING, float("nan"), "")


class Typed(NamedTuple):
    """The cells of a column whose type is declared: NUMBER, TRUTH, DATE or CLOCK, with values as in `cell_text.py`.

    NaN is missing. `exact` has whole numbers as they are, where float64 may not hold them.
    """

    kind: Kind
    values: Floats
    exact: NDArray[Any] | None = None

    def levels(self) -> tuple[NDArray[np.int64], list[str]]:
        """Return for each cell a place in the levels, -1 for a missing cell; and the levels, "" for infinite ones."""
        codes = np.full(len(self.values), -1)
        present = ~np.isnan(self.values)
        given = self.values if self.exact is None else self.exact
        distinct, codes[present] = np.unique(given[present], return_inverse=True)
        if self.exact is not None:
            return codes, [str(value) for value in distinct.tolist()]
        return codes, [level_of(self.kind, value) for value in distinct.tolist()]


Column = Texts | Typed


def level_of(kind: Kind, value: float) -> str:
    """Return the level of a value of a kind."""
    if abs(value) == float("inf"):
        return "-inf" if value < 0 else "inf"
    if kind is Kind.TRUTH:
        return "true" if value else "false"
    return {Kind.DATE: date_level, Kind.CLOCK: clock_level}.get(kind, number_level)(value)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows: `column(name)` makes a column, `place(row)` says where a row stands, such as "line 7"."""

    names: tuple[str, ...]
    rows: int
    column: Callable[[str], Column]
    place: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Cells:
    """A table that can be read, more than once while it is open: `name` is for messages, `names` are its columns.

    `left_out` are columns that are an index and no data, with the reason; `notes` is what a user is told of the file.
    `rows` is None where only reading tells. `batches(names)` reads these columns, or all.
    """

    name: str
    names: tuple[str, ...]
    rows: int | None
    batches: Callable[[Collection[str] | None], Iterator[Batch]]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def batch_rows(columns: int) -> int:
    """Return the number of rows of a batch: 8,192, fewer for more than 128 columns, at least 1,024."""
    return max(_LEAST_ROWS, min(_MOST_ROWS, _MOST_CELLS // max(columns, 1)))


def chosen(names: tuple[str, ...], only: Collection[str] | None) -> tuple[str, ...]:
    """Return those of the names that are in `only`, in their order; all where it is None."""
    if only is None:
        return names
    wanted = set(only)
    return tuple(name for name in names if name in wanted)


def check_names(table: str, names: Sequence[object], advice: str = "rename one") -> tuple[str, ...]:
    """Return the names of columns as texts; raise DataError where two are equal, or one is no name."""
    texts = []
    for name in names:
        if not isinstance(name, str) and (isinstance(name, bool) or not isinstance(name, int)):
            raise DataError(f"{table}: a column is named {name!r:.80}: give it a text as its name")
        texts.append(str(name))
    if len(set(texts)) < len(texts):
        twice = next(name for place, name in enumerate(texts) if name in texts[:place])
        raise DataError(f"{table}: two columns are named {twice!r}: {advice}")
    return tuple(texts)


def object_texts(table: str, name: str, objects: Iterable[object]) -> Texts:
    """Return Python objects as texts, written as CSV would have them; raise DataError for one that cannot be a cell."""
    return Texts([_object_text(table, name, item) for item in objects])


def _object_text(table: str, name: str, item: object) -> str | None:
    if isinstance(item, str):
        return str(item)
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(item, np.generic):
        if isinstance(item, np.datetime64 | np.timedelta64):
            kept = typed_array(np.asarray(item).reshape(1))
            return None if kept is None or np.isnan(kept.values[0]) else level_of(kept.kind, kept.values[0].item())
        return _object_text(table, name, item.item())
    if isinstance(item, bool):
        return str(item)
    if isinstance(item, float):
        return repr(item)
    if isinstance(item, numbers.Integral | decimal.Decimal):
        return str(item)
    if isinstance(item, numbers.Real):
        return repr(float(item))
    if isinstance(item, datetime.timedelta):
        return repr(item.total_seconds())
    if isinstance(item, datetime.date | datetime.time):
        return item.isoformat()
    raise DataError(f"{table}, column {name!r}: it holds {type(item).__name__} such as {item!r:.60}: turn it into "
                    "numbers or texts, or drop it")  # fmt: skip


def array_column(table: str, name: str, array: NDArray[Any]) -> Column:
    """Return a 1-D array of NumPy as cells; raise DataError for an element that cannot be one."""
    typed = typed_array(array)
    return object_texts(table, name, array.tolist()) if typed is None else typed


def typed_array(array: NDArray[Any]) -> Typed | None:
    """Return a 1-D array of NumPy as typed cells; None if its dtype is none that has them, such as object and text."""
    kind = array.dtype.kind
    if kind == "b":
        return Typed(Kind.TRUTH, array.astype(np.float64))
    if kind in "iu":
        floats = array.astype(np.float64)
        large = array.dtype.itemsize == 8 and len(array) and np.abs(floats).max() >= EXACT
        return Typed(Kind.NUMBER, floats, array if large else None)
    if kind == "f":
        return Typed(Kind.NUMBER, array.astype(np.float64, copy=False))
    if kind in "Mm" and np.datetime_data(array.dtype)[0] != "generic":
        unit, count = np.datetime_data(array.dtype)
        if unit in "YMWD":
            array = array.astype(f"{kind}8[s]")
            unit, count = "s", 1
        seconds = seconds_of(array.view(np.int64), unit, count)
        seconds[np.isnat(array)] = np.nan
        return Typed(Kind.DATE if kind == "M" else Kind.NUMBER, seconds)
    return None


_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "ps": 10**12, "fs": 10**15, "as": 10**18}
_SECONDS = {"m": 60, "h": 3600}


def seconds_of(ticks: NDArray[np.int64], unit: str, count: int = 1) -> Floats:
    """Return ticks as seconds; a tick is `count` times `unit` ('ms', 'h', …).

    The same time gives the same bits, whatever its unit.
    """
    if unit in _SECONDS:
        return ticks.astype(np.float64) * (count * _SECONDS[unit])
    per_second = _PER_SECOND[unit]
    whole, rest = np.divmod(ticks * count, per_second)
    return whole + rest / per_second
