"""Converting batches of cells by learnt types: the same for training rows, validation rows and what is to be predicted.

Theory of operation. Each cell is converted by itself, so a file in one batch, in many, or row by row gives equal
arrays. Cells that are not what their column holds are missing, as in training, and are counted; a column in which they
are more than half of the cells is a column of another type, which is an error. That is known at the end (`finish`), or
as soon as the first 1,000 cells are all such. Infinite numbers are missing, too, but a column of numbers may have any
number of them. A column that declares another type (text aside, which declares none) is
an error at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError
from karp.tabular.columns.calendar_parts import calendar_parts
from karp.tabular.columns.cell_text import Kind, cell
from karp.tabular.columns.cells import Batch, Column, Floats, Typed
from karp.tabular.columns.column_types import (
    MISSING,
    RARE,
    UNKNOWN,
    Category,
    Clock,
    Date,
    Number,
    Schema,
    listing,
)
from karp.tabular.columns.counts import LISTED, cell_text

Marks = NDArray[np.bool_]  # (rows,)
_SURE = 1000  # cells from the first on that are all of another type


class Converted(NamedTuple):
    """Rows as arrays: `numbers` (n, len(schema.numbers)), and `categories` (n, len(schema.categories)).

    A missing number is NaN. A category is the number of a level, or 0 for a missing cell, 1 for a rare level, 2 for an
    unknown one (`column_types.MISSING`, RARE, UNKNOWN).
    """

    numbers: Floats
    categories: NDArray[np.int32]


@dataclass(slots=True)
class ColumnReport:
    """Counts of a column's cells: `others` are of another kind than the column, `rare` and `unknown` of no level of it.

    Infinite numbers, in a column of numbers, are among the others.

    `first` are texts that name the first `others` and `unknown`.
    """

    cells: int = 0  # that are not missing
    others: int = 0
    infinite: int = 0
    rare: int = 0
    unknown: int = 0
    first: list[str] = field(default_factory=list)  # of the others and unknown ones, with their places


_WHAT = {
    Kind.NUMBER: "numbers",
    Kind.TRUTH: "true and false",
    Kind.DATE: "dates",
    Kind.CLOCK: "times of day",
    Kind.TEXT: "text",
}
_KINDS = {Number: Kind.NUMBER, Date: Kind.DATE, Clock: Kind.CLOCK}


class Converter:
    """Converts batches by the types of a schema; `reports` counts, for each column, what did not fit."""

    def __init__(self, schema: Schema, name: str, columns: tuple[str, ...]) -> None:
        """Begin with a table of these columns; raise DataError, naming the table `name`, if one is missing.

        Columns that the schema does not use may be there or not.
        """
        self.schema = schema
        self.reports = {column.name: ColumnReport() for column in schema.used}
        self._name = name
        self._codes = {column.name: column.numbers() for column in schema.used if isinstance(column, Category)}
        there = set(columns)
        absent = [column.name for column in schema.used if column.name not in there]
        if absent:
            named = listing(map(repr, absent))
            raise DataError(f"{name}: there is no column {named} among {listing(columns, 10)}: the model needs it")

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that have to be read."""
        return tuple(self.reports)

    def convert(self, batch: Batch) -> Converted:
        """Return the rows of a batch as arrays, and count in `reports`.

        Raises DataError for a column that declares another type, or whose first thousand cells are all of another kind.
        """
        numbers: list[Floats] = []
        categories: list[NDArray[np.int32]] = []
        for column in self.schema.used:
            cells = batch.column(column.name)
            if isinstance(column, Category):
                categories.append(self._category(column, cells, batch))
                continue
            values = self._values(column, cells, batch)
            numbers.append(values)
            if isinstance(column, Date) and column.parts:
                parts = calendar_parts(values)
                numbers += [parts[part] for part in column.parts]
        return Converted(
            np.stack(numbers, 1) if numbers else np.empty((batch.rows, 0)),
            np.stack(categories, 1) if categories else np.empty((batch.rows, 0), np.int32),
        )

    def finish(self) -> None:
        """Raise DataError if more than half of the cells of a column, over all batches, were of another kind."""
        for column in self.schema.used:
            report = self.reports[column.name]
            if not isinstance(column, Category) and 2 * (report.others - report.infinite) > report.cells:
                raise self._other_type(column)

    def _values(self, column: Number | Date | Clock, cells: Column, batch: Batch) -> Floats:
        """Return the values of a column's cells, NaN where they are missing or others."""
        kind = _KINDS[type(column)]
        report = self.reports[column.name]
        if isinstance(cells, Typed):
            self._check_kind(column.name, kind, cells)
            values = cells.values
            if np.isfinite(values).all():
                report.cells += len(values)
                return values
            others = infinite = np.isinf(values)
            present = batch.rows - int(np.count_nonzero(np.isnan(values)))
            if others.any():
                values = np.where(others, np.nan, values)
        else:
            plain = cells.plain_numbers() if kind is Kind.NUMBER else None
            if plain is not None:
                report.cells += len(plain) - int(np.count_nonzero(np.isnan(plain)))
                return plain
            codes, kinds, distinct, _ = cells.recognised()
            values = np.where(kinds == kind, distinct, np.nan)[codes]
            others = ((kinds != kind) & (kinds != Kind.MISSING))[codes]
            infinite = ((kinds == Kind.INFINITE) & (kind is Kind.NUMBER))[codes]
            present = int(np.count_nonzero((kinds != Kind.MISSING)[codes]))
        if others.any():
            self._count_others(column, cells, others, infinite, batch)
        report.cells += present
        return values

    def _count_others(
        self, column: Number | Date | Clock, cells: Column, others: Marks, infinite: Marks, batch: Batch
    ) -> None:
        report = self.reports[column.name]
        before = report.others - report.infinite
        report.others += int(np.count_nonzero(others))
        report.infinite += int(np.count_nonzero(infinite))
        for row in np.flatnonzero(others)[: LISTED - len(report.first)].tolist():
            report.first.append(f"{batch.place(row)}: {cell_text(cells, row)!r:.60}")
        if before == report.cells < _SURE <= report.others - report.infinite:
            foreign = others & ~infinite
            fitting = np.flatnonzero(~foreign & ~_missing(cells))
            leading = np.count_nonzero(foreign[: fitting[0]]) if fitting.size else np.count_nonzero(foreign)
            if before + leading >= _SURE:
                raise self._other_type(column)

    def _other_type(self, column: Number | Date | Clock) -> DataError:
        report = self.reports[column.name]
        what = _WHAT[_KINDS[type(column)]]
        return DataError(f"{self._name}, column {column.name!r}: the model knows it as {what}, and most cells are none "
                         f"({', '.join(report.first)}): pass the column that the model was trained on")  # fmt: skip

    def _check_kind(self, name: str, kind: Kind, cells: Typed) -> None:
        """Raise DataError for cells of another declared type."""
        if cells.kind is not kind and not np.isnan(cells.values).all():
            raise DataError(f"{self._name}, column {name!r}: the model knows it as {_WHAT[kind]}, and it holds "
                            f"{_WHAT[cells.kind]}: pass the column that the model was trained on")  # fmt: skip

    def _category(self, column: Category, cells: Column, batch: Batch) -> NDArray[np.int32]:
        """Return the number of each cell's level: MISSING, or RARE or UNKNOWN for a level not learnt; report these."""
        codes: NDArray[Any]  # (n,) places in the table
        known = self._codes[column.name]
        other = RARE if column.rare else UNKNOWN
        if isinstance(cells, Typed):
            codes, levels = cells.levels()
            if levels and not any(cell(level).kind is cells.kind for level in column.levels):
                declared = Kind.TRUTH if column.levels == ("false", "true") else Kind.TEXT
                self._check_kind(column.name, declared, cells)
            table = [*(known.get(level, other) for level in levels), MISSING]
        else:
            codes, kinds, _, levels = cells.recognised()
            table = [
                known.get(level, other) if kind else MISSING for level, kind in zip(levels, kinds.tolist(), strict=True)
            ]
        result: NDArray[np.int32] = np.array(table, np.int32)[codes]
        report = self.reports[column.name]
        report.cells += int(np.count_nonzero(result))
        if other in table:
            self._count_strangers(column, cells, result == other, batch)
        return result

    def _count_strangers(self, column: Category, cells: Column, strangers: NDArray[np.bool_], batch: Batch) -> None:
        """Count the cells that are no level of a category."""
        report = self.reports[column.name]
        count = int(np.count_nonzero(strangers))
        if column.rare:
            report.rare += count
            return
        report.unknown += count
        for row in np.flatnonzero(strangers)[: LISTED - len(report.first)].tolist():
            report.first.append(f"{batch.place(row)}: {cell_text(cells, row)!r:.60}")


def _missing(cells: Column) -> NDArray[np.bool_]:
    if isinstance(cells, Typed):
        return np.isnan(cells.values)
    codes, kinds, _, _ = cells.recognised()
    missing: NDArray[np.bool_] = (kinds == Kind.MISSING)[codes]
    return missing
