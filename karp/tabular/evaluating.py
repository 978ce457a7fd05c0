"""Scores of predictors on a table: each batch is read once, and kept only as far as a score needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError
from karp.tabular.columns.cells import Cells
from karp.tabular.columns.column_types import Schema, listing
from karp.tabular.columns.converting import Converted, Converter
from karp.tabular.columns.counts import LISTED, cell_text
from karp.tabular.columns.sources import open_cells
from karp.tabular.columns.target import Target, target_classes, target_values, weights
from karp.tabular.scores import ClassTally, Scores, value_scores
from karp.text import counted

Array = NDArray[Any]
Predict = Callable[[Converted], Array]  # rows -> probabilities (n, classes), or numbers (n,) in the target's units


class Evaluated(NamedTuple):
    """The scores of each predictor, the rows they are of, and what a user is told, a line each."""

    results: dict[str, Scores]
    rows: int
    notes: tuple[str, ...]


def evaluate(
    source: Any, schema: Schema, target: Target, predictors: Mapping[str, Predict], weight: str | None = None
) -> Evaluated:
    """Return the scores of predictors on a table that has the target's column; `weight` names a column of weights.

    A row without a target is left out. A row of a class that training had not is wrong for accuracy, and left out of
    the other scores. Raises DataError for a table that lacks a column, has one of another type, or no row to score.
    """
    with open_cells(source, known=schema.inputs) as cells:
        for name in (target.name, *([weight] if weight is not None else [])):
            if name not in cells.names:
                raise DataError(f"{cells.name}: there is no column {name!r} among {listing(cells.names, 10)}, and "
                                "scores need it")  # fmt: skip
        converter = Converter(schema, cells.name, cells.names)
        tallies: dict[str, Any] = {
            name: ClassTally(len(target.classes)) if target.classes else _ValueTally() for name in predictors
        }
        rows, notes = _read(cells, converter, target, predictors, tallies, weight)
    if not rows:
        weighted = "" if weight is None else " and a weight above 0"
        raise DataError(f"{cells.name}: there is no row with a target in {target.name!r}{weighted}, so nothing can be "
                        "scored")  # fmt: skip
    results = {name: tally.scores() for name, tally in tallies.items()}
    return Evaluated(results, rows, (*notes, *notes_of(converter, cells.name)))


class _ValueTally:
    """Collects predicted numbers, targets and weights."""

    def __init__(self) -> None:
        self._rows: list[tuple[Array, Array, Array]] = []

    def add(self, predicted: Array, values: Array, weights: Array | None = None) -> None:
        self._rows.append((predicted, values, np.ones(len(values)) if weights is None else weights))

    def scores(self) -> Scores:
        return value_scores(*map(np.concatenate, zip(*self._rows, strict=True)))


def _read(
    cells: Cells, converter: Converter, target: Target, predictors: Mapping[str, Predict], tallies: Mapping[str, Any],
    weight: str | None,
) -> tuple[int, list[str]]:  # fmt: skip
    """Predict the rows that have a target, and add them to the tallies; return how many there are, and notes."""
    rows = scored = unknown = without = weightless = 0
    first: list[str] = []
    for batch in cells.batches({*converter.read, target.name, *([weight] if weight is not None else [])}):
        truth: Array = target_classes(target, batch) if target.classes else target_values(target, batch)
        there = truth != -1 if target.classes else ~np.isnan(truth)
        without += batch.rows - int(np.count_nonzero(there))
        weighting = None if weight is None else weights(cells, weight, batch)
        if weighting is not None:
            weightless += int(np.count_nonzero(there & (weighting == 0)))
            there &= weighting > 0
            weighting = weighting[there]
        numbers, categories = converter.convert(batch)
        converted = Converted(numbers[there], categories[there])
        for name, predict in predictors.items():
            tallies[name].add(predict(converted), truth[there], weighting)
        rows += batch.rows
        scored += int(np.count_nonzero(there))
        strange = np.flatnonzero(there & (truth == -2)) if target.classes else np.empty(0, np.int64)
        unknown += len(strange)
        column = batch.column(target.name)
        first += [
            f"{batch.place(row)}: {cell_text(column, row)!r:.60}" for row in strange[: LISTED - len(first)].tolist()
        ]
    converter.finish()
    notes = []
    for count, what in ((without, f"no target in {target.name!r}"), (weightless, "the weight 0")):
        if count:
            notes.append(f"{cells.name}: {count:,} of {rows:,} rows have {what} and are left out")
    if unknown:
        more = ", ..." if unknown > LISTED else ""
        notes.append(f"{cells.name}: {unknown:,} of {scored:,} rows have classes that training had not "
                     f"({', '.join(first)}{more}): they count as wrong")  # fmt: skip
    return scored, notes


def notes_of(converter: Converter, table: str) -> list[str]:
    """Return a line for each column with cells that the model does not know: of another kind, or of no level."""
    notes = []
    for name, report in converter.reports.items():
        for count, what in ((report.others, "of another kind than the column, and so missing"),
                            (report.unknown, "of a level that training had not")):  # fmt: skip
            if count:
                more = ", ..." if count > len(report.first) else ""
                cells = f"{counted(report.cells, 'cell')} {'is' if count == 1 else 'are'}"
                notes.append(f"{table}, column {name!r}: {count:,} of {cells} {what} "
                             f"({', '.join(report.first)}{more})")  # fmt: skip
    return notes
