"""Counts of a column's cells: of each kind, of each level up to a bound, and the first that are not of a kind.

They only grow, and adding rows in other batches gives the same counts: so a type that is decided from them does not
depend on how the rows came.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.tabular.columns.calendar_parts import calendar_parts
from karp.tabular.columns.cell_text import EXACT, Kind, number_level
from karp.tabular.columns.cells import Batch, Column, Floats, Texts, Typed, level_of
from karp.tabular.columns.column_types import PARTS

MOST_TEXTS, MOST_CHARACTERS, MOST_OTHERS = 1 << 16, 1 << 22, 1 << 10
LISTED = 5
_LISTED_KINDS = (Kind.NUMBER, Kind.DATE, Kind.CLOCK)


class TextCounts:
    """How often each of a bounded number of texts came; `counts` is None once there were more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.characters = 0
        self.counts: dict[str, int] | None = {}

    def add(self, text: str, count: int) -> None:
        """Count a text `count` more times; from the first text that is one too many on, do nothing."""
        if self.counts is None or not count:
            return
        known = self.counts.get(text)
        if known is None:
            self.characters += len(text)
            if len(self.counts) >= self.most or self.characters > MOST_CHARACTERS:
                self.counts = None
                return
        self.counts[text] = (known or 0) + count


class NumberCounts:
    """How often each of a bounded number of numbers came; `distinct` is None once there were more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.distinct: Floats | None = np.empty(0)
        self.counts: NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, values: Floats, counts: NDArray[np.int64] | None = None) -> None:
        """Count numbers, each as often as `counts` says, else once."""
        if self.distinct is None or not values.size:
            return
        counts = np.ones(len(values), np.int64) if counts is None else counts
        joined = np.concatenate([self.distinct, values + 0.0])  # -0.0 is 0.0
        distinct, places = np.unique(joined, return_inverse=True)
        if len(distinct) > self.most:
            self.distinct = None
            return
        total = np.zeros(len(distinct), np.int64)
        np.add.at(total, places, np.concatenate([self.counts, counts]))
        self.distinct, self.counts = distinct, total


class ColumnCounts:
    """The counts of one column."""

    def __init__(self, category: bool = False) -> None:
        """Begin; a `category` by choice counts all its levels up to the bound of texts."""
        most = MOST_TEXTS if category else MOST_OTHERS
        self.kinds: NDArray[np.int64] = np.zeros(len(Kind), np.int64)
        self.texts = TextCounts(MOST_TEXTS)
        self.others = TextCounts(most)  # levels that are neither text nor in `numbers`
        self.numbers = NumberCounts(most)
        self.first: dict[Kind, list[str]] = {kind: [] for kind in _LISTED_KINDS}  # cells that are not of the kind
        self.first_text = ""
        self._low = np.full(len(PARTS), np.inf)
        self._high = np.full(len(PARTS), -np.inf)
        self._mostly_numbers = True  # of the last batch

    @property
    def present(self) -> int:
        """The number of cells that are not missing."""
        return int(self.kinds.sum() - self.kinds[Kind.MISSING])

    def fitting(self, kind: Kind) -> int:
        """Return the number of cells of a kind; infinite ones count as numbers."""
        return int(self.kinds[kind] + (self.kinds[Kind.INFINITE] if kind is Kind.NUMBER else 0))

    def exceeded(self) -> str:
        """Say which bound on the levels is exceeded; "" if none is."""
        if self.texts.counts is None:
            if self.texts.characters > MOST_CHARACTERS:
                return f"more than {MOST_CHARACTERS:,} characters in its distinct values"
            return f"more than {MOST_TEXTS:,} distinct values"
        if self.others.counts is None or self.numbers.distinct is None:
            return f"more than {self.numbers.most:,} distinct numbers, dates or times"
        return ""

    def levels(self) -> dict[str, int] | None:
        """Return how often each level came; None if there were too many levels to count."""
        if self.texts.counts is None or self.others.counts is None or self.numbers.distinct is None:
            return None
        numbers = map(number_level, self.numbers.distinct.tolist())
        counted = dict(zip(numbers, self.numbers.counts.tolist(), strict=True))
        return {**self.texts.counts, **self.others.counts, **counted}

    def varying_parts(self) -> tuple[str, ...]:
        """Return the calendar parts that are not the same in all dates."""
        return tuple(part for part, low, high in zip(PARTS, self._low, self._high, strict=True) if low < high)

    def add(self, column: Column, rows: NDArray[np.int64] | None, batch: Batch) -> None:
        """Count the cells of a batch; of these rows alone, where given."""
        if isinstance(column, Typed):
            self._add_typed(column, rows, batch)
            return
        floats = column.plain_numbers() if self._mostly_numbers else None
        if floats is not None and np.nanmax(np.abs(floats), initial=0.0) < EXACT:
            self._add_numbers(floats if rows is None else floats[rows])
            self._list(np.where(np.isnan(floats), Kind.MISSING, Kind.NUMBER), rows, column, batch)
            return
        self._add_texts(column, rows, batch)

    def _add_texts(self, column: Texts, rows: NDArray[np.int64] | None, batch: Batch) -> None:
        codes, kinds, values, levels = column.recognised()
        counts = np.bincount(codes if rows is None else codes[rows], minlength=len(kinds))
        self.kinds += np.bincount(kinds, counts, len(Kind)).astype(np.int64)
        self._mostly_numbers = 2 * counts[kinds == Kind.NUMBER].sum() > counts.sum()
        small = (kinds == Kind.NUMBER) & (np.abs(values) < EXACT) & (counts > 0)
        self.numbers.add(values[small], counts[small])
        large = ~small & (kinds != Kind.MISSING) & (counts > 0)
        for chosen, table in ((large & (kinds == Kind.TEXT), self.texts), (large & (kinds != Kind.TEXT), self.others)):
            for place, count in zip(np.flatnonzero(chosen).tolist(), counts[chosen].tolist(), strict=True):
                table.add(levels[place], count)
        self._add_dates(values[(kinds == Kind.DATE) & (counts > 0)])
        self._list(kinds[codes], rows, column, batch)

    def _add_typed(self, column: Typed, rows: NDArray[np.int64] | None, batch: Batch) -> None:
        missing, infinite = np.isnan(column.values), np.isinf(column.values)
        kinds = np.where(missing, Kind.MISSING, np.where(infinite, Kind.INFINITE, column.kind))
        self._list(kinds, rows, column, batch)
        values, exact = column.values, column.exact
        if rows is not None:
            values, kinds, missing = values[rows], kinds[rows], missing[rows]
            exact = None if exact is None else exact[rows]
        self.kinds += np.bincount(kinds, minlength=len(Kind))
        others = ~missing
        if column.kind is Kind.NUMBER:
            small = np.abs(values) < EXACT
            self.numbers.add(values[small])
            others &= ~small
        elif column.kind is Kind.DATE:
            self._add_dates(values[others])
        if others.any() and self.others.counts is not None:
            codes, levels = Typed(column.kind, values[others], None if exact is None else exact[others]).levels()
            for level, count in zip(levels, np.bincount(codes, minlength=len(levels)).tolist(), strict=True):
                self.others.add(level, count)

    def _add_numbers(self, values: Floats) -> None:
        """Count finite numbers below `EXACT`, and missing cells."""
        present = values[~np.isnan(values)]
        self.kinds[Kind.NUMBER] += len(present)
        self.kinds[Kind.MISSING] += len(values) - len(present)
        self.numbers.add(present)

    def _add_dates(self, seconds: Floats) -> None:
        if seconds.size:
            parts = calendar_parts(seconds)
            self._low = np.minimum(self._low, [parts[part].min() for part in PARTS])
            self._high = np.maximum(self._high, [parts[part].max() for part in PARTS])

    def _list(self, kinds: NDArray[Any], rows: NDArray[np.int64] | None, column: Column, batch: Batch) -> None:
        """Keep the first cells that are not of a kind, with their places, and the first text."""

        def first(wanted: NDArray[np.bool_], most: int) -> list[tuple[int, str]]:
            places = np.flatnonzero(wanted) if rows is None else rows[wanted[rows]]
            return [(row, cell_text(column, row)) for row in places[:most].tolist()]

        for kind, listed in self.first.items():
            if len(listed) < LISTED:
                others = first((kinds != kind) & (kinds != Kind.MISSING), LISTED - len(listed))
                listed += [f"{batch.place(row)}: {text!r:.60}" for row, text in others]
        if not self.first_text and (texts := first(kinds == Kind.TEXT, 1)):
            self.first_text = texts[0][1].strip()


def cell_text(column: Column, row: int) -> str:
    """Return a cell as text, for a message."""
    return column[row] if isinstance(column, Texts) else level_of(column.kind, float(column.values[row]))
