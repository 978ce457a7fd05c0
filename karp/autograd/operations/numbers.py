"""Numbers as 0-d arrays, and vectors of ones, made once.

A ufunc takes 0.3 to 0.5 us longer for a Python number than for a 0-d array of the dtype at hand: as long as the
operation itself on a small layer. So the handful of constants that rules use all the time are kept, read-only.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def _kept(number: float) -> dict[Any, Any]:
    made = {}
    for dtype in (np.float16, np.float32, np.float64):
        array = np.array(number, dtype)
        array.setflags(write=False)
        made[array.dtype] = array
    return made


ZERO = _kept(0.0)  # dtype -> 0-d array
ONE = _kept(1.0)  # backward begins with it, and a rule may know it again


_ones: dict[tuple[int, Any], Any] = {}


def ones(count: int, dtype: Any) -> Any:
    """A vector of ones: a sum over an axis is faster as a product with it."""
    vector = _ones.get((count, dtype))
    if vector is None:
        if len(_ones) >= 64:  # a program has one or two batch sizes
            _ones.clear()
        vector = np.ones(count, dtype)
        vector.setflags(write=False)
        _ones[count, dtype] = vector
    return vector
