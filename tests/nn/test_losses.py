"""Losses against torch and formulas, and what a loss cannot mean."""

from typing import Any

import numpy as np
import pytest

from karp import autograd as ag
from karp import nn
from karp.autograd import Value
from karp.errors import GraphError, SettingError, ShapeError

PREDICTION = np.random.default_rng(1).standard_normal((6, 2))
TARGET = np.random.default_rng(2).standard_normal((6, 2))

LOSSES = [
    ("mse", nn.mse, TARGET, lambda f: f.mse_loss),
    ("mae", nn.mae, TARGET, lambda f: f.l1_loss),
    ("huber", nn.huber, TARGET, lambda f: f.huber_loss),
    (
        "huber delta",
        lambda p, t, **weights: nn.huber(p, t, delta=0.3, **weights),
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
@pytest.mark.parametrize("weights", [[2, 0, 1, 3, 1, 0], [1] * 6, [0, 0, 0, 0, 0, 7]], ids=str)
def test_whole_weights_are_repeated_samples(
    name: str, loss: Any, target: Any, torch_loss: Any, weights: list[int]
) -> None:
    rows = np.repeat(np.arange(6), weights)
    repeated, weighted, scaled = Value(PREDICTION), Value(PREDICTION), Value(PREDICTION)
    expected = loss(repeated[rows], target[rows])
    actual = loss(weighted, target, sample_weights=weights)
    loss(scaled, target, sample_weights=np.array(weights) * 1e-3).backward()
    expected.backward()
    actual.backward()
    np.testing.assert_allclose(expected.item(), actual.item(), rtol=1e-12)
    for value in (weighted, scaled):
        np.testing.assert_allclose(repeated.grad, value.grad, rtol=1e-12)
    assert not weighted.grad[np.array(weights) == 0].any()


@every
def test_a_weighted_loss_keeps_the_dtype_and_refuses_what_are_no_weights(
    name: str, loss: Any, target: Any, torch_loss: Any
) -> None:
    value = Value(PREDICTION.astype(np.float32))
    assert np.float32 == loss(value, target, sample_weights=np.ones(6)).dtype
    for weights, says in (
        ([1] * 5, r"shape \(5,\) must have one weight for each sample: \(6,\)"),
        (np.ones((6, 1)), r"shape \(6, 1\) must have one weight for each sample"),
        (2.0, r"shape \(\) must have"),
    ):
        with pytest.raises(ShapeError, match=says):
            loss(value, target, sample_weights=weights)
    for weights, says in (
        ([1, 1, 1, 1, 1, -1], "finite numbers from 0, and -1.0 is among them"),
        ([1, np.nan, 1, 1, 1, 1], "and nan is among them"),
        ([1, 1, 1, 1, 1, np.inf], "and inf is among them"),
        (np.zeros(6), "must have a sum above 0"),
    ):
        with pytest.raises(SettingError, match=says):
            loss(value, target, sample_weights=weights)
    with pytest.raises(GraphError, match="sample_weights is a constant"):
        loss(value, target, sample_weights=Value(np.ones(6)))


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


# --- labels that a loss cannot mean ---------------------------------------------------------------------------------

LOGITS = Value(np.zeros((3, 2), np.float32))
SCORES = Value(np.zeros(3, np.float32))


@pytest.mark.parametrize("target", [[0, 1, 1], [0.0, 0.5, 1.0], [True, False, True], np.array([0, 1, 0], np.uint8)])
def test_binary_cross_entropy_takes_probabilities(target: Any) -> None:
    expected = np.mean(np.logaddexp(0, SCORES.data)) - np.mean(np.asarray(target) * SCORES.data)
    assert pytest.approx(expected) == nn.binary_cross_entropy(SCORES, target).item()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ([1, 2, 1], r"target\[1\] is 2.0 and must be 0 or 1, or a probability between; .* \(labels == second\)"),
        ([-1, 1, 1], r"target\[0\] is -1.0 and"),
        ([0, 0, 255], r"target\[2\] is 255.0 and"),
        ([0, np.nan, 1], r"target\[1\] is nan and"),
        ([0, 1, np.inf], r"target\[2\] is inf and"),
        ([0, 1, 1.0001], r"target\[2\] is 1.0001"),
    ],
)
def test_binary_cross_entropy_refuses_what_is_no_probability(target: Any, says: str) -> None:
    with pytest.raises(SettingError, match=f"binary_cross_entropy: {says}"):
        nn.binary_cross_entropy(SCORES, target)
    with pytest.raises(SettingError, match=r"target\[1, 0\] is 2.0 and"):
        nn.binary_cross_entropy(Value(np.zeros((2, 1))), [[1], [2]])
    with pytest.raises(SettingError, match=r"the target is 2\.0 and"):
        nn.binary_cross_entropy(0.5, 2)


def test_hinge_takes_two_kinds_of_labels_for_two_classes() -> None:
    scores = Value([0.5, -2.0, 3.0])
    expected = nn.hinge(scores, [-1, 1, -1])
    for target in ([0, 1, 0], [False, True, False], np.array([0, 1, 0], np.uint8)):
        assert expected.item() == nn.hinge(scores, target).item()
    assert 3.0 == nn.hinge(Value([2.0]), [0]).item() == nn.hinge(2.0, 0).item()  # also where one class is absent


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ([1, 2, 1], r"target\[1\] is 2.0 and the labels must be -1 and 1, or 0 and 1"),
        ([0, 255, 0], r"target\[1\] is 255.0"),
        ([1, 0, -1], r"target\[1\] is 0.0"),  # both kinds
        ([1, -1, 0.5], r"target\[2\] is 0.5"),
        ([1, np.nan, -1], r"target\[1\] is nan"),
    ],
)
def test_hinge_refuses_other_labels(target: Any, says: str) -> None:
    with pytest.raises(SettingError, match=f"hinge: {says}"):
        nn.hinge(SCORES, target)


@pytest.mark.parametrize("loss", [nn.mse, nn.mae, nn.huber])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_target_that_is_not_finite_is_named_and_a_prediction_is_let_pass(loss: Any, bad: float) -> None:
    name = loss.__name__
    with pytest.raises(SettingError, match=rf"{name}: target\[1\] is {bad} and must be a finite number"):
        loss(SCORES, [0, bad, 1])
    with pytest.raises(SettingError, match=f"{name}: the target is {bad} and"):
        loss(1.0, bad)
    with np.errstate(invalid="ignore"):  # where a training has diverged the trainer says so
        assert not np.isfinite(loss(Value([0.0, bad, 1.0]), [0, 1, 1]).item())
        assert not np.isfinite(loss(Value([0.0, 1.0, 1.0]), Value([0.0, bad, 1.0])).item())


@pytest.mark.parametrize("delta", [0, -1.0, np.nan])
def test_huber_needs_a_delta_above_0(delta: float) -> None:
    with pytest.raises(SettingError, match=r"huber: delta=.* must be above 0"):
        nn.huber(SCORES, [0, 1, 1], delta=delta)


@pytest.mark.parametrize(
    ("target", "settings", "says"),
    [
        ([[0.5, 0.5], [1, 1], [0, 1]], {}, r"holds probabilities, .* but row 1 is \[1. 1.\].*binary_cross_entropy is"),
        ([[0.5, 0.5], [0, 0], [0, 1]], {}, "row 1 is"),
        ([[255.0, 0], [0, 1], [0, 1]], {}, "row 0 is"),
        ([[1, 0], [1, 0], [-0.5, 1.5]], {}, r"row 2 is \[-0.5  1.5\]"),
        ([[1, 0], [np.nan, 1], [0, 1]], {}, "row 1 is"),
        ([[1, 0], [np.inf, 1], [0, 1]], {"label_smoothing": 0.1}, "row 1 is"),
        ([0, 1, 1], {"class_weights": [1, -1]}, "class_weights are finite numbers from 0, and -1.0 is among them"),
        ([0, 1, 1], {"class_weights": [np.nan, 1]}, "class_weights are .* nan"),
        ([0, 1, 1], {"sample_weights": [1, 1, np.inf]}, "sample_weights are .* inf"),
        ([0, 1, 1], {"sample_weights": [2, 2, -1]}, "sample_weights are .* -1.0"),
        ([0, 1, 1], {"sample_weights": [0, 0, 0]}, "must have a sum above 0"),
        ([0, 1, 1], {"label_smoothing": np.nan}, "label_smoothing=nan must be"),
        ([0, 1, 1], {"label_smoothing": 1}, "label_smoothing=1.0 must be"),
    ],
)
def test_cross_entropy_refuses_what_it_cannot_mean(target: Any, settings: Any, says: str) -> None:
    with pytest.raises(SettingError, match=f"cross_entropy: .*{says}"):
        nn.cross_entropy(LOGITS, target, **settings)


def test_rounded_probabilities_are_probabilities() -> None:
    rounded = [[0.33, 0.33, 0.33], [0.3335, 0.3335, 0.3335], [1, 0, 0], [0.0, 0.5, 0.5]]
    assert pytest.approx(np.log(3), rel=1e-2) == nn.cross_entropy(Value(np.zeros((4, 3))), rounded).item()
    half = np.random.default_rng(0).dirichlet(np.ones(2000), size=3).astype(np.float16)
    assert np.isfinite(nn.cross_entropy(Value(np.zeros((3, 2000), np.float32)), half).item())


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (np.zeros(3), r"cross_entropy of logits \(3, 2\) and target \(3,\): class indices must be integers, not float"),
        (np.zeros((3, 2), int), r"rows of 0 and 1 must be floats: pass target.astype\(float\), or indices"),
        (["a", "b", "c"], "class indices must be integers, not <U1$"),
        ([[0], [1, 2]], "no array can be made of the target"),
    ],
)
def test_cross_entropy_says_in_words_what_does_not_fit(target: Any, says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        nn.cross_entropy(LOGITS, target)


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
