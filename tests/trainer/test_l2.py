"""The L2 penalty of `trainer.backward`, and what a training can take over from another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from karp import Trainer, nn, optim
from karp.autograd import square, sum
from karp.trainer.l2 import L2, PIECE

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(10, 3)), RNG.normal(size=(10, 1))
WEIGHTS = RNG.uniform(0.5, 2, 10)


def trained(optimizer: optim.Optimizer, loss: Any, epochs: int = 2, **given: Any) -> tuple[nn.MLP, list[float]]:
    """Train a model in shards; `loss(trainer, model, x, y, w)` calls backward. Return it and the epochs' losses."""
    model = nn.MLP(3, [4], 1, dtype=np.float64)
    losses = []
    weights = given.pop("weights", None)

    def evaluate() -> float:
        assert trainer.evaluation is not None
        losses.append(trainer.evaluation.loss)
        return 0.0

    given = {"batch_size": 4, "record": False, "show": False} | given
    with Trainer(model, optimizer, epochs=epochs, **given) as trainer:
        for x, y, *w in trainer.batches(X, Y, sample_weights=weights, evaluate=evaluate):
            loss(trainer, model, x, y, w[0] if w else None)
    return model, losses


def by_backward(trainer: Trainer, model: Any, x: Any, y: Any, w: Any) -> None:
    trainer.backward(nn.mse(model(x), y, sample_weights=w), l2=0.3)


def by_graph(trainer: Trainer, model: Any, x: Any, y: Any, w: Any) -> None:
    squares = sum(square(model.layers[0].weight)) + sum(square(model.layers[1].weight))
    trainer.backward(nn.mse(model(x), y, sample_weights=w) + 0.15 / (len(x) if w is None else w.sum()) * squares)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
def test_the_penalty_is_a_part_of_the_loss_and_of_the_gradient(weights: Any) -> None:
    expected, losses = trained(optim.SGD(0.1), by_graph, weights=weights)
    actual, same = trained(optim.SGD(0.1), by_backward, weights=weights)
    np.testing.assert_allclose(expected.parameters.data, actual.parameters.data, rtol=1e-12)
    np.testing.assert_allclose(losses, same, rtol=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
def test_shards_have_the_penalty_of_the_whole_batch_once(weights: Any) -> None:
    expected, losses = trained(optim.SGD(0.1), by_backward, weights=weights)
    actual, same = trained(optim.SGD(0.1), by_backward, weights=weights, shards=3)
    np.testing.assert_allclose(expected.parameters.data, actual.parameters.data, rtol=1e-12)
    np.testing.assert_allclose(losses, same, rtol=1e-12)


def test_a_penalty_of_many_weights_is_that_of_all() -> None:
    model = nn.Linear(2, PIECE, dtype=np.float64)
    parameters = model.parameters
    gradient = np.zeros_like(parameters.data)
    squares = float((model.weight.data**2).sum())
    assert pytest.approx(0.25 * squares) == L2(parameters.layout).add(parameters.data, gradient, 0.5, 0.1)
    np.testing.assert_allclose(0.05 * parameters.data, gradient)


def test_a_training_goes_on_with_the_optimizer_of_another() -> None:
    adam = optim.Adam(0.1)
    expected, _ = trained(adam, by_backward, 3, batch_size=10)
    model = nn.MLP(3, [4], 1, dtype=np.float64)
    state = optim.OptimizerState(adam.state(model.parameters.data))
    for _ in range(3):
        with Trainer(model, adam, batch_size=10, optimizer_state=state, record=False, show=False) as trainer:
            for x, y in trainer.batches(X, Y):
                by_backward(trainer, model, x, y, None)
        state = state._replace(age=state.age + trainer.step)
    np.testing.assert_allclose(expected.parameters.data, model.parameters.data, rtol=1e-12)
    assert 3 == state.age


def test_an_evaluation_knows_the_numbers_of_the_epoch_before_if_it_was_waited_for() -> None:
    for wait in (False, True):
        model, seen = nn.Linear(3, 1, dtype=np.float64), []

        def evaluate(seen: list[Any] = seen) -> dict[str, float]:
            assert trainer.evaluation is not None
            seen.append((trainer.evaluation.epoch, dict(trainer.evaluation.last_scores)))
            return {"count": len(seen)}

        with Trainer(model, optim.SGD(0.1), batch_size=5, epochs=3, record=False, show=False) as trainer:
            for x, y in trainer.batches(X, Y, evaluate=evaluate, wait_for_score=wait):
                trainer.backward(nn.mse(model(x), y))
        assert [(0, {}), (1, {"count": 1} if wait else {}), (2, {"count": 2} if wait else {})] == seen
        assert trainer.evaluation is None


class InOrder:
    """A source that prescribes the order of its rows."""

    remarks = ()

    def __init__(self) -> None:
        from karp.data.source import Arrays

        self.arrays = Arrays(X, Y)
        self.parts, self.fingerprint, self.take = self.arrays.parts, self.arrays.fingerprint, self.arrays.take

    def __len__(self) -> int:
        return len(self.arrays)

    def order(self, epoch: int) -> Any:
        return np.roll(np.arange(10), epoch)


def test_a_source_can_prescribe_the_order_of_its_rows() -> None:
    model, seen = nn.Linear(3, 1, dtype=np.float64), []
    with Trainer(model, optim.SGD(0.1), batch_size=10, epochs=2, record=False, show=False) as trainer:
        for x, y in trainer.batches(InOrder()):
            seen.append(y)
            trainer.backward(nn.mse(model(x), y))
    np.testing.assert_array_equal([Y, np.roll(Y, 1, axis=0)], seen)
