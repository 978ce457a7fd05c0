"""The split into training and validation rows: stratified, exact where it matters, and without a list of rows.

Theory of operation. Each row has a key, uniform in 64 bits; a row is for validation if its key is below the threshold
of its class. Of a class whose keys fit into memory the threshold is such that the share is exact: the nearest whole
number of rows, at least one and never all. In a larger class each row goes by itself, with the share as its
probability, which is within a tenth of a percentage point then. How large a class may be depends on the number of
classes alone, so nothing depends on the machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.tabular.preparation.row_keys import Keys

EXACT_ROWS, LEAST_EXACT = 1 << 20, 64  # keys that are collected: of all classes together, and of each at least


class Split:
    """Counts the rows of each class, and finds the thresholds; `classes` is 1 where numbers are predicted.

    >>> split = Split(classes=2, share=0.2)
    >>> split.add(np.array([0, 0, 0, 0, 0, 1, 1]), np.array([5, 3, 9, 1, 7, 8, 6], np.uint64))
    >>> split.finish()
    >>> split.is_validation(np.array([0, 0, 1, 1]), np.array([1, 3, 6, 8], np.uint64)).tolist()
    [True, False, True, False]
    """

    def __init__(self, classes: int, share: float) -> None:
        """Begin without rows; a share of 0 makes all of them training rows."""
        self.share = share
        self.counts: NDArray[np.int64] = np.zeros(classes, np.int64)
        self.thresholds: Keys = np.zeros(classes, np.uint64)
        self._most = max(LEAST_EXACT, EXACT_ROWS // classes)
        self._classes: list[NDArray[np.integer[Any]]] = []  # of the rows whose keys are collected
        self._keys: list[Keys] = []
        self._collected = 0

    def add(self, classes: NDArray[np.int64], keys: Keys) -> None:
        """Count rows of these classes and keys."""
        self.counts += np.bincount(classes, minlength=len(self.counts))
        if not self.share:
            return
        small = self.counts[classes] <= self._most
        self._classes.append(classes[small].astype(np.int32))
        self._keys.append(keys[small])
        self._collected += int(np.count_nonzero(small))
        if self._collected > 2 * max(EXACT_ROWS, LEAST_EXACT * len(self.counts)):
            self._drop_large()

    def finish(self) -> None:
        """Decide the thresholds; without this no row is for validation."""
        if not self.share:
            return
        self._drop_large()
        large = self.counts > self._most
        self.thresholds[large] = int(self.share * 2.0**64)
        classes, keys = self._classes[0], self._keys[0]
        order = np.lexsort((keys, classes))
        counts = np.where(large, 0, self.counts)
        wanted = np.clip(np.rint(self.share * counts).astype(np.int64), 1, np.maximum(counts - 1, 1))
        starts = np.cumsum(counts) - counts
        chosen = np.flatnonzero(counts > 1)
        self.thresholds[chosen] = keys[order][(starts + wanted)[chosen]]  # that of the first row that is for training
        self._classes, self._keys = [], []

    def is_validation(self, classes: NDArray[np.int64], keys: Keys) -> NDArray[np.bool_]:
        """Return for each row whether it is for validation."""
        return keys < self.thresholds[classes]

    def _drop_large(self) -> None:
        """Keep only the keys of classes that are not too large."""
        classes, keys = np.concatenate(self._classes), np.concatenate(self._keys)
        small = self.counts[classes] <= self._most
        self._classes, self._keys = [classes[small]], [keys[small]]
        self._collected = len(self._keys[0])
