"""Scores of predictions: accuracy, log-loss and AUC of classes, R² and RMSE of numbers.

Every score is weighted by the rows' weights where there are any, and computed in float64. A score that the rows do not
determine (an AUC where all rows are of one class, an R² where all targets are equal) is NaN, which is never best.

| score    | task           | best | definition                                                                        |
|----------|----------------|------|-----------------------------------------------------------------------------------|
| accuracy | classification | max  | share of rows whose most probable class is theirs                                 |
| log_loss | classification | min  | mean of -ln(probability of the row's class), which counts as at least 2^-23       |
| auc      | classification | max  | chance that a row of a class has a greater probability of it than one of another; |
|          |                |      | equal ones count half. Of more than two classes the mean over those that occur;   |
|          |                |      | of more than 100 there is none                                                    |
| r2       | regression     | max  | 1 - mean square error / variance of the target                                    |
| rmse     | regression     | min  | root of the mean square error, in the target's units                              |
"""

from __future__ import annotations

import math
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
MOST_RANKED = 100  # classes of which there is an AUC, which sorts all rows for each of them
_LEAST = 2.0**-23  # of a probability in the log-loss


def names_of(task: Task) -> tuple[str, ...]:
    """Return the names of a task's scores, in the order of tables."""
    return tuple(score.name for score in SCORES.values() if score.task == task)


def score_for(task: Task, name: str | None = None, classes: int = 2) -> Score:
    """Return the score that a model of this task goes by: accuracy or RMSE unless named, as log_loss or log-loss.

    Raises SettingError for a name that is not a score of the task, or of so many classes.

    >>> score_for("regression").name, score_for("classification", "AUC").mode
    ('rmse', 'max')
    """
    name = _DEFAULTS[task] if name is None else name
    score = SCORES.get(name.lower().replace("-", "_")) if isinstance(name, str) else None
    if score is None or score.task != task:
        raise SettingError(f"score is {name!r:.60}: of a {task} pass {', '.join(names_of(task))}")
    if score.name == "auc" and classes > MOST_RANKED:
        raise SettingError(f"score is 'auc', and of {classes:,} classes there is none: pass accuracy or log_loss")
    return score


class ClassTally:
    """Adds up the scores of classes over batches of rows; `only` names the one that is wanted.

    It keeps no rows but for the AUC, which there is not of more than `MOST_RANKED` classes.

    >>> tally = ClassTally(2)
    >>> tally.add(np.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]]), np.array([0, 1, 1]))
    >>> tally.scores()["accuracy"], tally.scores()["auc"]
    (0.6666666666666666, 1.0)
    """

    def __init__(self, classes: int, only: str | None = None) -> None:
        self._only = only
        self._ranks = only in (None, "auc") and classes <= MOST_RANKED
        self._right = self._all = self._loss = self._known = 0.0  # sums of weights, and of weighted losses
        self._rows: list[tuple[Array, Array, Array]] = []  # probabilities, classes and weights, for the AUC

    def add(self, probabilities: Array, classes: Array, weights: Array | None = None) -> None:
        """Add rows with probabilities (n, k) of the classes, of which `classes` (n,) are right.

        A negative number is a class that the model does not know: for accuracy such a row is wrong, and the other
        scores leave it out.
        """
        if not len(classes):
            return
        weights = np.ones(len(classes)) if weights is None else weights.astype(np.float64)
        self._right += float(weights[probabilities.argmax(axis=1) == classes].sum())
        self._all += float(weights.sum())
        known = classes >= 0
        if not known.all():
            probabilities, classes, weights = probabilities[known], classes[known], weights[known]
        own = probabilities[np.arange(len(classes)), classes].astype(np.float64)
        self._loss += float((-np.log(np.maximum(own, _LEAST)) * weights).sum())
        self._known += float(weights.sum())
        if self._ranks:
            self._rows.append((probabilities, classes, weights))

    def scores(self) -> Scores:
        """Return the scores by name; NaN for one that the rows do not determine."""
        scores = {
            "accuracy": self._right / self._all if self._all else math.nan,
            "log_loss": self._loss / self._known if self._known else math.nan,
            "auc": math.nan,
        }
        if self._rows:
            scores["auc"] = _area(*map(np.concatenate, zip(*self._rows, strict=True)))
        return scores if self._only is None else {self._only: scores[self._only]}


def value_scores(predicted: Array, values: Array, weights: Array | None = None) -> Scores:
    """Return the scores of predicted numbers (n,) by name, given the rows' values, (n,).

    >>> value_scores(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))["r2"]
    0.5
    """
    weights = np.ones(len(values)) if weights is None else weights.astype(np.float64)
    values = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a score that is too large is infinite, or NaN
        square = _mean((predicted - values) ** 2, weights)
        spread = _mean((values - _mean(values, weights)) ** 2, weights)
    return {"rmse": math.sqrt(square), "r2": 1.0 - square / spread if spread > 0 else math.nan}


def _mean(numbers: Array, weights: Array) -> float:
    total = weights.sum()
    return float((numbers * weights).sum() / total) if total > 0 else math.nan


def _area(probabilities: Array, classes: Array, weights: Array) -> float:
    """Return the AUC: of two classes that of the second, else the mean over the classes that occur."""
    outputs = probabilities.shape[1]
    areas = [
        _binary_area(probabilities[:, number], classes == number, weights)
        for number in (range(outputs) if outputs > 2 else [1])
    ]
    there = [area for area in areas if not np.isnan(area)]
    return float(np.mean(there)) if there else math.nan


def _binary_area(ranked: Array, positive: Array, weights: Array) -> float:
    """Return the chance that a positive row is ranked above another one; NaN where rows of either kind are missing."""
    order = np.argsort(ranked, kind="stable")
    ranked = ranked[order]
    above = np.where(positive[order], weights[order], 0.0)
    below = weights[order] - above
    begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.empty(0, np.int64)
    if not above.any() or not below.any():
        return math.nan
    above, below = np.add.reduceat(above, begins), np.add.reduceat(below, begins)  # sums over equal probabilities
    pairs = above * (np.cumsum(below) - below / 2)
    return float(pairs.sum() / (above.sum() * below.sum()))
