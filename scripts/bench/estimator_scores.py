"""`bench.sh estimators --scores`: what karp's estimators and scikit-learn's predict, on five sets of scikit-learn's.

Each repeat shuffles a set into five folds and has its own seed; its score, accuracy or R², is the mean over the folds.
scikit-learn's MLP, and karp's with the same settings, stand behind a StandardScaler; `recipe="karp"` takes the features
as they are. Differences are paired, with their standard error over the repeats.
"""

from __future__ import annotations

import math
import statistics
import warnings
from typing import Any

from bench.engine import progress
from bench.table import text

SETS = ("digits", "breast_cancer", "wine", "iris", "diabetes")
CONTESTANTS = ("scikit-learn", "karp", "recipe")
Scores = dict[str, list[float]]  # of each contestant, a score for each repeat


def run(repeats: int) -> int:
    """Make the table: scores, differences to scikit-learn's and their standard errors."""
    table = [["set", *CONTESTANTS, "karp -", "s.e.", "recipe -", "s.e."]]
    scores: dict[str, Scores] = {}
    for name in SETS:
        progress(name)
        scores[name] = scores_on(name, repeats)
        table.append(row(name, scores[name]))
    means = {who: [statistics.fmean(turn) for turn in zip(*(scores[name][who] for name in SETS), strict=True)]
             for who in CONTESTANTS}  # fmt: skip
    table.append(row("mean", means))
    progress("")
    print(text(table))
    return 0


def row(name: str, scores: Scores) -> list[str]:
    """Return the cells of a line."""
    cells = [name, *(f"{statistics.fmean(scores[who]):.4f}" for who in CONTESTANTS)]
    for who in CONTESTANTS[1:]:
        differences = [a - b for a, b in zip(scores[who], scores[CONTESTANTS[0]], strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        cells += [f"{statistics.fmean(differences):+.4f}", f"{error:.4f}"]
    return cells


def scores_on(name: str, repeats: int) -> Scores:
    """Return the scores of each contestant on a set."""
    from sklearn import datasets
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    classes = name != "diabetes"
    scores: Scores = {who: [] for who in CONTESTANTS}
    for seed in range(repeats):
        folds = (StratifiedKFold if classes else KFold)(5, shuffle=True, random_state=seed)
        for who in CONTESTANTS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the most epochs are reached
                scores[who].append(float(cross_val_score(model(who, seed, classes=classes), x, y, cv=folds).mean()))
    return scores


def model(who: str, seed: int, *, classes: bool) -> Any:
    """Return a contestant's model."""
    from sklearn import neural_network
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from karp import estimator

    name = "MLPClassifier" if classes else "MLPRegressor"
    if who == "recipe":
        return getattr(estimator, name)(recipe="karp", random_state=seed)
    room = estimator if who == "karp" else neural_network
    return make_pipeline(StandardScaler(), getattr(room, name)(random_state=seed))
