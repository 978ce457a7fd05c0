"""The models that are exported, each as a graph from its inputs to its outputs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.autograd import Value, linear
from karp.errors import SettingError
from karp.export.columns import add_columns, add_encoding
from karp.export.graph import ROWS, Graph, Operand, Tensor
from karp.export.operations import Model as Recorded
from karp.export.operations import add_operations, add_sigmoid
from karp.nn.layers import MLP, LayerNorm, Linear, Sequential
from karp.nn.module import Module
from karp.tabular.columns.column_types import listing
from karp.tabular.model import Model

Array = NDArray[Any]
LABEL, PROBABILITIES, VALUE, OUTPUT = "label", "probabilities", "value", "output"
_ACTIVATIONS = {"identity": None, "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}  # scikit-learn's names
_UNITS = {"date": ", a date in Unix seconds, UTC", "clock": ", a time of day in seconds since midnight"}
_OUT_ACTIVATIONS = ("softmax", "logistic", "identity", "exp")


def write_table_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model of `karp.fit`: a row's cells are the inputs, its label and probabilities, or value, the outputs."""
    fitted, network = model.fitted, model.network
    graph = Graph(f"karp fit: {fitted.target.name}")
    columns = add_columns(graph, fitted.schema)
    inputs = add_encoding(graph, fitted.schema, fitted.preprocessing, network.encoding, columns)

    def record(rows: int) -> tuple[Value, list[Any]]:
        numbers = np.zeros((rows, len(fitted.schema.numbers)), np.float32)
        encoded = network.encoding(numbers, np.zeros((rows, len(fitted.schema.categories)), np.int32))
        return network.apply(encoded), list(encoded)

    x = add_operations(graph, record, inputs)
    if len(model.classes):
        x = graph.node("Softmax", x, axis=-1)
    if fitted.recipe.members > 1:
        x = graph.node("ReduceMean", x, np.array([0]), keepdims=0)
    if len(model.classes):
        _add_classes(graph, x, model.classes)
    else:
        values = graph.node("Squeeze", graph.cast(x, np.float64), np.array([1]))
        values = graph.node("Mul", values, np.array(fitted.deviation))
        note = f"{fitted.target.name}{_UNITS.get(fitted.target.kind, '')}"
        graph.output(graph.node("Add", values, np.array(fitted.mean)), VALUE, [ROWS], note)
    graph.write(path)


def write_module(model: Module, path: str | os.PathLike[str], inputs: int | None) -> None:
    """Write a module that takes rows of `inputs` numbers, and returns a number or more for each.

    Raises SettingError where it has no ONNX form, or the number of inputs is not known.
    """
    size = _inputs_of(model) if inputs is None else inputs
    dtype = model.parameters.data.dtype
    graph = Graph(f"karp: {type(model).__name__}")
    x = graph.input("x", dtype, [ROWS, size], f"{size} numbers")

    def record(rows: int) -> tuple[Value, list[Any]]:
        zeros = Value(np.zeros((rows, size), dtype))
        return model(zeros), [zeros]

    output = add_operations(graph, record, [x])
    graph.output(output, OUTPUT, [ROWS, *record(1)[0].shape[1:]])
    graph.write(path)


def _inputs_of(model: Module) -> int:
    """Return how many numbers a row has for a module; raise SettingError if that is not known."""
    if isinstance(model, MLP | Sequential) and isinstance(model.layers[0], Module):
        return _inputs_of(model.layers[0])
    if isinstance(model, Linear | LayerNorm):
        return model.weight.shape[0]
    raise SettingError(f"how many numbers a row has for {type(model).__name__} is not known: pass inputs=")


def write_estimator(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator that has scikit-learn's attributes `coefs_`, `intercepts_`, `out_activation_`, ….

    Raises SettingError for an activation of another name.
    """
    activation, last = estimator.activation, estimator.out_activation_
    if activation not in _ACTIVATIONS or last not in _OUT_ACTIVATIONS:
        raise SettingError(f"the activations {activation!r:.60} and {last!r:.60} have no ONNX form in karp")
    coefs = [np.asarray(coef) for coef in estimator.coefs_]
    graph = Graph(f"karp: {type(estimator).__name__}")
    x = graph.input("X", coefs[0].dtype, [ROWS, len(coefs[0])], f"{len(coefs[0])} numbers")
    output = add_operations(graph, _layers(coefs, estimator.intercepts_, _ACTIVATIONS[activation]), [x])
    classes = getattr(estimator, "classes_", None)
    if last == "softmax":
        _add_classes(graph, graph.node("Softmax", output, axis=-1), np.asarray(classes))
    elif last == "logistic":
        _add_logistic(graph, add_sigmoid(graph, output), np.asarray(classes), coefs[-1].shape[1])
    else:
        output = graph.node("Exp", output) if last == "exp" else output
        single = coefs[-1].shape[1] == 1
        output = graph.node("Squeeze", output, np.array([1])) if single else output
        graph.output(output, VALUE, [ROWS] if single else [ROWS, coefs[-1].shape[1]])
    graph.write(path)


def _layers(coefs: list[Array], intercepts: Any, activation: str | None) -> Recorded:
    """Return what runs layers of these weights, with an activation behind each but the last."""

    def record(rows: int) -> tuple[Value, list[Any]]:
        given = x = Value(np.zeros((rows, len(coefs[0])), coefs[0].dtype))
        for index, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True), 1):
            x = linear(x, coef, intercept, None if index == len(coefs) else activation)
        return x, [given]

    return record


def _add_classes(graph: Graph, probabilities: Tensor, classes: Array) -> None:
    """Add the outputs of a classification: the label, in the dtype of the classes, and the probabilities."""
    place = graph.node("ArgMax", probabilities, dtype=np.int64, axis=1, keepdims=0)
    graph.output(_chosen(graph, classes, place), LABEL, [ROWS])
    graph.output(probabilities, PROBABILITIES, [ROWS, len(classes)], _classes_note(classes))


def _classes_note(classes: Array) -> str:
    return f"of the classes {listing(map(repr, classes.tolist()), 100)}"


def _add_logistic(graph: Graph, probability: Tensor, classes: Array, outputs: int) -> None:
    """Add the outputs for logistic ones: the probability of the second of two classes, or one for each of many labels.

    As in scikit-learn a label is set from above one half on.
    """
    half, one = np.array(0.5, probability.dtype), np.array(1, probability.dtype)
    above = graph.node("Cast", graph.node("Greater", probability, half, dtype=np.bool_), dtype=np.int64, to=7)
    if outputs == 1:
        above = graph.node("Squeeze", above, np.array([1]))
        both = graph.node("Concat", graph.node("Sub", one, probability), probability, axis=1)
        two = classes[[0, len(classes) - 1]]  # there may be one alone
        graph.output(_chosen(graph, two, above), LABEL, [ROWS])
        graph.output(both, PROBABILITIES, [ROWS, 2], _classes_note(classes))
    else:
        graph.output(above, LABEL, [ROWS, outputs])
        graph.output(probability, PROBABILITIES, [ROWS, outputs])


def _chosen(graph: Graph, classes: Array, place: Operand) -> Tensor:
    """Return the classes at these places, in their dtype."""
    texts = classes.dtype.kind in "OU"
    return graph.node("Gather", classes.astype(object) if texts else classes, place, axis=0)
