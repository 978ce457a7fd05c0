"""Training and test rows: drawn from a seed, written once, read by every contestant as files.

A fifth of the rows are test rows, for classes a fifth of each class. Of the other rows at most `limit` are training
rows. A split's folder has `train.csv`, `test.csv` without the target, and `truth.csv` with the target of the test rows
alone, which no contestant is given.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.tables.sets import DataSet, read

if TYPE_CHECKING:
    from pandas import DataFrame

LIMIT = 10_000  # training rows where scores are compared
TEST = 0.2  # share of the rows
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """The files of a split."""

    train: Path
    test: Path
    truth: Path

    @classmethod
    def of(cls, folder: Path) -> Parts:
        """Name the files in a folder."""
        return cls(folder / "train.csv", folder / "test.csv", folder / "truth.csv")


def draw(classes: NDArray[Any] | None, rows: int, seed: int, limit: int | None) -> tuple[Rows, Rows]:
    """Return the training and the test rows of the split of this seed; of `classes`, (rows,), equal shares in both.

    >>> train, test = draw(np.repeat([0, 1], [40, 10]), 50, seed=0, limit=20)
    >>> len(train), (train >= 40).sum(), len(test), (test >= 40).sum()
    (20, np.int64(4), 10, np.int64(2))
    """
    rng = np.random.default_rng(seed)
    place = np.empty(rows)  # in the order from whose beginning the rows are taken: every class is spread evenly over it
    numbers = np.zeros(rows, np.int64) if classes is None else np.unique(classes, return_inverse=True)[1]
    for number in range(numbers.max() + 1):
        own = np.flatnonzero(numbers == number)
        place[rng.permutation(own)] = (np.arange(len(own)) + rng.random()) / len(own)
    order = np.argsort(place, kind="stable")
    tested = round(TEST * rows)
    return rng.permutation(order[tested:][:limit]), order[:tested]


def write(work: Path, table: DataSet, seed: int, limit: int | None, frame: DataFrame | None = None) -> Parts:
    """Return the files of a split, which are written unless they are there.

    `frame` is the set, where it has been read. The folder's name has a digest of the set's description: what was
    written for another description is not used.
    """
    digest = hashlib.sha256(repr((table, limit, TEST)).encode()).hexdigest()[:8]
    folder = work / f"{table.name}-{digest}" / str(seed)
    if not folder.is_dir():
        frame = read(table) if frame is None else frame
        target = frame[[table.target]]
        classes = None if table.score == "rmse" else target.to_numpy().ravel()
        train, test = draw(classes, len(frame), seed, limit)
        folder.parent.mkdir(parents=True, exist_ok=True)
        whole = Path(tempfile.mkdtemp(prefix="writing-", dir=folder.parent))
        try:
            parts = Parts.of(whole)
            frame.iloc[train].to_csv(parts.train, index=False)
            frame.iloc[test].drop(columns=table.target).to_csv(parts.test, index=False)
            target.iloc[test].to_csv(parts.truth, index=False)
            os.rename(whole, folder)
        finally:
            shutil.rmtree(whole, ignore_errors=True)
    return Parts.of(folder)
