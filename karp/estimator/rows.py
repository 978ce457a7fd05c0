"""The rows that an estimator trains on, as a source of batches, and their order in each epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.data.source import Part

Array = NDArray[Any]
Order = Callable[[int], NDArray[np.int64]]


class Rows:
    """Rows in memory: features (n, inputs), dense or a sparse array in rows, targets, and weights above 0, or None.

    Their order in an epoch is that of `orders`, which begins with number `begin`.
    """

    remarks: Sequence[str] = ()

    def __init__(self, x: Any, y: Array, weights: Array | None, orders: Order, fingerprint: str = "in memory") -> None:
        self.x = x
        self.y = y
        self.weights = weights
        self.begin = 0
        self._orders = orders
        self._sparse = not isinstance(x, np.ndarray)
        self._fingerprint = fingerprint
        self.parts = [Part("X", x.dtype, x.shape[1:]), Part("y", y.dtype, y.shape[1:])]

    def __len__(self) -> int:
        return len(self.y)

    def fingerprint(self) -> str:
        """Return what the rows were named as; those of one process need no digest, as nobody else has them."""
        return self._fingerprint

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the rows in an epoch."""
        return self._orders(self.begin + epoch)

    def take(self, rows: NDArray[np.int64]) -> list[Array]:
        """Return the features and targets of these rows."""
        x = self.x[rows].toarray() if self._sparse else self.x.take(rows, axis=0)
        return [x, self.y.take(rows, axis=0)]


class Shuffled:
    """The order of each epoch as scikit-learn draws it: a permutation by a RandomState of the order before.

    Orders are drawn once each, when an epoch begins, so the RandomState is then as scikit-learn would leave it.

    >>> orders = Shuffled(np.random.RandomState(0), 4)
    >>> orders(0).tolist(), orders(1).tolist(), orders(0).tolist()
    ([2, 3, 1, 0], [2, 1, 3, 0], [2, 3, 1, 0])
    """

    def __init__(self, random: np.random.RandomState, samples: int) -> None:
        self._random = random
        self._kept: dict[int, NDArray[np.int64]] = {}
        self._newest = -1
        self._order = np.arange(samples)

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of an epoch: of the newest, of the one before, or of a later one."""
        while self._newest < epoch:
            permutation = np.arange(len(self._order))
            self._random.shuffle(permutation)
            self._order = self._order[permutation]
            self._order.setflags(write=False)
            self._newest += 1
            self._kept[self._newest] = self._order
            self._kept.pop(self._newest - 2, None)
        return self._kept[epoch]


def in_order(samples: int) -> Order:
    """Return the order of every epoch where nothing is shuffled."""
    order = np.arange(samples)
    order.setflags(write=False)
    return lambda epoch: order
