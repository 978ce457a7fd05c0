"""Operations that reduce axes. Settings follow the array: `axis` (None, a number or a tuple) and `keepdims`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from karp.autograd.operation import Operation, normalize_axes
from karp.autograd.operations.constants import select
from karp.errors import ShapeError

Axis = int | tuple[int, ...] | None


# --- shape rules ----------------------------------------------------------------------------------------------------


def _reduced(a: Any, axis: Axis, keepdims: bool, *_settings: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(a)
    axes = normalize_axes(axis, len(shape))
    if keepdims:
        return tuple(1 if index in axes else size for index, size in enumerate(shape))
    return tuple(size for index, size in enumerate(shape) if index not in axes)


def _reduced_not_empty(a: Any, axis: Axis, keepdims: bool, *settings: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(a)
    if any(shape[index] == 0 for index in normalize_axes(axis, len(shape))):
        raise ShapeError("there is no such number of an empty array")
    return _reduced(a, axis, keepdims)


def _along_one_axis(a: Any, axis: int) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(a)
    normalize_axes(axis, len(shape))
    return shape


# --- forward and gradients ------------------------------------------------------------------------------------------


def keep_axes(g: Any, axis: Axis, keepdims: bool) -> Any:
    """Return an array of the result's shape with the reduced axes of size 1, so that it broadcasts with the operand."""
    return g if keepdims or axis is None else np.expand_dims(g, axis)


def count(a: Any, axis: Axis) -> int:
    """Return the number of elements that are reduced to each number of the result."""
    shape: tuple[int, ...] = np.shape(a)
    return math.prod(shape[index] for index in normalize_axes(axis, len(shape)))


def _sum_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    return np.broadcast_to(keep_axes(g, axis, keepdims), np.shape(a))


def _mean_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    return np.broadcast_to(keep_axes(g / count(a, axis), axis, keepdims), np.shape(a))


def _mean(a: Any, axis: Axis, keepdims: bool) -> Any:
    if not count(a, axis):
        raise ShapeError("there is no mean of an empty array")
    return np.mean(a, axis=axis, keepdims=keepdims)


def _extreme_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    """Return the gradient of max or min; where several elements are the largest, each gets an equal part."""
    extreme = a == keep_axes(out, axis, keepdims)
    ties = np.add.reduce(extreme, axis=normalize_axes(axis, np.ndim(a)), keepdims=True, dtype=out.dtype)
    return (keep_axes(g, axis, keepdims) / ties) * extreme


def _prod_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    """Return the gradient of the product: the product of all other elements, right also where an element is 0.

    That is the product of the elements on its left times the product of the elements on its right.
    """
    axes = normalize_axes(axis, np.ndim(a))
    last = tuple(range(-len(axes), 0))
    moved = np.moveaxis(a, axes, last)
    outer = moved.shape[: moved.ndim - len(axes)]
    flat = moved.reshape(*outer, math.prod(moved.shape[len(outer) :]))
    left, right = np.ones_like(flat), np.ones_like(flat)
    np.cumprod(flat[..., :-1], axis=-1, out=left[..., 1:])
    np.cumprod(flat[..., :0:-1], axis=-1, out=right[..., -2::-1])
    others = np.moveaxis((left * right).reshape(moved.shape), last, axes)
    return keep_axes(g, axis, keepdims) * others


def _degrees_of_freedom(a: Any, axis: Axis, ddof: float) -> float:
    degrees = count(a, axis) - ddof
    if degrees <= 0:
        raise ShapeError(f"a variance needs more than ddof={ddof} elements, and there are {count(a, axis)}")
    return degrees


def _var(a: Any, axis: Axis, keepdims: bool, ddof: float) -> Any:
    _degrees_of_freedom(a, axis, ddof)
    return np.var(a, axis=axis, keepdims=keepdims, ddof=ddof)


def _std(a: Any, axis: Axis, keepdims: bool, ddof: float) -> Any:
    return np.sqrt(_var(a, axis, keepdims, ddof))


def _var_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool, ddof: float) -> Any:
    deviation = a - np.mean(a, axis=axis, keepdims=True)
    return (keep_axes(g, axis, keepdims) * (2.0 / _degrees_of_freedom(a, axis, ddof))) * deviation


def _divide_or_zero(g: Any, out: Any) -> Any:
    """Return g / out, and 0 where out is 0: there a root has no gradient, and 0 is taken."""
    zero = np.equal(out, 0)
    return select(g, ~zero) / (out + zero)


def _std_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool, ddof: float) -> Any:
    return _var_gradient(0.5 * _divide_or_zero(g, out), out, a, axis, keepdims, ddof)


def _norm(a: Any, axis: Axis, keepdims: bool) -> Any:
    # Elements are divided by the largest first, so that squares neither overflow nor vanish.
    scale = np.max(np.abs(a), axis=axis, keepdims=True, initial=0.0)
    scale = np.where((scale == 0) | ~np.isfinite(scale), 1, scale)
    size = np.sqrt(np.sum(np.square(a / scale), axis=axis, keepdims=True)) * scale
    return size if keepdims else np.squeeze(size, axis=normalize_axes(axis, np.ndim(a)))


def _norm_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    size = keep_axes(out, axis, keepdims)
    zero = np.equal(size, 0)
    return select(keep_axes(g, axis, keepdims), ~zero) * (a / (size + zero))  # g / size might overflow


def _logsumexp(a: Any, axis: Axis, keepdims: bool) -> Any:
    top = np.max(a, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # where all are -inf, the result is log(0) = -inf
    total = np.sum(np.exp(a - top), axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):
        result = np.log(total) + top
    return result if keepdims else np.squeeze(result, axis=normalize_axes(axis, np.ndim(a)))


def _logsumexp_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    return keep_axes(g, axis, keepdims) * np.exp(a - keep_axes(out, axis, keepdims))


def _softmax(a: Any, axis: int) -> Any:
    if not np.size(a):
        _along_one_axis(a, axis)
        return np.copy(a)
    powers = np.exp(a - np.max(a, axis=axis, keepdims=True))
    return powers / np.sum(powers, axis=axis, keepdims=True)


def _softmax_gradient(g: Any, out: Any, a: Any, axis: int) -> Any:
    weighted = g * out
    return weighted - out * np.sum(weighted, axis=axis, keepdims=True)


def _log_softmax(a: Any, axis: int) -> Any:
    if not np.size(a):
        _along_one_axis(a, axis)
        return np.copy(a)
    shifted = a - np.max(a, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def _log_softmax_gradient(g: Any, out: Any, a: Any, axis: int) -> Any:
    return g - np.exp(out) * np.sum(g, axis=axis, keepdims=True)


SUM = Operation("sum", lambda a, axis, keepdims: np.sum(a, axis=axis, keepdims=keepdims), _reduced,
                (_sum_gradient,), reads=())
MEAN = Operation("mean", _mean, _reduced_not_empty, (_mean_gradient,), reads=())
MAX = Operation("max", lambda a, axis, keepdims: np.max(a, axis=axis, keepdims=keepdims), _reduced_not_empty,
                (_extreme_gradient,))
MIN = Operation("min", lambda a, axis, keepdims: np.min(a, axis=axis, keepdims=keepdims), _reduced_not_empty,
                (_extreme_gradient,))
PROD = Operation("prod", lambda a, axis, keepdims: np.prod(a, axis=axis, keepdims=keepdims), _reduced,
                 (_prod_gradient,))
VAR = Operation("var", _var, _reduced_not_empty, (_var_gradient,))
STD = Operation("std", _std, _reduced_not_empty, (_std_gradient,))
NORM = Operation("norm", _norm, _reduced, (_norm_gradient,))
LOGSUMEXP = Operation("logsumexp", _logsumexp, _reduced_not_empty, (_logsumexp_gradient,))
SOFTMAX = Operation("softmax", _softmax, _along_one_axis, (_softmax_gradient,), reads=())
LOG_SOFTMAX = Operation("log_softmax", _log_softmax, _along_one_axis, (_log_softmax_gradient,), reads=())

