"""Targets and weights of rows, as batches are read: which rows count, and what is to be predicted in them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError
from karp.tabular.columns.cells import Batch, Cells, Floats
from karp.tabular.columns.column_types import listing
from karp.tabular.columns.target import Target, target_classes, target_values, weights


class Labels(NamedTuple):
    """The labels of a batch: `used` marks the rows that have a target, and a weight above 0 where rows have weights."""

    first: int  # the number of the batch's first row in the table
    target: NDArray[Any]  # (rows,) int64, numbers of classes; or float64
    weights: Floats | None  # (rows,)
    used: NDArray[np.bool_]

    @property
    def classes(self) -> NDArray[np.int64]:
        """The classes of the rows that are used; all 0 where numbers are predicted."""
        is_number = self.target.dtype.kind == "f"
        return np.zeros(int(np.count_nonzero(self.used)), np.int64) if is_number else self.target[self.used]


class LabelReader:
    """Reads a table with its labels; its counts are of the last reading."""

    def __init__(self, cells: Cells, target: Target, weight: str | None) -> None:
        """Begin; raise DataError if the table has no target, or no weights though a column is named for them."""
        self.cells, self.target, self.weight = cells, target, weight
        self.beside = (target.name,) if weight is None else (target.name, weight)
        for name in self.beside:
            if name not in cells.names:
                what = "weights" if name == weight else "a target"
                raise DataError(f"{cells.name}: there is no column {name!r} among {listing(cells.names, 10)}: it "
                                f"needs {what} for validation")  # fmt: skip
        self.rows = self.used = self.without_target = self.without_weight = 0

    def batches(self, columns: Collection[str] = ()) -> Iterator[tuple[Batch, Labels]]:
        """Yield batches that have these columns, with their labels; raise DataError for a cell that is none."""
        self.rows = self.used = self.without_target = self.without_weight = 0
        for batch in self.cells.batches((*columns, *self.beside)):
            labels = self._labels(batch)
            self.rows += batch.rows
            yield batch, labels

    def target_notes(self) -> list[str]:
        """Return what a user is told of the rows that are left out as they have no target."""
        return self._notes(self.without_target, f"no target in {self.target.name!r}")

    def weight_notes(self) -> list[str]:
        """Return what a user is told of the rows that are left out for their weights."""
        return self._notes(self.without_weight, "the weight 0")

    def _notes(self, count: int, what: str) -> list[str]:
        few = f"{self.cells.name}: {count:,} of {self.rows:,} rows have {what} and are left out"
        return [few] if count else []

    def _labels(self, batch: Batch) -> Labels:
        column: NDArray[Any]
        if self.target.task == "classification":
            column = target_classes(self.target, batch).astype(np.int64)
            used = column != -1
        else:
            column = target_values(self.target, batch)
            used = ~np.isnan(column)
        self.without_target += batch.rows - int(np.count_nonzero(used))
        values = None if self.weight is None else weights(self.cells, self.weight, batch)
        if values is not None:
            self._check_size(values, batch)
            self.without_weight += int(np.count_nonzero(used & (values == 0)))
            used &= values > 0
        self.used += int(np.count_nonzero(used))
        unknown = np.flatnonzero(used & (column == -2) & bool(self.target.classes))
        if unknown.size:
            raise DataError(f"{self.cells.name}, {batch.place(int(unknown[0]))}, column {self.target.name!r}: it is a "
                            "class that no training row has: give it one of theirs, or remove the row")  # fmt: skip
        return Labels(self.rows, column, values, used)

    def _check_size(self, values: Floats, batch: Batch) -> None:
        """Raise DataError for a weight that float32 holds as 0 or as infinite."""
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        wrong = np.flatnonzero(((single == 0) & (values > 0)) | np.isinf(single))
        if wrong.size:
            row = int(wrong[0])
            raise DataError(f"{self.cells.name}, {batch.place(row)}, column {self.weight!r}: the weight "
                            f"{values[row]:g} is too far from 1 for float32: multiply all by one number")  # fmt: skip
