"""What `bench.sh modes` trains, and when it is good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.cases import Array

Four = tuple[Array, Array, Array, Array]  # rows and classes to train with, rows and classes to test with


@dataclass(frozen=True)
class Task:
    """An MLP for a table, trained by plain SGD with a rate that every mode stands."""

    about: str
    data: Callable[[], Four]
    hidden: tuple[int, ...]
    batch: int  # of a step, all workers together
    rate: float
    target: float  # share of the test rows named rightly
    look: int  # steps between two looks at it
    epochs: int  # at most
    nap: float  # seconds that the straggler sleeps at every batch


def digits() -> Four:
    """The 1,797 digits of workers/, a fifth of them to test with."""
    from karp import data

    path = Path(__file__).parents[2] / "workers" / "digits.csv.gz"
    train, test = data.read(path, target="digit").scaled(1 / 16).split(test=0.2, seed=0)
    return train.x, train.y, test.x, test.y


def million(rows: int = 1_000_000, columns: int = 20, classes: int = 8) -> Four:
    """A table whose classes an MLP with random weights has named; 5,000 other rows to test with."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows + 5000, columns), dtype=np.float32)
    first = rng.standard_normal((columns, 16), dtype=np.float32)
    second = rng.standard_normal((16, classes), dtype=np.float32)
    y = np.concatenate([np.argmax(np.tanh(part @ first) @ second, axis=1) for part in np.array_split(x, 50)])
    return x[:rows], y[:rows], x[rows:], y[rows:]


TASKS = {
    "digits": Task("1,438 digits, MLP 64-128-64-10", digits, (128, 64), 64, 0.1, 0.95, 10, 100, 0.005),
    "million": Task(
        "1,000,000 synthetic rows, MLP 20-128-64-8", million, (128, 64), 512, 0.3, 0.75, 50, 4, 0.005
    ),
}  # fmt: skip
