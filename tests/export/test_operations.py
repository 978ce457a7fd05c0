"""Recorded operations as ONNX nodes: the same numbers in float32 and float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import session

from karp import nn
from karp.autograd import (
    Value,
    clip,
    dropout,
    exp,
    layer_norm,
    log,
    log_softmax,
    maximum,
    mean,
    minimum,
    reshape,
    softmax,
    sqrt,
    square,
    swapaxes,
    transpose,
)
from karp.autograd import sum as total
from karp.errors import SettingError
from karp.export import graph, onnx
from karp.export.operations import ACTIVATIONS, FORMS

pytest.importorskip("onnx")

DTYPES = [np.float32, np.float64]
EDGES = [0.0, -0.0, 1e-6, -1e-6, 0.5, -0.5, 3, -3, 19.9, 20.1, -20.1, 90, -90, 800, -800, 1e30, -1e30]


class Function(nn.Module):
    """A module that applies a function to its input and to a parameter."""

    def __init__(self, function: Any, dtype: Any) -> None:
        self.function = function
        self.factor = Value(np.array([0.5, 2.0, -1.0], dtype))

    def __call__(self, x: Any, rng: Any = None) -> Value:
        made: Value = self.function(x, self.factor)
        return made


FUNCTIONS: dict[str, Any] = {
    "add": lambda x, f: x + f + 1,
    "subtract": lambda x, f: 1 - (x - f),
    "multiply": lambda x, f: x * f * 3,
    "divide": lambda x, f: x / f / 2.0,
    "power": lambda x, f: x**2 * f**3,
    "negative": lambda x, f: -x * f,
    "abs": lambda x, f: abs(x) * f,
    "maximum": lambda x, f: maximum(x, f),
    "minimum": lambda x, f: minimum(x, f),
    "exp": lambda x, f: exp(x * f),
    "log": lambda x, f: log(abs(x) + abs(f)),
    "sqrt": lambda x, f: sqrt(abs(x) + abs(f)),
    "square": lambda x, f: square(x) * f,
    "dropout": lambda x, f: dropout(x * f, 0.5),
    "clip": lambda x, f: clip(x * f, -0.5, 1.0) + clip(x, None, 0.25),
    "matmul": lambda x, f: x @ f.reshape(3, 1),
    "layer_norm": lambda x, f: layer_norm(x, f, f) + layer_norm(x),
    "reshape": lambda x, f: reshape(x * f, (len(x), 3, 1)),
    "transpose": lambda x, f: transpose(transpose(x.reshape(len(x), 3, 1), (1, 2, 0))) * f,
    "swapaxes": lambda x, f: swapaxes(swapaxes(x * f, 0, 1), 0, -1),
    "sum": lambda x, f: total(x * f, axis=-1, keepdims=True),
    "mean": lambda x, f: mean(x * f, axis=1),
    "softmax": lambda x, f: softmax(x * f),
    "log_softmax": lambda x, f: log_softmax(x * f),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_is_the_same(tmp_path: Path, name: str, dtype: Any) -> None:
    module = Function(FUNCTIONS[name], dtype)
    onnx(module, tmp_path / "m.onnx", inputs=3)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(dtype)
    run = session(tmp_path / "m.onnx")
    (found,) = run.run(None, {"x": x})
    expected = module(Value(x)).data
    assert (expected.dtype, expected.shape) == (found.dtype, found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype is np.float32 else 1e-13, atol=1e-6)
    (none,) = run.run(None, {"x": x[:0]})
    assert len(none) == 0 or none.shape[1:] == found.shape[1:]


def test_every_operation_with_a_form_is_tested() -> None:
    assert set(FORMS) == {*FUNCTIONS, *ACTIVATIONS, "linear", "scaled_linear", "input_linear"}
    assert set(nn.layers.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_the_same(tmp_path: Path, activation: str, dtype: Any) -> None:
    """Alone, and inside of the operation `linear`."""
    model = nn.Sequential(nn.layers.ACTIVATIONS[activation], nn.Linear(1, 1, activation=activation, dtype=dtype))
    model.layers[1].weight.data[...] = 1.5
    onnx(model, tmp_path / "m.onnx", inputs=1)
    x = np.array(EDGES, dtype)[:, None]
    (found,) = session(tmp_path / "m.onnx").run(None, {"x": x})
    with np.errstate(over="ignore"):  # karp's error function squares 1e30
        expected = model(x).data
    single = dtype is np.float32 or activation == "gelu"
    np.testing.assert_allclose(found, expected, rtol=2e-6 if single else 1e-13, atol=1e-6 if single else 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", [{}, {"layer_norm": True, "dropout": 0.5}, {"activation": "gelu"}])
def test_an_mlp_is_the_same(tmp_path: Path, settings: dict[str, Any], dtype: str) -> None:
    model = nn.MLP(5, [8, 6], 3, dtype=dtype, **settings)
    onnx(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(9, 5)).astype(dtype)
    run = session(tmp_path / "m.onnx")
    for rows in (x, x[:1], x[:0]):
        (found,) = run.run(None, {"x": rows})
        np.testing.assert_allclose(found, model(rows).data, rtol=1e-4, atol=1e-6)
    assert ["rows", 3] == run.get_outputs()[0].shape


def test_a_file_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    model = nn.MLP(5, [8], 3)
    for name in ("a", "b"):
        onnx(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x, f: (x * f).std(), "std has no ONNX form in karp; those that have are linear"),
        (lambda x, f: x * np.ones((len(x), 1)), "constant that is of shape .2, 1. for 2 rows and of shape .3, 1"),
        (lambda x, f: (x * f).reshape(len(x) * 3), None),
        (lambda x, f: x * f * len(x), "a constant that is 2 for 2 rows and 3 for 3"),
        (lambda x, f: x * f if len(x) == 2 else x + f, "something else for two rows than for three"),
        (lambda x, f: f * 2, "does not depend on its input"),
    ],
)
def test_what_has_no_graph_is_refused(tmp_path: Path, function: Any, said: str | None) -> None:
    if said is None:
        onnx(Function(function, np.float32), tmp_path / "m.onnx", inputs=3)
        return
    with pytest.raises(SettingError, match=said):
        onnx(Function(function, np.float32), tmp_path / "m.onnx", inputs=3)
    assert [] == list(tmp_path.iterdir())


def test_a_model_that_is_too_large_for_the_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LARGEST", 1000)
    with pytest.raises(SettingError, match="the model takes more than 1,000 bytes"):
        onnx(nn.MLP(20, [20], 3), tmp_path / "m.onnx")
    assert [] == list(tmp_path.iterdir())


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="dict has no ONNX form: pass a model"):
        onnx({}, tmp_path / "m.onnx")
    with pytest.raises(SettingError, match="how many numbers a row has for Function is not known: pass inputs="):
        onnx(Function(lambda x, f: x, np.float32), tmp_path / "m.onnx")
