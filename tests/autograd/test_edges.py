"""Where engines are wrong in silence: edges of shapes and domains, and what NumPy and torch make of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import karp
from karp import autograd as ag
from karp import nn, optim
from karp.autograd import Value
from karp.errors import GraphError, SettingError, ShapeError
from karp.parameters import Parameters


def gradient(f: Callable[..., Value], *arrays: Any) -> Any:
    """Of the sum of f's result, by its first argument."""
    first, *others = (Value(array) for array in arrays)
    f(first, *others).sum().backward()
    return first.grad


# --- roots, masks and zeros: 0 times infinity -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [3.0, -3.0, 0.0])
def test_the_norm_of_a_number_has_its_sign(number: float) -> None:
    assert np.sign(number) == gradient(ag.norm, number) == gradient(ag.norm, np.array(number))


@pytest.mark.parametrize(
    "masked",
    [
        ag.relu, lambda x: ag.clip(x, 0.0, 9.0), lambda x: ag.maximum(x, 0.0), lambda x: -ag.minimum(-x, 0.0),
        lambda x: ag.where(x > 0, x, 0.0),
    ],
    ids=["relu", "clip", "maximum", "minimum", "where"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_a_mask_leaves_out_has_no_gradient_whatever_comes_down(masked: Any, dtype: Any) -> None:
    found = gradient(lambda x: ag.sqrt(masked(x)), np.array([-1.0, 4.0], dtype))
    assert ([0.0, 0.25], np.dtype(dtype)) == (found.tolist(), found.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [np.inf, -np.inf, np.nan, 0.5])
def test_relu_in_a_layer_leaves_out_whatever_comes_down(dtype: Any, scale: float) -> None:
    bias = Value(np.array([-1.0, -0.0, 0.0, 2.0], dtype))
    ag.linear(np.zeros((1, 1), dtype), np.zeros((1, 4), dtype), bias, "relu").backward(np.full((1, 4), scale, dtype))
    np.testing.assert_array_equal(np.array([0.0, 0.0, 0.0, scale], dtype), bias.grad)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_mask_leaves_out_the_gradient_of_a_number() -> None:
    assert 0.0 == gradient(lambda x: ag.sqrt(ag.relu(x)), -1.0)


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_powers_at_zero_and_infinity_have_torchs_gradients() -> None:
    torch = pytest.importorskip("torch")
    grid = np.array([-np.inf, -2.0, -1.0, 0.0, 1.0, 2.0, np.inf])
    bases, exponents = (each.ravel() for each in np.meshgrid(grid, grid))
    a, b = Value(bases), Value(exponents)
    (a ** b).sum().backward()
    tensors = [torch.tensor(each, requires_grad=True) for each in (bases, exponents)]
    (tensors[0] ** tensors[1]).sum().backward()
    np.testing.assert_array_equal(tensors[0].grad.numpy(), a.grad)
    np.testing.assert_array_equal(tensors[1].grad.numpy(), b.grad)


# --- shapes: numbers, 0-d arrays, nothing at all --------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.reshape(1), lambda x: x.squeeze(), lambda x: x.flatten(), lambda x: ag.expand_dims(x, 0),
        lambda x: x[None], lambda x: x[...], lambda x: x[()], lambda x: ag.concatenate([x, [1.0]], axis=None),
        lambda x: x.transpose(None), lambda x: ag.broadcast_to(x, (1, 1)),
    ],
)
@pytest.mark.parametrize("number", [2.0, np.array(2.0)], ids=["float", "array"])
def test_a_number_takes_every_shape(f: Any, number: Any) -> None:
    assert 3.0 == gradient(lambda x: 3.0 * f(x), number)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "var", "std", "norm", "logsumexp"])
@pytest.mark.parametrize("axis", [0, -1])
def test_a_number_has_itself_along_its_only_axis(name: str, axis: int) -> None:
    for number in (2.0, np.array(2.0)):
        reduce = getattr(ag, name)
        assert reduce(Value(number)).data == reduce(Value(number), axis=axis).data
        assert gradient(reduce, number) == gradient(lambda x, reduce=reduce: reduce(x, axis=axis), number)


def test_an_axis_may_be_a_list_everywhere() -> None:
    x = Value(np.arange(8.0).reshape(2, 2, 2))
    assert ag.sum(x, [0, 1]).data.tolist() == x.sum(axis=[0, 1]).data.tolist() == [12.0, 16.0]


def test_products_and_softmax_of_nothing() -> None:
    assert (0, 3) == gradient(lambda x: x.prod(axis=1), np.zeros((0, 3))).shape
    assert (3, 0) == gradient(lambda x: x.prod(axis=1), np.zeros((3, 0))).shape
    for f in (ag.softmax, ag.log_softmax):
        assert (3, 0) == f(Value(np.zeros((3, 0)))).shape == gradient(f, np.zeros((3, 0))).shape
        assert (0, 3) == f(Value(np.zeros((0, 3))), axis=0).shape


def test_a_layer_without_inputs_or_outputs() -> None:
    x = Value(np.ones((2, 4, 3)))
    ag.linear(x, Value(np.ones((3, 0))), Value(np.ones(0))).sum().backward()
    assert 0.0 == np.abs(x.grad).sum()
    assert (2, 4, 5) == ag.linear(np.ones((2, 4, 0)), Value(np.ones((0, 5)))).shape


def test_a_layer_refuses_a_number() -> None:
    with pytest.raises(ShapeError, match="at least one axis"):
        nn.Linear(2, 2)(3.0)
    with pytest.raises(ShapeError, match="no rows"):
        ag.embedding(Value(2.0), [0])


def test_squeezing_leaves_the_programs_array_writable() -> None:
    array = np.ones((2, 3))
    Value(array).squeeze()
    ag.squeeze(array)
    array[0, 0] = 5.0
    assert 5.0 == array[0, 0]


# --- numbers that are no floats -------------------------------------------------------------------------------------


def test_constants_alone_become_floats() -> None:
    assert np.float64 == ag.add(np.array([1]), np.array([2])).dtype == ag.exp(np.array([True])).dtype
    assert 40000.0 == ag.square(np.array([200], np.uint8)).data[0]
    assert 0.5 == ag.power(2, -1).item()
    assert np.float64 == ag.concatenate([np.array([1]), np.array([2])]).dtype == ag.stack([1, 2]).dtype
    assert np.float32 == ag.add(np.float32([1]), np.float32([2])).dtype


def test_losses_take_whole_numbers() -> None:
    assert 2.0 == nn.mse([1, 2], [1.0, 4.0]).item()
    assert 1.0 == nn.mse(Value(np.array(3.0)), Value(2.0)).item() == nn.mse(2.0, Value(1.0)).item()
    np.testing.assert_allclose(np.log1p(np.e), nn.cross_entropy([[1, 2]], [0]).item())


def test_the_bounds_of_clip_do_not_promote_and_have_no_gradient() -> None:
    x = Value(np.float32([0.0, 2.0]))
    assert np.float32 == x.clip(0, np.float64(1)).dtype == np.clip(x, min=0, max=np.float64(1)).dtype
    assert [0.0, 1.0] == x.clip(max=1.0).data.tolist() == np.clip(x, 0, 1).data.tolist()
    with pytest.raises(GraphError, match="bounds of clip"):
        x.clip(Value(0.5), 2.0)


# --- losses at their ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [{"class_weights": np.ones(3)}, {"sample_weights": np.ones(1)}, {}])
def test_a_class_that_is_ruled_out_counts_for_nothing(weights: Any) -> None:
    logits = Value([[-np.inf, 0.0, 1.0]])
    loss = nn.cross_entropy(logits, np.array([1]), **weights)
    loss.backward()
    np.testing.assert_allclose(np.log1p(np.e), loss.item())
    np.testing.assert_allclose([0.0, 1 / (1 + np.e) - 1, np.e / (1 + np.e)], logits.grad[0])


@pytest.mark.parametrize(("dtype", "logit"), [(np.float32, 10.0), (np.float32, 20.0), (float, 25.0), (float, 40.0)])
def test_a_small_binary_loss_is_not_lost(dtype: Any, logit: float) -> None:
    for sign, target in ((1, 1.0), (-1, 0.0)):
        loss = nn.binary_cross_entropy(Value(np.array([sign * logit], dtype)), [target])
        np.testing.assert_allclose(np.log1p(np.exp(-logit)), loss.item(), rtol=1e-6)


def test_the_gradient_of_a_binary_loss_is_right_at_zero() -> None:
    assert [-0.5] == gradient(lambda z: nn.binary_cross_entropy(z, [1.0]), np.zeros(1)).tolist()


# --- leaves, roots and gradients that stay --------------------------------------------------------------------------


def test_what_is_made_without_recording_can_be_a_leaf() -> None:
    x = Value([1.0, 2.0])
    with karp.no_grad():
        w, layer = x * 2.0, ag.linear(np.ones((1, 2)), x.reshape(2, 1))
    (x * w).sum().backward()
    assert ([2.0, 4.0], [1.0, 2.0]) == (x.grad.tolist(), w.grad.tolist())
    (layer * 2.0).sum().backward()
    assert [[2.0]] == layer.grad.tolist()
    w[0].backward()
    with karp.no_grad():
        assert 6.0 == karp.grad(lambda y: y * y)(3.0)  # it records what it differentiates


def test_a_leaf_as_root_owns_its_gradient() -> None:
    x = Value(np.array(2.0))
    x.backward()
    x.backward()
    assert 2.0 == x.grad
    y = Value(2.0)
    y.backward(np.array([3.0]))
    assert 3.0 == y.grad
    with pytest.raises(ShapeError, match="one number"):
        y.backward(np.ones(2))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "softplus", "leaky_relu", "elu", "selu"])
def test_gradients_that_are_kept_are_those_of_the_result(activation: str) -> None:
    hidden = ag.linear(np.ones((1, 2)), Value([[1.0, -1.0], [1.0, -1.0]]), None, activation)
    (hidden * 2.0).sum().backward(retain_grad=True)
    assert [[2.0, 2.0]] == hidden.grad.tolist()


def test_the_vector_of_parameters_takes_over_their_gradients() -> None:
    model = nn.MLP(2, [3], 1, seed=0)
    nn.mse(model(np.ones((4, 2))), np.zeros((4, 1))).backward()
    before = {name: value.grad.copy() for name, value in model.named_parameters()}
    for times in (1, 2):
        for name, view in model.parameters.layout.views(model.parameters.grad).items():
            np.testing.assert_allclose(times * before[name], view)
        nn.mse(model(np.ones((4, 2))), np.zeros((4, 1))).backward()


def test_the_gradient_of_a_number_is_taken_over_too() -> None:
    w = Value(2.0)
    (w * w).backward()
    parameters = Parameters({"w": w})
    assert [4.0] == parameters.grad[:1].tolist()
    (w * w).sum().backward()
    assert [8.0] == parameters.grad[:1].tolist()


def test_grad_within_grad_is_refused() -> None:
    with pytest.raises(GraphError, match="grad within grad"):
        karp.grad(karp.grad(lambda x: x ** 3))(2.0)
    with pytest.raises(GraphError, match="grad within grad"):
        karp.grad(lambda x: karp.grad(lambda y: x * y)(2.0))(3.0)
    assert 6.0 == karp.grad(lambda x: x * karp.grad(lambda y: y * y)(Value(3.0)))(2.0)  # a constant
    assert 12.0 == karp.grad(lambda x: x ** 3)(Value(2.0))  # and the refusals leave nothing behind


def test_a_value_has_no_subclasses() -> None:
    with pytest.raises(GraphError, match="no subclasses"):
        type("Parameter", (Value,), {})


@pytest.mark.parametrize(
    "read",
    [
        lambda x, k, bounds: x[:, k].sum(), lambda x, k, bounds: x[(k,)].sum(),
        lambda x, k, bounds: x.clip(bounds, None).sum(),
    ],
    ids=["index", "tuple", "clip"],
)
def test_the_guard_sees_indices_and_bounds(read: Any) -> None:
    x, k, bounds = Value(np.ones((2, 2))), np.array([0, 0]), np.zeros(2)
    with karp.guard():
        y = read(x, k, bounds)
        k[0], bounds[0] = 1, 2.0
        with pytest.raises(GraphError, match="was written to"):
            y.backward()


# --- the checker, and arguments that say nothing --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "x"),
    [(ag.log, 1e-3), (lambda x: 1.0 / x, 1e-3), (ag.sqrt, 1e-3), (ag.sin, 1e4)],
    ids=["log", "1/x", "sqrt", "sin"],
)
def test_the_checker_finds_the_scale(f: Any, x: float) -> None:
    karp.check_grads(f, x)
    with pytest.raises(GraphError, match=r"0\.10% off"):
        karp.check_grads(lambda v: f(v) + 1e-3 * (f(v) - f(v).detach()), x)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_checker_says_that_a_function_is_not_finite() -> None:
    with pytest.raises(GraphError, match="the function is nan"):
        karp.check_grads(ag.log, -1.0)


def test_numpys_defaults_may_be_said() -> None:
    v = Value(np.arange(6.0).reshape(2, 3) + 1.0)
    assert 21.0 == np.sum(v, out=None).item() == np.sum(v, None, None, None, False).item()
    assert 3.5 == np.mean(v, None, None, None).item()
    assert v.std(ddof=1).item() == np.std(v, correction=1).item() == np.std(v, None, None, None, 1).item()
    assert (3, 2) == np.reshape(v, (3, 2), order="C").shape
    assert [2.0, 2.0] == np.full_like(a=v, fill_value=2.0)[0, :2].tolist()
    assert 21.0 == v.sum(axis=np.array([0, 1])).item()
    assert [2.0, 3.0] == np.add(v, 1, where=True).data[0, :2].tolist()
    for axis in (np.int64(0), (0,)):
        np.testing.assert_allclose(np.linalg.norm(v.data, 2, axis=0), np.linalg.norm(v, axis=0).data)
        assert (3,) == np.linalg.norm(v, 2, axis).shape
    for refused in (
        lambda: np.sum(v, dtype=np.float32), lambda: np.sum(v, where=np.ones((2, 3), bool)),
        lambda: np.add(v, 1, where=np.ones((2, 3), bool)), lambda: np.reshape(v, (3, 2), order="F"),
        lambda: np.full_like(v, Value(3.0)), lambda: np.full_like(a=v, fill_value=Value(3.0)),
    ):
        with pytest.raises(GraphError, match="not differentiable here"):
            refused()


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        (lambda: ag.split(Value([1.0, 2.0]), 1.5), ShapeError), (lambda: karp.draw(3.0), GraphError),
        (lambda: optim.Updater(optim.SGD(lr=0.1), Value([1.0])), SettingError),
        (lambda: ag.dropout(Value([1.0]), 0.5, 0), SettingError),
    ],
    ids=["split", "draw", "Updater", "dropout"],
)
def test_a_mistake_has_an_error_of_its_own(mistake: Any, error: Any) -> None:
    with pytest.raises(error):
        mistake()


def test_arrays_may_come_from_a_generator() -> None:
    assert [1.0, 2.0] == ag.concatenate(Value([number]) for number in (1.0, 2.0)).data.tolist()


# --- cross entropy: with the maximum taken off and, near 0, without ---------------------------------------------------


def exact(logits: Any, target: Any) -> tuple[float, Any]:
    """Loss and gradient in as many bits as there are."""
    z = logits.astype(np.longdouble)
    z = z - z.max(axis=1, keepdims=True)
    rows = np.arange(len(z))
    gradient = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    loss = (np.log(np.exp(z).sum(axis=1)) - z[rows, target]).mean()
    gradient[rows, target] -= 1
    return float(loss), (gradient / len(z)).astype(np.float64)


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 40.0), (np.float64, 300.0)])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.999, 1.0, 1.001, 2.0])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (64, 10), (3, 500)])
def test_cross_entropy_is_exact_near_0_and_far_from_it(
    dtype: Any, limit: float, part: float, right: bool, rows: int, classes: int
) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, classes, rows)
    logits = rng.uniform(-1.0, 0.5, (rows, classes)) * part * limit
    logits[np.arange(rows), target] = part * limit * (1 if right else -1)
    logits = logits.astype(dtype)
    value = Value(logits)
    loss = nn.cross_entropy(value, target)
    loss.backward()
    expected, gradient = exact(logits, target)
    size = float(np.finfo(dtype).eps)
    assert abs(expected - loss.item()) <= 4 * size * max(1.0, expected)
    np.testing.assert_allclose(gradient, value.grad.astype(np.float64), atol=16 * size / rows, rtol=16 * size)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_cross_entropy_of_a_logit_that_is_not_finite(odd: float) -> None:
    logits = np.array([[0.0, 1.0], [odd, 2.0]], np.float32)
    loss = nn.cross_entropy(Value(logits), np.array([0, 1])).item()
    if odd == -np.inf:  # a class that is left out
        assert exact(logits[:1], np.array([0]))[0] / 2 == pytest.approx(loss, rel=1e-6)
    else:
        assert np.isnan(loss)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_rounding_makes_cross_entropy_negative(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for rows in (3, 10, 48, 100):
        for _ in range(100):
            logits = rng.uniform(-20.0, -10.0, (rows, 10)).astype(dtype)
            target = rng.integers(0, 10, rows)
            logits[np.arange(rows), target] = rng.uniform(10.0, 30.0, rows)
            assert nn.cross_entropy(Value(logits), target).item() >= 0.0
