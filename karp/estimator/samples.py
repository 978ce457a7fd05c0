"""Samples as a network takes them, and its numbers on those that it is validated on."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from karp.estimator.network import BaseNetwork
from karp.estimator.scores import loss_of, score_of
from karp.estimator.training import Validate

Array = NDArray[Any]


class Samples(NamedTuple):
    """Rows with their encoded targets, and their weights above 0, or None."""

    x: Any
    y: Array
    weights: Array | None


def validator(network: BaseNetwork, held_out: Samples) -> Validate:
    """Return a function that returns the score and the loss of a network on validation rows."""

    def validate() -> dict[str, float]:
        predictions = network.predictor()(held_out.x)
        targets = held_out.y, held_out.weights, network.output
        return {"score": score_of(predictions, *targets), "validation_loss": loss_of(predictions, *targets)}

    return validate
