"""The operations as functions, with NumPy's names and semantics where NumPy has them.

Each takes values, numbers and arrays. Shapes and axes are NumPy's; a result is a `Value`. Each raises ShapeError for
shapes and axes that do not fit and for masked elements, and GraphError for numbers that are not real.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from karp.autograd.convert import all_inputs, as_array, as_axis, as_shape, bound, data_of, floating, setting
from karp.autograd.methods import Axis
from karp.autograd.operation import Operation, normalize_axes
from karp.autograd.operations import elementwise, products, reductions, shapes
from karp.autograd.value import Value, apply
from karp.errors import ShapeError

# --- functions of one number ----------------------------------------------------------------------------------------


def exp(x: Any) -> Value:
    """Return e to the power of each element.

    >>> exp(Value(0.0))
    Value(1.0)
    """
    return apply(elementwise.EXP, floating(x))


def expm1(x: Any) -> Value:
    """Return exp(x) - 1, precise near 0."""
    return apply(elementwise.EXPM1, floating(x))


def log(x: Any) -> Value:
    """Return the natural logarithm; -inf at 0 and NaN below, with NumPy's warnings."""
    return apply(elementwise.LOG, floating(x))


def log1p(x: Any) -> Value:
    """Return log(1 + x), precise near 0."""
    return apply(elementwise.LOG1P, floating(x))


def sqrt(x: Any) -> Value:
    """Return the square root."""
    return apply(elementwise.SQRT, floating(x))


def square(x: Any) -> Value:
    """Return x * x."""
    return apply(elementwise.SQUARE, floating(x))


def abs(x: Any) -> Value:
    """Return the absolute value; its gradient at 0 is 0."""
    return apply(elementwise.ABS, floating(x))


def sin(x: Any) -> Value:
    """Return the sine of each element, in radians."""
    return apply(elementwise.SIN, floating(x))


def cos(x: Any) -> Value:
    """Return the cosine of each element, in radians."""
    return apply(elementwise.COS, floating(x))


def tanh(x: Any) -> Value:
    """Return the hyperbolic tangent."""
    return apply(elementwise.TANH, floating(x))


def sigmoid(x: Any) -> Value:
    """Return the logistic sigmoid 1 / (1 + exp(-x)), without overflow for any x.

    >>> sigmoid(Value([-1000.0, 0.0]))
    Value([0.  0.5])
    """
    return apply(elementwise.SIGMOID, floating(x))


def relu(x: Any) -> Value:
    """Return max(x, 0); its gradient at 0 is 0.

    >>> relu(Value([-1.0, 2.0]))
    Value([0. 2.])
    """
    return apply(elementwise.RELU, floating(x))


def leaky_relu(x: Any, slope: float = 0.01) -> Value:
    """Return x where it is above 0, and slope * x below."""
    return apply(elementwise.LEAKY_RELU, floating(x), setting("slope", slope))


def elu(x: Any, alpha: float = 1.0) -> Value:
    """Return x where it is above 0, and alpha * (exp(x) - 1) below. Clevert, Unterthiner and Hochreiter, 2016."""
    return apply(elementwise.ELU, floating(x), setting("alpha", alpha))


def gelu(x: Any) -> Value:
    """Return x times the normal distribution's P(Z < x), in the exact form. Hendrycks and Gimpel, 2016."""
    return apply(elementwise.GELU, floating(x))


def silu(x: Any) -> Value:
    """Return x * sigmoid(x)."""
    return apply(elementwise.SILU, floating(x))


def selu(x: Any) -> Value:
    """Return 1.0507 x where x is above 0, and 1.7581 (exp(x) - 1) below. Klambauer, Unterthiner et al., 2017."""
    return apply(elementwise.SELU, floating(x))


def mish(x: Any) -> Value:
    """Return x * tanh(log(1 + exp(x))). Misra, 2019."""
    return apply(elementwise.MISH, floating(x))


def softplus(x: Any) -> Value:
    """Return log(1 + exp(x)), without overflow for any x."""
    return apply(elementwise.SOFTPLUS, floating(x))


# --- functions of two -----------------------------------------------------------------------------------------------


def add(a: Any, b: Any) -> Value:
    """Return a + b, broadcast."""
    return apply(elementwise.ADD, *all_inputs(a, b))


def subtract(a: Any, b: Any) -> Value:
    """Return a - b, broadcast."""
    return apply(elementwise.SUBTRACT, *all_inputs(a, b))


def multiply(a: Any, b: Any) -> Value:
    """Return a * b, broadcast."""
    return apply(elementwise.MULTIPLY, *all_inputs(a, b))


def divide(a: Any, b: Any) -> Value:
    """Return a / b, broadcast; 1 / 0 is infinite, with NumPy's warning."""
    return apply(elementwise.DIVIDE, *all_inputs(a, b))


def power(a: Any, b: Any) -> Value:
    """Return a ** b, broadcast. The gradient of the exponent needs a >= 0; it is NaN below."""
    return apply(elementwise.POWER, *all_inputs(a, b))


def negative(x: Any) -> Value:
    """Return -x."""
    return apply(elementwise.NEGATIVE, floating(x))


def maximum(a: Any, b: Any) -> Value:
    """Return the larger of a and b, broadcast; where they are equal each gets half of the gradient."""
    return apply(elementwise.MAXIMUM, *all_inputs(a, b))


def minimum(a: Any, b: Any) -> Value:
    """Return the smaller of a and b, broadcast; where they are equal each gets half of the gradient."""
    return apply(elementwise.MINIMUM, *all_inputs(a, b))


def where(condition: Any, a: Any, b: Any) -> Value:
    """Return a where the condition holds and b elsewhere, broadcast. The condition is a constant.

    >>> where(np.array([True, False]), Value([1.0, 2.0]), 0.0)
    Value([1. 0.])
    """
    condition = data_of(condition)
    mask = np.asarray(condition, bool) if np.ndim(condition) else bool(condition)
    return apply(elementwise.WHERE, mask, *all_inputs(a, b))


def clip(x: Any, min: Any = None, max: Any = None) -> Value:
    """Return x limited to the range from min to max, constants or None; outside of it the gradient is 0.

    Raises GraphError for a bound that is a Value.
    """
    return apply(elementwise.CLIP, floating(x), bound(min), bound(max))


# --- reductions -----------------------------------------------------------------------------------------------------


def _reduce(operation: Operation, x: Any, axis: Any, keepdims: bool, *settings: Any) -> Value:
    return apply(operation, floating(x), as_axis(axis, x), keepdims, *settings)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """Return the sum over `axis`: all axes for None, one, or a tuple of them."""
    return _reduce(reductions.SUM, x, axis, keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """Return the mean over `axis`; raise ShapeError where there are no elements."""
    return _reduce(reductions.MEAN, x, axis, keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """Return the largest element over `axis`; equal ones share the gradient. Raises ShapeError if there are none."""
    return _reduce(reductions.MAX, x, axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """Return the smallest element over `axis`; equal ones share the gradient. Raises ShapeError if there are none."""
    return _reduce(reductions.MIN, x, axis, keepdims)


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """Return the product over `axis`; its gradient is right also where elements are 0."""
    return _reduce(reductions.PROD, x, axis, keepdims)


def var(x: Any, axis: Axis = None, keepdims: bool = False, ddof: float = 0) -> Value:
    """Return the variance over `axis`: the sum of squared distances from the mean, divided by count - ddof.

    Raises ShapeError unless there are more than `ddof` elements.
    """
    return _reduce(reductions.VAR, x, axis, keepdims, ddof)


def std(x: Any, axis: Axis = None, keepdims: bool = False, ddof: float = 0) -> Value:
    """Return the standard deviation over `axis`, the root of `var`; its gradient is 0 where the deviation is 0."""
    return _reduce(reductions.STD, x, axis, keepdims, ddof)


def norm(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """Return the Euclidean norm over `axis`, without overflow; its gradient is 0 where the norm is 0."""
    return _reduce(reductions.NORM, x, axis, keepdims)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Value:
    """Return log(sum(exp(x))) over `axis`, without overflow."""
    return _reduce(reductions.LOGSUMEXP, x, axis, keepdims)


def softmax(x: Any, axis: int = -1) -> Value:
    """Return exp(x) / sum(exp(x)) along one axis, without overflow."""
    return apply(reductions.SOFTMAX, floating(x), axis)


def log_softmax(x: Any, axis: int = -1) -> Value:
    """Return log(softmax(x)) along one axis, precise also for small probabilities."""
    return apply(reductions.LOG_SOFTMAX, floating(x), axis)


# --- shapes ---------------------------------------------------------------------------------------------------------


def reshape(x: Any, shape: int | Sequence[int]) -> Value:
    """Return the same elements in another shape; one axis may be -1."""
    return apply(shapes.RESHAPE, floating(x), as_shape((shape,)))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Value:
    """Permute the axes: in the order `axes`, reversed for None."""
    return apply(shapes.TRANSPOSE, floating(x), None if axes is None else tuple(axes))


def swapaxes(x: Any, first: int, second: int) -> Value:
    """Exchange two axes."""
    return apply(shapes.SWAPAXES, floating(x), first, second)


def squeeze(x: Any, axis: Axis = None) -> Value:
    """Remove axes of size 1: all of them, or those named."""
    return apply(shapes.SQUEEZE, floating(x), axis)


def expand_dims(x: Any, axis: int | tuple[int, ...]) -> Value:
    """Insert an axis of size 1 at each position of `axis` in the result."""
    return apply(shapes.EXPAND_DIMS, floating(x), axis)


def broadcast_to(x: Any, shape: int | Sequence[int]) -> Value:
    """Repeat the elements along axes of size 1, so that the result has `shape`."""
    return apply(shapes.BROADCAST_TO, floating(x), as_shape((shape,)))


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Value:
    """Join arrays along an axis that they have; all their other axes must be equal. For None they are flattened first.

    Raises ShapeError without arrays, and for numbers unless the axis is None.
    """
    inputs = all_inputs(*arrays)
    if not inputs:
        raise ShapeError("concatenate needs at least one array")
    return apply(shapes.CONCATENATE, *[as_array(item) for item in inputs], axis)


def stack(arrays: Sequence[Any], axis: int = 0) -> Value:
    """Join arrays of one shape along a new axis. Numbers make a vector. Raises ShapeError without arrays.

    >>> stack([Value(1.0), Value(2.0)])
    Value([1. 2.])
    """
    inputs = all_inputs(*arrays)
    if not inputs:
        raise ShapeError("stack needs at least one array")
    return apply(shapes.STACK, *inputs, axis)


def split(x: Any, sections: int | Sequence[int], axis: int = 0) -> list[Value]:
    """Split an array along an axis: into equal parts if `sections` is a number, else before each of these indices.

    Returns the parts in order. Raises ShapeError for a number, and for an axis that does not cut into equal parts.
    """
    value = x if x.__class__ is Value else Value(x)
    if not value.ndim:
        raise ShapeError("split: a number has no axis to cut")
    (axis,) = normalize_axes(axis, value.ndim)
    length = value.shape[axis]
    if isinstance(sections, (int, np.integer)):
        if sections < 1 or length % sections:
            raise ShapeError(f"split of shape {value.shape}: axis {axis} of size {length} does not cut into {sections}"
                             " equal parts")
        bounds = list(range(0, length + 1, length // int(sections))) if length else [0] * (int(sections) + 1)
    elif isinstance(sections, float):
        raise ShapeError(f"split: {sections} is no number of parts; a whole number or a list of places is")
    else:
        bounds = [0, *sections, length]
    before = (slice(None),) * axis
    return [value[(*before, slice(start, stop))] for start, stop in itertools.pairwise(bounds)]


def matmul(a: Any, b: Any) -> Value:
    """Return the matrix product, for all of NumPy's shapes: (..., n, k) @ (..., k, m), and vectors on either side."""
    return apply(products.MATMUL, *all_inputs(a, b))
