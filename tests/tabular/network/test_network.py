"""The network: its formula, its gradients, that it learns, and that a row is predicted the same in any company."""

from typing import Any

import numpy as np
import pytest
from random_rows import SCHEMA, Rows, rows

from karp import autograd as ag
from karp.autograd import Value
from karp.tabular.columns.column_types import Category, Schema
from karp.tabular.network import predictor
from karp.tabular.network.network import TabularNetwork, _dropped
from karp.tabular.network.preprocessing import Preprocessing
from karp.tabular.network.recipe import Recipe

MANY = rows(300)


def made(table: Rows = MANY, task: Any = "classification", outputs: int = 2, **options: Any) -> TabularNetwork:
    recipe = Recipe.default(task, rows=len(table.numbers), **{"layers": (16, 8), **options})
    network = TabularNetwork(SCHEMA, table.preprocessing, outputs, recipe)
    rng = np.random.default_rng(1)
    for value in (network.weights[-1], network.biases[-1]):  # they begin as zeros
        value.data[...] = rng.normal(size=value.shape)
    return network


each = pytest.mark.parametrize(
    "network",
    [
        made(),
        made(members=3),
        made(task="regression", outputs=1),
        made(task="regression", outputs=1, members=2),
        made(layers=()),
    ],
    ids=["classes", "members of classes", "numbers", "members of numbers", "linear"],
)


def test_the_last_layer_begins_as_zeros_and_parameters_are_float32() -> None:
    table = rows(20)
    network, again, other = (
        TabularNetwork(
            SCHEMA, table.preprocessing, 3, Recipe.default("classification", rows=20, layers=[8], seed=seed)
        )
        for seed in (0, 0, 1)
    )
    assert 0.0 == abs(network(table.numbers, table.categories).data).max()
    assert "float32" == network.parameters.data.dtype
    names = ["scale", "weights.0", "weights.1", "biases.0", "biases.1"]
    assert names == [name for name, _ in network.named_parameters()]
    assert network.parameters.sha256() == again.parameters.sha256() != other.parameters.sha256()


@pytest.mark.parametrize("layers", [(16, 8), ()])
def test_the_outputs_are_those_of_the_formula(layers: tuple[int, ...]) -> None:
    network = made(bias_factor=0.5, scale_factor=2.0, layers=layers)
    inputs = network.encoding(MANY.numbers, MANY.categories)
    ones = np.eye(network.encoding.gathered + 1)[inputs.rows[:, 0], :-1]  # type: ignore[index]
    x = np.concatenate([inputs.dense, ones], 1) * (2.0 * network.scale.data)
    for index, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        x = x @ weight.data / np.sqrt(len(weight.data)) + 0.5 * bias.data
        x = ag.selu(x).data if index < len(layers) else x
    np.testing.assert_allclose(x, network(MANY.numbers, MANY.categories).data, rtol=1e-4, atol=1e-5)


@each
def test_gradients_are_the_slopes_of_the_loss(network: TabularNetwork) -> None:
    values = network.parameters.values
    target = MANY.target if network.outputs == 2 else MANY.target.astype(np.float32)
    saved = [value.data for value in values]

    def loss(*arrays: Value) -> Value:
        names = dict(zip(network.parameters.names, arrays, strict=True))
        twin = TabularNetwork(SCHEMA, MANY.preprocessing, network.outputs, network.recipe)
        twin.scale = names["scale"]
        twin.weights = [names[f"weights.{index}"] for index in range(len(network.weights))]
        twin.biases = [names[f"biases.{index}"] for index in range(len(network.weights))]
        return twin.loss(MANY.numbers[:7], MANY.categories[:7], target[:7])

    ag.check_grads(loss, *saved, most=10, rtol=1e-4)


@each
def test_predictions_are_the_mean_of_the_members(network: TabularNetwork) -> None:
    outputs = network(MANY.numbers, MANY.categories).data.astype(np.float64)
    if network.outputs == 2:
        outputs = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    expected = outputs.mean(0) if network.recipe.members > 1 else outputs
    actual = network.predict(MANY.numbers, MANY.categories)
    np.testing.assert_allclose(expected, actual, rtol=1e-4, atol=1e-5)
    assert "float32" == actual.dtype


@each
def test_a_row_is_predicted_the_same_whoever_is_beside_it(network: TabularNetwork) -> None:
    predict = network.predictor()
    together = predict(MANY.numbers, MANY.categories)
    for start, stop in ((0, 1), (5, 6), (3, 20), (100, 300)):
        alone = predict(MANY.numbers[start:stop], MANY.categories[start:stop])
        np.testing.assert_array_equal(together[start:stop], alone)
    table = rows(1100, seed=3)
    np.testing.assert_array_equal(
        predict(table.numbers, table.categories)[::-1], predict(table.numbers[::-1], table.categories[::-1])
    )
    assert (0, network.outputs) == predict(MANY.numbers[:0], MANY.categories[:0]).shape


def test_wide_weights_and_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    network = made(layers=(130, 70, 8))
    expected = network.predict(MANY.numbers, MANY.categories)
    monkeypatch.setattr(predictor, "BLOCK", 1)  # 64 columns at a time
    monkeypatch.setattr(predictor, "CHUNK", 1000)  # 4 rows
    np.testing.assert_allclose(expected, network.predict(MANY.numbers, MANY.categories), rtol=1e-5)


def test_one_category_of_many_levels_is_enough() -> None:
    schema = Schema((Category("city", False, tuple(map(str, range(50))), rare=False),))
    recipe = Recipe.default("classification", rows=5, layers=[8])
    network = TabularNetwork(schema, Preprocessing.learn(np.empty((5, 0)), ()), 2, recipe)
    arguments = np.empty((5, 0), np.float32), np.array([[3], [4], [2], [52], [3]], np.int32)
    network.loss(*arguments, np.array([0, 1, 0, 1, 0])).backward()
    assert 0.5 == network.predict(*arguments).max()
    assert np.isfinite(network.parameters.grad).all()


def test_a_predictor_keeps_the_weights_it_was_made_of() -> None:
    network = made()
    predict = network.predictor()
    before = predict(MANY.numbers, MANY.categories)
    network.parameters.data[...] = 0
    np.testing.assert_array_equal(before, predict(MANY.numbers, MANY.categories))


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_weight_of_two_is_a_row_that_is_there_twice(task: Any, members: int) -> None:
    network = made(task=task, outputs=2 if task == "classification" else 1, members=members)
    twice = np.array([0, 1, 1, 2])
    expected = network.loss(MANY.numbers[twice], MANY.categories[twice], MANY.target[twice])
    weights = np.array([1, 2, 1], np.float32)
    actual = network.loss(MANY.numbers[:3], MANY.categories[:3], MANY.target[:3], weights)
    assert expected.item() == pytest.approx(actual.item(), rel=1e-5)


def test_dropout_needs_a_generator_and_is_the_same_for_the_same() -> None:
    network = made(dropout=0.3)
    arguments = MANY.numbers, MANY.categories, MANY.target
    first, second = (network.loss(*arguments, rng=np.random.default_rng(5)).item() for _ in range(2))
    assert first == second != network.loss(*arguments).item()


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    network = made(dropout=0.25, layers=(200,))
    network.weights[-1].data[...] = 1
    network.biases[-1].data[...] = 0
    plain = network(MANY.numbers, MANY.categories).data
    draws = np.stack([network(MANY.numbers, MANY.categories, np.random.default_rng(seed)).data for seed in range(200)])
    error = draws.std(0) / np.sqrt(200)
    assert (abs(draws.mean(0) - plain) < 6 * error).all()
    assert (error > 0).all()
    x = Value(np.ones((100, 77), np.float32))
    dropped = _dropped(x, 0.25, np.random.default_rng(0)).data
    assert {0.0, np.float32(4 / 3)} == set(dropped.ravel())
    assert 0.25 == pytest.approx((dropped == 0).mean(), abs=0.03)


@pytest.mark.parametrize("members", [1, 4])
def test_it_learns(members: int) -> None:
    import karp

    table, test = rows(600), rows(300, seed=1)
    recipe = Recipe.default("classification", rows=600, score="accuracy", layers=[32, 32], epochs=12, members=members)
    network = TabularNetwork(SCHEMA, table.preprocessing, 2, recipe)
    with karp.Trainer(
        network, recipe.optimizer(600), batch_size=recipe.batch_size, epochs=recipe.epochs, shards=recipe.shards,
        record=False, show=False,
    ) as trainer:  # fmt: skip
        for numbers, categories, target in trainer.batches(*table[1:]):
            trainer.backward(network.loss(numbers, categories, target))
    right = network.predict(test.numbers, test.categories).argmax(1) == test.target
    assert right.mean() > 0.85
