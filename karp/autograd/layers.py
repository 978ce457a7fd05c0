"""The operations of layers, as functions: `linear`, `scaled_linear`, `input_linear`, `layer_norm`, `embedding`."""

from __future__ import annotations

from typing import Any

import numpy as np

from karp.autograd import modes
from karp.autograd.convert import as_array, constant, data_of, floating, refuse_value, setting
from karp.autograd.operation import forward_error
from karp.autograd.operations import fused, scaled, shapes
from karp.autograd.operations.products import LINEAR, linear_forward
from karp.autograd.value import Value, apply, finish
from karp.autograd.write_guard import next_number
from karp.errors import SettingError, ShapeError

_new = Value.__new__
_float64 = np.dtype(np.float64)
_ndarray = np.ndarray


def linear(x: Any, weight: Any, bias: Any = None, activation: str | None = None) -> Value:
    """Return activation(x @ weight + bias), as one operation.

    `x` (..., inputs), `weight` (inputs, outputs), `bias` (outputs,) or None; the result is (..., outputs).
    `activation` is None, relu, tanh, sigmoid, softplus, leaky_relu (slope 0.01), elu (alpha 1) or selu.
    A constant `x` of another dtype is converted to the weight's. Raises ShapeError for shapes that do not fit,
    SettingError for another activation.

    >>> linear(np.ones((2, 3)), Value(np.ones((3, 1))), Value([-4.0]), "relu")
    Value([[0.]
           [0.]])
    """
    # This does what `apply` would do; without the calls a small layer takes a tenth less time.
    if weight.__class__ is Value:
        matrix = weight.data
    else:
        weight = matrix = np.asarray(floating(weight))
    if x.__class__ is Value:
        rows = x.data
    elif x.__class__ is _ndarray and matrix.__class__ is _ndarray and x.dtype is matrix.dtype:
        rows = x
    else:
        rows = x = constant_like(x, matrix)
    if bias.__class__ is Value:
        shift = bias.data
    else:
        shift = bias = None if bias is None else as_array(bias)
    operands = (rows, matrix, shift, activation)
    try:
        data = linear_forward(rows, matrix, shift, activation)
    except Exception as error:
        raise forward_error(LINEAR, operands, error) from None
    node = _new(Value)
    node.data = data
    node.grad = node.visit = None
    node.operation = LINEAR
    node.inputs = (x, weight, bias, activation)
    node.operands = operands
    node.number = next_number()
    if modes.active:
        finish(node)
    else:
        data.setflags(False)
    return node


def scaled_linear(
    x: Any, weight: Any, bias: Any, activation: str | None = None, weight_factor: float = 1.0, bias_factor: float = 1.0
) -> Value:
    """Return activation(weight_factor * x @ weight + bias_factor * bias), as one operation.

    `x` (..., inputs), `weight` (inputs, outputs), `bias` (outputs,); the result is (..., outputs). `activation` is
    None, mish or one that `linear` takes. Raises ShapeError for shapes that do not fit, SettingError for another
    activation.

    >>> scaled_linear(np.ones((2, 3)), Value(np.ones((3, 1))), Value([1.0]), None, 0.5, 0.1)
    Value([[1.6]
           [1.6]])
    """
    x = x if x.__class__ is Value else constant_like(x, weight)
    return apply(scaled.SCALED_LINEAR, x, floating(weight), floating(bias), activation, float(weight_factor),
                 float(bias_factor))


def input_linear(
    dense: Any, rows: Any, scale: Any, weight: Any, bias: Any, activation: str | None = None,
    weight_factor: float = 1.0, bias_factor: float = 1.0,
) -> Value:
    """Return activation(weight_factor * (scale * inputs) @ weight + bias_factor * bias), as one operation.

    A sample's inputs are `dense` (samples, dense), a constant, and ones: each of its `rows` (samples, columns),
    integers from 0, is an input of 1 behind the dense ones; the last number, one beyond the weight, stands for none.
    `rows` may be None. `weight` is (inputs, outputs), `bias` (outputs,). `scale` is (inputs,), or (members, inputs) for
    the members of an ensemble, and the result (samples, outputs) or (samples, members, outputs).

    Raises ShapeError for shapes and rows that do not fit, SettingError for another activation.

    >>> weight, bias = Value([[1.0], [10.0], [20.0]]), Value([0.0])
    >>> input_linear(np.array([[0.5], [0.5]]), np.array([[1], [2]]), Value([2.0, 1.0, 1.0]), weight, bias)
    Value([[21.]
           [ 1.]])
    """
    refuse_value("dense inputs", dense)
    dense = constant_like(dense, weight)
    rows = None if rows is None else np.asarray(data_of(rows))
    return apply(scaled.INPUT_LINEAR, dense, rows, floating(scale), floating(weight), floating(bias), activation,
                 float(weight_factor), float(bias_factor))


def constant_like(x: Any, other: Any) -> Any:
    """Return a constant as an array in the dtype of the other operand, which is then not promoted.

    Raises what `constant` raises.
    """
    data = other.data if other.__class__ is Value else other
    dtype = data.dtype if data.__class__ is np.ndarray else _float64
    if x.__class__ is np.ndarray and x.dtype is dtype:
        return x
    return np.asarray(constant(x), dtype)


def embedding(table: Any, rows: Any) -> Value:
    """Return rows of `table` (count, ...) by integer index: (*rows.shape, ...). Gradients of repeated rows add up.

    Raises SettingError for rows that are not integers or below 0, ShapeError for one beyond the table.
    """
    if not np.ndim(data_of(table)):
        raise ShapeError("embedding: the table has no rows, only a number")
    rows = np.asarray(data_of(rows))
    if rows.dtype.kind not in "iu":
        raise SettingError(f"embedding: rows must be integers, not {rows.dtype}")
    if rows.dtype.kind == "i" and rows.size and rows.item(rows.argmin()) < 0:  # NumPy would count from the end
        raise SettingError(f"embedding: there is no row {rows.item(rows.argmin())}; rows are counted from 0")
    return apply(shapes.EMBEDDING, floating(table), rows)


def layer_norm(x: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Value:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift it. Ba, Kiros and Hinton, 2016.

    `x` (..., features), `weight` and `bias` (features,) or None; `eps` is added to the variance. Raises ShapeError for
    other shapes, and for no features.
    """
    x = x if x.__class__ is Value else as_array(x)
    return apply(fused.LAYER_NORM, x, None if weight is None else constant(weight),
                 None if bias is None else constant(bias), setting("eps", eps))
