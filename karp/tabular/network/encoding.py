"""Encoding of rows: from scaled numbers and category numbers to the inputs of the first layer.

A row of a prepared table becomes, in this order:

- for each number its piecewise-linear encoding: for each bin from b to c clip((x - b) / (c - b), 0, 1) (Gorishniy,
  Rubachev and Babenko, 2022, arXiv 2203.05556);
- for each number x / sqrt(1 + (x / 3)^2), its smoothly clipped self (RealMLP, arXiv 2407.04491);
- for each number that had gaps in training 1 where it is missing; a missing number is encoded as the median, 0;
- for each category of two states one number, -1 or 1, and 0 for an unknown level; for any other one 1 at its state and
  none for an unknown level. The states are the levels, a rare level and a missing cell, where training had them.

The one-hot columns of few states are dense inputs like the others; those of more are row numbers, of a weight whose
rows are added up. On 256 samples and 256 outputs a product with a column costs 1.3 us a state and the same for its
gradient, gathering rows 12 us a column and adding their gradients 50 to 90 us.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.errors import ShapeError
from karp.tabular.columns.column_types import (
    FIRST_LEVEL,
    MISSING,
    RARE,
    Category,
    Schema,
    number_names,
)
from karp.tabular.network.preprocessing import Edges, Preprocessing

MOST_DENSE = 32  # the states of a one-hot column that is dense
MOST_PIECES = 1 << 13  # inputs for bins: of more than 512 numbers each has fewer than 16 bins, of more than 8,192 none


class Inputs(NamedTuple):
    """The inputs of the first layer for n rows, as `karp.autograd.input_linear` takes them."""

    dense: NDArray[np.float32]  # (n, dense)
    rows: NDArray[np.int32] | None  # (n, gathered columns)


class Encoding:
    """Encodes rows of a prepared table; `dense` and `gathered` are the numbers of inputs of either kind.

    `features` (dense + gathered,) tells which number or category an input belongs to, counted from 0. `sources`,
    `lows` and `slopes` are of the bins: the number, b and 1 / (c - b); `gaps` are the numbers with an input for missing
    ones. `bins` is the largest number of bins of a number, 0 for no piecewise-linear encoding; a very wide table has
    fewer.
    """

    def __init__(self, schema: Schema, preprocessing: Preprocessing, bins: int) -> None:
        if schema.numbers != preprocessing.names:
            raise ShapeError(f"the preprocessing is of {preprocessing.names!r:.80}, the schema's numbers are others")
        self._numbers = len(preprocessing.names)
        bins = min(bins, MOST_PIECES // max(self._numbers, 1))
        edges = [_thinned(column, bins) for column in preprocessing.edges]
        self.sources = np.repeat(np.arange(self._numbers), [max(len(column) - 1, 0) for column in edges])  # (pieces,)
        lows = [column[:-1] for column in edges]
        self.lows = np.concatenate([*lows, np.empty(0, np.float32)])[:, None]
        widths = [np.diff(column.astype(np.float64)) for column in edges]
        self.slopes = (1.0 / np.concatenate([*widths, np.empty(0)])).astype(np.float32)[:, None]
        self.gaps = np.array(_gaps(schema), np.intp)
        self._clipped = len(self.sources)
        self._missing = self._clipped + self._numbers
        self._place_categories(schema, self._missing + len(self.gaps))
        numbers = [*self.sources.tolist(), *range(self._numbers), *self.gaps.tolist()]
        self.features = np.array([*numbers, *self._category_features], np.intp)

    def _place_categories(self, schema: Schema, dense: int) -> None:
        """Make tables from a category's number to its input, `dense` being the next one that is free."""
        places: list[list[int]] = []  # for each dense column and each of its numbers the input
        signs: list[list[float]] = []  # and what it is there
        rows: list[list[int]] = []  # for each gathered column and each of its numbers the row of the weight
        self._dense_columns: list[int] = []
        self._gathered_columns: list[int] = []
        dense_features: list[int] = []
        gathered_features: list[int] = []
        for index, column in enumerate(column for column in schema.used if isinstance(column, Category)):
            states = [MISSING] * column.gaps + [RARE] * column.rare
            states += range(FIRST_LEVEL, FIRST_LEVEL + len(column.levels))
            place_of = {state: place for place, state in enumerate(states)}
            codes = range(FIRST_LEVEL + len(column.levels))
            if len(states) > MOST_DENSE:
                self._gathered_columns.append(index)
                first = len(gathered_features)
                rows.append([first + place_of[code] if code in place_of else -1 for code in codes])
                gathered_features += [self._numbers + index] * len(states)
                continue
            binary = len(states) == 2
            self._dense_columns.append(index)
            first = dense + len(dense_features)
            places.append([first + place_of[code] * (not binary) if code in place_of else -1 for code in codes])
            signs.append([-1.0 if binary and code == states[0] else 1.0 for code in codes])
            dense_features += [self._numbers + index] * (1 if binary else len(states))
        self._category_features = dense_features + gathered_features
        self.dense, self.gathered = dense + len(dense_features), len(gathered_features)
        # The input or row of an unknown level is one beyond the last, where it counts for nothing.
        self._places, self._place_offsets = _table([[p if p >= 0 else self.dense for p in column] for column in places])
        self._signs = np.array([sign for column in signs for sign in column], np.float32)
        self._rows, self._row_offsets = _table([[r if r >= 0 else self.gathered for r in column] for column in rows])

    def __call__(self, numbers: NDArray[np.float32], categories: NDArray[np.int32]) -> Inputs:
        """Encode scaled numbers (n, k), NaN where one is missing, and category numbers (n, c)."""
        count = len(numbers)
        inputs = np.empty((self.dense + 1, count), np.float32)
        x = numbers.T.copy()  # (k, n): each number's values are contiguous
        missing = np.isnan(x)
        if missing.any():
            x[missing] = 0.0
        pieces = inputs[: self._clipped]
        if len(pieces):
            x.take(self.sources, 0, pieces, "clip")
            np.subtract(pieces, self.lows, pieces)
            np.multiply(pieces, self.slopes, pieces)
            np.clip(pieces, 0.0, 1.0, pieces)
        clipped = inputs[self._clipped : self._missing]
        np.multiply(x, np.float32(1 / 3), clipped)
        np.multiply(clipped, clipped, clipped)
        np.add(clipped, np.float32(1.0), clipped)
        np.sqrt(clipped, clipped)
        np.divide(x, clipped, clipped)
        inputs[self._missing :] = 0.0
        if self.gaps.size:
            inputs[self._missing : self._missing + len(self.gaps)] = missing[self.gaps]
        if self._dense_columns:
            codes = categories[:, self._dense_columns] + self._place_offsets
            flat = self._places.take(codes) * count + np.arange(count)[:, None]
            inputs.reshape(-1)[flat] = self._signs.take(codes)
        rows = None
        if self._gathered_columns:
            rows = self._rows.take(categories[:, self._gathered_columns] + self._row_offsets)
        return Inputs(inputs[:-1].T, rows)

    def as_matrix(self, numbers: NDArray[np.float32], categories: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return all inputs of rows as one array (n, dense + gathered), with a one at each row number."""
        inputs = self(numbers, categories)
        matrix = np.zeros((len(numbers), self.dense + self.gathered + 1), np.float32)
        matrix[:, : self.dense] = inputs.dense
        if inputs.rows is not None:
            np.put_along_axis(matrix, self.dense + inputs.rows, 1.0, 1)
        return matrix[:, :-1].copy()


def _thinned(edges: Edges, bins: int) -> Edges:
    """Return edges of at most so many bins, evenly chosen among those of more."""
    if bins == 0 or len(edges) <= bins + 1:
        return edges if bins else edges[:0]
    return edges[np.linspace(0, len(edges) - 1, bins + 1).round().astype(np.intp)]


def _gaps(schema: Schema) -> list[int]:
    """Return the numbers, by their index, that have an input for missing ones; of a date its first."""
    gaps = []
    index = 0
    for column in schema.used:
        names = number_names(column)
        if names and column.gaps:
            gaps.append(index)
        index += len(names)
    return gaps


def _table(columns: list[list[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the columns one after the other, and where each begins."""
    flat = np.array([entry for column in columns for entry in column], np.int32)
    return flat, np.cumsum([0, *map(len, columns)], dtype=np.int32)[:-1]
