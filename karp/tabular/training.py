"""Training a network on a prepared table, in this process or as one of a run's workers, and what it is compared with.

Theory of operation. All that a worker does follows from the prepared table and the recipe, so every worker can do it,
and the run ends with the weights of the best epoch in each. The leader then makes a model of them. A linear model is
trained in the same way, but without hidden layers and always in one process; it and the baseline stand beside the model
in the table of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp import environment
from karp.tabular.columns.converting import Converted
from karp.tabular.columns.target import Target
from karp.tabular.console import Console
from karp.tabular.evaluating import Predict, evaluate
from karp.tabular.model import Model, baseline
from karp.tabular.model_file import Fitted, Results
from karp.tabular.network.network import TabularNetwork
from karp.tabular.network.recipe import Recipe
from karp.tabular.preparation.prepared import Prepared, PreparedRows
from karp.tabular.scores import SCORES, ClassTally, Scores, value_scores
from karp.trainer.blas_threads import LIMIT
from karp.trainer.trainer import Trainer

Array = NDArray[Any]
BLOCK = 8192  # rows that are predicted at once
LINEAR_STEPS = 500  # of a linear model, about; twice as many change its scores by at most 0.7 %
LINEAR_RATE = 0.04


Watch = Callable[[int, float], None]


class Test(NamedTuple):
    """A table to score the fitted model on, and the column of its weights."""

    source: Any
    weight: str | None


def train(
    prepared: Prepared, recipe: Recipe, score: str, watch: Watch | None = None, **options: Any
) -> tuple[TabularNetwork, Trainer]:
    """Train a network to its best epoch by a score; `options` are further arguments of `Trainer`.

    `watch` is called with each epoch that is scored here, and its score. Returns the network and the Trainer, whose run
    is over. Raises what `Trainer.batches` raises.
    """
    network = TabularNetwork(prepared.schema, prepared.preprocessing, len(prepared.target.classes) or 1, recipe)
    trainer = Trainer(
        network,
        recipe.optimizer(len(prepared.train)),
        batch_size=min(recipe.batch_size, len(prepared.train)),
        epochs=recipe.epochs,
        shards=recipe.shards,
        seed=recipe.seed,
        keep_best=score,
        mode=SCORES[score].mode,
        **options,
    )

    def evaluate_epoch() -> dict[str, float]:
        value = validate(network, prepared, score)[score]
        if watch is not None:
            watch(trainer.epoch, value)
        return {score: value}

    with trainer:
        for batch in trainer.batches(prepared.train, evaluate=evaluate_epoch):
            numbers, categories, target, *weights = batch
            rng = trainer.rng if recipe.dropout else None
            trainer.backward(network.loss(numbers, categories, target, weights[0] if weights else None, rng))
    return network, trainer


def validate(network: TabularNetwork, prepared: Prepared, score: str | None = None) -> Scores:
    """Return the scores on the validation part; with `score` that one alone."""
    rows = prepared.validation
    predictor = network.predictor()
    if prepared.target.classes:
        return _class_scores(rows, len(prepared.target.classes), predictor, score)
    scores = value_scores(predictor(rows.numbers, rows.categories)[:, 0], rows.target, rows.weights)
    scores["rmse"] *= prepared.target_std  # the prepared target is standardised
    return scores


def _class_scores(
    rows: PreparedRows, classes: int, predict: Callable[[Array, Array], Array], only: str | None = None
) -> Scores:
    """Return the scores of probabilities that a function of numbers and categories predicts."""
    tally = ClassTally(classes, only)
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        weights = None if rows.weights is None else rows.weights[block]
        tally.add(predict(rows.numbers[block], rows.categories[block]), rows.target[block], weights)
    return tally.scores()


@contextmanager
def _blas_threads() -> Iterator[None]:
    """Predict with as many BLAS threads as a Trainer trains with: the last bits of a score may depend on it."""
    LIMIT.acquire(environment.threads())
    try:
        yield
    finally:
        LIMIT.release()


@_blas_threads()
def references(
    prepared: Prepared, recipe: Recipe, score: str, console: Console, test: Test | None = None
) -> tuple[Results, tuple[str, ...]]:
    """Return the scores of a linear model and of the baseline, by part of the data, and notes on the table `test`."""
    steps = -(-len(prepared.train) // recipe.batch_size)
    epochs = -(-LINEAR_STEPS // steps)
    linear = replace(recipe, layers=(), members=1, dropout=0.0, shards=1, epochs=epochs, rate=LINEAR_RATE)
    watch = console.watch("linear", linear.epochs, SCORES[score])
    network, _ = train(prepared, linear, score, watch, record=False, show=False)
    fitted = fitted_of(prepared, linear, score, network, {})
    ((name, constant),) = baseline(fitted).items()
    results = {"validation": {"linear": validate(network, prepared), name: _constant_scores(prepared, constant)}}
    notes: tuple[str, ...] = ()
    if test is not None:
        predictors = {"linear": Model(fitted).outputs, name: constant}
        results["test"], _, notes = evaluate(test.source, prepared.schema, prepared.target, predictors, test.weight)
    return results, notes


def _constant_scores(prepared: Prepared, constant: Predict) -> Scores:
    """Return the validation scores of the baseline."""
    rows = prepared.validation
    if classes := len(prepared.target.classes):
        return _class_scores(rows, classes, lambda *arrays: constant(Converted(*arrays)))
    values = rows.target.astype(np.float64) * prepared.target_std + prepared.target_mean
    return value_scores(constant(Converted(rows.numbers, rows.categories)), values, rows.weights)


def fitted_of(prepared: Prepared, recipe: Recipe, score: str, network: TabularNetwork, results: Results) -> Fitted:
    """Return a trained network with all that it takes to predict with it."""
    return Fitted(
        prepared.target,
        prepared.schema,
        prepared.preprocessing,
        recipe,
        prepared.target_mean,
        prepared.target_std,
        _shares(prepared.target, prepared.train),
        prepared.fingerprint,
        {"train": len(prepared.train), "validation": len(prepared.validation)},
        score,
        results,
        {name: np.array(value.data) for name, value in network.named_parameters()},
    )


def _shares(target: Target, rows: PreparedRows) -> tuple[float, ...]:
    """Return the share of each class among rows; () for numbers."""
    if not target.classes:
        return ()
    counts = np.bincount(rows.target, minlength=len(target.classes))
    return tuple((counts / counts.sum()).tolist())


@_blas_threads()
def finish(
    prepared: Prepared, recipe: Recipe, score: str, network: TabularNetwork, beside: Results, test: Test | None
) -> Model:
    """Return the model of a trained network, scored on the validation part and on the table `test`."""
    scored: dict[str, Scores] = {"validation": validate(network, prepared)}
    model = Model(fitted_of(prepared, recipe, score, network, {}))
    if test is not None:
        predictors: dict[str, Predict] = {"karp": model.outputs}
        evaluated = evaluate(test.source, prepared.schema, prepared.target, predictors, test.weight)
        scored["test"] = evaluated.results["karp"]
    results = {part: {"karp": scores, **beside.get(part, {})} for part, scores in scored.items()}
    return Model(replace(model.fitted, results=results))
