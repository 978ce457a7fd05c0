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


BITS = {np.dtype(f"f{size}"): np.dtype(f"u{size}") for size in (2, 4, 8)}  # of a dtype's numbers


def select(g: Any, mask: Any) -> Any:
    """`g` where the mask holds and 0 elsewhere, also where `g` is not finite.

    Its bits are multiplied, by 1 or 0: that takes a tenth of the time of `np.where`, and 0 times infinity is no NaN.
    """
    if g.__class__ is float:
        return g if mask else 0.0
    return (g.view(BITS[g.dtype]) * mask).view(g.dtype)


ZERO = _kept(0.0)  # dtype -> 0-d array
ONE = _kept(1.0)  # backward begins with it, and a rule may know it again


class _Kept(dict[tuple[Any, Any], Any]):
    """(shape, dtype) -> a read-only array of one number, made when it is first asked for.

    A lookup takes 0.1 us and an array as small as most are here 0.5. A program has one or two batch sizes; who has
    more pays for making them again, not with memory.
    """

    def __init__(self, number: Any) -> None:
        self.number = number

    def __missing__(self, key: tuple[Any, Any]) -> Any:
        if len(self) >= 32:
            self.clear()
        array = np.full(key[0], self.number, key[1])
        array.setflags(write=False)
        self[key] = array
        return array


ZEROS = _Kept(0)
ONES = _Kept(1)  # a sum over an axis is faster as a product with a vector of ones


class _Shares(dict[tuple[int, Any], Any]):
    """(count, dtype) -> a vector of `count` times 1 / count, whose product with a vector is its mean."""

    def __missing__(self, key: tuple[int, Any]) -> Any:
        if len(self) >= 32:
            self.clear()
        self[key] = array = np.full(key[0], 1.0 / key[0], key[1])
        return array


class _Scales(dict[tuple[int, Any], Any]):
    """(count, dtype) -> 1 / count and 2 / count."""

    def __missing__(self, key: tuple[int, Any]) -> Any:
        if len(self) >= 32:
            self.clear()
        self[key] = scales = np.array(1.0 / key[0], key[1]), np.array(2.0 / key[0], key[1])
        return scales


SHARES, SCALES = _Shares(), _Scales()
