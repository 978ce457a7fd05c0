"""Scores of predictions, by scikit-learn, and the errors that are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.tables.sets import Score


def score(kind: Score, truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Return the score of the test rows, (n,).

    What is predicted, (n,), is a class for accuracy, the probability of the class 1 of 0 and 1 for AUC, else a number.
    Raises ValueError if it is not (n,), or not finite.
    """
    from sklearn import metrics

    if predicted.shape != truth.shape:
        raise ValueError(f"{truth.shape} rows are predicted as an array of shape {predicted.shape}")
    if kind == "accuracy":
        return float(metrics.accuracy_score(truth.astype(str), predicted.astype(str)))
    if not np.isfinite(predicted.astype(float)).all():
        raise ValueError("what is predicted is not finite")
    if kind == "auc":
        return float(metrics.roc_auc_score(truth, predicted))
    return float(metrics.root_mean_squared_error(truth.astype(float), predicted.astype(float)))


def error(kind: Score, value: float, rows: int) -> float:
    """Return what is compared: the RMSE, or 1 - score, which is at least one of the test rows.

    >>> error("accuracy", 1.0, 200), error("rmse", 3.5, 200)
    (0.005, 3.5)
    """
    return value if kind == "rmse" else max(1.0 - value, 1.0 / rows)
