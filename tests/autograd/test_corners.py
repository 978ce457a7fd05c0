"""Corners that users of other engines found: float16, whole numbers, copies, views, arguments that are none."""

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

import karp
from karp import Value, nn
from karp import autograd as engine
from karp.errors import GraphError, SettingError, ShapeError

HALF = np.float16


def gradient(f: Callable[[Value], Value], data: object) -> np.ndarray:
    """Of the sum over what f gives."""
    x = Value(data)
    f(x).sum().backward()
    return np.asarray(x.grad)


VIEWS: dict[str, Callable[[Value], Value]] = {
    "reshape": lambda x: x.reshape(2, 2),
    "transpose": lambda x: x.reshape(4, 1).T,
    "slice": lambda x: x[1:],
    "newaxis": lambda x: x[None],
    "expand_dims": lambda x: engine.expand_dims(x, 0),
    "broadcast_to": lambda x: engine.broadcast_to(x, (3, 4)),
    "split": lambda x: engine.split(x, 2)[1],
}


@pytest.mark.parametrize("name", VIEWS)
def test_guard_sees_what_is_written_through_a_view_of_a_leaf(name: str) -> None:
    x = Value(np.ones(4))
    with karp.guard():
        view = VIEWS[name](x)
        loss = (view * view).sum()
        x.data[-1] = 7.0
        with pytest.raises(GraphError, match="was written to"):
            loss.backward()


def test_guard_lets_results_be() -> None:
    x = Value(np.ones(4))
    with karp.guard():
        result = (x + 1.0).reshape(2, 2)
        loss = (result * result).sum()
        x.data[0] = 7.0  # which no rule reads
        loss.backward()
    assert [4.0] * 4 == x.grad.tolist()


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        (np.zeros((2, 3), int), {"sample_weights": np.ones((3, 2))}),
        (np.zeros((2, 3), int), {"sample_weights": np.ones(6)}),
        (np.zeros((2, 3), int), {"sample_weights": 2.0}),
        (np.zeros((2, 3), int), {"class_weights": np.ones(3)}),
        (np.full((2, 3, 4), 0.25), {"class_weights": 2.0}),
        (np.full((2, 3, 4), 0.25), {"class_weights": [2.0]}),
        (np.full((2, 3, 4), 0.25), {"class_weights": np.ones((3, 4))}),
        (np.full((2, 3, 4), 0.25), {"sample_weights": np.ones((2, 1))}),
    ],
)
def test_weights_of_a_loss_have_one_shape(target: np.ndarray, weights: dict[str, object]) -> None:
    (name,) = weights
    with pytest.raises(ShapeError, match=f"{name} must have shape"):
        nn.cross_entropy(Value(np.zeros((2, 3, 4))), target, **weights)  # type: ignore[arg-type]


def test_whole_numbers_lose_nothing() -> None:
    for kind in (np.int8, np.int16, np.int32):
        x = Value([1.01])
        (x ** np.array([-128], kind)).sum().backward()
        assert x.grad == pytest.approx(-128 * 1.01**-129)
        lowest = int(np.iinfo(kind).min)
        y = Value([1.00001])
        (y ** np.array([lowest], kind)).sum().backward()
        assert y.grad == pytest.approx(lowest * np.power(1.00001, lowest - 1.0))
    for base in (np.array([3], np.uint8), np.array([3], np.int8), np.array([3], HALF)):
        exponent = Value([2.0])
        (base**exponent).sum().backward()
        assert exponent.grad == pytest.approx(9 * np.log(3.0), rel=1e-12)
    assert [[1.5]] == engine.linear([[0.5]], [[3]]).data.tolist()
    bias = Value([0.5])
    assert [[2.0]] == engine.linear([[0.5]], [[3]], bias).data.tolist()
    assert np.float64 == engine.embedding([[1, 2], [3, 4]], [0, 1]).dtype
    for make in (lambda: nn.MLP(2, [3], 1, dtype=int), lambda: nn.Embedding(3, 2, dtype=int)):
        with pytest.raises(SettingError, match="dtype is int64: parameters are float32 or float64"):
            make()


@pytest.mark.parametrize(
    "half", [np.full(10_000, 1.5, HALF), np.full(10_000, 1.5, ">f2"), pickle.loads(pickle.dumps(np.full(9, 1.5, HALF)))]
)
def test_float16_is_computed_in_float32_whatever_comes_with_it(half: np.ndarray) -> None:
    number, wide = Value(2.0), Value(half)
    assert (np.float32, 1.5) == (wide.dtype, wide.data[0])
    assert 100_000 * 1.5 == engine.sum(Value(np.full(100_000, 1.5, HALF))).item()
    for result in (number * half, half - number, np.multiply(half, number), wide**2, engine.exp(half), half < wide):
        assert result.dtype in (np.float32, bool)
    (number * half).sum().backward()
    assert 1.5 * len(half) == number.grad
    matrix = Value(np.ones((len(half), 1), np.float64))
    assert np.float64 == engine.linear(half[np.newaxis], matrix).dtype
    assert np.float32 == engine.concatenate([half, half]).dtype == engine.layer_norm(half).dtype
    for make in (lambda: nn.Linear(2, 3, dtype=HALF), lambda: nn.MLP(2, [3], 1, dtype="float16")):
        with pytest.raises(SettingError, match="dtype is float16: parameters are float32 or float64"):
            make()


def test_what_is_no_input_takes_no_value() -> None:
    x, other = Value([1.0, -1.0]), Value(0.5)
    logits, target = Value([[1.0, 2.0]]), np.array([1])
    for call in (
        lambda: engine.leaky_relu(x, other),
        lambda: engine.elu(x, other),
        lambda: engine.layer_norm(x, eps=other),
        lambda: nn.cross_entropy(logits, target, class_weights=Value([1.0, 2.0])),
        lambda: nn.cross_entropy(logits, target, sample_weights=Value([1.0])),
        lambda: nn.hinge(x, Value([1.0, 1.0])),
        lambda: nn.binary_cross_entropy(x, Value([1.0, 1.0])),
    ):
        with pytest.raises(GraphError, match="constant"):
            call()
    for call in (lambda: nn.mae(x, [1j, 0]), lambda: nn.hinge(x, ["a", "b"]), lambda: engine.elu(x, "a")):
        with pytest.raises(GraphError):
            call()


@pytest.mark.parametrize("shape", [(2, 2.9), ("22",), (None,), (4.9,), ([2, "a"],)])
def test_a_shape_is_made_of_whole_numbers(shape: tuple[object, ...]) -> None:
    with pytest.raises(ShapeError, match="made of whole numbers"):
        Value(np.ones(4)).reshape(*shape)  # type: ignore[arg-type]


def test_axes_are_whole_numbers_in_any_form() -> None:
    x = Value(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ShapeError, match="made of whole numbers"):
        x.sum(axis=[0.7])  # type: ignore[arg-type]
    assert [3.0, 5.0, 7.0] == x.sum(axis=np.array(0)).data.tolist()  # type: ignore[arg-type]
    assert (3, 2) == x.transpose(np.array([1, 0])).shape  # type: ignore[arg-type]
    for function in (engine.softmax, engine.log_softmax):
        with pytest.raises(ShapeError, match="there is no axis 5"):
            function(Value(np.ones((0, 3))), axis=5)


def test_a_copy_has_a_place_and_a_number_of_its_own() -> None:
    model = nn.MLP(1, [1], 1)
    parameters = model.parameters
    weight = model.layers[0].weight
    for twin in (copy.copy(weight), copy.deepcopy(weight), pickle.loads(pickle.dumps(weight))):
        weight.grad = None
        (weight * 3.0 + twin * 2.0).sum().backward()
        assert ([[3.0]], [[2.0]]) == (weight.grad.tolist(), twin.grad.tolist())
        assert weight.grad is weight.grad_buffer
        assert twin.number > weight.number
    assert parameters is model.parameters
    with pytest.raises(GraphError, match=r"v\.detach\(\) has none"):
        copy.copy(weight * 2.0)


def test_a_gradient_that_the_program_has_set_is_added_to() -> None:
    for start in (0, 0.0, np.zeros(3, int)):
        x = Value(np.ones(3))
        x.grad = start
        (x * 2.0).sum().backward()
        assert [2.0] * 3 == x.grad.tolist()
        x.grad = start
        x[1:].sum().backward()
        assert [0.0, 1.0, 1.0] == x.grad.tolist()
    x.grad = np.zeros(2)
    with pytest.raises(ShapeError, match="set it to None"):
        (x * 2.0).sum().backward()


def test_a_weight_is_a_matrix() -> None:
    with pytest.raises(ShapeError, match="the weight must have two axes"):
        engine.linear(Value(np.ones((2, 3))), Value(np.ones(3)), Value(np.array(1.0)))
    with pytest.raises(ShapeError, match="the weight must have two axes"):
        engine.linear(Value(np.ones((2, 3))), Value(np.ones((3, 3, 2))), Value(np.ones((3, 2))))


def test_a_leaf_without_an_axis_keeps_its_dtype_after_an_update() -> None:
    x = Value(np.array(3.0, np.float32))
    (x * x).backward()
    x.data = x.data - np.float32(0.5) * x.grad  # a NumPy number now
    assert np.float32 == (x * x).dtype


def test_a_module_may_know_its_parent() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model.layers[0].parent = model
    names = [name for name, _ in model.named_parameters()]
    assert ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"] == names


def test_sizes_and_layers_that_are_none_are_refused() -> None:
    with pytest.raises(SettingError, match=r"hidden is a list of sizes.*\[4\]"):
        nn.MLP(3, 4, 1)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="one by one"):
        nn.Sequential([nn.Linear(1, 1)])  # type: ignore[arg-type]


def test_numbers_are_formatted_as_numbers() -> None:
    assert ("1.500", "2.00", "Value(1.5)") == (f"{Value(1.5):.3f}", f"{Value(np.array([2.0])):.2f}", f"{Value(1.5)}")


def test_the_direction_of_a_tiny_vector_is_known() -> None:
    x = Value(np.array([1e-40, 0.0], np.float32))
    engine.norm(x).backward()
    assert [1.0, 0.0] == x.grad.tolist()


def test_a_number_is_compared_with_each_of_a_list() -> None:
    x = Value(2.0)
    assert [False, True] == (x < [1, 3]).tolist()
    assert [True] == (x == [2.0]).tolist()
    assert [False, True] == (x != (2, 3)).tolist()
    assert x != "a"


def test_a_loss_over_one_class_is_refused() -> None:
    with pytest.raises(ShapeError, match="one class is always right; for a number there is mse"):
        nn.cross_entropy(Value(np.ones((4, 1))), np.ones((4, 1)))
