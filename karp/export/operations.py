"""From recorded operations to ONNX nodes.

Theory of operation. A model is run on rows of zeros. The engine records what it does, and each record becomes nodes:
this table has, for the name of an operation, the function that adds them. What depends on no input is a constant, so
products of weights and factors are computed here. A model runs on two rows and on three: what differs between the two
records depends on the number of rows, and is -1 in a shape, or an error anywhere else.

Activations are written with the formulas of `karp.autograd`, from operators that runtimes have in float32 and float64
alike: of the ready-made ones most have a float64 kernel at one opset and none at the next. Only the error function
(gelu) is computed in float32 at all times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.autograd import Value
from karp.autograd.operation import normalize_axes
from karp.autograd.operations.elementwise import SELU_ALPHA, SELU_SCALE
from karp.autograd.tools.graph import walk
from karp.errors import SettingError
from karp.export.graph import Graph, Operand, Tensor

Array = NDArray[Any]
Form = Callable[..., Operand]  # of the graph, the node's value, and its inputs
Model = Callable[[int], tuple[Value, list[Any]]]


def add_operations(graph: Graph, model: Model, inputs: Sequence[Tensor | None]) -> Tensor:
    """Add the operations of a model to a graph, and return the tensor of its output.

    `model(rows)` runs it on so many rows, and returns the output, and the values and arrays that were its inputs, of
    which `inputs` are the tensors; None for one that is not used. Raises SettingError for an operation that has no form
    in ONNX, and for one that depends on the number of rows.
    """
    (two, _), (root, given) = model(2), model(3)
    others, nodes = _in_order(two), _in_order(root)
    if [_name(node) for node in others] != [_name(node) for node in nodes]:
        raise SettingError("the model computes something else for two rows than for three, so it has no one graph")
    known: dict[int, Any] = {id(item): tensor for item, tensor in zip(given, inputs, strict=True) if tensor is not None}
    for node, other in zip(nodes, others, strict=True):
        if id(node) in known:
            continue
        operands = [_operand(item, known) for item in node.inputs]
        if not any(isinstance(operand, Tensor) for operand in operands):
            known[id(node)] = _constant(node.data, other.data)
            continue
        name = _name(node)
        if name not in FORMS:
            raise SettingError(f"the operation {name} has no ONNX form in karp; those that have are {', '.join(FORMS)}")
        settings = [
            operand if isinstance(operand, Tensor) else _setting(operand, item, given)
            for operand, item, given in zip(operands, node.inputs, other.inputs, strict=True)
        ]
        known[id(node)] = FORMS[name](graph, node, *settings)
    output = known[id(root)]
    if not isinstance(output, Tensor):
        raise SettingError("the model's output does not depend on its input")
    return output


def _in_order(root: Value) -> list[Value]:
    return sorted(walk(root), key=lambda node: node.number)


def _name(node: Value) -> str:
    return "" if node.operation is None else node.operation.name


def _operand(item: Any, known: dict[int, Any]) -> Any:
    return known.get(id(item), item)


def _constant(three: Any, two: Any) -> Array:
    """Return what does not depend on the input, and so must not depend on the number of rows."""
    if not np.array_equal(three, two):
        raise SettingError(f"the model has a constant that is {_brief(two)} for 2 rows and {_brief(three)} for 3, and "
                           "a graph has one for all")  # fmt: skip
    return np.asarray(three)


def _brief(data: Any) -> str:
    return f"of shape {np.shape(data)}" if np.ndim(data) else str(data)


def _setting(operand: Any, three: Any, two: Any) -> Any:
    """Return a constant or a setting, `operand`, which is `three` in the one record and `two` in the other.

    Where the numbers of a shape differ in them it is -1.
    """
    if isinstance(three, Value):  # known is its array
        return operand
    if isinstance(three, tuple):
        return tuple(-1 if size != other else size for size, other in zip(three, two, strict=True))
    if isinstance(three, float | int | np.ndarray) and np.size(three):  # there may be no dense inputs
        _constant(three, two)
    return operand


# --- elements -------------------------------------------------------------------------------------------------------


def _number(value: float, like: Operand) -> Array:
    return np.array(value, like.dtype)


def _elementwise(kind: str) -> Form:
    """Return the form of an operation that ONNX has under the name `kind`, whose operands are all broadcast."""

    return lambda graph, node, *operands: graph.node(kind, *(_typed(graph, node, operand) for operand in operands))


def _typed(graph: Graph, node: Value, operand: Any) -> Operand:
    """Return an operand in the dtype of the result, as NumPy promotes it and ONNX does not."""
    return graph.cast(operand if isinstance(operand, Tensor) else np.asarray(operand), node.dtype)


def _positive_part(graph: Graph, a: Operand) -> Tensor:
    return graph.node("Max", a, _number(0, a))


def _expm1_below(graph: Graph, a: Operand) -> Tensor:
    """Return exp(a) - 1 where a is below 0, and 0 elsewhere."""
    power = graph.node("Exp", graph.node("Min", a, _number(0, a)))
    return graph.node("Sub", power, _number(1, a))


def _softplus(graph: Graph, a: Operand) -> Tensor:
    power = graph.node("Exp", graph.node("Neg", graph.node("Abs", a)))
    above = graph.node("Log", graph.node("Add", power, _number(1, a)))
    return graph.node("Add", _positive_part(graph, a), above)


def _leaky_relu(graph: Graph, a: Operand, slope: float = 0.01) -> Tensor:
    below = graph.node("Mul", graph.node("Min", a, _number(0, a)), _number(slope, a))
    return graph.node("Add", _positive_part(graph, a), below)


def _elu(graph: Graph, a: Operand, alpha: float = 1.0) -> Tensor:
    below = graph.node("Mul", _expm1_below(graph, a), _number(alpha, a))
    return graph.node("Add", _positive_part(graph, a), below)


def _selu(graph: Graph, a: Operand) -> Tensor:
    below = graph.node("Mul", _expm1_below(graph, a), _number(SELU_SCALE * SELU_ALPHA, a))
    return graph.node("Add", graph.node("Mul", _positive_part(graph, a), _number(SELU_SCALE, a)), below)


def add_sigmoid(graph: Graph, a: Operand) -> Tensor:
    """Add 1 / (1 + exp(-a)), which is exact to the last digits far below zero, where onnxruntime's Sigmoid is 0."""
    power = graph.node("Exp", graph.node("Neg", a))
    return graph.node("Div", _number(1, a), graph.node("Add", power, _number(1, a)))


def _silu(graph: Graph, a: Operand) -> Tensor:
    return graph.node("Mul", a, add_sigmoid(graph, a))


def _mish(graph: Graph, a: Operand) -> Tensor:
    power = graph.node("Exp", graph.node("Min", a, _number(20, a)))
    ratio = graph.node("Mul", power, graph.node("Add", power, _number(2, a)))
    return graph.node("Mul", a, graph.node("Div", ratio, graph.node("Add", ratio, _number(2, a))))


def _gelu(graph: Graph, a: Operand) -> Tensor:
    scaled = graph.cast(graph.node("Mul", a, _number(math.sqrt(0.5), a)), np.float32)
    erf = graph.cast(graph.node("Erf", scaled), a.dtype)
    half = _number(0.5, a)
    return graph.node("Mul", a, graph.node("Add", graph.node("Mul", erf, half), half))


ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": lambda graph, a: graph.node("Relu", a),
    "tanh": lambda graph, a: graph.node("Tanh", a),
    "sigmoid": add_sigmoid,
    "softplus": _softplus,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "silu": _silu,
    "mish": _mish,
    "gelu": _gelu,
}


def _activation(name: str) -> Form:
    return lambda graph, node, a, *settings: ACTIVATIONS[name](graph, a, *settings)


def _activated(graph: Graph, a: Tensor, activation: str | None) -> Tensor:
    return a if activation is None else ACTIVATIONS[activation](graph, a)


def _clip(graph: Graph, node: Value, a: Any, low: Any, high: Any) -> Operand:
    for kind, limit in (("Max", low), ("Min", high)):
        if limit is not None:
            a = graph.node(kind, a, np.asarray(limit, a.dtype))
    return a  # type: ignore[no-any-return]


# --- layers ---------------------------------------------------------------------------------------------------------


def _linear(graph: Graph, node: Value, x: Any, weight: Any, bias: Any, activation: str | None) -> Tensor:
    out = graph.node("MatMul", _typed(graph, node, x), _typed(graph, node, weight))
    return _activated(graph, out if bias is None else graph.node("Add", out, _typed(graph, node, bias)), activation)


def _scaled_linear(
    graph: Graph, node: Value, x: Any, weight: Any, bias: Any, activation: str | None, weight_factor: float,
    bias_factor: float,
) -> Tensor:  # fmt: skip
    return _linear(graph, node, x, weight * _number(weight_factor, weight), bias * _number(bias_factor, bias),
                   activation)  # fmt: skip


def _input_linear(
    graph: Graph, node: Value, dense: Any, rows: Any, scale: Any, weight: Any, bias: Any, activation: str | None,
    weight_factor: float, bias_factor: float,
) -> Tensor:  # fmt: skip
    count = node.inputs[0].shape[1]  # of the dense inputs
    inputs, outputs = weight.shape
    members = scale.shape[:-1]
    factors = (scale * _number(weight_factor, scale)).reshape(-1, inputs).T[:, :, None]
    matrix = np.zeros((inputs + 1, factors.shape[1] * outputs), weight.dtype)  # the last row is for what adds nothing
    matrix[:-1] = (weight[:, None, :] * factors).reshape(inputs, -1)
    parts = [graph.node("MatMul", dense, matrix[:count])] if count else []
    if rows is not None:
        levels = graph.node("Gather", matrix[count:], rows, axis=0)  # (rows, columns, outputs)
        parts.append(graph.node("ReduceSum", levels, np.array([1]), keepdims=0))
    out = parts[0] if len(parts) == 1 else graph.node("Add", *parts)
    if members:
        out = graph.node("Reshape", out, np.array([-1, *members, outputs]))
    return _activated(graph, graph.node("Add", out, bias * _number(bias_factor, bias)), activation)


def _layer_norm(graph: Graph, node: Value, x: Any, weight: Any, bias: Any, eps: float) -> Tensor:
    features = node.shape[-1]
    weight = np.ones(features, node.dtype) if weight is None else weight
    bias = np.zeros(features, node.dtype) if bias is None else bias
    return graph.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)


def _matmul(graph: Graph, node: Value, a: Any, b: Any) -> Tensor:
    """Add a product; a reshape that changes nothing keeps runtimes from making one node of it and a transposition.

    Older versions of onnxruntime do not take that node where there are no rows.
    """
    left, right = _typed(graph, node, a), _typed(graph, node, b)
    if isinstance(left, Tensor) and np.ndim(node.operands[0]) > 2:
        left = graph.node("Reshape", left, np.zeros(np.ndim(node.operands[0]), np.int64))
    return graph.node("MatMul", left, right)


# --- shapes and sums ------------------------------------------------------------------------------------------------


def _reshape(graph: Graph, node: Value, a: Any, shape: tuple[int, ...]) -> Tensor:
    if shape.count(-1) > 1:
        raise SettingError(f"reshape to {node.shape}: more than one axis depends on the number of rows")
    return graph.node("Reshape", a, np.array(shape, np.int64))


def _transpose(graph: Graph, node: Value, a: Any, axes: tuple[int, ...] | None) -> Tensor:
    order = normalize_axes(axes, node.ndim)
    return graph.node("Transpose", a, perm=order[::-1] if axes is None else order)


def _swapaxes(graph: Graph, node: Value, a: Any, first: int, second: int) -> Tensor:
    order = list(range(node.ndim))
    order[first], order[second] = order[second], order[first]
    return graph.node("Transpose", a, perm=order)


def _reduction(kind: str) -> Form:
    def form(graph: Graph, node: Value, a: Any, axis: Any, keepdims: bool = False) -> Tensor:
        axes = np.array(normalize_axes(axis, np.ndim(node.operands[0])), np.int64)
        return graph.node(kind, a, axes, keepdims=int(keepdims))

    return form


def _softmax(kind: str) -> Form:
    return lambda graph, node, a, axis: graph.node(kind, a, axis=axis)


FORMS: dict[str, Form] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "input_linear": _input_linear,
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "add": _elementwise("Add"),
    "subtract": _elementwise("Sub"),
    "multiply": _elementwise("Mul"),
    "divide": _elementwise("Div"),
    "power": _elementwise("Pow"),
    "maximum": _elementwise("Max"),
    "minimum": _elementwise("Min"),
    "negative": _elementwise("Neg"),
    "abs": _elementwise("Abs"),
    "exp": _elementwise("Exp"),
    "log": _elementwise("Log"),
    "sqrt": _elementwise("Sqrt"),
    "square": lambda graph, node, a: graph.node("Mul", a, a),
    "clip": _clip,
    "dropout": lambda graph, node, a, mask: a,  # without a generator, as with one it depends on the number of rows
    **{name: _activation(name) for name in ACTIVATIONS},
    "reshape": _reshape,
    "transpose": _transpose,
    "swapaxes": _swapaxes,
    "sum": _reduction("ReduceSum"),
    "mean": _reduction("ReduceMean"),
    "softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"),
}
