"""The score and the loss of predictions for encoded targets, weighted by sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def labels_of(predictions: Array, output: str) -> Array:
    """Return predicted classes as encoded targets are: indices (n,), or 0 and 1 (n, outputs)."""
    if output == "softmax":
        indices: Array = predictions.argmax(axis=1)
        return indices
    return (predictions > 0.5).astype(np.int64)


def score_of(predictions: Array, y: Array, weights: Array | None, output: str) -> float:
    """Return the accuracy of classes, of all labels of a row at once, or R² of numbers; NaN for what is not finite.

    >>> score_of(np.array([[0.9], [0.2]]), np.array([[1.0], [1.0]]), np.array([1.0, 3.0]), "logistic")
    0.25
    """
    if not np.isfinite(predictions).all():
        return math.nan
    if output in ("softmax", "logistic"):
        hits = labels_of(predictions, output) == y
        return float(np.average(hits if hits.ndim == 1 else hits.all(axis=1), weights=weights))
    y = y.astype(np.float64)
    left = np.average((y - predictions) ** 2, axis=0, weights=weights)
    whole = np.average((y - np.average(y, axis=0, weights=weights)) ** 2, axis=0, weights=weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(whole > 0, 1 - left / whole, np.where(left > 0, 0.0, 1.0))  # of a constant as scikit-learn's
    return float(scores.mean())


def loss_of(predictions: Array, y: Array, weights: Array | None, output: str) -> float:
    """Return the mean loss of predictions, without the L2 penalty; probabilities are clipped, so that it is finite."""
    if output == "identity":
        return float(0.5 * np.average((y - predictions) ** 2, axis=0, weights=weights).mean())
    if output == "exp":
        losses = predictions - y
        np.add(losses, y * np.log(np.where(y > 0, y / predictions, 1)), out=losses)
        return float(np.average(losses, axis=0, weights=weights).sum())
    eps = np.finfo(predictions.dtype).eps
    predictions = np.clip(predictions, eps, 1 - eps)
    if output == "softmax":
        return float(-np.average(np.log(predictions[np.arange(len(y)), y]), weights=weights))
    losses = np.log(np.where(y > 0.5, predictions, 1 - predictions))
    return float(-np.average(losses, axis=0, weights=weights).sum())
