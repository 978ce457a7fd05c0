"""Samples as a network takes them, and its numbers on those that it is validated on."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from karp.estimator.network import Network, forward
from karp.estimator.scores import loss_of, score_of
from karp.estimator.training import Validate

Array = NDArray[Any]


class Samples(NamedTuple):
    """Rows with their encoded targets, and their weights above 0, or None."""

    x: Any
    y: Array
    weights: Array | None


def validator(network: Network, held_out: Samples) -> Validate:
    """Return a function that returns the score and the loss of a network on validation rows."""

    def validate() -> dict[str, float]:
        coefs, intercepts = [value.data for value in network.coefs], [value.data for value in network.intercepts]
        predictions = forward(held_out.x, coefs, intercepts, network.activation, network.output)
        targets = held_out.y, held_out.weights, network.output
        return {"score": score_of(predictions, *targets), "validation_loss": loss_of(predictions, *targets)}

    return validate
