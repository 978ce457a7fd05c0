"""Operations that reduce axes. Settings follow the array: `axis` (None, a number or a tuple) and `keepdims`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from karp.autograd.operation import Operation, normal_axes
from karp.autograd.operations.constants import select
from karp.errors import ShapeError

Axis = int | tuple[int, ...] | None


def _reduced(a: Any, axis: Axis, keepdims: bool, *_settings: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(a)
    axes = normal_axes(axis, len(shape))
    if keepdims:
        return tuple(1 if place in axes else size for place, size in enumerate(shape))
    return tuple(size for place, size in enumerate(shape) if place not in axes)


def _reduced_not_empty(a: Any, axis: Axis, keepdims: bool, *settings: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(a)
    if any(shape[place] == 0 for place in normal_axes(axis, len(shape))):
        raise ShapeError("there is no such number of an empty array")
    return _reduced(a, axis, keepdims)


def _one_axis(a: Any, axis: int) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(a)
    normal_axes(axis, len(shape))
    return shape


def spread(g: Any, axis: Axis, keepdims: bool) -> Any:
    """The gradient of the result with the reduced axes as size 1, ready to broadcast against the array."""
    return g if keepdims or axis is None else np.expand_dims(g, axis)


def count(a: Any, axis: Axis) -> int:
    """How many elements go into each number of the result."""
    shape: tuple[int, ...] = np.shape(a)
    return math.prod(shape[place] for place in normal_axes(axis, len(shape)))


def _sum_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    return np.broadcast_to(spread(g, axis, keepdims), np.shape(a))


def _mean_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    return np.broadcast_to(spread(g / count(a, axis), axis, keepdims), np.shape(a))


def _mean(a: Any, axis: Axis, keepdims: bool) -> Any:
    if not count(a, axis):
        raise ShapeError("there is no mean of an empty array")
    return np.mean(a, axis=axis, keepdims=keepdims)


def _extreme_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    """Where several elements are the largest, each takes an equal part."""
    hit = a == spread(out, axis, keepdims)
    ties = np.add.reduce(hit, axis=normal_axes(axis, np.ndim(a)), keepdims=True, dtype=out.dtype)
    return (spread(g, axis, keepdims) / ties) * hit


def _prod_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    """The product of all others, as those from the left times those from the right: right also where one is 0."""
    axes = normal_axes(axis, np.ndim(a))
    last = tuple(range(-len(axes), 0))
    moved = np.moveaxis(a, axes, last)
    kept = moved.shape[: moved.ndim - len(axes)]
    flat = moved.reshape(*kept, math.prod(moved.shape[len(kept) :]))
    left, right = np.ones_like(flat), np.ones_like(flat)
    np.cumprod(flat[..., :-1], axis=-1, out=left[..., 1:])
    np.cumprod(flat[..., :0:-1], axis=-1, out=right[..., -2::-1])
    others = np.moveaxis((left * right).reshape(moved.shape), last, axes)
    return spread(g, axis, keepdims) * others


def _freedom(a: Any, axis: Axis, ddof: float) -> float:
    left = count(a, axis) - ddof
    if left <= 0:
        raise ShapeError(f"a variance needs more than ddof={ddof} elements, and there are {count(a, axis)}")
    return left


def _var(a: Any, axis: Axis, keepdims: bool, ddof: float) -> Any:
    _freedom(a, axis, ddof)
    return np.var(a, axis=axis, keepdims=keepdims, ddof=ddof)


def _std(a: Any, axis: Axis, keepdims: bool, ddof: float) -> Any:
    return np.sqrt(_var(a, axis, keepdims, ddof))


def _var_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool, ddof: float) -> Any:
    off = a - np.mean(a, axis=axis, keepdims=True)
    return (spread(g, axis, keepdims) * (2.0 / _freedom(a, axis, ddof))) * off


def _divided(g: Any, out: Any) -> Any:
    """g / out, and 0 where out is 0: the gradient taken where a root has none."""
    flat = np.equal(out, 0)
    return select(g, ~flat) / (out + flat)


def _std_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool, ddof: float) -> Any:
    return _var_gradient(0.5 * _divided(g, out), out, a, axis, keepdims, ddof)


def _norm(a: Any, axis: Axis, keepdims: bool) -> Any:
    # The largest element is taken out first, so that squares neither overflow nor vanish.
    scale = np.max(np.abs(a), axis=axis, keepdims=True, initial=0.0)
    scale = np.where((scale == 0) | ~np.isfinite(scale), 1, scale)
    size = np.sqrt(np.sum(np.square(a / scale), axis=axis, keepdims=True)) * scale
    return size if keepdims else np.squeeze(size, axis=normal_axes(axis, np.ndim(a)))


def _norm_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    size = spread(out, axis, keepdims)
    flat = np.equal(size, 0)
    return select(spread(g, axis, keepdims), ~flat) * (a / (size + flat))  # g / size may be beyond the largest number


def _logsumexp(a: Any, axis: Axis, keepdims: bool) -> Any:
    top = np.max(a, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # all -inf: exp gives 0, log says -inf
    total = np.sum(np.exp(a - top), axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):
        result = np.log(total) + top
    return result if keepdims else np.squeeze(result, axis=normal_axes(axis, np.ndim(a)))


def _logsumexp_gradient(g: Any, out: Any, a: Any, axis: Axis, keepdims: bool) -> Any:
    return spread(g, axis, keepdims) * np.exp(a - spread(out, axis, keepdims))


def _softmax(a: Any, axis: int) -> Any:
    if not np.size(a):
        _one_axis(a, axis)
        return np.copy(a)
    powers = np.exp(a - np.max(a, axis=axis, keepdims=True))
    return powers / np.sum(powers, axis=axis, keepdims=True)


def _softmax_gradient(g: Any, out: Any, a: Any, axis: int) -> Any:
    weighted = g * out
    return weighted - out * np.sum(weighted, axis=axis, keepdims=True)


def _log_softmax(a: Any, axis: int) -> Any:
    if not np.size(a):
        _one_axis(a, axis)
        return np.copy(a)
    low = a - np.max(a, axis=axis, keepdims=True)
    return low - np.log(np.sum(np.exp(low), axis=axis, keepdims=True))


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
SOFTMAX = Operation("softmax", _softmax, _one_axis, (_softmax_gradient,), reads=())
LOG_SOFTMAX = Operation("log_softmax", _log_softmax, _one_axis, (_log_softmax_gradient,), reads=())

