"""Layers and models made of them, their initial weights and their arguments."""

import copy
import inspect
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp import autograd as ag
from karp import nn
from karp.autograd import Value
from karp.errors import SettingError, ShapeError

X = np.random.default_rng(0).standard_normal((5, 3))
PREDICTION = np.random.default_rng(1).standard_normal((6, 2))
TARGET = np.random.default_rng(2).standard_normal((6, 2))


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def test_an_mlp_has_the_names_shapes_and_order_of_its_layers() -> None:
    model = nn.MLP(3, [5, 4], 2)
    expected = [
        ("layers.0.weight", (3, 5)),
        ("layers.0.bias", (5,)),
        ("layers.1.weight", (5, 4)),
        ("layers.1.bias", (4,)),
        ("layers.2.weight", (4, 2)),
        ("layers.2.bias", (2,)),
    ]
    assert expected == [(name, value.shape) for name, value in model.named_parameters()]
    for _, value in model.named_parameters():
        assert np.float32 == value.dtype
        assert value.data.flags.c_contiguous
        assert value.operation is None
    assert not any(value.data.any() for name, value in model.named_parameters() if name.endswith("bias"))


def test_a_seed_gives_the_same_model_and_another_seed_another() -> None:
    one, same, other = (nn.MLP(3, [3, 3], 3, seed=seed).parameters.data for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    first, second = nn.MLP(3, [3, 3], 3).layers[:2]
    assert not np.array_equal(first.weight.data, second.weight.data)


SIZE = st.integers(1, 6)
ARGUMENTS = st.fixed_dictionaries(
    {"inputs": SIZE | SIZE.map(np.int64), "hidden": st.lists(SIZE, max_size=3) | st.tuples(SIZE), "outputs": SIZE},
    optional={
        "activation": st.sampled_from(sorted(nn.ACTIVATIONS)),
        "dropout": st.floats(0, 1, exclude_max=True) | st.floats(0, 0.875, width=32).map(np.float32),
        "layer_norm": st.booleans() | st.booleans().map(np.bool_),
        "seed": st.integers(0, 2**70) | st.integers(0, 9).map(np.uint8),
        "dtype": st.sampled_from(["float32", "f8", np.float64, np.dtype(np.float32)]),
    },
)


@given(ARGUMENTS)
def test_the_config_of_an_mlp_makes_the_same_again(arguments: dict[str, Any]) -> None:
    model = nn.MLP(**arguments)
    config = model.config
    assert list(inspect.signature(nn.MLP).parameters) == list(config)
    read = json.loads(json.dumps(config))
    assert config == read
    again = nn.MLP(**read)
    assert (config, repr(model)) == (again.config, repr(again))
    assert model.parameters.layout.to_dict() == again.parameters.layout.to_dict()
    assert model.parameters.sha256() == again.parameters.sha256()


def test_the_config_of_an_mlp_is_a_copy_and_knows_no_training() -> None:
    model = nn.MLP(3, [4], 1, dropout=0.25)
    model.config["hidden"].append(7)
    model.parameters.data[:] = 0
    model.note = "an attribute of the program's"  # type: ignore[attr-defined]
    for same in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert nn.MLP(3, [4], 1, dropout=0.25).config == same.config
        assert {"hidden": [4], "dropout": 0.25, "dtype": "float32", "seed": 0}.items() <= same.config.items()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "dropout", 0.5),
        lambda model: setattr(model, "activation", "tanh"),
        lambda model: model.layers.append(nn.Linear(1, 1)),
        lambda model: model.layers.__setitem__(0, nn.Linear(3, 4, activation="tanh")),
        lambda model: setattr(model.layers[1], "bias", None),
        lambda model: model.norms.clear(),
    ],
    ids=["dropout", "activation", "another layer", "replaced", "no bias", "no norms"],
)
def test_an_mlp_that_was_changed_has_no_config(change: Callable[[nn.MLP], None]) -> None:
    model = nn.MLP(3, [4], 1, layer_norm=True)
    change(model)
    with pytest.raises(SettingError, match="changed since it was made, so no arguments make it"):
        _ = model.config


@pytest.mark.parametrize("activation", sorted(nn.ACTIVATIONS))
@pytest.mark.parametrize("layer_norm", [False, True])
def test_an_mlp_is_the_composition_of_its_parts(activation: str, layer_norm: bool) -> None:
    model = nn.MLP(3, [5, 4], 2, activation=activation, layer_norm=layer_norm, dtype=np.float64)
    expected: Any = X
    for place, layer in enumerate(model.layers):
        expected = expected @ layer.weight.data + layer.bias.data  # type: ignore[union-attr]
        if place < 2:
            if layer_norm:
                expected = ag.layer_norm(expected).data
            expected = nn.ACTIVATIONS[activation](expected).data
    np.testing.assert_allclose(expected, model(X).data, rtol=1e-12)
    ag.check_grads(lambda *_: model(X), 1.0)
    for _, value in model.named_parameters():
        assert value.dtype == np.float64


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_model_in_float32_equals_torch(activation: str) -> None:
    torch = pytest.importorskip("torch")
    model = nn.MLP(3, [8], 4, activation=activation)
    layers = []
    for layer in model.layers:
        twin = torch.nn.Linear(*layer.weight.shape)
        twin.weight.data = torch.tensor(layer.weight.data.T)
        twin.bias.data = torch.tensor(layer.bias.data)  # type: ignore[union-attr]
        layers.append(twin)
    after = getattr(torch.nn.functional, activation)
    labels = np.array([0, 3, 1, 2, 0])
    expected = torch.nn.functional.cross_entropy(
        layers[1](after(layers[0](torch.tensor(X, dtype=torch.float32)))), torch.tensor(labels)
    )
    expected.backward()
    loss = nn.cross_entropy(model(X), labels)
    loss.backward()
    np.testing.assert_allclose(expected.item(), loss.item(), rtol=1e-6)
    for twin, layer in zip(layers, model.layers, strict=True):
        np.testing.assert_allclose(twin.weight.grad.numpy().T, layer.weight.grad, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(twin.bias.grad.numpy(), layer.bias.grad, rtol=1e-4, atol=1e-7)  # type: ignore[union-attr]


def test_dropout_happens_only_with_a_generator() -> None:
    model = nn.MLP(3, [200], 2, dropout=0.5)
    assert np.array_equal(model(X).data, model(X).data)
    trained = model(X, rng=np.random.default_rng(0))
    assert not np.array_equal(model(X).data, trained.data)
    assert np.array_equal(trained.data, model(X, rng=np.random.default_rng(0)).data)
    trained.sum().backward()
    layer = nn.Dropout(0.5)
    assert np.array_equal(X, layer(X).data)
    assert (layer(X, rng=np.random.default_rng(0)).data == 0).any()


def test_sequential_takes_modules_and_functions() -> None:
    model = nn.Sequential(nn.Linear(3, 4), ag.tanh, nn.Dropout(0.5), nn.LayerNorm(4), nn.Linear(4, 1, bias=False))
    assert ["layers.0.weight", "layers.0.bias", "layers.3.weight", "layers.3.bias", "layers.4.weight"] == names(model)
    assert (5, 1) == model(X, rng=np.random.default_rng(0)).shape
    assert Value is type(nn.Sequential()(X))


def test_an_embedding_adds_up_repeated_rows() -> None:
    layer = nn.Embedding(5, 2)
    out = layer(np.array([[1, 1], [4, 1]]))
    assert (2, 2, 2) == out.shape
    out.sum().backward()
    np.testing.assert_array_equal([0, 3, 0, 0, 1], layer.weight.grad[:, 0])


@pytest.mark.parametrize(
    ("f", "says"),
    [
        (lambda: nn.Linear(0, 1), "Linear: inputs must be a whole number from 1, not 0"),
        (lambda: nn.Linear(3, -1), "Linear: outputs must be a whole number from 1, not -1"),
        (lambda: nn.Linear(3.0, 1), "Linear: inputs must be .* not 3.0"),
        (lambda: nn.Linear(True, 1), "Linear: inputs must be .* not True"),
        (lambda: nn.Linear("3", 1), "Linear: inputs must be .* not '3'"),
        (lambda: nn.Linear(10**9, 10**9), "inputs x outputs is 1000000000 x 1000000000, which takes more than 16 GiB"),
        (lambda: nn.Linear(10**30, 1), "Linear: inputs must be"),
        (lambda: nn.Linear(1, 1, bias="no"), "Linear: bias must be True or False, not 'no'"),
        (lambda: nn.Linear(1, 1, activation="relU"), "Linear: no activation 'relU'; there are relu"),
        (lambda: nn.Linear(1, 1, activation=ag.relu), "Linear: no activation <function"),
        (lambda: nn.Linear(1, 1, init="he"), "no initialiser 'he'; there are he_uniform"),
        (lambda: nn.Linear(1, 1, init=3), "init must be a name or a function of .* not 3"),
        (lambda: nn.Linear(1, 1, init=lambda i, o, rng: np.full((i, o), np.nan)), "not finite in float32"),
        (lambda: nn.Linear(1, 1, init=lambda i, o, rng: np.full((i, o), 1e39)), "not finite in float32"),
        (lambda: nn.Linear(1, 1, init=lambda i, o, rng: np.full((i, o), 1j)), "numbers of complex128"),
        (lambda: nn.Linear(1, 1, seed=None), "Linear: seed must be a whole number from 0, not None"),
        (lambda: nn.Linear(1, 1, seed=[1, -1]), "each part of the seed must be .* not -1"),
        (lambda: nn.Linear(1, 1, dtype=None), "Linear: dtype is None: parameters are float32 or float64"),
        (lambda: nn.Linear(1, 1, dtype=int), "dtype is int64"),
        (lambda: nn.Linear(1, 1, dtype="f33"), "dtype is 'f33'"),
        (lambda: nn.Linear(1, 1, dtype=">f4"), "dtype is >f4"),
        (lambda: nn.LayerNorm(0), "LayerNorm: features must be a whole number from 1, not 0"),
        (lambda: nn.LayerNorm(3, eps=np.nan), "LayerNorm: eps must be a number from 0 to 1, not nan"),
        (lambda: nn.LayerNorm(3, eps="1e-5"), "LayerNorm: eps must be"),
        (lambda: nn.Embedding(0, 1), "Embedding: count must be"),
        (lambda: nn.Embedding(1, 2.0), "Embedding: features must be"),
        (lambda: nn.Embedding(1, 2, seed=1.5), "Embedding: seed must be"),
        (lambda: nn.Dropout(-0.1), "Dropout: p must be a number from 0 to below 1, not -0.1"),
        (lambda: nn.Dropout(np.nan), "Dropout: p must be .* not nan"),
        (lambda: nn.Dropout("0.5"), "Dropout: p must be .* not '0.5'"),
        (lambda: nn.Sequential(nn.Linear), "Sequential takes modules and functions one by one"),
        (lambda: nn.MLP(1, [1], 1, activation="x"), "MLP: no activation 'x'"),
        (lambda: nn.MLP(1, [1], 1, activation=["relu"]), r"MLP: no activation \['relu'\]"),
        (lambda: nn.MLP(1, [1], 1, activation=None), "MLP: no activation None"),
        (lambda: nn.MLP(1, [1], 1, dropout=1.0), "MLP: dropout must be a number from 0 to below 1, not 1.0"),
        (lambda: nn.MLP(1, [1], 1, layer_norm=1), "MLP: layer_norm must be True or False, not 1"),
        (lambda: nn.MLP(3.0, [1], 1), "MLP: inputs must be a whole number from 1, not 3.0"),
        (lambda: nn.MLP(3, [4, 0], 1), r"MLP: hidden\[1\] must be a whole number from 1, not 0"),
        (lambda: nn.MLP(3, [4, None], 1), r"MLP: hidden\[1\] must be"),
        (lambda: nn.MLP(3, "16", 1), r"hidden is a list of sizes, one for each hidden layer: \[128, 64\], not '16'"),
        (lambda: nn.MLP(3, np.int64(16), 1), r"hidden is a list of sizes.* \[16\], not"),
        (lambda: nn.MLP(3, {16, 8}, 1), "hidden is a list of sizes"),
        (lambda: nn.MLP(3, None, 1), "hidden is a list of sizes"),
        (lambda: nn.MLP(3, [4], np.nan), "MLP: outputs must be"),
        (lambda: nn.MLP(3, [4], 1, seed=None), "MLP: seed must be a whole number from 0, not None"),
        (lambda: nn.MLP(3, [4], 1, seed=-1), "MLP: seed must be .* not -1"),
        (lambda: nn.MLP(3, [4], 1, dtype="int8"), "dtype is int8"),
    ],
)
def test_settings_that_cannot_be_used(f: Any, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        f()


def test_numbers_of_numpy_are_the_numbers_they_are() -> None:
    expected = nn.MLP(3, [4, 5], 2, dropout=0.5, seed=7)
    model = nn.MLP(np.int64(3), np.array([4, 5]), np.uint8(2), dropout=np.float32(0.5), seed=np.int32(7))
    assert nn.Linear(2, 3, bias=np.False_).bias is None
    assert expected.parameters.sha256() == model.parameters.sha256()
    assert repr(expected) == repr(model)
    assert nn.MLP(3, (), 2).layers[0].weight.shape == (3, 2)  # no hidden layer is a linear model
    seeds: list[Any] = [5, np.int64(5), [5], np.array([5]), np.random.default_rng(5)]
    weights = [nn.Linear(2, 3, seed=seed).weight.data.tolist() for seed in seeds]
    assert [weights[0]] * 5 == weights


def test_an_initialiser_of_the_wrong_shape_and_a_batch_of_the_wrong_width() -> None:
    with pytest.raises(ShapeError, match="initialiser"):
        nn.Linear(2, 3, init=lambda inputs, outputs, rng: np.zeros((outputs, inputs)))
    with pytest.raises(ShapeError, match=r"linear of input \(5, 4\), weight \(3, 2\) and bias \(2,\): the input"):
        nn.MLP(3, [2], 1)(np.ones((5, 4)))


# --- initialisers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variance"),
    [("he_uniform", 2 / 300), ("he_normal", 2 / 300), ("glorot_uniform", 2 / 500), ("glorot_normal", 2 / 500)],
)
def test_initialisers_have_their_variance(name: str, variance: float) -> None:
    drawn = nn.INITIALISERS[name](300, 200, np.random.default_rng(0))
    assert (300, 200) == drawn.shape
    assert abs(float(drawn.var()) / variance - 1) < 0.02
    assert abs(float(drawn.mean())) < 4 * np.sqrt(variance / drawn.size)
    if name.endswith("uniform"):
        assert np.abs(drawn).max() <= np.sqrt(3 * variance)


@pytest.mark.parametrize("activation", [None, "tanh", "sigmoid", "relu", "gelu", "leaky_relu"])
def test_a_layer_begins_as_suits_its_activation(activation: str | None) -> None:
    init = "glorot_uniform" if activation in (None, "tanh", "sigmoid") else "he_uniform"
    expected = nn.Linear(5, 4, activation=activation, init=init)
    assert expected.weight.data.tobytes() == nn.Linear(5, 4, activation=activation).weight.data.tobytes()
