"""With scikit-learn's settings an estimator is scikit-learn's: weights, losses, scores and where it stops."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning

from karp.estimator import MLPClassifier, MLPRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(97, 5))
WEIGHTS = RNG.uniform(0.1, 10, 97)
CLASSES = {
    "two": np.where(X[:, 0] > 0, "a", "b"),
    "four": RNG.integers(0, 4, 97),
    "labels": (RNG.random((97, 3)) > 0.5).astype(int),
}
NUMBERS = {"one": X[:, 0] * 3, "several": X[:, :2] * 2}
COMMON: dict[str, Any] = {"hidden_layer_sizes": (7, 3), "random_state": 1, "batch_size": 20, "max_iter": 5}
SAME = ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_")
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "in order": {"shuffle": False, "activation": "logistic", "alpha": 0.1},
    "tanh": {"activation": "tanh", "nesterovs_momentum": False},
    "linear": {"activation": "identity", "hidden_layer_sizes": ()},
    "no momentum": {"momentum": 0.0},
    "all momentum": {"momentum": 1.0},
    "epsilon": {"epsilon": 1e-3},
    "invscaling": {"learning_rate": "invscaling", "learning_rate_init": 0.1},
    "adaptive": {"learning_rate": "adaptive", "learning_rate_init": 0.05, "tol": 1e-2, "n_iter_no_change": 2,
                 "max_iter": 40},
    "converged": {"learning_rate_init": 0.01, "tol": 1e-2, "max_iter": 300},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 3, "max_iter": 30},
    "adaptive early stopping": {"learning_rate": "adaptive", "early_stopping": True, "n_iter_no_change": 1,
                                "max_iter": 30},
}  # fmt: skip
every_setting = pytest.mark.parametrize("setting", SETTINGS)
solvers = pytest.mark.parametrize("solver", ["sgd", "adam"])
weighted = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def check(theirs: Any, ours: Any) -> None:
    for expected, actual in zip(theirs.coefs_ + theirs.intercepts_, ours.coefs_ + ours.intercepts_, strict=True):
        assert expected.dtype == actual.dtype
        np.testing.assert_allclose(expected, actual, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(theirs.loss_curve_, ours.loss_curve_, rtol=1e-9)
    assert [getattr(theirs, name) for name in SAME] == [getattr(ours, name) for name in SAME]
    for name in ("loss_", "best_loss_", "best_validation_score_", "validation_scores_"):
        expected, actual = getattr(theirs, name), getattr(ours, name)
        assert (expected is None) == (actual is None), name
        if expected is not None:
            np.testing.assert_allclose(expected, actual, rtol=1e-9, err_msg=name)


@solvers
@weighted
@every_setting
@pytest.mark.parametrize("target", CLASSES)
def test_a_classifier_is_scikit_learn_s(target: str, setting: str, weights: Any, solver: str) -> None:
    given = COMMON | {"solver": solver} | SETTINGS[setting]
    theirs = neural_network.MLPClassifier(**given).fit(X, CLASSES[target], sample_weight=weights)
    ours = MLPClassifier(**given).fit(X, CLASSES[target], sample_weight=weights)
    check(theirs, ours)
    np.testing.assert_array_equal(theirs.predict(X), ours.predict(X))
    assert theirs.predict(X).dtype == ours.predict(X).dtype
    np.testing.assert_allclose(theirs.predict_proba(X), ours.predict_proba(X), rtol=1e-8)


@solvers
@weighted
@every_setting
@pytest.mark.parametrize("target", NUMBERS)
def test_a_regressor_is_scikit_learn_s(target: str, setting: str, weights: Any, solver: str) -> None:
    given = COMMON | {"solver": solver} | SETTINGS[setting]
    theirs = neural_network.MLPRegressor(**given).fit(X, NUMBERS[target], sample_weight=weights)
    ours = MLPRegressor(**given).fit(X, NUMBERS[target], sample_weight=weights)
    check(theirs, ours)
    np.testing.assert_allclose(theirs.predict(X), ours.predict(X), rtol=1e-8)


@solvers
@weighted
def test_a_regressor_of_counts_is_scikit_learn_s(weights: Any, solver: str) -> None:
    y = np.random.default_rng(0).poisson(2, 97).astype(float)
    given = COMMON | {"solver": solver, "loss": "poisson"}
    theirs = neural_network.MLPRegressor(**given).fit(X, y, sample_weight=weights)
    check(theirs, MLPRegressor(**given).fit(X, y, sample_weight=weights))


@solvers
def test_warm_starts_are_scikit_learn_s(solver: str) -> None:
    """They keep weights, curve and t_; the optimiser is new. Three partial fits are one fit of three epochs."""
    given = COMMON | {"solver": solver, "warm_start": True, "max_iter": 2, "learning_rate": "invscaling"}
    theirs, ours = neural_network.MLPClassifier(**given), MLPClassifier(**given)
    for _ in range(3):
        check(theirs.fit(X, CLASSES["four"]), ours.fit(X, CLASSES["four"]))


@solvers
@pytest.mark.parametrize("rate", ["constant", "invscaling", "adaptive"])
def test_partial_fits_are_scikit_learn_s(solver: str, rate: str) -> None:
    given = COMMON | {"solver": solver, "learning_rate": rate, "tol": 0.5, "n_iter_no_change": 1}
    theirs, ours = neural_network.MLPClassifier(**given), MLPClassifier(**given)
    for rows in (97, 50, 97, 80, 97):
        for model in (theirs, ours):
            model.partial_fit(X[:rows], CLASSES["four"][:rows], classes=range(4))
        check(theirs, ours)


def test_a_random_state_is_left_as_scikit_learn_leaves_it() -> None:
    theirs, ours = np.random.RandomState(5), np.random.RandomState(5)
    given = COMMON | {"early_stopping": True}
    neural_network.MLPClassifier(**given | {"random_state": theirs}).fit(X, CLASSES["four"])
    MLPClassifier(**given | {"random_state": ours}).fit(X, CLASSES["four"])
    assert theirs.random_sample() == ours.random_sample()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, int])
def test_dtypes_are_scikit_learn_s(dtype: Any) -> None:
    x, given = (10 * X).astype(dtype), COMMON | {"max_iter": 1}
    theirs = neural_network.MLPClassifier(**given).fit(x, CLASSES["four"])
    ours = MLPClassifier(**given).fit(x, CLASSES["four"])
    assert [array.dtype for array in theirs.coefs_] == [array.dtype for array in ours.coefs_]
    for rows in (X, X.astype(np.float32)):
        assert theirs.predict_proba(rows).dtype == ours.predict_proba(rows).dtype
    theirs = neural_network.MLPRegressor(**given).fit(x, NUMBERS["one"])
    ours = MLPRegressor(**given).fit(x, NUMBERS["one"])
    assert theirs.predict(X.astype(np.float32)).dtype == ours.predict(X.astype(np.float32)).dtype


def test_it_warns_where_scikit_learn_does() -> None:
    for settings in ({}, {"max_iter": 300, "tol": 1e-2, "learning_rate_init": 0.01}, {"batch_size": 500}):
        kinds = []
        for model in (neural_network.MLPClassifier, MLPClassifier):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model(**COMMON | settings).fit(X, CLASSES["four"])
            kinds.append([warning.category for warning in caught])
        assert kinds[0] == kinds[1]
    assert ConvergenceWarning in kinds[0]
