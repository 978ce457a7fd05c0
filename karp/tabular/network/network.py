"""The network of a table: RealMLP-TD-S with a piecewise-linear encoding of numbers, one member or several.

Theory of operation. Rows of a prepared table are encoded (`encoding.py`) and multiplied by a trainable scale for each
input. Hidden layers are activation(x W / sqrt(inputs) + b) with W and b drawn from N(0, 1), the NTK parametrisation;
the last layer begins as zeros; without hidden layers it is a linear model. The factor 1 / sqrt(inputs), and those of
the rates of scales and biases, stand in the forward pass: Adam moves a number by its rate, so one that counts six-fold
is moved as if its rate were six-fold.

Members are those of TabM-mini (Gorishniy, Kotelnikov and Babenko, 2024, arXiv 2410.24210): each has its own scales and
its own last layer, the layers between are shared. The loss is the mean of the members' losses, a prediction the mean of
their predictions.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from karp import nn
from karp.autograd import Value, dropout, input_linear, matmul, scaled_linear, swapaxes
from karp.tabular.columns.column_types import Schema
from karp.tabular.network.encoding import Encoding, Inputs
from karp.tabular.network.predictor import Predictor
from karp.tabular.network.preprocessing import Preprocessing
from karp.tabular.network.recipe import Recipe

if TYPE_CHECKING:
    Numbers = NDArray[np.float32]
    Categories = NDArray[np.int32]


class TabularNetwork(nn.Module):
    """A network for the rows of a prepared table, as a recipe describes it; `outputs` is the number of classes, or 1.

    Its parameters are float32: `scale` (inputs,) or (members, inputs), `weights` and `biases` of the hidden layers and
    of the last one, which with members are (members, size, outputs) and (members, outputs).
    """

    def __init__(self, schema: Schema, preprocessing: Preprocessing, outputs: int, recipe: Recipe) -> None:
        self.recipe = recipe
        self.outputs = outputs
        self.encoding = Encoding(schema, preprocessing, recipe.bins)
        inputs = self.encoding.dense + self.encoding.gathered
        sizes = [inputs, *recipe.layers]
        members = (recipe.members,) if recipe.members > 1 else ()
        rng = np.random.default_rng([recipe.seed, 1])
        # A draw for each feature, which all of its inputs share.
        features = self.encoding.features
        scales = rng.standard_normal((*members, features.max() + 1))[:, features] if members else np.ones(inputs)
        self.scale = _leaf(scales / recipe.scale_factor)
        self.weights, self.biases = [], []
        for size, following in itertools.pairwise(sizes):
            self.weights.append(_leaf(rng.standard_normal((size, following))))
            self.biases.append(_leaf(rng.standard_normal(following) / recipe.bias_factor))
        self.weights.append(_leaf(np.zeros((*members, sizes[-1], outputs))))
        self.biases.append(_leaf(np.zeros((*members, outputs))))

    def __call__(  # type: ignore[override]  # a row of a table is two arrays
        self, numbers: Numbers, categories: Categories, rng: np.random.Generator | None = None
    ) -> Value:
        """Return the outputs for rows: (n, outputs), or (members, n, outputs) where there are members.

        `numbers` (n, k) are scaled, NaN where one is missing, `categories` (n, c) as a `Converter` makes them. `rng`
        draws the dropout.
        """
        return self.apply(self.encoding(numbers, categories), rng)

    def apply(self, inputs: Inputs, rng: np.random.Generator | None = None) -> Value:
        """Return the outputs for encoded rows, as a call does for rows."""
        recipe = self.recipe
        x = input_linear(
            inputs.dense, inputs.rows, self.scale, self.weights[0], self.biases[0],
            recipe.activation if recipe.layers else None,
            recipe.scale_factor * _fan_factor(self.weights[0]), recipe.bias_factor,
        )  # fmt: skip
        if not recipe.layers:
            return x
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            x = _dropped(x, recipe.dropout, rng)
            x = scaled_linear(x, weight, bias, recipe.activation, _fan_factor(weight), recipe.bias_factor)
        x = _dropped(x, recipe.dropout, rng)
        weight, bias = self.weights[-1], self.biases[-1]
        if recipe.members == 1:
            return scaled_linear(x, weight, bias, None, _fan_factor(weight), recipe.bias_factor)
        products = matmul(swapaxes(x, 0, 1), weight)  # (members, n, outputs)
        return products * _fan_factor(weight) + bias.reshape(recipe.members, 1, self.outputs) * recipe.bias_factor

    def loss(
        self, numbers: Numbers, categories: Categories, target: NDArray[Any], weights: Numbers | None = None,
        rng: np.random.Generator | None = None,
    ) -> Value:  # fmt: skip
        """Return the mean loss of rows, and of members: cross entropy, or the mean squared error.

        `target` (n,) has class numbers, or the standardised numbers; `weights` (n,) are those of the rows.
        """
        outputs = self(numbers, categories, rng)
        if self.recipe.task == "regression":
            target = target[:, None].astype(np.float32, copy=False)
        if self.recipe.members > 1:
            outputs = swapaxes(outputs, 0, 1)  # (n, members, outputs)
            target = np.broadcast_to(target[:, None], (len(target), self.recipe.members, *target.shape[1:]))
        if self.recipe.task == "regression":
            return nn.mse(outputs, target, sample_weights=weights)
        if weights is not None and self.recipe.members > 1:
            weights = np.broadcast_to(weights[:, None], target.shape)
        return nn.cross_entropy(outputs, target, label_smoothing=self.recipe.smoothing, sample_weights=weights)

    def factored(self) -> tuple[list[Numbers], list[Numbers]]:
        """Return weights and biases with their factors, but for the scale of inputs."""
        factors = [np.float32(_fan_factor(weight)) for weight in self.weights]
        weights = [weight.data * factor for weight, factor in zip(self.weights, factors, strict=True)]
        return weights, [bias.data * np.float32(self.recipe.bias_factor) for bias in self.biases]

    def predictor(self) -> Predictor:
        """Return what predicts by the weights as they are now."""
        return Predictor(
            self.encoding, self.input_scale(), *self.factored(), self.recipe.activation,
            classes=self.recipe.task == "classification",
        )  # fmt: skip

    def input_scale(self) -> Numbers:
        """Return the scale of the inputs with its factor, (inputs,) or (members, inputs)."""
        scale: Numbers = self.scale.data * np.float32(self.recipe.scale_factor)
        return scale

    def predict(self, numbers: Numbers, categories: Categories) -> Numbers:
        """Return the probabilities of the classes (n, outputs), or the standardised numbers (n, 1); see `Predictor`."""
        return self.predictor()(numbers, categories)


def _leaf(array: NDArray[np.float64]) -> Value:
    return Value(array.astype(np.float32))


def _dropped(x: Value, p: float, rng: np.random.Generator | None) -> Value:
    """Return `x` with dropout, as `karp.autograd.dropout` does it, but with `p` as a multiple of 1/256.

    A byte for each element is drawn in a quarter of the time that a number takes: on 256 x 256 elements 0.03 ms.
    """
    lost = round(p * 256)
    if not lost or rng is None:
        return dropout(x, lost / 256)
    drawn = rng.integers(0, _LARGEST, -(-x.size // 8), np.uint64, endpoint=True).astype("<u8", copy=False)
    kept = drawn.view(np.uint8)[: x.size].reshape(x.shape) >= lost
    return x * np.multiply(kept, np.float32(256 / (256 - lost)), dtype=np.float32)


_LARGEST = (1 << 64) - 1


def _fan_factor(weight: Value) -> float:
    """Return 1 / sqrt(inputs) of a weight ([members,] inputs, outputs)."""
    return 1.0 / math.sqrt(weight.shape[-2])
