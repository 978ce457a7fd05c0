"""The network of `recipe="karp"`: that of `karp fit`, on features that are all numbers.

An estimator's parameters that are at scikit-learn's defaults are the recipe's; those of `OVERRIDES` and of `KEPT` may
be others, and any further one is refused, as it would mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.autograd import Value
from karp.checks import refusal
from karp.data.source import fingerprint
from karp.estimator.network import BaseNetwork
from karp.estimator.parameters import hidden_sizes
from karp.estimator.samples import Samples
from karp.tabular.columns.column_types import ColumnType, LeftOut, Number, Schema
from karp.tabular.columns.converting import Converted
from karp.tabular.columns.target import Target
from karp.tabular.model import Model
from karp.tabular.model_file import Fitted
from karp.tabular.network.network import TabularNetwork
from karp.tabular.network.preprocessing import Preprocessing
from karp.tabular.network.recipe import ACTIVATIONS, Recipe

Array = NDArray[Any]
OVERRIDES: dict[str, str] = {  # parameter -> field of the recipe
    "hidden_layer_sizes": "layers", "activation": "activation", "batch_size": "batch_size",
    "learning_rate_init": "rate", "max_iter": "epochs",
}  # fmt: skip
KEPT = {
    "recipe", "shuffle", "random_state", "verbose", "early_stopping", "validation_fraction", "class_weight", "scoring",
    "n_jobs", "beta_1", "beta_2", "alpha", "tol", "n_iter_no_change",
}  # fmt: skip


NEUTRAL = {"alpha": 0.0, "n_iter_no_change": math.inf}  # with a recipe, what is at its default is this


def rules_of(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the L2 penalty and the patience that a recipe's training has: none unless they were given."""
    return {name: value if given[name] == defaults[name] else given[name] for name, value in NEUTRAL.items()}


def recipe_of(given: Mapping[str, Any], defaults: Mapping[str, Any], *, classes: bool, rows: int, seed: int) -> Recipe:
    """Return the recipe for an estimator's parameters and a number of training rows.

    Raises SettingError for a parameter that has no meaning with a recipe.
    """
    given = {**given, "hidden_layer_sizes": tuple(hidden_sizes(given["hidden_layer_sizes"]))}
    changed = {name: value for name, value in given.items() if value is not defaults[name] and value != defaults[name]}
    for name, value in changed.items():
        if name not in OVERRIDES and name not in KEPT:
            raise refusal(name, value, f"{defaults[name]!r}, its default, with recipe='karp'")
    if changed.get("activation", "tanh") not in ACTIVATIONS:
        raise refusal("activation", changed["activation"], "relu, the default, or tanh with recipe='karp'")
    fields: dict[str, Any] = {OVERRIDES[name]: value for name, value in changed.items() if name in OVERRIDES}
    if not {"beta_1", "beta_2"}.isdisjoint(changed):
        fields["betas"] = (float(given["beta_1"]), float(given["beta_2"]))
    if not classes:
        return Recipe.default("regression", rows=rows, score="rmse", seed=seed, **fields)
    score = "accuracy" if given["scoring"] in (None, "accuracy") else "log_loss"
    return Recipe.default("classification", rows=rows, score=score, seed=seed, **fields)


class RecipeNetwork(BaseNetwork):
    """The network of a recipe for rows of numbers (n, features), and what it takes to predict with it.

    `mean` and `deviation` are those of the targets; 0 and 1 for classes.
    """

    def __init__(
        self, schema: Schema, preprocessing: Preprocessing, outputs: int, recipe: Recipe, mean: float, deviation: float
    ) -> None:
        self.table = TabularNetwork(schema, preprocessing, outputs, recipe)
        self.schema = schema
        self.preprocessing = preprocessing
        self.outputs = outputs
        self.recipe = recipe
        self.mean = mean
        self.deviation = deviation
        self.output = "softmax" if recipe.task == "classification" else "identity"
        self._kept = [place for place, column in enumerate(schema.columns) if isinstance(column, Number)]

    @classmethod
    def learn(
        cls, x: Array, names: list[str], y: Array, weights: Array | None, outputs: int, recipe: Recipe
    ) -> RecipeNetwork:
        """Return a network for training rows x (n, features), whose targets are class indices (n,) or numbers (n, 1).

        A feature that is the same in every row is left out, unless all are.
        """
        columns: list[ColumnType] = []
        missing = np.isnan(x)
        for place, name in enumerate(names):
            present = x[~missing[:, place], place]
            varies = len(present) > 0 and present.min() < present.max()
            number = Number(name, gaps=bool(missing[:, place].any()))
            columns.append(number if varies else LeftOut(name, "it is constant"))
        if not any(isinstance(column, Number) for column in columns):
            columns[0] = Number(names[0], gaps=bool(missing[:, 0].any()))
        kept = [place for place, column in enumerate(columns) if isinstance(column, Number)]
        preprocessing = Preprocessing.learn(x[:, kept].astype(np.float64), [names[place] for place in kept])
        mean, deviation = 0.0, 1.0
        if recipe.task == "regression":
            targets = y.astype(np.float64)
            mean = float(np.average(targets[:, 0], weights=weights))
            deviation = float(np.sqrt(np.average((targets[:, 0] - mean) ** 2, weights=weights))) or 1.0
        return cls(Schema(tuple(columns)), preprocessing, outputs, recipe, mean, deviation)

    def plain(self) -> dict[str, Any]:
        """Return all but the weights, which the seed gives at first, as plain data for JSON."""
        return {
            "schema": self.schema.to_list(), "preprocessing": self.preprocessing.to_dict(), "outputs": self.outputs,
            "recipe": self.recipe.to_dict(), "mean": self.mean, "deviation": self.deviation,
        }  # fmt: skip

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> RecipeNetwork:
        """Return the network that `plain` has described, with its initial weights."""
        return cls(
            Schema.from_list(plain["schema"]), Preprocessing.from_dict(plain["preprocessing"]), plain["outputs"],
            Recipe.from_dict(plain["recipe"]), plain["mean"], plain["deviation"],
        )  # fmt: skip

    def _scaled(self, x: Array) -> Array:
        """Return rows (n, features) as the network takes them: float32 (n, numbers), NaN where one is missing."""
        return self.preprocessing.scale(x[:, self._kept].astype(np.float64))

    def loss(self, x: Array, y: Array, weights: Array | None) -> Value:
        if weights is not None:
            weights = weights.astype(np.float32)
        if self.output == "identity":
            y = (y[:, 0] - self.mean) / self.deviation
        return self.table.loss(self._scaled(x), np.empty((len(x), 0), np.int32), y, weights)

    def predictor(self) -> Callable[[Array], Array]:
        predict = self.table.predictor()

        def predictions(x: Array) -> Array:
            outputs = predict(self._scaled(x), np.empty((len(x), 0), np.int32)).astype(np.float64)
            return outputs if self.output == "softmax" else outputs * self.deviation + self.mean

        return predictions

    def model(self, classes: list[Any], samples: Samples) -> Model:
        """Return a model with the weights as they are now; `samples` are those that it is trained on."""
        name = "y"
        while name in {column.name for column in self.schema.columns}:
            name += "_"
        target = Target(name, "level" if classes else "number", tuple(map(_text, classes)))
        return Model(Fitted(
            target, self.schema, self.preprocessing, self.recipe, self.mean, self.deviation,
            tuple((np.bincount(samples.y) / len(samples.y)).tolist()) if classes else (),
            fingerprint([samples.x, samples.y]), {"train": len(samples.y)}, "accuracy" if classes else "rmse", {},
            {name: np.array(value.data) for name, value in self.table.named_parameters()},
        ))  # fmt: skip


def _text(label: Any) -> str:
    """Return a label as a model of `karp fit` names its class, which reads numbers and truth values back."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def predictions_of(model: Model, x: Array) -> Array:
    """Return a model's predictions for rows of all its columns (n, columns): probabilities, or numbers (n, 1)."""
    kept = [place for place, column in enumerate(model.fitted.schema.columns) if isinstance(column, Number)]
    outputs = model.outputs(Converted(x[:, kept].astype(np.float64), np.empty((len(x), 0), np.int32)))
    if not len(model.classes):
        return outputs[:, None]
    outputs = outputs.astype(np.float64)
    outputs /= outputs.sum(axis=1, keepdims=True)
    return outputs
