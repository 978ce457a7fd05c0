"""Modules, their names and weights, initialisers, losses; each against torch or a formula."""

import copy
from typing import Any

import numpy as np
import pytest

from karp import autograd as ag
from karp import nn
from karp.autograd import Value
from karp.errors import SettingError, ShapeError

X = np.random.default_rng(0).standard_normal((5, 3))
PREDICTION = np.random.default_rng(1).standard_normal((6, 2))
TARGET = np.random.default_rng(2).standard_normal((6, 2))


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


# --- modules --------------------------------------------------------------------------------------------------------


def test_names_follow_attributes_lists_and_tuples() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            self.scale = Value(np.ones(2))
            self.other = "no parameter"

    class Outer(nn.Module):
        def __init__(self) -> None:
            self.first = Inner()
            self.pairs = [(Inner(), Value(np.ones(1))), Inner()]
            self.tied = self.first.scale
            self.result = Value(np.ones(1)) * 2.0

    assert ["first.scale", "pairs.0.0.scale", "pairs.0.1", "pairs.1.scale"] == names(Outer())


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


def test_parameters_are_found_again_when_a_model_changes() -> None:
    model = nn.MLP(3, [4], 2)
    twin = Value(model.layers[1].bias.data.copy())
    kept = model.parameters
    assert kept is model.parameters
    changes = [
        lambda: model.layers.append(nn.Linear(2, 2)),
        lambda: model.layers.__setitem__(0, nn.Linear(3, 4)),
        lambda: model.layers.__setitem__(1, Value(np.ones(3, np.float32))),
        lambda: model.layers.pop(),
        lambda: model.norms.append(Value(np.ones(1, np.float32))),
        lambda: model.norms.__setitem__(0, Value(np.ones(1, np.float32))),  # equal, and another
        lambda: setattr(model.layers[0], "bias", None),
        lambda: setattr(model, "extra", twin),
        lambda: delattr(model, "extra"),
    ]
    for change in changes:
        change()
        now = model.parameters
        assert now is not kept
        assert [id(value) for _, value in model.named_parameters()] == [id(value) for value in now.values]
        for value in now.values:
            value.grad = np.ones(value.shape, np.float32)
        model.zero_grad()
        assert all(value.grad is None for value in now.values)
        kept = now
    model.note = "no parameter"
    nn.Linear(1, 1)
    assert kept is model.parameters
    kept.values[0].data = kept.values[0].data.copy()  # no view of the vector any more
    assert kept is not model.parameters


def test_parameters_are_one_vector_and_are_kept_while_they_are_current() -> None:
    model = nn.MLP(3, [4], 2)
    parameters = model.parameters
    assert parameters is model.parameters
    nn.cross_entropy(model(X), np.array([0, 1, 0, 1, 0])).backward()
    assert all(np.shares_memory(value.grad, parameters.grad) for _, value in model.named_parameters())
    model.layers[0].weight.data = np.zeros((3, 4), np.float32)
    again = model.parameters
    assert again is not parameters
    model.layers.append(nn.Linear(2, 2))
    assert len(again.names) + 2 == len(model.parameters.names)


def test_a_copy_of_a_model_trains_on_a_vector_of_its_own() -> None:
    model = nn.MLP(3, [4], 2)
    before = model.parameters.data.copy()
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(model(X).data, twin(X).data)
    twin.parameters.data[:] += 1.0
    assert not np.array_equal(model(X).data, twin(X).data)
    twin(X).sum().backward()
    assert twin.parameters.grad.any()
    assert not model.parameters.grad.any()
    np.testing.assert_array_equal(before, model.parameters.data)


def test_zero_grad_forgets_all_gradients() -> None:
    model = nn.MLP(3, [4], 1)
    model(X).sum().backward()
    model.zero_grad()
    assert all(value.grad is None for _, value in model.named_parameters())


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
    "f",
    [
        lambda: nn.Linear(0, 1),
        lambda: nn.Linear(1, 1, activation="relU"),
        lambda: nn.Linear(1, 1, init="he"),
        lambda: nn.MLP(1, [1], 1, activation="x"),
        lambda: nn.MLP(1, [1], 1, dropout=1.0),
        lambda: nn.Dropout(-0.1),
        lambda: nn.LayerNorm(0),
        lambda: nn.Embedding(0, 1),
        lambda: nn.huber(Value(1.0), 1.0, delta=0.0),
    ],
)
def test_settings_that_cannot_be_used(f: Any) -> None:
    with pytest.raises(SettingError):
        f()


def test_an_initialiser_of_the_wrong_shape_and_a_batch_of_the_wrong_width() -> None:
    with pytest.raises(ShapeError, match="initialiser"):
        nn.Linear(2, 3, init=lambda inputs, outputs, rng: np.zeros((outputs, inputs)))
    with pytest.raises(ShapeError, match=r"linear of shapes \(5, 4\) and \(3, 2\)"):
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


# --- losses ---------------------------------------------------------------------------------------------------------

LOSSES = [
    ("mse", nn.mse, TARGET, lambda f: f.mse_loss),
    ("mae", nn.mae, TARGET, lambda f: f.l1_loss),
    ("huber", nn.huber, TARGET, lambda f: f.huber_loss),
    (
        "huber delta",
        lambda p, t: nn.huber(p, t, delta=0.3),
        TARGET,
        lambda f: lambda p, t: f.huber_loss(p, t, delta=0.3),
    ),
    ("binary_cross_entropy", nn.binary_cross_entropy, (TARGET > 0) * 1.0, lambda f: f.binary_cross_entropy_with_logits),
    (
        "binary_cross_entropy soft",
        nn.binary_cross_entropy,
        np.abs(np.sin(TARGET)),
        lambda f: f.binary_cross_entropy_with_logits,
    ),
    ("hinge", nn.hinge, np.sign(TARGET), lambda f: lambda p, t: f.relu(1 - p * t).mean()),
]
every = pytest.mark.parametrize(("name", "loss", "target", "torch_loss"), LOSSES, ids=[row[0] for row in LOSSES])


@every
def test_losses_and_their_gradients_equal_torch(name: str, loss: Any, target: Any, torch_loss: Any) -> None:
    torch = pytest.importorskip("torch")
    prediction = torch.tensor(PREDICTION, requires_grad=True)
    expected = torch_loss(torch.nn.functional)(prediction, torch.tensor(target))
    expected.backward()
    value = Value(PREDICTION)
    actual = loss(value, target)
    actual.backward()
    np.testing.assert_allclose(expected.item(), actual.item(), rtol=1e-12)
    np.testing.assert_allclose(prediction.grad.numpy(), value.grad, rtol=1e-10)


@every
def test_losses_are_means_over_samples(name: str, loss: Any, target: Any, torch_loss: Any) -> None:
    whole = loss(Value(PREDICTION), target).item()
    parts = [loss(Value(PREDICTION[rows]), target[rows]).item() for rows in (slice(0, 4), slice(4, 6))]
    np.testing.assert_allclose(whole, (4 * parts[0] + 2 * parts[1]) / 6, rtol=1e-12)


@every
def test_losses_broadcast_nothing_and_need_samples(name: str, loss: Any, target: Any, torch_loss: Any) -> None:
    with pytest.raises(ShapeError, match=r"\(6, 2\) and \(6,\)"):
        loss(Value(PREDICTION), target[:, 0])
    with pytest.raises(ShapeError, match="zero samples"):
        loss(Value(PREDICTION[:0]), target[:0])


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_keep_the_dtype_and_take_lists(name: str, loss: Any, target: Any, torch_loss: Any, dtype: Any) -> None:
    value = Value(PREDICTION.astype(dtype))
    result = loss(value, target.tolist())
    assert dtype == result.dtype
    result.backward(0.5)
    assert dtype == value.grad.dtype


@every
def test_losses_of_numbers(name: str, loss: Any, target: Any, torch_loss: Any) -> None:
    number = Value(float(PREDICTION[0, 0]))
    array = Value(PREDICTION[:1, 0])
    first, second = loss(number, float(target[0, 0])), loss(array, target[:1, 0])
    first.backward()
    second.backward()
    np.testing.assert_allclose([second.item(), array.grad[0]], [first.item(), number.grad], rtol=1e-12)


@pytest.mark.parametrize("loss", [nn.mse, nn.mae, nn.huber])
def test_a_target_can_be_a_value(loss: Any) -> None:
    ag.check_grads(loss, PREDICTION, TARGET)


def test_four_points_are_learned_by_numbers_alone() -> None:
    rng = np.random.default_rng(0)
    weights = [[Value(float(one)) for one in rng.uniform(-1, 1, 4)] for _ in range(4)]
    last = [Value(float(one)) for one in rng.uniform(-1, 1, 5)]
    points = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
    leaves = [one for row in [*weights, last] for one in row]

    def predict(point: Any) -> Value:
        hidden = [sum((w * x for w, x in zip(row, point, strict=False)), row[-1]).tanh() for row in weights]
        return sum((w * h for w, h in zip(last, hidden, strict=False)), last[-1]).tanh()

    for _ in range(150):
        loss = sum((predict(point) - y) ** 2 for point, y in zip(points, (1.0, -1.0, -1.0, 1.0), strict=True))
        for leaf in leaves:
            leaf.grad = None
        loss.backward()  # type: ignore[union-attr]
        for leaf in leaves:
            leaf.data -= 0.1 * leaf.grad
    assert [1, -1, -1, 1] == [round(predict(point).data) for point in points]


def test_weights_that_lie_elsewhere_are_the_same_parameters() -> None:
    """They were taken for new ones, and the model for a copy that no update reached."""
    model = nn.MLP(3, [4], 2)
    parameters = model.parameters
    parameters.keep_weights_in(parameters.data.copy())
    assert model.parameters is parameters
