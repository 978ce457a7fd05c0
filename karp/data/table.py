"""A table: the features and the target of every row, as two arrays.

A table never changes; `split`, `scaled` and `dataclasses.replace(table, x=…)` return new ones. A run depends on the
arrays alone: two tables with the same fingerprint train to the same bits, and two that differ in the order of rows or a
dtype do not.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.checks import switch, whole
from karp.data.plan import SPLIT_STREAM, stream
from karp.data.source import Part, as_array, fingerprint
from karp.errors import DataError, SettingError, ShapeError
from karp.limits import SEEDS


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Table:
    """The rows of a table: features `x` and target `y`, both read-only.

    `x`        (n, d), floating, C-ordered
    `y`        (n,) class numbers, or (n, k) numbers to predict; k is 0 in a table without a target
    `columns`  the names of the d features, or none
    `target`   the name of the target column, if there is one
    `classes`  the names of the class numbers 0, 1, ...; none for numbers to predict

    `len(table)` is n. A C-ordered array is not copied: code that has it must not write to it later. Raises ShapeError
    for arrays that do not fit together, DataError for a table without rows or features, with features that are not
    float32 or float64, or a target that is not numbers, SettingError for names that are no texts.

    >>> table = Table(np.zeros((4, 2), np.float32), np.array([0, 1, 1, 0]), classes=("no", "yes"))
    >>> table
    Table(4 rows, 2 columns of float32, 2 classes)
    """

    x: NDArray[Any]
    y: NDArray[Any]
    columns: tuple[str, ...] = ()
    target: str | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        x, y = as_array("x", self.x), as_array("y", self.y)
        columns, classes = _names("columns", self.columns), _names("classes", self.classes)
        if self.target is not None and not isinstance(self.target, str):
            raise SettingError(f"target is {self.target!r:.80}: pass the name of a column")
        if x.ndim != 2 or y.ndim not in (1, 2) or len(x) != len(y):
            raise ShapeError(f"x {x.shape} and y {y.shape} are no table: pass x (n, d) and y (n,) or (n, k)")
        if not len(x):
            raise DataError(f"x {x.shape} has no rows: look at what has selected them")
        if x.size == 0:
            raise DataError(f"x {x.shape} has no columns: a table has at least one feature")
        if x.dtype not in (np.float32, np.float64):
            raise DataError(f"x has the dtype {x.dtype}: pass float32 or float64, as by x.astype(np.float32)")
        if y.dtype.kind not in "biuf":
            raise DataError(f"y has the dtype {y.dtype}: pass class numbers, or numbers to predict")
        if columns and len(set(columns)) != x.shape[1]:
            raise ShapeError(f"{len(set(columns))} names for the {x.shape[1]} columns of x: name each once")
        if classes and y.ndim == 1 and y.dtype.kind in "iu" and not 0 <= y.min() <= y.max() < len(classes):
            raise ShapeError(f"class numbers from {y.min()} to {y.max()} for {len(classes)} classes: name each once")
        put = object.__setattr__  # as the dataclass is frozen
        put(self, "x", _read_only(x))
        put(self, "y", _read_only(y))
        put(self, "columns", columns)
        put(self, "classes", classes)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        parts = [f"{len(self)} rows", f"{self.x.shape[1]} columns of {self.x.dtype}"]
        if self.target is not None:
            parts.append(f"target {self.target!r}")
        if self.classes:
            parts.append(f"{len(self.classes)} classes")
        return f"Table({', '.join(parts)})"

    def split(self, test: float = 0.2, seed: int = 0, *, stratify: bool = False) -> tuple[Table, Table]:
        """Split the rows at random, drawn from `seed`, into two tables (train, test); both keep the order of the rows.

        `test` is the part of the rows to test with (0 < test < 1, rounded to the nearest row), or their
        number. `stratify=True` gives each class its part of the test rows, to within one row; it needs class
        numbers. Raises SettingError for a `test` that leaves no row on one side, and for any other argument that is
        not what it should be.

        >>> table = Table(np.arange(10, dtype=np.float32).reshape(10, 1), np.arange(10) % 2)
        >>> train, test = table.split(test=0.3, seed=0)
        >>> len(train), len(test)
        (7, 3)
        """
        count = _test_rows(len(self), test)
        stratify = switch("stratify", stratify)
        order = stream(whole("seed", seed, 0, SEEDS - 1), SPLIT_STREAM).permutation(len(self))
        if stratify:
            if self.y.ndim != 1 or self.y.dtype.kind not in "iu":
                raise SettingError(f"stratify needs class numbers, and y is {self.y.dtype}: leave it out")
            # The rows are sorted by class, in random order within each, so evenly spaced ones give each class its part.
            order = order[np.argsort(self.y[order], kind="stable")]
            chosen = (2 * np.arange(count) + 1) * len(self) // (2 * count)
        else:
            chosen = np.arange(count)
        is_test = np.zeros(len(self), bool)
        is_test[order[chosen]] = True
        return self._rows(~is_test), self._rows(is_test)

    def scaled(self, factor: float) -> Table:
        """Return a table whose features are multiplied by `factor`, in their dtype; y stays as it is.

        `read("digits.csv.gz", target="digit").scaled(1 / 16)` brings pixels of 0..16 to 0..1. Raises
        SettingError for a factor that is 0 or not finite, or with which a feature would not be finite.

        >>> Table(np.array([[0, 8, 16]], np.float32), np.array([0])).scaled(1 / 16).x.tolist()
        [[0.0, 0.5, 1.0]]
        """
        try:
            usable = not isinstance(factor, bool | np.bool_) and np.ndim(factor) == 0 and math.isfinite(factor)
        except (TypeError, ValueError, OverflowError):
            usable = False
        with np.errstate(over="ignore", invalid="ignore"):
            by = self.x.dtype.type(factor if usable else 0)
            x = self.x * by
        if by == 0 or not np.isfinite(x).all():
            raise SettingError(
                f"factor is {factor!r:.80}: pass a finite number other than 0, such as 1 / 16, with which the "
                f"features stay in the range of {x.dtype}"
            )
        return replace(self, x=x)

    def fingerprint(self) -> str:
        """Return the fingerprint of x and y; the names do not count.

        >>> table = Table(np.zeros((2, 1), np.float32), np.array([0, 1]))
        >>> table.fingerprint() == fingerprint([table.x, table.y])
        True
        """
        return fingerprint([self.x, self.y])

    @property
    def parts(self) -> list[Part]:
        """The parts of a row: x and y (see `Source`)."""
        target = "y" if self.target is None else f"target {self.target!r}"
        return [
            Part("x", self.x.dtype, self.x.shape[1:], self.columns),
            Part(target, self.y.dtype, self.y.shape[1:]),
        ]

    def take(self, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return these rows of x and of y.

        >>> Table(np.array([[1.0], [2.0], [3.0]]), np.array([0, 1, 1])).take(np.array([2, 0]))[0].tolist()
        [[3.0], [1.0]]
        """
        return [self.x.take(rows, axis=0), self.y.take(rows, axis=0)]

    def _rows(self, rows: NDArray[Any]) -> Table:
        return replace(self, x=self.x[rows], y=self.y[rows])


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of an array, copied unless C-ordered, so that `table.x -= 1` raises before it writes."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _names(name: str, given: object) -> tuple[str, ...]:
    """Return the names of columns or classes as a tuple; raise SettingError unless all are texts."""
    texts = given if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [None]
    names = tuple(texts)
    if not all(isinstance(text, str) for text in names):
        raise SettingError(f"{name} is {given!r:.80}: pass a tuple of names")
    return names


def _test_rows(samples: int, test: float) -> int:
    """Return the number of rows to test with; raise SettingError where one side would be empty."""
    count = 0
    if not isinstance(test, bool | np.bool_):  # NumPy 2.1 takes np.bool_ for an index, with a warning
        try:
            count = operator.index(test)  # type: ignore[arg-type]  # a number of rows
        except TypeError:
            count = int(samples * test + 0.5) if isinstance(test, float | np.floating) and 0 < test < 1 else 0
    if not 0 < count < samples:
        raise SettingError(
            f"test is {test!r:.80} of {samples} rows: pass a part between 0 and 1, or a number of rows from 1 to "
            f"{samples - 1}, that leaves rows on both sides"
        )
    return count
