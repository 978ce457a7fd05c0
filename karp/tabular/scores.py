"""Scores of predictions: accuracy, log-loss and AUC of classes, R² and RMSE of numbers.

Every score is weighted by the rows' weights where there are any, and computed in float64. A score that the rows do not
determine (an AUC where all rows are of one class, an R² where all targets are equal) is NaN, which is never best.

| score    | task           | best | definition                                                                        |
|----------|----------------|------|-----------------------------------------------------------------------------------|
| accuracy | classification | max  | share of rows whose most probable class is theirs                                 |
| log_loss | classification | min  | mean of -ln(probability of the row's class), which counts as at least 2^-23       |
| auc      | classification | max  | chance that a row of a class has a greater probability of it than one of another; |
|          |                |      | equal ones count half. Of more than two classes the mean over those that occur;   |
|          |                |      | of more than 100 a probability is cut to 8 binary digits, and counts as at least  |
|          |                |      | 2^-16                                                                             |
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
MOST_RANKED = 100  # classes of which the AUC keeps and sorts all rows
_LEVELS = 16 * 128 + 1  # probabilities of 8 binary digits from 2^-16 to 1
_CELLS = 1 << 20  # that are counted at once
_LEAST = 2.0**-23  # of a probability in the log-loss


def names_of(task: Task) -> tuple[str, ...]:
    """Return the names of a task's scores, in the order of tables."""
    return tuple(score.name for score in SCORES.values() if score.task == task)


def score_for(task: Task, name: str | None = None) -> Score:
    """Return the score that a model of this task goes by: accuracy or RMSE unless named, as log_loss or log-loss.

    Raises SettingError for a name that is not a score of the task.

    >>> score_for("regression").name, score_for("classification", "AUC").mode
    ('rmse', 'max')
    """
    name = _DEFAULTS[task] if name is None else name
    score = SCORES.get(name.lower().replace("-", "_")) if isinstance(name, str) else None
    if score is None or score.task != task:
        raise SettingError(f"score is {name!r:.60}: of a {task} pass {', '.join(names_of(task))}")
    return score


class ClassTally:
    """Adds up the scores of classes over batches of rows; `only` names the one that is wanted.

    It keeps no rows but for the AUC of at most `MOST_RANKED` classes.

    >>> tally = ClassTally(2)
    >>> tally.add(np.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]]), np.array([0, 1, 1]))
    >>> tally.scores()["accuracy"], tally.scores()["auc"]
    (0.6666666666666666, 1.0)
    """

    def __init__(self, classes: int, only: str | None = None) -> None:
        self._only = only
        self._ranks = only in (None, "auc")
        self._areas = _Areas(classes) if self._ranks and classes > MOST_RANKED else None
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
        if self._areas is not None:
            self._areas.add(probabilities, classes, weights)
        elif self._ranks:
            self._rows.append((probabilities, classes, weights))

    def scores(self) -> Scores:
        """Return the scores by name; NaN for one that the rows do not determine."""
        scores = {
            "accuracy": self._right / self._all if self._all else math.nan,
            "log_loss": self._loss / self._known if self._known else math.nan,
            "auc": math.nan,
        }
        if self._areas is not None:
            scores["auc"] = self._areas.mean()
        elif self._rows:
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
    return _mean_area(areas)


def _mean_area(areas: list[float]) -> float:
    """Return the mean of those that are defined; NaN if none is."""
    there = [area for area in areas if not math.isnan(area)]
    return float(np.mean(there)) if there else math.nan


def _binary_area(ranked: Array, positive: Array, weights: Array) -> float:
    """Return the chance that a positive row is ranked above another one; NaN where rows of either kind are missing."""
    order = np.argsort(ranked, kind="stable")
    ranked = ranked[order]
    above = np.where(positive[order], weights[order], 0.0)
    below = weights[order] - above
    begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.empty(0, np.int64)
    if not len(begins):
        return math.nan
    return _level_area(np.add.reduceat(above, begins), np.add.reduceat(below, begins))  # sums over equal probabilities


def _level_area(above: Array, below: Array) -> float:
    """Return the area by the weights of positive rows, and of others, at each probability in ascending order."""
    if not above.any() or not below.any():
        return math.nan
    pairs = above * (np.cumsum(below) - below / 2)
    return float(pairs.sum() / (above.sum() * below.sum()))


class _Areas:
    """Counts, for each of many classes, the rows at each probability: memory does not grow with the rows."""

    def __init__(self, classes: int) -> None:
        self._all = np.zeros((classes, _LEVELS))  # weights of rows, by their probability of the class
        self._own = np.zeros((classes, _LEVELS))  # the same, of the rows of the class

    def add(self, probabilities: Array, classes: Array, weights: Array) -> None:
        """Add rows; the arguments are those of `ClassTally.add`, without unknown classes."""
        size = max(1, _CELLS // len(self._all))
        offsets = np.arange(len(self._all)) * _LEVELS
        for start in range(0, len(classes), size):
            part = slice(start, start + size)
            bits = np.ascontiguousarray(probabilities[part], np.float32).view(np.int32)
            places = np.clip((bits >> 16) - (111 << 7), 0, _LEVELS - 1) + offsets  # 111: the exponent of 2^-16
            np.add.at(self._all.reshape(-1), places.reshape(-1), np.repeat(weights[part], len(self._all)))
            own = places[np.arange(len(places)), classes[part]]
            np.add.at(self._own.reshape(-1), own, weights[part])

    def mean(self) -> float:
        """Return the mean of the classes' areas; NaN if none is defined."""
        pairs = zip(self._own, self._all, strict=True)
        return _mean_area([_level_area(own, every - own) for own, every in pairs])
