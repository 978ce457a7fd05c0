"""Matrix products: `matmul` in all of NumPy's shapes, and `linear`, a whole layer as one operation.

`linear(x, weight, bias, activation)` computes activation(x @ weight + bias) with weights stored (inputs, outputs). It
is one node, so a layer costs one array in forward and little more than its products in backward. The activation is
applied in place and its derivative computed from the result. `dot(..., out)` writes the gradients of weight and bias
into their grad_buffers in the flat gradient vector. A constant `x` gets no gradient. The bias gradient is a product
with a vector of ones, which is faster than a sum over the first axis. Products use the arrays' own method `a.dot(b)`,
as the function `np.dot` takes 0.2 us more to dispatch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from karp.autograd.operation import Operation
from karp.autograd.operations.constants import BITS, ONE, ONES, SIGNED, ZERO, ZEROS
from karp.autograd.operations.elementwise import SELU_ALPHA, SELU_SCALE, sigmoid, softplus
from karp.errors import SettingError, ShapeError

_add, _multiply, _subtract = np.add, np.multiply, np.subtract
_maximum, _minimum, _sign, _expm1 = np.maximum, np.minimum, np.sign, np.expm1
_and, _xor, _shift = np.bitwise_and, np.bitwise_xor, np.right_shift

# --- matmul ---------------------------------------------------------------------------------------------------------


def _matmul(a: Any, b: Any) -> Any:
    if a.ndim == 2 and b.ndim == 2:
        return np.dot(a, b)  # the same product with less overhead
    return np.matmul(a, b)


def _matmul_shape(a: Any, b: Any) -> tuple[int, ...]:
    left: tuple[int, ...] = np.shape(a)
    right: tuple[int, ...] = np.shape(b)
    if not left or not right:
        raise ShapeError("numbers have no matrix product; use *")
    inner = right[-2] if len(right) > 1 else right[0]
    if left[-1] != inner:
        which = "second last" if len(right) > 1 else "only"
        raise ShapeError(f"the last axis of the first ({left[-1]}) must equal the {which} axis of the second ({inner})")
    try:
        batch = np.broadcast_shapes(left[:-2], right[:-2])
    except ValueError:
        raise ShapeError("the axes before the last two do not broadcast") from None
    return batch + left[-2:-1] + (right[-1:] if len(right) > 1 else ())


def _matmul_left(g: Any, out: Any, a: Any, b: Any) -> Any:
    if b.ndim == 1:
        return g * b if a.ndim == 1 else np.expand_dims(g, -1) * b
    if a.ndim == 1:
        return np.matmul(b, np.expand_dims(g, -1))[..., 0]
    return _matmul(g, np.swapaxes(b, -1, -2))


def _matmul_right(g: Any, out: Any, a: Any, b: Any) -> Any:
    if a.ndim == 1:
        return g * a if b.ndim == 1 else np.expand_dims(a, -1) * np.expand_dims(g, -2)
    if b.ndim == 1:
        return np.matmul(np.swapaxes(a, -1, -2), np.expand_dims(g, -1))[..., 0]
    return _matmul(np.swapaxes(a, -1, -2), g)


MATMUL = Operation("matmul", _matmul, _matmul_shape, (_matmul_left, _matmul_right), label="@", reads=((1, 0), (0, 1)))

# --- activations inside linear --------------------------------------------------------------------------------------
# name -> (forward(a, out), where `out` is the array `a` itself; backward(g, out), which multiplies g in place).
# No derivative reads the activation's argument, so forward may overwrite it.

_CACHED_BYTES = 1 << 20  # up to this size of its operand ReLU uses a cached array of zeros


def _zeros_like(a: Any) -> Any:
    """Return zeros to take a maximum or minimum with: of an array that is three times as fast as of a single zero."""
    return ZEROS[a.shape, a.dtype] if a.nbytes <= _CACHED_BYTES else ZERO[a.dtype]


def _relu(a: Any, out: Any) -> None:
    _maximum(a, _zeros_like(a), out=out)


def _relu_backward(g: Any, out: Any) -> None:
    # The bits are read as unsigned integers. The sign of the result's bits is 1 or 0 (1 for a NaN), so a product with
    # that sign keeps the gradient's bits or clears them, also those of an infinity. The product takes two thirds of the
    # time of one with booleans.
    mask = _sign(out.view(BITS[out.dtype]))
    g = g.view(mask.dtype)
    _multiply(g, mask, g)


def _tanh_backward(g: Any, out: Any) -> None:
    slope = _multiply(out, out)
    _subtract(ONE[out.dtype], slope, slope)
    _multiply(g, slope, g)


def _sigmoid(a: Any, out: Any) -> None:
    out[...] = sigmoid(a)


def _sigmoid_backward(g: Any, out: Any) -> None:
    slope = _subtract(ONE[out.dtype], out)
    _multiply(slope, out, slope)
    _multiply(g, slope, g)


def _softplus(a: Any, out: Any) -> None:
    out[...] = softplus(a)


def _softplus_backward(g: Any, out: Any) -> None:
    _multiply(g, -np.expm1(-out), g)  # sigmoid(a) = 1 - exp(-softplus(a))


def _leaky_relu(a: Any, out: Any) -> None:
    _maximum(a, 0.01 * a, out=out)


def _leaky_relu_backward(g: Any, out: Any) -> None:
    _multiply(g, _maximum(out > 0, np.asarray(0.01, out.dtype)), g)


def _elu(a: Any, out: Any) -> None:
    zeros = _zeros_like(a)
    below = _minimum(a, zeros)
    _expm1(below, below)
    _maximum(a, zeros, out=out)
    _add(out, below, out)


def _elu_backward(g: Any, out: Any) -> None:
    slope = _minimum(out, _zeros_like(out))  # exp(a) = elu(a) + 1 below zero
    _add(slope, ONE[out.dtype], slope)
    _multiply(g, slope, g)


def _selu(a: Any, out: Any) -> None:
    zeros = _zeros_like(a)
    below = _minimum(a, zeros)
    _expm1(below, below)
    _multiply(below, SELU_SCALE * SELU_ALPHA, below)
    _maximum(a, zeros, out=out)
    _multiply(out, SELU_SCALE, out)
    _add(out, below, out)


def _selu_backward(g: Any, out: Any) -> None:
    # The slope is the result + scale * alpha below zero, and scale above. It is chosen by the sign of the result,
    # repeated in every bit: that takes a fifth of the time of `np.where`.
    bits, last = SIGNED[out.dtype]
    slope = _add(out, SELU_SCALE * SELU_ALPHA)
    chosen = slope.view(bits)
    above = np.array(SELU_SCALE, out.dtype).view(bits)
    sign = _shift(out.view(bits), last)
    _xor(chosen, above, chosen)
    _and(chosen, sign, chosen)
    _xor(chosen, above, chosen)
    _multiply(g, slope, g)


ACTIVATIONS: dict[str, tuple[Any, Any]] = {
    "relu": (_relu, _relu_backward),
    "tanh": (np.tanh, _tanh_backward),
    "sigmoid": (_sigmoid, _sigmoid_backward),
    "softplus": (_softplus, _softplus_backward),
    "leaky_relu": (_leaky_relu, _leaky_relu_backward),
    "elu": (_elu, _elu_backward),
    "selu": (_selu, _selu_backward),
}

# --- linear ---------------------------------------------------------------------------------------------------------


def linear_forward(x: Any, weight: Any, bias: Any, activation: str | None) -> Any:
    """Return activation(x @ weight + bias), computed in one array; a `bias` or `activation` of None is left out.

    Raises ValueError for shapes that do not match, SettingError for an unknown activation.
    """
    if not x.ndim or weight.ndim != 2:
        raise ValueError  # the shape rule says what is wrong
    out = x.dot(weight)
    if bias is not None:
        if bias.shape != weight.shape[1:]:
            raise ValueError  # NumPy would broadcast some of these
        _add(out, bias, out)
    if activation is not None:
        try:
            function = ACTIVATIONS[activation][0]
        except KeyError:
            known = ", ".join(ACTIVATIONS)
            raise SettingError(f"linear: no activation {activation!r}; there are {known}") from None
        function(out, out)
    return out


def _linear_shape(x: Any, weight: Any, bias: Any, activation: str | None) -> tuple[int, ...]:
    rows: tuple[int, ...] = np.shape(x)
    matrix: tuple[int, ...] = np.shape(weight)
    if len(matrix) != 2:
        raise ShapeError("the weight must have two axes (inputs, outputs)")
    if not rows:
        raise ShapeError("the input must have at least one axis, the last of them the inputs")
    if rows[-1] != matrix[0]:
        raise ShapeError(f"the input's last axis has size {rows[-1]}, the weight (inputs, outputs) takes {matrix[0]}")
    if bias is not None and np.shape(bias) != matrix[1:]:
        raise ShapeError(f"the bias must have shape {matrix[1:]}")
    return rows[:-1] + matrix[1:]


def _linear_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    """Add to the gradients of bias, weight and x; the first of a parameter is written into its gradient buffer."""
    value = node.__class__
    x, weight, bias, activation = node.inputs
    rows, matrix, _, _ = node.operands
    if activation is not None:
        if not node.owned:
            g = g.copy()
        ACTIVATIONS[activation][1](g, node.data)
    if rows.ndim != 2:  # (..., inputs) as (rows, inputs)
        count = math.prod(g.shape[:-1])
        g = g.reshape(count, g.shape[-1])
        rows = rows.reshape(count, rows.shape[-1])
    dtype = g.dtype
    if bias.__class__ is value:
        grad_buffer = bias.grad_buffer if bias.grad is None and bias.operation is None else None
        if grad_buffer is not None and grad_buffer.dtype is dtype:
            ONES[len(g), dtype].dot(g, grad_buffer)
            bias.grad = grad_buffer
        else:
            accumulate_grad(bias, ONES[len(g), dtype].dot(g))
    if weight.__class__ is value:
        grad_buffer = weight.grad_buffer if weight.grad is None and weight.operation is None else None
        if grad_buffer is not None and grad_buffer.dtype is dtype:
            rows.T.dot(g, grad_buffer)
            weight.grad = grad_buffer
        else:
            accumulate_grad(weight, rows.T.dot(g))
    if x.__class__ is value:
        gradient = g.dot(matrix.T)
        if node.operands[0] is not rows:
            gradient = gradient.reshape(x.data.shape)
        if x.operation is not None and x.grad is None and dtype is x.data.dtype:
            x.grad = gradient  # as accumulate_grad does, but 0.2 us faster
            x.owned = True
        else:
            accumulate_grad(x, gradient)


LINEAR = Operation("linear", linear_forward, _linear_shape, backward=_linear_backward, reads=((0, 1), (1, 0)),
                   operands=("input", "weight", "bias"))
