"""The operations as functions, to NumPy's names and semantics where NumPy has them.

Each takes values, numbers and arrays. Shapes and axes are NumPy's; a result is a `Value`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from karp.autograd.convert import as_array, as_axis, as_shape, bound, data_of, floating, setting, together
from karp.autograd.methods import Axis
from karp.autograd.operation import Operation, normal_axes
from karp.autograd.operations import elementwise, products, reductions, shapes
from karp.autograd.value import Value, apply
from karp.errors import ShapeError

# --- functions of one number ----------------------------------------------------------------------------------------


def exp(x: Any) -> Value:
    """e to the power of each element.

    >>> exp(Value(0.0))
    Value(1.0)
    """
    return apply(elementwise.EXP, floating(x))


def expm1(x: Any) -> Value:
    """exp(x) - 1, precise near 0."""
    return apply(elementwise.EXPM1, floating(x))


def log(x: Any) -> Value:
    """The natural logarithm; -inf at 0 and NaN below, with NumPy's warnings."""
    return apply(elementwise.LOG, floating(x))


def log1p(x: Any) -> Value:
    """log(1 + x), precise near 0."""
    return apply(elementwise.LOG1P, floating(x))


def sqrt(x: Any) -> Value:
    """The square root."""
    return apply(elementwise.SQRT, floating(x))


def square(x: Any) -> Value:
    """x * x."""
    return apply(elementwise.SQUARE, floating(x))


def abs(x: Any) -> Value:
    """The absolute value; gradient 0 at 0."""
    return apply(elementwise.ABS, floating(x))


def sin(x: Any) -> Value:
    """The sine of radians."""
    return apply(elementwise.SIN, floating(x))


def cos(x: Any) -> Value:
    """The cosine of radians."""
    return apply(elementwise.COS, floating(x))


def tanh(x: Any) -> Value:
    """The hyperbolic tangent."""
    return apply(elementwise.TANH, floating(x))


def sigmoid(x: Any) -> Value:
    """1 / (1 + exp(-x)), for any x without overflow.

    >>> sigmoid(Value([-1000.0, 0.0]))
    Value([0.  0.5])
    """
    return apply(elementwise.SIGMOID, floating(x))


def relu(x: Any) -> Value:
    """max(x, 0); gradient 0 at 0.

    >>> relu(Value([-1.0, 2.0]))
    Value([0. 2.])
    """
    return apply(elementwise.RELU, floating(x))


def leaky_relu(x: Any, slope: float = 0.01) -> Value:
    """x above 0, slope * x below."""
    return apply(elementwise.LEAKY_RELU, floating(x), setting("slope", slope))


def elu(x: Any, alpha: float = 1.0) -> Value:
    """x above 0, alpha * (exp(x) - 1) below. Clevert, Unterthiner and Hochreiter, 2016."""
    return apply(elementwise.ELU, floating(x), setting("alpha", alpha))


def gelu(x: Any) -> Value:
    """x times the normal distribution's P(Z < x), the exact form. Hendrycks and Gimpel, 2016."""
    return apply(elementwise.GELU, floating(x))


def silu(x: Any) -> Value:
    """x * sigmoid(x)."""
    return apply(elementwise.SILU, floating(x))


def softplus(x: Any) -> Value:
    """log(1 + exp(x)), for any x without overflow."""
    return apply(elementwise.SOFTPLUS, floating(x))


# --- functions of two -----------------------------------------------------------------------------------------------


def add(a: Any, b: Any) -> Value:
    """a + b, broadcast."""
    return apply(elementwise.ADD, *together(a, b))


def subtract(a: Any, b: Any) -> Value:
    """a - b, broadcast."""
    return apply(elementwise.SUBTRACT, *together(a, b))


def multiply(a: Any, b: Any) -> Value:
    """a * b, broadcast."""
    return apply(elementwise.MULTIPLY, *together(a, b))


def divide(a: Any, b: Any) -> Value:
    """a / b, broadcast; 1 / 0 is infinite, with NumPy's warning."""
    return apply(elementwise.DIVIDE, *together(a, b))


def power(a: Any, b: Any) -> Value:
    """a ** b, broadcast. The gradient of the exponent needs a >= 0; it is NaN below."""
    return apply(elementwise.POWER, *together(a, b))


def negative(x: Any) -> Value:
    """-x."""
    return apply(elementwise.NEGATIVE, floating(x))


def maximum(a: Any, b: Any) -> Value:
    """The larger of a and b, broadcast; where they are equal each takes half of the gradient."""
    return apply(elementwise.MAXIMUM, *together(a, b))


def minimum(a: Any, b: Any) -> Value:
    """The smaller of a and b, broadcast; where they are equal each takes half of the gradient."""
    return apply(elementwise.MINIMUM, *together(a, b))


def where(condition: Any, a: Any, b: Any) -> Value:
    """a where the condition holds, b elsewhere, broadcast. The condition is a constant.

    >>> where(np.array([True, False]), Value([1.0, 2.0]), 0.0)
    Value([1. 0.])
    """
    condition = data_of(condition)
    mask = np.asarray(condition, bool) if np.ndim(condition) else bool(condition)
    return apply(elementwise.WHERE, mask, *together(a, b))


def clip(x: Any, min: Any = None, max: Any = None) -> Value:
    """x held between two constants, either of which may be None; no gradient outside."""
    return apply(elementwise.CLIP, floating(x), bound(min), bound(max))


# --- reductions -----------------------------------------------------------------------------------------------------


def _reduce(operation: Operation, x: Any, axis: Any, keepdims: bool, *settings: Any) -> Value:
    return apply(operation, floating(x), as_axis(axis, x), keepdims, *settings)


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
    return apply(reductions.SOFTMAX, floating(x), axis)


def log_softmax(x: Any, axis: int = -1) -> Value:
    """log(softmax(x)) along one axis, precise also for small probabilities."""
    return apply(reductions.LOG_SOFTMAX, floating(x), axis)


# --- shapes ---------------------------------------------------------------------------------------------------------


def reshape(x: Any, shape: int | Sequence[int]) -> Value:
    """The same elements in another shape; one axis may be -1."""
    return apply(shapes.RESHAPE, floating(x), as_shape((shape,)))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Value:
    """The axes in another order: reversed for None."""
    return apply(shapes.TRANSPOSE, floating(x), None if axes is None else tuple(axes))


def swapaxes(x: Any, first: int, second: int) -> Value:
    """Two axes exchanged."""
    return apply(shapes.SWAPAXES, floating(x), first, second)


def squeeze(x: Any, axis: Axis = None) -> Value:
    """Without axes of size 1: all of them, or the named ones."""
    return apply(shapes.SQUEEZE, floating(x), axis)


def expand_dims(x: Any, axis: int | tuple[int, ...]) -> Value:
    """With a new axis of size 1 at each of the places `axis` in the result."""
    return apply(shapes.EXPAND_DIMS, floating(x), axis)


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Value:
    """Repeated along axes of size 1 until it has `shape`."""
    return apply(shapes.BROADCAST_TO, floating(x), as_shape((shape,)))


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Value:
    """Joined along an axis they have; all others must be equal."""
    operands = together(*arrays)
    if not operands:
        raise ShapeError("concatenate needs at least one array")
    return apply(shapes.CONCATENATE, *[as_array(one) for one in operands], axis)


def stack(arrays: Sequence[Any], axis: int = 0) -> Value:
    """Joined along a new axis; all must have one shape. Numbers make a vector.

    >>> stack([Value(1.0), Value(2.0)])
    Value([1. 2.])
    """
    operands = together(*arrays)
    if not operands:
        raise ShapeError("stack needs at least one array")
    return apply(shapes.STACK, *operands, axis)


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
    elif isinstance(sections, float):
        raise ShapeError(f"split: {sections} is no number of parts; a whole number or a list of places is")
    else:
        places = [0, *sections, length]
    before = (slice(None),) * axis
    return [value[(*before, slice(start, stop))] for start, stop in itertools.pairwise(places)]


def matmul(a: Any, b: Any) -> Value:
    """The matrix product, in all of NumPy's shapes: (..., n, k) @ (..., k, m), and vectors on either side."""
    return apply(products.MATMUL, *together(a, b))
