"""The operations as functions, to NumPy's names and semantics where NumPy has them.

Each takes values, numbers and arrays. Shapes and axes are NumPy's; a result is a `Value`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from karp.autograd.convert import as_array, as_shape, constant, data_of
from karp.autograd.methods import Axis
from karp.autograd.operation import Operation, normal_axes
from karp.autograd.operations import elementwise, products, reductions, shapes
from karp.autograd.value import Value, apply
from karp.errors import GraphError, SettingError, ShapeError

# --- functions of one number ----------------------------------------------------------------------------------------


def exp(x: Any) -> Value:
    """e to the power of each element.

    >>> exp(Value(0.0))
    Value(1.0)
    """
    return apply(elementwise.EXP, constant(x))


def expm1(x: Any) -> Value:
    """exp(x) - 1, precise near 0."""
    return apply(elementwise.EXPM1, constant(x))


def log(x: Any) -> Value:
    """The natural logarithm; -inf at 0 and NaN below, with NumPy's warnings."""
    return apply(elementwise.LOG, constant(x))


def log1p(x: Any) -> Value:
    """log(1 + x), precise near 0."""
    return apply(elementwise.LOG1P, constant(x))


def sqrt(x: Any) -> Value:
    """The square root."""
    return apply(elementwise.SQRT, constant(x))


def square(x: Any) -> Value:
    """x * x."""
    return apply(elementwise.SQUARE, constant(x))


def abs(x: Any) -> Value:
    """The absolute value; gradient 0 at 0."""
    return apply(elementwise.ABS, constant(x))


def sin(x: Any) -> Value:
    """The sine of radians."""
    return apply(elementwise.SIN, constant(x))


def cos(x: Any) -> Value:
    """The cosine of radians."""
    return apply(elementwise.COS, constant(x))


def tanh(x: Any) -> Value:
    """The hyperbolic tangent."""
    return apply(elementwise.TANH, constant(x))


def sigmoid(x: Any) -> Value:
    """1 / (1 + exp(-x)), for any x without overflow.

    >>> sigmoid(Value([-1000.0, 0.0]))
    Value([0.  0.5])
    """
    return apply(elementwise.SIGMOID, constant(x))


def relu(x: Any) -> Value:
    """max(x, 0); gradient 0 at 0.

    >>> relu(Value([-1.0, 2.0]))
    Value([0. 2.])
    """
    return apply(elementwise.RELU, constant(x))


def leaky_relu(x: Any, slope: float = 0.01) -> Value:
    """x above 0, slope * x below."""
    return apply(elementwise.LEAKY_RELU, constant(x), float(slope))


def elu(x: Any, alpha: float = 1.0) -> Value:
    """x above 0, alpha * (exp(x) - 1) below. Clevert, Unterthiner and Hochreiter, 2016."""
    return apply(elementwise.ELU, constant(x), float(alpha))


def gelu(x: Any) -> Value:
    """x times the normal distribution's P(Z < x), the exact form. Hendrycks and Gimpel, 2016."""
    return apply(elementwise.GELU, constant(x))


def silu(x: Any) -> Value:
    """x * sigmoid(x)."""
    return apply(elementwise.SILU, constant(x))


def softplus(x: Any) -> Value:
    """log(1 + exp(x)), for any x without overflow."""
    return apply(elementwise.SOFTPLUS, constant(x))


# --- functions of two -----------------------------------------------------------------------------------------------


def add(a: Any, b: Any) -> Value:
    """a + b, broadcast."""
    return apply(elementwise.ADD, constant(a), constant(b))


def subtract(a: Any, b: Any) -> Value:
    """a - b, broadcast."""
    return apply(elementwise.SUBTRACT, constant(a), constant(b))


def multiply(a: Any, b: Any) -> Value:
    """a * b, broadcast."""
    return apply(elementwise.MULTIPLY, constant(a), constant(b))


def divide(a: Any, b: Any) -> Value:
    """a / b, broadcast; 1 / 0 is infinite, with NumPy's warning."""
    return apply(elementwise.DIVIDE, constant(a), constant(b))


def power(a: Any, b: Any) -> Value:
    """a ** b, broadcast. The gradient of the exponent needs a >= 0; it is NaN below."""
    return apply(elementwise.POWER, constant(a), constant(b))


def negative(x: Any) -> Value:
    """-x."""
    return apply(elementwise.NEGATIVE, constant(x))


def maximum(a: Any, b: Any) -> Value:
    """The larger of a and b, broadcast; where they are equal each takes half of the gradient."""
    return apply(elementwise.MAXIMUM, constant(a), constant(b))


def minimum(a: Any, b: Any) -> Value:
    """The smaller of a and b, broadcast; where they are equal each takes half of the gradient."""
    return apply(elementwise.MINIMUM, constant(a), constant(b))


def where(condition: Any, a: Any, b: Any) -> Value:
    """a where the condition holds, b elsewhere, broadcast. The condition is a constant.

    >>> where(np.array([True, False]), Value([1.0, 2.0]), 0.0)
    Value([1. 0.])
    """
    condition = data_of(condition)
    mask = np.asarray(condition, bool) if np.ndim(condition) else bool(condition)
    return apply(elementwise.WHERE, mask, constant(a), constant(b))


def clip(x: Any, low: Any = None, high: Any = None) -> Value:
    """x held between two constants, either of which may be None; no gradient outside."""
    if low.__class__ is Value or high.__class__ is Value:
        raise GraphError("the bounds of clip are constants; use maximum and minimum to differentiate them")
    return apply(elementwise.CLIP, constant(x), low, high)


def dropout(x: Any, p: float, rng: np.random.Generator) -> Value:
    """Each element 0 with probability `p`, the others divided by 1 - p. Srivastava et al., 2014.

    The mask is drawn from `rng`, so the same generator state gives the same mask.

    >>> dropout(Value([1.0, 1.0, 1.0, 1.0]), 0.5, np.random.default_rng(0))
    Value([2. 2. 2. 0.])
    """
    if not 0.0 <= p < 1.0:
        raise SettingError(f"dropout: p={p} must be at least 0 and below 1")
    x = constant(x)
    data = np.asarray(data_of(x))
    kept = rng.random(data.shape, np.float32) >= p
    return apply(elementwise.DROPOUT, x, kept * np.asarray(1.0 / (1.0 - p), data.dtype))


# --- reductions -----------------------------------------------------------------------------------------------------


def _reduce(operation: Operation, x: Any, axis: Any, keepdims: bool, *settings: Any) -> Value:
    return apply(operation, constant(x), tuple(axis) if isinstance(axis, list) else axis, keepdims, *settings)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """The sum over `axis`: all axes for None, one, or a tuple of them."""
    return _reduce(reductions.SUM, x, axis, keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """The mean over `axis`."""
    return _reduce(reductions.MEAN, x, axis, keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """The largest over `axis`; equal ones share the gradient."""
    return _reduce(reductions.MAX, x, axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """The smallest over `axis`; equal ones share the gradient."""
    return _reduce(reductions.MIN, x, axis, keepdims)


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """The product over `axis`; its gradient is right also where elements are 0."""
    return _reduce(reductions.PROD, x, axis, keepdims)


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: float = 0) -> Value:
    """The variance over `axis`: squared distances from the mean, their sum divided by count - ddof."""
    return _reduce(reductions.VAR, x, axis, keepdims, ddof)


def std(x: Any, axis: Axis = None, keepdims: bool = False, ddof: float = 0) -> Value:
    """The standard deviation over `axis`; gradient 0 where it is 0."""
    return _reduce(reductions.STD, x, axis, keepdims, ddof)


def norm(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """The Euclidean length over `axis`, without overflow; gradient 0 at length 0."""
    return _reduce(reductions.NORM, x, axis, keepdims)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """log(sum(exp(x))) over `axis`, without overflow."""
    return _reduce(reductions.LOGSUMEXP, x, axis, keepdims)


def softmax(x: Any, axis: int = -1) -> Value:
    """exp(x) / sum(exp(x)) along one axis, without overflow."""
    return apply(reductions.SOFTMAX, constant(x), axis)


def log_softmax(x: Any, axis: int = -1) -> Value:
    """log(softmax(x)) along one axis, precise also for small probabilities."""
    return apply(reductions.LOG_SOFTMAX, constant(x), axis)


# --- shapes ---------------------------------------------------------------------------------------------------------


def reshape(x: Any, shape: int | Sequence[int]) -> Value:
    """The same elements in another shape; one axis may be -1."""
    return apply(shapes.RESHAPE, constant(x), as_shape((shape,)))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Value:
    """The axes in another order: reversed for None."""
    return apply(shapes.TRANSPOSE, constant(x), None if axes is None else tuple(axes))


def swapaxes(x: Any, first: int, second: int) -> Value:
    """Two axes exchanged."""
    return apply(shapes.SWAPAXES, constant(x), first, second)


def squeeze(x: Any, axis: Axis = None) -> Value:
    """Without axes of size 1: all of them, or the named ones."""
    return apply(shapes.SQUEEZE, constant(x), axis)


def expand_dims(x: Any, axis: int | tuple[int, ...]) -> Value:
    """With a new axis of size 1 at each of the places `axis` in the result."""
    return apply(shapes.EXPAND_DIMS, constant(x), axis)


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Value:
    """Repeated along axes of size 1 until it has `shape`."""
    return apply(shapes.BROADCAST_TO, constant(x), as_shape((shape,)))


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Value:
    """Joined along an axis they have; all others must be equal."""
    if not len(arrays):
        raise ShapeError("concatenate needs at least one array")
    return apply(shapes.CONCATENATE, *[as_array(one) for one in arrays], axis)


def stack(arrays: Sequence[Any], axis: int = 0) -> Value:
    """Joined along a new axis; all must have one shape. Numbers make a vector.

    >>> stack([Value(1.0), Value(2.0)])
    Value([1. 2.])
    """
    if not len(arrays):
        raise ShapeError("stack needs at least one array")
    return apply(shapes.STACK, *[constant(one) for one in arrays], axis)


def split(x: Any, sections: int | Sequence[int], axis: int = 0) -> list[Value]:
    """Cut along an axis: into equal parts if `sections` is a number, else before each of these places."""
    value = x if x.__class__ is Value else Value(x)
    if not value.ndim:
        raise ShapeError("split: a number has no axis to cut")
    (axis,) = normal_axes(axis, value.ndim)
    length = value.shape[axis]
    if isinstance(sections, (int, np.integer)):
        if sections < 1 or length % sections:
            raise ShapeError(f"split of shape {value.shape}: axis {axis} of size {length} does not cut into {sections}"
                             " equal parts")
        places = list(range(0, length + 1, length // int(sections))) if length else [0] * (int(sections) + 1)
    else:
        places = [0, *sections, length]
    before = (slice(None),) * axis
    return [value[(*before, slice(start, stop))] for start, stop in itertools.pairwise(places)]


def matmul(a: Any, b: Any) -> Value:
    """The matrix product, in all of NumPy's shapes: (..., n, k) @ (..., k, m), and vectors on either side."""
    return apply(products.MATMUL, constant(a), constant(b))
