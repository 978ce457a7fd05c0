"""The norm of a gradient vector, and the factor that clips it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.errors import NotFiniteError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

CHUNK = 8192  # elements; another size gives other bits, and BLAS uses no threads for so few


def norm(vector: Array) -> float:
    """Return the Euclidean norm of a vector, ``(n,)``; infinite or NaN if an element is.

    The squares are always summed in the same way, so that the norm's bits depend on nothing but the numbers: first
    within each chunk of 8192 elements, counted from the vector's start, then the chunks' sums with one rounding
    (`math.fsum`), where the order does not matter. Finite numbers whose squares overflow still have a finite norm.

    >>> norm(np.array([3.0, 4.0]))
    5.0
    >>> norm(np.array([3e38, -4e38])) == 5e38
    True
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = _sum_of_squares(vector)
    if math.isfinite(total):
        return math.sqrt(total)
    peak = float(np.max(np.abs(vector)))
    if not math.isfinite(peak):
        return peak
    return peak * math.sqrt(_sum_of_squares(vector / peak))


def clip_factor(gradient: Array, clip_norm: float) -> float:
    """Return ``min(1, clip_norm / (norm + 1e-6))``, the factor of `torch.nn.utils.clip_grad_norm_`.

    Raises:
        NotFiniteError: the gradient holds a NaN or an infinity.
    """
    length = norm(gradient)
    if not math.isfinite(length):
        raise NotFiniteError(
            f"the gradient's norm is {length}: it holds a NaN or an infinity, nothing was updated"
        )
    return min(1.0, clip_norm / (length + 1e-6))


def _sum_of_squares(vector: Array) -> float:
    """Return a vector's sum of squares, adding those of its chunks without rounding errors; infinite if too large."""
    if len(vector) <= CHUNK:
        return float(np.dot(vector, vector))
    stop = len(vector) // CHUNK * CHUNK
    chunks = vector[:stop].reshape(-1, CHUNK)
    remainder = vector[stop:]
    sums: list[float] = np.vecdot(chunks, chunks).tolist()
    sums.append(float(np.dot(remainder, remainder)))
    try:
        return math.fsum(sums)
    except OverflowError:
        return math.inf
