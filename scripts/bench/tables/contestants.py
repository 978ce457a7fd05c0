"""From a file to a model and its predictions, in each library as its users would: its defaults, and no tuning.

`fit` of a contestant reads the training file and returns a function that reads a test file and predicts it: classes for
accuracy, the probability of the class 1 for AUC, numbers for RMSE. Who needs a validation part takes a fifth of the
training rows. The libraries other than karp want numbers and categories told apart, gaps filled, text encoded: that is
done here as their documentation says, and counts as time, too.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from bench.tables.sets import Score

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Predict = Callable[[str], NDArray[Any]]
MISSING = "missing"  # the level of a missing category


@dataclass(frozen=True)
class Job:
    """What a contestant is given."""

    train: str
    target: str
    score: Score
    seed: int
    epochs: int | None = None  # for those whose epochs are an argument; None is their default


@dataclass(frozen=True)
class Contestant:
    """A library: how it is called in tables, its package, what it imports before time is taken, and how it fits."""

    title: str
    package: str
    modules: tuple[str, ...]
    fit: Callable[[Job], Predict]
    takes_epochs: bool = False

    @property
    def lacking(self) -> list[str]:
        """The modules that are not installed."""
        return [name for name in self.modules if importlib.util.find_spec(name.partition(".")[0]) is None]


@dataclass(frozen=True)
class Columns:
    """The inputs of a training file: numbers, and categories with the levels that occur."""

    numbers: list[str]
    categories: dict[str, list[str]]

    def read(self, path: str) -> DataFrame:
        """Read the inputs of another file; a missing category stays NaN."""
        import pandas as pd

        return pd.read_csv(path, na_values=["?"], dtype=dict.fromkeys(self.categories, str))[self.names]

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.numbers, *self.categories]


def read_train(job: Job) -> tuple[DataFrame, Series, Columns]:
    """Read a training file by pandas: inputs, target, and which columns are categories: those of text."""
    import pandas as pd

    frame = pd.read_csv(job.train, na_values=["?"])
    target = frame.pop(job.target)
    numbers = [name for name in frame if pd.api.types.is_numeric_dtype(frame[name])]
    texts = {str(name): sorted(frame[name].dropna().unique()) for name in frame if name not in numbers}
    columns = Columns([str(name) for name in numbers], texts)
    return frame[columns.names], target, columns


def output(model: Any, score: Score, rows: Any) -> NDArray[Any]:
    """Predict by a model with the methods of scikit-learn."""
    predicted: NDArray[Any] = model.predict_proba(rows)[:, 1] if score == "auc" else model.predict(rows)
    return predicted.ravel()  # CatBoost has columns


def _karp(job: Job, **recipe: Any) -> Predict:
    import karp

    if job.epochs is not None:
        recipe["epochs"] = job.epochs
    model = karp.fit(job.train, target=job.target, score=job.score, seed=job.seed, show=False, **recipe)
    return lambda path: output(model, job.score, path)


def _karp_members(job: Job) -> Predict:
    return _karp(job, members=8)


def _sklearn(job: Job) -> Predict:
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows, target, columns = read_train(job)
    inputs = ColumnTransformer([
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), columns.numbers),
        ("categories", OneHotEncoder(handle_unknown="ignore"), list(columns.categories)),
    ])  # fmt: skip
    if job.score == "rmse":  # a target of 300,000 dollars, as it is, would take no default anywhere
        network = TransformedTargetRegressor(MLPRegressor(random_state=job.seed), transformer=StandardScaler())
    else:
        network = MLPClassifier(random_state=job.seed)
    model = make_pipeline(inputs, network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 epochs are its default
        model.fit(rows, target)
    return lambda path: output(model, job.score, columns.read(path))


def _lightgbm(job: Job) -> Predict:
    import pandas as pd
    from lightgbm import LGBMClassifier, LGBMRegressor

    rows, target, columns = read_train(job)
    types = {name: pd.CategoricalDtype(levels) for name, levels in columns.categories.items()}
    made = LGBMRegressor if job.score == "rmse" else LGBMClassifier
    model = made(random_state=job.seed, verbosity=-1).fit(rows.astype(types), target)
    return lambda path: output(model, job.score, columns.read(path).astype(types))


def _catboost(job: Job) -> Predict:
    from catboost import CatBoostClassifier, CatBoostRegressor

    rows, target, columns = read_train(job)
    made = CatBoostRegressor if job.score == "rmse" else CatBoostClassifier
    model = made(
        random_seed=job.seed, cat_features=list(columns.categories), verbose=False, allow_writing_files=False
    )
    missing = dict.fromkeys(columns.categories, MISSING)  # it takes missing numbers alone
    model.fit(rows.fillna(missing), target)
    return lambda path: output(model, job.score, columns.read(path).fillna(missing))


def _realmlp(job: Job) -> Predict:
    from pytabkit import RealMLP_TD_S_Classifier, RealMLP_TD_S_Regressor

    rows, target, columns = read_train(job)
    medians = rows[columns.numbers].median().fillna(0.0)  # it takes missing categories alone
    options: dict[str, Any] = {"random_state": job.seed, "n_epochs": job.epochs}
    if job.score == "auc":  # its authors: label smoothing is for accuracy
        options |= {"val_metric_name": "1-auc_ovr", "use_ls": False}
    made = RealMLP_TD_S_Regressor if job.score == "rmse" else RealMLP_TD_S_Classifier
    model = made(**options).fit(rows.fillna(medians), target)
    return lambda path: output(model, job.score, columns.read(path).fillna(medians))


def _tabm(job: Job) -> Predict:
    from bench.tables import tabm_mini

    rows, target, columns = read_train(job)
    predict = tabm_mini.fit(rows, target, columns, job.score, job.seed)
    return lambda path: predict(columns.read(path))


CONTESTANTS = {
    "karp": Contestant("karp", "karp", ("karp", "pyarrow"), _karp, takes_epochs=True),
    "karp-members": Contestant("karp, 8 members", "karp", ("karp", "pyarrow"), _karp_members, takes_epochs=True),
    "sklearn": Contestant("scikit-learn MLP", "scikit-learn", ("sklearn.neural_network", "pandas"), _sklearn),
    "lightgbm": Contestant("LightGBM", "lightgbm", ("lightgbm", "pandas"), _lightgbm),
    "catboost": Contestant("CatBoost", "catboost", ("catboost", "pandas"), _catboost),
    "realmlp": Contestant("RealMLP-TD-S", "pytabkit", ("pytabkit", "pandas"), _realmlp, takes_epochs=True),
    "tabm": Contestant("TabM-mini 8 × 128", "tabm", ("tabm", "sklearn.preprocessing", "pandas"), _tabm),
}
OWN = ("karp", "karp-members")
