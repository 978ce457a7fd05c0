"""The norm of a gradient vector, and what clipping by it multiplies the gradient with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.errors import NotFiniteError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

CHUNK = 8192  # elements; part of the bits of every clipped run, and small enough for BLAS not to use threads


def norm(vector: Array) -> float:
    """The Euclidean norm of a whole vector, ``(n,)``; infinite or NaN if an element is.

    Always summed in the same way, so that its bits depend on nothing but the numbers: squares over chunks of
    8192 elements counted from the vector's start, then the chunks' sums rounded once (`math.fsum`), whose
    order does not matter. Finite numbers whose squares overflow still have a finite norm.

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
    """``min(1, clip_norm / (norm + 1e-6))``, as `torch.nn.utils.clip_grad_norm_` has it.

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
    if len(vector) <= CHUNK:
        return float(np.dot(vector, vector))
    whole = len(vector) // CHUNK * CHUNK
    chunks = vector[:whole].reshape(-1, CHUNK)
    rest = vector[whole:]
    sums: list[float] = np.vecdot(chunks, chunks).tolist()
    sums.append(float(np.dot(rest, rest)))
    try:
        return math.fsum(sums)
    except OverflowError:
        return math.inf
