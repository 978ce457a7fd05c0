"""Losses against torch and formulas, and what a loss cannot mean."""

from typing import Any

import numpy as np
import pytest

from karp import autograd as ag
from karp import nn
from karp.autograd import Value
from karp.errors import ShapeError

PREDICTION = np.random.default_rng(1).standard_normal((6, 2))
TARGET = np.random.default_rng(2).standard_normal((6, 2))

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
