"""Preprocessing of numbers: robust scaling, and quantile edges for the piecewise-linear encoding.

Theory of operation. A number becomes (x - median) / IQR; where the IQR is 0, 2 (x - median) / (max - min), and a
constant becomes 0 (RealMLP, arXiv 2407.04491). This is computed in float64, so that a date keeps its minutes, and is
then stored as float32. All else (smooth clipping, encoding, what a missing number is) happens in the network.

The edges of a column are its quantiles, scaled and in float32. A value that is more frequent than an edge's share of
the rows is an edge itself, and the others are quantiles of the rest: so a column that is 0 in nine rows of ten has as
many bins for the tenth as any other (quantiles of all rows would leave it two). A column of few distinct values has
these themselves as edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError, ShapeError

BINS = 16
LIMIT = 1e18  # scaled numbers beyond it are cut to it: the square of a third of it is a float32
GAP = 1e-12  # edges are further apart than that, so that the widths of bins can be divided by

Floats = NDArray[np.float64]
Edges = NDArray[np.float32]


class _Scaling(NamedTuple):
    """Medians and scales as arrays, made once, as a single row should take no longer than it must."""

    medians: Floats
    divisors: Floats  # the scales, 1 for constants
    constant: NDArray[np.bool_] | None  # where the scale is 0; None if it is nowhere

    @classmethod
    def of(cls, medians: Floats, scales: Floats) -> _Scaling:
        constant = scales == 0
        return cls(medians, np.where(constant, 1.0, scales), constant if constant.any() else None)

    def __call__(self, numbers: Floats) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            scaled = (numbers - self.medians) / self.divisors
        np.maximum(scaled, -LIMIT, out=scaled)
        np.minimum(scaled, LIMIT, out=scaled)
        if self.constant is not None:
            scaled[...] = np.where(self.constant & ~np.isnan(scaled), 0.0, scaled)
        return scaled.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no one truth of being equal: compare `to_dict`
class Preprocessing:
    """What is learnt of each number of a table: `scale` applies it to rows, the network takes the edges.

    Attributes:
        names: the names of the numbers, k of them.
        medians, scales: what is subtracted from each, and what it is then divided by; the scale of a constant is 0.
        edges: for each number those of its bins, float32 (bins + 1,), rising; () for a constant.

    >>> learnt = Preprocessing.learn(np.array([[0.0], [1.0], [2.0], [np.nan], [4.0]]), ("age",))
    >>> learnt.medians, learnt.scales, learnt.edges[0].round(2)
    ((1.5,), (1.75,), array([-0.86, -0.29,  0.29,  1.43], dtype=float32))
    >>> learnt.scale(np.array([[1.5], [5.0], [np.nan]])).tolist()
    [[0.0], [2.0], [nan]]
    """

    names: tuple[str, ...]
    medians: tuple[float, ...]
    scales: tuple[float, ...]
    edges: tuple[Edges, ...]
    _scaling: _Scaling = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scaling", _Scaling.of(np.array(self.medians), np.array(self.scales)))

    @classmethod
    def learn(cls, numbers: Floats, names: Sequence[str], bins: int = BINS) -> Preprocessing:
        """Learn from training rows, (rows, k) in float64 with NaN where a number is missing; these are passed over.

        Raises ShapeError unless there is a name for each column, DataError for an infinite number.
        """
        if numbers.ndim != 2 or numbers.shape[1] != len(names):
            raise ShapeError(f"Preprocessing: {len(names)} names for numbers of shape {numbers.shape}")
        medians, scales, edges = [], [], []
        for name, column in zip(names, numbers.T, strict=True):
            values = np.sort(column[~np.isnan(column)].astype(np.float64) + 0.0)  # a zero has no sign then
            if values.size and np.isinf(values[[0, -1]]).any():
                raise DataError(f"column {name!r} holds an infinite number: it has to be missing or finite")
            median, scale = _median_and_scale(values)
            medians.append(median)
            scales.append(scale)
            edges.append(_edges(_Scaling.of(np.array(median), np.array(scale))(_candidates(values, bins))))
        return cls(tuple(names), tuple(medians), tuple(scales), tuple(edges))

    def scale(self, numbers: Floats) -> NDArray[np.float32]:
        """Return the numbers (rows, k) scaled, in float32; a NaN stays one, an infinite one is cut to +-1e18."""
        if numbers.ndim != 2 or numbers.shape[1] != len(self.names):
            raise ShapeError(f"Preprocessing: it is of {len(self.names)} numbers, and these are of {numbers.shape}")
        return self._scaling(numbers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; each number is exactly itself when it is read back."""
        return {
            "names": list(self.names),
            "medians": list(self.medians),
            "scales": list(self.scales),
            "edges": [edges.tolist() for edges in self.edges],
        }

    @classmethod
    def from_dict(cls, plain: object) -> Preprocessing:
        """Return the preprocessing from plain data; raise DataError for what `to_dict` does not write."""
        if not isinstance(plain, dict) or plain.keys() != {"names", "medians", "scales", "edges"}:
            raise DataError(f"{plain!r:.80} is no preprocessing: it has names, medians, scales and edges")
        names, medians, scales, edges = (plain[key] for key in ("names", "medians", "scales", "edges"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"preprocessing: the names are {names!r:.80}, not a list of texts")
        for key in ("medians", "scales", "edges"):
            if not isinstance(plain[key], list) or len(plain[key]) != len(names):
                raise DataError(f"preprocessing: {key} has to be a list of {len(names)}, one for each name")
        if not _are_floats(medians) or not _are_floats(scales) or min(scales, default=0.0) < 0:
            raise DataError("preprocessing: medians and scales are finite numbers, scales from 0")
        return cls(tuple(names), tuple(medians), tuple(scales), tuple(map(_edges_from, names, edges)))


def _median_and_scale(values: Floats) -> tuple[float, float]:
    """Return the median of sorted values, and what numbers are divided by: 0 for a constant, or for no values."""
    if not values.size:
        return 0.0, 0.0
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    with np.errstate(over="ignore"):
        scale = float(high - low) or float(values[-1] / 2 - values[0] / 2)
    return median, min(scale, float(np.finfo(np.float64).max))


def _candidates(values: Floats, bins: int) -> Floats:
    """Return bins + 1 edges of sorted values; the distinct values where these are not more."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= bins + 1:
        return distinct
    frequent = np.zeros(len(distinct), np.bool_)
    while True:
        free = bins + 1 - int(np.count_nonzero(frequent))
        share = np.add.reduce(counts[~frequent]) / free
        more = ~frequent & (counts > share)
        if not more.any():
            break
        frequent |= more
    others = values[~np.repeat(frequent, counts)]
    return np.sort(np.concatenate([distinct[frequent], np.quantile(others, np.linspace(0, 1, free))]))


def _edges(candidates: NDArray[np.float32]) -> Edges:
    """Return those of the rising candidates that are far enough from the one before; none if only one is left."""
    kept: list[float] = []
    for edge in candidates.tolist():
        if not kept or edge - kept[-1] > GAP:
            kept.append(edge)
    return np.array(kept if len(kept) > 1 else [], np.float32)


def _edges_from(name: str, plain: object) -> Edges:
    if not isinstance(plain, list) or not _are_floats(plain):
        raise DataError(f"preprocessing: the edges of {name!r} are no list of finite numbers")
    with np.errstate(over="ignore"):
        edges = np.array(plain, np.float32)
    if len(edges) == 1 or not (np.diff(edges.astype(np.float64)) > GAP).all() or not (abs(edges) <= LIMIT * 2).all():
        raise DataError(f"preprocessing: the edges of {name!r} do not rise, or there is only one")
    return edges


def _are_floats(plain: list[object]) -> bool:
    return all(isinstance(number, float) and math.isfinite(number) for number in plain)
