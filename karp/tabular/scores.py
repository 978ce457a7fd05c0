"""Scores of predictions: accuracy, log-loss and AUC of classes, R² and RMSE of numbers.

Every score is weighted by the rows' weights where there are any, and computed in float64. A score that the rows do not
determine (an AUC where all rows are of one class, an R² where all targets are equal) is NaN, which is never best.

| score    | task           | best | definition                                                                        |
|----------|----------------|------|-----------------------------------------------------------------------------------|
| accuracy | classification | max  | share of rows whose most probable class is theirs                                 |
| log_loss | classification | min  | mean of -ln(probability of the row's class), which counts as at least 2^-23       |
| auc      | classification | max  | chance that a row of a class has a greater probability of it than one of another; |
|          |                |      | equal ones count half. Of more than two classes the mean over those that occur    |
| r2       | regression     | max  | 1 - mean square error / variance of the target                                    |
| rmse     | regression     | min  | root of the mean square error, in the target's units                              |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from karp.errors import SettingError
from karp.tabular.columns.target import Task

Array = NDArray[Any]
Scores = dict[str, float]


@dataclass(frozen=True, slots=True)
class Score:
    """A score: its name in arguments and files, its title in tables, its task, and whether "max" or "min" is best."""

    name: str
    title: str
    task: Task
    mode: Literal["max", "min"]


SCORES = {
    score.name: score
    for score in (
        Score("accuracy", "accuracy", "classification", "max"),
        Score("log_loss", "log-loss", "classification", "min"),
        Score("auc", "AUC", "classification", "max"),
        Score("rmse", "RMSE", "regression", "min"),
        Score("r2", "R²", "regression", "max"),
    )
}
_DEFAULTS: dict[Task, str] = {"classification": "accuracy", "regression": "rmse"}
_LEAST = 2.0**-23  # of a probability in the log-loss


def names_of(task: Task) -> tuple[str, ...]:
    """Return the names of a task's scores, in the order of tables."""
    return tuple(score.name for score in SCORES.values() if score.task == task)


def score_for(task: Task, name: str | None = None) -> Score:
    """Return the score that a model of this task goes by: accuracy or RMSE unless named.

    Raises SettingError for a name that is not a score of the task.

    >>> score_for("regression").name, score_for("classification", "auc").mode
    ('rmse', 'max')
    """
    name = _DEFAULTS[task] if name is None else name
    score = SCORES.get(name) if isinstance(name, str) else None
    if score is None or score.task != task:
        raise SettingError(f"score is {name!r:.60}: of a {task} pass {', '.join(names_of(task))}")
    return score


def class_scores(
    probabilities: Array, classes: Array, weights: Array | None = None, only: str | None = None
) -> Scores:
    """Return the scores of probabilities (n, k) by name, given the class numbers of the rows, (n,).

    A negative number is a class that the model does not know: for accuracy such a row is wrong, and the other scores
    leave it out. `only` names the one score that is wanted.

    >>> class_scores(np.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]]), np.array([0, 1, 1]))["accuracy"]
    0.6666666666666666
    """
    weights = np.ones(len(classes)) if weights is None else weights.astype(np.float64)
    scores: Scores = {}
    if only in (None, "accuracy"):
        scores["accuracy"] = _mean(probabilities.argmax(axis=1) == classes if len(classes) else classes, weights)
    known = classes >= 0
    if not known.all():
        probabilities, classes, weights = probabilities[known], classes[known], weights[known]
    if only in (None, "log_loss"):
        own = probabilities[np.arange(len(classes)), classes].astype(np.float64)
        scores["log_loss"] = _mean(-np.log(np.maximum(own, _LEAST)), weights)
    if only in (None, "auc"):
        scores["auc"] = _area(probabilities, classes, weights)
    return scores


def value_scores(predicted: Array, values: Array, weights: Array | None = None, only: str | None = None) -> Scores:
    """Return the scores of predicted numbers (n,) by name, given the rows' values, (n,).

    >>> value_scores(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))["r2"]
    0.5
    """
    weights = np.ones(len(values)) if weights is None else weights.astype(np.float64)
    values = values.astype(np.float64)
    square = _mean((predicted - values) ** 2, weights)
    scores = {"rmse": float(np.sqrt(square))}
    if only in (None, "r2"):
        spread = _mean((values - _mean(values, weights)) ** 2, weights)
        scores["r2"] = 1.0 - square / spread if spread > 0 else float("nan")
    return scores


def _mean(numbers: Array, weights: Array) -> float:
    total = weights.sum()
    return float((numbers * weights).sum() / total) if total > 0 else float("nan")


def _area(probabilities: Array, classes: Array, weights: Array) -> float:
    """Return the AUC: of two classes that of the second, else the mean over the classes that occur."""
    outputs = probabilities.shape[1]
    areas = [
        _binary_area(probabilities[:, number], classes == number, weights)
        for number in (range(outputs) if outputs > 2 else [1])
    ]
    there = [area for area in areas if not np.isnan(area)]
    return float(np.mean(there)) if there else float("nan")


def _binary_area(ranked: Array, positive: Array, weights: Array) -> float:
    """Return the chance that a positive row is ranked above another one; NaN where rows of either kind are missing."""
    order = np.argsort(ranked, kind="stable")
    ranked = ranked[order]
    above = np.where(positive[order], weights[order], 0.0)
    below = weights[order] - above
    begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.empty(0, np.int64)
    if not above.any() or not below.any():
        return float("nan")
    above, below = np.add.reduceat(above, begins), np.add.reduceat(below, begins)  # sums over equal probabilities
    pairs = above * (np.cumsum(below) - below / 2)
    return float(pairs.sum() / (above.sum() * below.sum()))
