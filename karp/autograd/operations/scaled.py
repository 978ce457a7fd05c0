"""Layers with factors: the NTK parametrisation, in which the rate of a parameter stands in the forward pass.

An optimiser such as Adam moves every number by about its rate. A parameter that counts times a factor in the forward
pass is moved as if it had a rate of its own, that factor larger. Both operations take such factors as plain numbers:

- `scaled_linear` computes activation(weight_factor * x @ weight + bias_factor * bias).
- `input_linear` is the first layer of a table's network: features (n, dense), and one-hot columns that are never
  written out, as `rows` of the weight which are added up. Each input has a trainable scale, or one for each of several
  members of an ensemble that share the weight. The gradient of a scale needs no product of its own: with
  G = inputs.T @ g, that of the weight is scale * G, and that of the scale the sum of weight * G over the outputs.

The sum of gradients of equal rows is over a stable order of them, so it is the same bits each time. `np.add.at` takes
four to eight times as long, `np.add.reduceat` twice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from karp.autograd.operation import Operation
from karp.autograd.operations.constants import ONES
from karp.autograd.operations.products import ACTIVATIONS
from karp.errors import SettingError, ShapeError

_add, _divide, _exp, _multiply, _subtract, _sum = np.add, np.divide, np.exp, np.multiply, np.subtract, np.add.reduce

# --- activations ----------------------------------------------------------------------------------------------------


def activate(a: Any, activation: str | None) -> Any:
    """Return the activation of an array, which is overwritten."""
    if activation == "mish":
        return _mish(a)
    if activation is not None:
        try:
            ACTIVATIONS[activation][0](a, a)
        except KeyError:
            known = ", ".join((*ACTIVATIONS, "mish"))
            raise SettingError(f"no activation {activation!r}; there are {known}") from None
    return a


def _activate(a: Any, activation: str | None) -> tuple[Any, Any]:
    """Return what `activate` does, and the derivative if it is computed already: that of mish, while a is cached."""
    return _mish_and_slope(a) if activation == "mish" else (activate(a, activation), None)


def _activation_backward(g: Any, out: Any, slope: Any, activation: str | None) -> None:
    """Multiply the gradient `g` by the derivative of the activation, in place."""
    if slope is not None:
        _multiply(g, slope, g)
    elif activation is not None:
        ACTIVATIONS[activation][1](g, out)


# With e = exp(a), n = e (e + 2) and d = n + 2, mish(a) is a n / d, and its derivative n / d + 4 a (n - e) / d^2. Above
# 20 n / d is 1, so e is that of 20. A clip takes a third of the time of a minimum with a number.


def _mish(a: Any) -> Any:
    power, ratio = _powers(a)
    below = _add(ratio, 2.0, power)
    _divide(ratio, below, ratio)
    return _multiply(a, ratio, a)


def _mish_and_slope(a: Any) -> tuple[Any, Any]:
    power, ratio = _powers(a)
    slope = _subtract(ratio, power, power)
    below = _add(ratio, 2.0)
    _divide(slope, below, slope)
    _divide(slope, below, slope)
    _multiply(slope, 4.0, slope)
    _multiply(slope, a, slope)
    _divide(ratio, below, ratio)
    _add(slope, ratio, slope)
    return _multiply(a, ratio, a), slope


def _powers(a: Any) -> tuple[Any, Any]:
    """Return e and n of an array, as above."""
    low, high = _BOUNDS[a.dtype]
    power = np.clip(a, low, high)
    _exp(power, power)
    ratio = _add(power, 2.0)
    return power, _multiply(ratio, power, ratio)


_BOUNDS = {np.dtype(kind): (np.array(-np.inf, kind), np.array(20.0, kind)) for kind in (np.float32, np.float64)}


# --- scaled linear --------------------------------------------------------------------------------------------------


def _scaled_linear(
    x: Any, weight: Any, bias: Any, activation: str | None, weight_factor: float, bias_factor: float
) -> tuple[Any, Any]:
    if not x.ndim or weight.ndim != 2 or bias.shape != weight.shape[1:]:
        raise ValueError  # the shape rule says what is wrong
    rows = x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    out = rows.dot(weight)
    _multiply(out, weight_factor, out)
    _add(out, bias * bias_factor, out)
    out, slope = _activate(out, activation)
    return (out if x.ndim == 2 else out.reshape(*x.shape[:-1], -1)), slope


def _scaled_linear_shape(x: Any, weight: Any, bias: Any, *_settings: Any) -> tuple[int, ...]:
    rows: tuple[int, ...] = np.shape(x)
    matrix: tuple[int, ...] = np.shape(weight)
    if len(matrix) != 2 or np.shape(bias) != matrix[1:]:
        raise ShapeError("the weight must have two axes (inputs, outputs), the bias the second of them")
    if not rows or rows[-1] != matrix[0]:
        raise ShapeError(f"the input must have a last axis of the {matrix[0]} inputs that the weight takes")
    return rows[:-1] + matrix[1:]


def _scaled_linear_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    value = node.__class__
    x, weight, bias, activation, weight_factor, bias_factor = node.inputs
    rows, matrix = node.operands[:2]
    if not node.owned:
        g = g.copy()
    g, out = g.reshape(-1, g.shape[-1]), node.data.reshape(-1, g.shape[-1])
    _activation_backward(g, out, node.saved, activation)
    _bias_gradient(value, bias, g, bias_factor, accumulate_grad)
    _multiply(g, weight_factor, g)
    if weight.__class__ is value:
        _product(weight, rows.reshape(-1, rows.shape[-1]).T, g, accumulate_grad)
    if x.__class__ is value:
        accumulate_grad(x, g.dot(matrix.T).reshape(x.data.shape))


def _bias_gradient(value: Any, bias: Any, g: Any, factor: float, accumulate_grad: Any) -> None:
    if bias.__class__ is value:
        gradient = ONES[len(g), g.dtype].dot(g)
        accumulate_grad(bias, _multiply(gradient, factor, gradient))


def _free_buffer(leaf: Any, dtype: Any) -> Any:
    """Return the gradient buffer of a leaf that has no gradient yet; None for any other value."""
    if leaf.operation is not None or leaf.grad is not None:
        return None
    buffer = leaf.grad_buffer
    return buffer if buffer is not None and buffer.dtype is dtype else None


def _product(leaf: Any, a: Any, b: Any, accumulate_grad: Any) -> None:
    """Add a @ b to the gradient of a value; write it into a buffer that is free."""
    buffer = _free_buffer(leaf, b.dtype)
    if buffer is None:
        accumulate_grad(leaf, a.dot(b))
    else:
        a.dot(b, buffer)
        leaf.grad = buffer


SCALED_LINEAR = Operation("scaled_linear", _scaled_linear, _scaled_linear_shape, backward=_scaled_linear_backward,
                          reads=((0, 1), (1, 0)), saves=True, operands=("input", "weight", "bias"))

# --- input linear ---------------------------------------------------------------------------------------------------
# Shapes: dense (n, d), rows (n, c) of integers from 0, or None; scale (d + r,) or (members, d + r), weight
# (d + r, outputs). Row i of `rows` stands for row d + i of the weight; i = r, one beyond the last, adds nothing.


def _input_linear(
    dense: Any, rows: Any, scale: Any, weight: Any, bias: Any, activation: str | None, weight_factor: float,
    bias_factor: float,
) -> tuple[Any, Any]:  # fmt: skip
    _input_linear_shape(dense, rows, scale, weight, bias)
    count = dense.shape[1]
    inputs, outputs = weight.shape
    factors = scale * np.asarray(weight_factor, weight.dtype)
    matrix = np.empty((inputs + 1, *scale.shape[:-1], outputs), weight.dtype)  # (inputs + 1, [members,] outputs)
    matrix[inputs] = 0
    if scale.ndim == 1:
        _multiply(weight, factors[:, None], matrix[:inputs])
    else:
        _multiply(weight[:, None, :], factors.T[:, :, None], matrix[:inputs])
    flat = matrix.reshape(inputs + 1, -1)
    out = dense.dot(flat[:count])
    if rows is not None:
        added = np.empty_like(out)
        levels = flat[count:]
        for column in rows.T:
            levels.take(column, 0, added, "clip")
            _add(out, added, out)
    out = out.reshape(len(out), *matrix.shape[1:])
    _add(out, bias * bias_factor, out)
    return _activate(out, activation)


def _input_linear_shape(dense: Any, rows: Any, scale: Any, weight: Any, bias: Any, *_settings: Any) -> tuple[int, ...]:
    if np.ndim(dense) != 2 or np.ndim(weight) != 2 or np.ndim(scale) not in (1, 2):
        raise ShapeError("dense is (samples, dense), the weight (inputs, outputs), the scale ([members,] inputs)")
    inputs, outputs = np.shape(weight)
    if np.shape(dense)[1] > inputs or np.shape(scale)[-1] != inputs or np.shape(bias) != (outputs,):
        raise ShapeError(f"{inputs} inputs and {outputs} outputs of the weight need as many scales and biases")
    if rows is not None:
        if rows.dtype.kind not in "iu" or rows.ndim != 2 or len(rows) != len(dense):
            raise ShapeError("rows are integers (samples, columns)")
        if rows.size and (rows.item(rows.argmin()) < 0 or rows.item(rows.argmax()) > inputs - np.shape(dense)[1]):
            raise ShapeError(f"rows are from 0 to {inputs - np.shape(dense)[1]}, the last of which adds nothing")
    return (len(dense), *np.shape(scale)[:-1], outputs)


def _input_linear_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    value = node.__class__
    dense, rows, scale, weight, bias, activation, weight_factor, bias_factor = node.inputs
    factors, matrix = node.operands[2], node.operands[3]
    if not node.owned:
        g = g.copy()
    _activation_backward(g, node.data, node.saved, activation)
    _bias_gradient(value, bias, g.reshape(-1, g.shape[-1]), bias_factor, accumulate_grad)
    g = g.reshape(len(g), -1)
    _multiply(g, weight_factor, g)
    count = dense.shape[1]
    buffer = _free_buffer(weight, g.dtype) if weight.__class__ is value and factors.ndim == 1 else None
    product = np.empty((len(matrix), g.shape[1]), g.dtype) if buffer is None else buffer  # G in the theory above
    dense.T.dot(g, product[:count])
    if count < len(product):
        product[count:] = 0
        if rows is not None:
            _add_rows(product[count:], rows, g)
    if factors.ndim == 1:
        if scale.__class__ is value:
            accumulate_grad(scale, np.einsum("io,io->i", product, matrix))
        if weight.__class__ is value:
            _multiply(product, factors[:, None], product)
            if buffer is None:
                accumulate_grad(weight, product)
            else:
                weight.grad = buffer
        return
    product = product.reshape(len(product), len(factors), -1)  # (inputs, members, outputs)
    if scale.__class__ is value:
        accumulate_grad(scale, np.matmul(product, matrix[:, :, None])[:, :, 0].T.copy())
    if weight.__class__ is value:
        accumulate_grad(weight, np.matmul(factors.T[:, None, :], product)[:, 0, :].copy())


def _add_rows(target: Any, rows: Any, g: Any) -> None:
    """Add the gradients g (n, outputs) to the rows of `target` that `rows` (n, c) names, where there are these."""
    columns = rows.shape[1]
    flat = rows.ravel()
    order = flat.argsort(kind="stable")
    flat = flat[order]
    length = int(flat.searchsorted(len(target)))  # what is behind it adds nothing
    if not length:
        return
    gradients = g[order[:length] // columns]
    starts = [0, *(np.flatnonzero(flat[1:length] != flat[: length - 1]) + 1).tolist()]
    for row, begin, end in zip(flat[starts].tolist(), starts, [*starts[1:], length], strict=True):
        if end - begin == 1:
            target[row] = gradients[begin]
        else:
            _sum(gradients[begin:end], 0, None, target[row])


INPUT_LINEAR = Operation("input_linear", _input_linear, _input_linear_shape, backward=_input_linear_backward,
                         reads=((0, 2), (0, 3), (2, 3), (3, 2)), saves=True,
                         operands=("dense", "rows", "scale", "weight", "bias"))
