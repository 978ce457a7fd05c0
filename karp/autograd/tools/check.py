"""The gradient checker: it compares gradients with finite differences of the function.

For each element x the derivative is estimated from four values of the function,
(8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h, whose error is of order h^4: at h = 1e-4 about 1e-12 of f. So a
tolerance of 1e-5 finds a gradient that is wrong by a thousandth, and does not mistake rounding for one. The right h
depends on the scale on which f changes: that of x, where f is like a power of x, or 1. Both are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from karp.autograd.convert import data_of
from karp.autograd.modes import no_grad
from karp.autograd.value import Value
from karp.errors import GraphError

_STEP = 1e-4


def check_grads(
    f: Callable[..., Any], *values: Any, rtol: float = 1e-5, atol: float = 1e-8, most: int = 200, seed: int = 0
) -> None:
    """Raise GraphError if the gradient of `f` at `values` differs from its finite differences.

    `f` takes as many Values as there are `values` (Values, numbers or arrays; computed in float64) and returns one of
    any shape; of an array one random linear combination of the elements is differentiated. Of an input with more than
    `most` elements, `most` are checked, drawn with `seed`. An element passes if the two agree within `rtol` times the
    larger plus `atol` times the largest gradient, or 1 if that is larger. Points where `f` has a kink (relu at 0)
    cannot be checked. Raises GraphError also if `f` returns no Value, a number that is not finite, or another result
    each time.

    >>> check_grads(lambda x, y: x * y.tanh(), [1.0, 2.0], 0.5)
    """
    arrays = [np.array(data_of(value), np.float64) for value in values]
    rng = np.random.default_rng(seed)
    leaves = [Value(array.copy()) if array.ndim else Value(float(array)) for array in arrays]
    result = f(*leaves)
    if not isinstance(result, Value):
        raise GraphError("check_grads: the function must give a Value")
    weights = rng.standard_normal(result.shape)
    result.backward(weights)

    def number(inputs: list[Any]) -> float:
        with no_grad():
            out = f(*[Value(array.copy()) if array.ndim else Value(float(array)) for array in inputs])
        return float(np.sum(out.data * weights))

    first = number(arrays)
    if not np.isfinite(first):
        raise GraphError(f"check_grads: the function is {first} at these values; it must be finite")
    if first != number(arrays):
        raise GraphError(
            "check_grads: the function gives another result each time; draw what is random from a generator made in it"
        )
    for index, (leaf, array) in enumerate(zip(leaves, arrays, strict=True)):
        gradient = np.zeros(array.shape) if leaf.grad is None else np.asarray(leaf.grad)
        _check_input(number, arrays, index, gradient, rtol, atol, _draw_elements(array.size, most, rng))


def _draw_elements(size: int, most: int, rng: np.random.Generator) -> Any:
    """Return the flat indices of the elements to check: all, or `most` drawn at random."""
    return np.arange(size) if size <= most else np.sort(rng.choice(size, most, replace=False))


def _check_input(
    number: Callable[[list[Any]], float], arrays: list[Any], index: int, gradient: Any, rtol: float, atol: float,
    elements: Any,
) -> None:
    """Raise GraphError if an element of the gradient of input `index` differs from its finite difference."""
    array = arrays[index]
    largest = max(1.0, float(np.max(np.abs(gradient), initial=0.0)))
    for element in elements:
        where = np.unravel_index(int(element), array.shape)

        def moved(by: float, where: Any = where) -> float:
            shifted = array.copy()
            shifted[where] += by
            return number([*arrays[:index], shifted, *arrays[index + 1:]])

        computed, slope = float(gradient[where]), np.inf
        for scale in (1.0, max(abs(float(array[where])), 1e-3)):
            step = _STEP * scale
            estimate = (8.0 * (moved(step) - moved(-step)) - (moved(2.0 * step) - moved(-2.0 * step))) / (12.0 * step)
            if not abs(computed - slope) <= abs(computed - estimate):
                slope = estimate
            if abs(computed - slope) <= rtol * max(abs(computed), abs(slope)) + atol * largest:
                break
        else:
            at = f"[{', '.join(map(str, map(int, where)))}]" if where else ""
            error = abs(computed - slope) / max(abs(slope), 1e-300)
            raise GraphError(
                f"the gradient of input {index}{at} is {computed:.10g}, the slope there {slope:.10g} ({error:.2%} off)"
            )
