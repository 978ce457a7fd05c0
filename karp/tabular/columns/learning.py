"""Learning the types of columns from training rows, a batch at a time.

Theory of operation. Each column has counts that only grow (`counts.py`), and its type is decided from them at the end.
So neither the size of the batches nor the order of the rows shows, but for which cells are listed first. Memory is
bounded: a column keeps at most 65,536 texts of together 4,194,304 characters, and 1,024 numbers, dates and times, of
which a column that is told to be a category keeps 65,536, too. What exceeds a bound has no levels any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.data.number_text import advise, is_decorated
from karp.errors import DataError, SettingError
from karp.tabular.columns.cell_text import Kind
from karp.tabular.columns.cells import Batch, Cells
from karp.tabular.columns.column_types import Category, Clock, ColumnType, Date, LeftOut, Number, Schema, listing
from karp.tabular.columns.counts import LISTED, ColumnCounts

LEVELS = 255
Rows = NDArray[np.bool_]


class Learnt(NamedTuple):
    """The types of the columns, and what a user is told of them, a line each."""

    schema: Schema
    notes: tuple[str, ...]


def learn(
    cells: Cells,
    rows: Iterable[Rows] | None = None,
    *,
    beside: Collection[str] = (),
    numeric: Collection[str] = (),
    categorical: Collection[str] = (),
    drop: Collection[str] = (),
) -> Learnt:
    """Learn the types of all columns but those `beside` (target and weights), from the rows that `rows` marks.

    `rows` has for each batch an array (rows,) of bool, True for a training row; None: all rows are. Raises DataError if
    no row or no column is left, SettingError for columns that are not there or are named for two options.
    """
    learner = Learner(cells, beside=beside, numeric=numeric, categorical=categorical, drop=drop)
    marks = None if rows is None else iter(rows)
    for batch in cells.batches(learner.read) if learner.read else ():
        learner.add(batch, None if marks is None else next(marks))
    return learner.finish()


class Learner:
    """Counts the cells of columns, a batch at a time; the arguments are those of `learn`."""

    def __init__(
        self,
        cells: Cells,
        *,
        beside: Collection[str] = (),
        numeric: Collection[str] = (),
        categorical: Collection[str] = (),
        drop: Collection[str] = (),
    ) -> None:
        self._cells = cells
        overrides = {"target or weight": beside, "numeric": numeric, "categorical": categorical, "drop": drop}
        _check_overrides(cells, overrides)
        self._numeric, self._categorical, self._drop = set(numeric), set(categorical), set(drop)
        self._features = tuple(name for name in cells.names if name not in beside)
        kept = [name for name in self._features if name not in self._drop]
        self._counts = {name: ColumnCounts(name in self._categorical) for name in kept}
        self._rows = 0
        self.others: dict[str, int] = {}  # columns of numbers and times -> their cells of another kind, once finished

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that have to be read."""
        return tuple(self._counts)

    def add(self, batch: Batch, rows: Rows | None = None) -> None:
        """Count the cells of a batch; of these rows alone, where given."""
        chosen = np.arange(batch.rows) if rows is None else np.flatnonzero(rows)
        if not chosen.size:
            return
        self._rows += chosen.size
        for name, counts in self._counts.items():
            counts.add(batch.column(name), None if rows is None else chosen, batch)

    def finish(self) -> Learnt:
        """Decide the types; raise DataError where there are no rows, or no column is left to learn from."""
        table = self._cells.name
        if self._counts and not self._rows:
            raise DataError(f"{table}: there are no rows to learn from")
        columns: list[ColumnType] = [LeftOut(name, reason) for name, reason in self._cells.left_out]
        notes = []
        for name in self._features:
            if name in self._drop:
                columns.append(LeftOut(name, "it is to be dropped"))
                continue
            column, note = self._decide(name, self._counts[name])
            columns.append(column)
            notes += [f"column {name!r}: {note}"] if note else []
        left_out = [column for column in columns if isinstance(column, LeftOut)]
        if len(left_out) == len(columns):
            reasons = listing(f"{column.name!r}: {column.reason}" for column in left_out) or "there is no other"
            raise DataError(f"{table}: no column is left to learn from ({reasons}): pass numeric or categorical for "
                            "those that matter")  # fmt: skip
        notes = [f"column {column.name!r} is left out: {column.reason}" for column in left_out] + notes
        return Learnt(Schema(tuple(columns)), tuple(notes))

    def _decide(self, name: str, counts: ColumnCounts) -> tuple[ColumnType, str]:
        """Return the type of a column by the table of `column_types.py`, and a note."""
        gaps = bool(counts.kinds[Kind.MISSING])
        if counts.present == 0:
            return LeftOut(name, "every cell is missing"), ""
        levels = counts.levels()
        if not gaps and levels is not None and len(levels) == 1:
            return LeftOut(name, f"every cell is {next(iter(levels))!r:.60}"), ""
        chosen = name in self._categorical
        if counts.kinds[Kind.TRUTH] == counts.present and name not in self._numeric:
            return Category(name, gaps, ("false", "true"), rare=False), ""
        for kind, made in ((Kind.NUMBER, Number), (Kind.DATE, Date), (Kind.CLOCK, Clock)):
            fitting = counts.fitting(kind)
            told = kind is Kind.NUMBER and name in self._numeric
            if told or (not chosen and 100 * fitting >= 99 * counts.present):
                if not counts.kinds[kind]:
                    reason = f"no cell is a finite number ({', '.join(counts.first[kind])})"
                    if told:
                        raise DataError(f"{self._cells.name}, column {name!r}: {reason}: drop it, or leave it as it is")
                    return LeftOut(name, reason), ""
                others = self.others[name] = counts.present - int(counts.kinds[kind])
                note = others_note(kind, others, int(self._rows), counts.first[kind]) if others else ""
                if made is Date:
                    return Date(name, gaps or others > 0, counts.varying_parts()), note
                return made(name, gaps or others > 0), note  # type: ignore[call-arg]
        return self._category(name, counts, gaps, chosen)

    def _category(self, name: str, counts: ColumnCounts, gaps: bool, chosen: bool) -> tuple[ColumnType, str]:
        levels = counts.levels()
        advice = ("" if chosen else _number_advice(counts)) or _advice(counts.first_text)
        if levels is None:
            what = counts.exceeded()
            if chosen:
                raise DataError(f"{self._cells.name}, column {name!r}: {what}: too many for a category: drop it")
            return LeftOut(name, f"it is text with {what}{advice}"), ""
        if not chosen and 2 * len(levels) > counts.present:
            distinct = f"{len(levels):,} distinct values in {counts.present:,} cells"
            return LeftOut(name, f"it is text with {distinct}, more than half: names, ids or prose{advice}"), ""
        ranked = sorted(levels.items(), key=lambda item: (-item[1], item[0]))
        kept, rare = ranked[:LEVELS], ranked[LEVELS:]
        note = advice.removeprefix("; ")
        if rare:
            cells = sum(count for _, count in rare)
            note = (
                f"its {LEVELS} most frequent levels are kept, and {len(rare):,} others, in {cells:,} cells, are one "
                f"level, rare{advice}"
            )
        return Category(name, gaps, tuple(sorted(level for level, _ in kept)), bool(rare)), note


def _check_overrides(cells: Cells, given: dict[str, Collection[str]]) -> None:
    """Raise SettingError if an option is a text instead of names, or a column is not there or named for two options."""
    seen: dict[str, str] = {}
    columns = set(cells.names)
    known = columns | {name for name, _ in cells.left_out}
    for option, names in given.items():
        if isinstance(names, str):
            raise SettingError(f"{option} is {names!r:.60}: pass a list of names of columns")
        for name in names:
            if name not in known:
                among = listing(cells.names, 10)
                raise SettingError(f"{option}: {cells.name} has no column {name!r:.60} among {among}")
            if name not in columns and option != "drop":
                raise SettingError(f"{option}: {name!r} is an index of {cells.name}, which is left out: rename it")
            if seen.setdefault(name, option) != option:
                raise SettingError(f"the column {name!r} cannot be both {seen[name]} and {option}")


def others_note(kind: Kind, count: int, rows: int, first: Iterable[str]) -> str:
    """Say how many cells are not of their column's kind, and which came first."""
    what = {Kind.NUMBER: "finite number", Kind.DATE: "date", Kind.CLOCK: "time of day"}[kind]
    if count == 1:
        return f"1 of {rows:,} cells is no {what} and counts as missing ({', '.join(first)})"
    several = "times of day" if kind is Kind.CLOCK else f"{what}s"
    more = ", ..." if count > LISTED else ""
    return f"{count:,} of {rows:,} cells are no {several} and count as missing ({', '.join(first)}{more})"


def _number_advice(counts: ColumnCounts) -> str:
    """Return what to do with a column that is text, though nine of ten cells are numbers; else ''."""
    numbers = int(counts.kinds[Kind.NUMBER])
    if 10 * numbers < 9 * counts.present:
        return ""
    others = ", ".join(counts.first[Kind.NUMBER][:2])
    return f"; {numbers:,} of {counts.present:,} cells are numbers, but not {others}: make it numeric if such are gaps"


def _advice(first: str) -> str:
    """Return what to do where the first text looks like a number or a date that cannot be read; else ''."""
    if not first or len(first) > 40:
        return ""
    if is_decorated(first):
        return f"; if {first!r} is a number, {advise(first)}"
    if "dates" in advise(first):
        return f"; if {first!r} is a date, write it as 2024-05-31"
    return ""
