"""Errors beside each other: ratios over sets, and differences paired by split.

Splits of one set share rows, so the standard error of their differences is somewhat smaller than that of new tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import mean, stdev

Errors = Mapping[str, Mapping[int, float]]  # by set and split
SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Paired:
    """Two contestants on the splits of a set that both have."""

    set: str
    first: float  # mean error
    second: float
    standard_error: float | None  # of the mean difference; None of one split

    @property
    def ratio(self) -> float:
        """Of the mean errors."""
        return self.first / self.second

    @property
    def worse(self) -> bool:
        """Whether the first is worse by more than two standard errors."""
        return self.standard_error is not None and self.first - self.second > SURE * self.standard_error


@dataclass(frozen=True)
class Comparison:
    """Two contestants on all sets that both have."""

    first: str
    second: str
    sets: tuple[Paired, ...]

    @property
    def ratio(self) -> float:
        """The geometric mean of the ratios of the sets."""
        return exp(mean(log(one.ratio) for one in self.sets))

    @property
    def better(self) -> int:
        """The number of sets on which the first has the smaller mean error."""
        return sum(one.first < one.second for one in self.sets)

    @property
    def worse(self) -> list[str]:
        """The sets on which the first is worse by more than two standard errors."""
        return [one.set for one in self.sets if one.worse]


def pair(name: str, first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """Compare two contestants on a set; None if they share no split.

    >>> pair("letter", {0: 0.3, 1: 0.5}, {0: 0.2, 1: 0.3, 2: 0.1})
    Paired(set='letter', first=0.4, second=0.25, standard_error=0.05)
    """
    splits = sorted(first.keys() & second.keys())
    if not splits:
        return None
    differences = [first[split] - second[split] for split in splits]
    error = stdev(differences) / sqrt(len(splits)) if len(splits) > 1 else None
    return Paired(
        name, mean(first[split] for split in splits), mean(second[split] for split in splits),
        None if error is None else round(error, 12),
    )  # fmt: skip


def compare(names: tuple[str, str], first: Errors, second: Errors, sets: Sequence[str]) -> Comparison | None:
    """Compare two contestants, of these names, on `sets`; None if they share none."""
    pairs = [pair(name, first.get(name, {}), second.get(name, {})) for name in sets]
    shared = tuple(one for one in pairs if one is not None)
    return Comparison(*names, shared) if shared else None
