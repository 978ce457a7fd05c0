"""The network of an estimator, its losses, and its predictions.

A loss is scikit-learn's: a mean over the samples, weighted if they have weights. Where its gradient is not that of the
loss which it reports (the squared error of several outputs), karp has the gradient, and reports the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp import nn
from karp.autograd import Value, exp, linear, multiply, sum

Array = NDArray[Any]

ACTIVATIONS = {"identity": None, "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}  # scikit-learn's name -> karp's


class BaseNetwork(nn.Module):
    """What a training needs of a network; `output` is what makes predictions of the last layer's numbers."""

    output: str

    def loss(self, x: Any, y: Array, weights: Array | None) -> Value:
        """Return the loss of rows with encoded targets, without the L2 penalty, which the Trainer adds."""
        raise NotImplementedError

    def predictor(self) -> Callable[[Any], Array]:
        """Return what predicts rows by the weights as they are now."""
        raise NotImplementedError


class Network(BaseNetwork):
    """An MLP with these weights (inputs, outputs) and biases (outputs,) of each layer, which are copied when it trains.

    `output` is what makes predictions of the last layer's numbers, and with them the loss: "softmax" is cross entropy
    on class indices (n,), "logistic" binary cross entropy on 0 and 1 (n, outputs), "identity" half the squared error,
    "exp" half the Poisson deviance.
    """

    def __init__(self, coefs: Sequence[Array], intercepts: Sequence[Array], activation: str, output: str) -> None:
        self.coefs = [Value(coef) for coef in coefs]
        self.intercepts = [Value(intercept) for intercept in intercepts]
        self.activation = activation
        self.output = output

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Return the last layer's numbers (n, outputs) for rows (n, inputs)."""
        activation, last = ACTIVATIONS[self.activation], len(self.coefs) - 1
        for layer, (coef, intercept) in enumerate(zip(self.coefs, self.intercepts, strict=True)):
            x = linear(x, coef, intercept, activation if layer < last else None)
        return x  # type: ignore[no-any-return]

    def loss(self, x: Array, y: Array, weights: Array | None) -> Value:
        outputs = self(x)
        if self.output == "softmax":
            loss = nn.cross_entropy(outputs, y, sample_weights=weights)
        elif self.output == "logistic":
            loss = nn.binary_cross_entropy(outputs, y, sample_weights=weights)
            if y.shape[1] > 1:
                loss = loss * float(y.shape[1])
        elif self.output == "identity":
            loss = nn.mse(outputs, y, sample_weights=weights) * (0.5 * y.shape[1])
        else:
            counts = np.ones(len(y), y.dtype) if weights is None else weights
            shares = (counts / counts.sum())[:, None]
            loss = sum(multiply(exp(outputs) - outputs * y, shares)) + float(np.sum(_poisson_constant(y) * shares))
        if self.output == "identity" and y.shape[1] > 1:  # scikit-learn reports the mean over the outputs
            loss = loss - loss.item() * (1 - 1 / y.shape[1])
        return loss

    def predictor(self) -> Callable[[Any], Array]:
        coefs, intercepts = [value.data for value in self.coefs], [value.data for value in self.intercepts]
        return lambda x: forward(x, coefs, intercepts, self.activation, self.output)

    def layers(self) -> tuple[list[Array], list[Array]]:
        """Return copies of the weights and the biases as they are now."""
        return [np.array(coef.data) for coef in self.coefs], [np.array(value.data) for value in self.intercepts]


def _poisson_constant(y: Array) -> Array:
    """Return what the Poisson deviance of each element has besides exp(z) - y z: y log y - y."""
    return y * np.log(np.where(y > 0, y, 1)) - y


def forward(x: Any, coefs: Sequence[Array], intercepts: Sequence[Array], activation: str, output: str) -> Array:
    """Return the predictions for rows: probabilities, means, or numbers (n, outputs); `x` may be sparse."""
    for layer, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        x = x @ coef
        x += intercept
        if layer + 1 < len(coefs):
            apply(activation, x)
    apply(output, x)
    return x  # type: ignore[no-any-return]


def apply(function: str, x: Array) -> None:
    """Apply an activation, or what makes predictions, to numbers in place."""
    if function == "relu":
        np.maximum(x, 0, out=x)
    elif function == "tanh":
        np.tanh(x, out=x)
    elif function == "exp":
        np.exp(x, out=x)
    elif function == "logistic":
        _sigmoid(x)
    elif function == "softmax":
        x -= x.max(axis=1, keepdims=True)
        np.exp(x, out=x)
        x /= x.sum(axis=1, keepdims=True)


def _sigmoid(x: Array) -> None:
    """Replace numbers by 1 / (1 + exp(-x)), without an overflow."""
    power = np.exp(-np.abs(x))
    np.divide(np.where(x < 0, power, 1), 1 + power, out=x)
