"""Tables of random rows for the tests of the network."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from karp.tabular.columns.column_types import Category, Date, Number, Schema
from karp.tabular.network.preprocessing import Preprocessing

SCHEMA = Schema((
    Number("size", gaps=False),
    Category("sex", False, ("f", "m"), rare=False),
    Date("day", gaps=True, parts=("month",)),
    Category("kind", True, ("a", "b", "c"), rare=True),
    Category("city", False, tuple(f"c{number:02}" for number in range(40)), rare=False),
))


class Rows(NamedTuple):
    """Rows of a prepared table of `SCHEMA`, and its preprocessing."""

    preprocessing: Preprocessing
    numbers: Any
    categories: Any
    target: Any


def rows(count: int, seed: int = 0) -> Rows:
    """Return random rows whose target (0 or 1) depends on them."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(count, 3))
    numbers[rng.random(count) < 0.2, 1:] = np.nan
    categories = np.stack([rng.integers(3, 5, count), rng.integers(0, 6, count), rng.integers(2, 43, count)], 1)
    categories[categories[:, 1] == 2, 1] = 3
    learnt = Preprocessing.learn(numbers, SCHEMA.numbers)
    chance = numbers[:, 0] + (categories[:, 0] == 3) - (categories[:, 2] % 5) / 2 > 0
    return Rows(learnt, learnt.scale(numbers), categories.astype(np.int32), chance.astype(np.int64))
