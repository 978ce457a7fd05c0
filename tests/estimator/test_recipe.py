"""`recipe="karp"`: the network of `karp fit` as an estimator."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.utils.estimator_checks import check_estimator

import karp
from karp.errors import SettingError
from karp.estimator import MLPClassifier, MLPRegressor
from karp.tabular.network.recipe import Recipe

X, Y = load_iris(return_X_y=True)
NUMBERS, TARGETS = load_diabetes(return_X_y=True)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
WHY = {"check_sample_weight_equivalence_on_dense_data": "epochs, batches and quantiles are those of the rows as given"}


@pytest.mark.parametrize(("kind", "checks"), [(MLPClassifier, 62), (MLPRegressor, 58)])
def test_the_checks_of_scikit_learn_pass(kind: Any, checks: int) -> None:
    pytest.importorskip("pandas")  # without it scikit-learn leaves some out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind(hidden_layer_sizes=(32,), recipe="karp")
        results = check_estimator(model, expected_failed_checks=WHY, on_fail=None, on_skip=None)
    others = [(each["check_name"], each["status"]) for each in results if each["status"] not in ("passed", "skipped")]
    assert ([*WHY], checks) == ([name for name, status in others if status == "xfail"], len(results)), others


def test_classes_are_learnt_without_scaling() -> None:
    names = np.array(["setosa", "versicolor", "virginica"])[Y]
    model = MLPClassifier(recipe="karp", random_state=0).fit(X * [1, 1000, 1, 1e-6], names)
    assert model.score(X * [1, 1000, 1, 1e-6], names) > 0.95
    assert ("setosa", 3, 67) == (model.predict(X[:1] * [1, 1000, 1, 1e-6])[0], model.n_outputs_, model.n_iter_)
    for copy in (pickle.loads(pickle.dumps(model)), clone(model).fit(X * [1, 1000, 1, 1e-6], names)):
        np.testing.assert_array_equal(model.predict_proba(X), copy.predict_proba(X))
    assert not hasattr(model, "coefs_")
    plain = model.set_params(recipe=None, max_iter=1).fit(X, names)
    assert (True, False) == (hasattr(plain, "coefs_"), hasattr(plain, "model_"))


def test_numbers_are_predicted_in_their_units_from_rows_with_gaps() -> None:
    x = np.where(np.random.default_rng(0).random(NUMBERS.shape) < 0.1, np.nan, NUMBERS)
    model = MLPRegressor(recipe="karp", early_stopping=True, random_state=0).fit(x, TARGETS)
    assert model.score(x, TARGETS) > 0.3
    assert max(model.validation_scores_) == model.best_validation_score_
    with pytest.raises(ValueError, match="NaN"):
        MLPRegressor().fit(x, TARGETS)


def test_the_best_epoch_is_kept() -> None:
    model = MLPClassifier(recipe="karp", early_stopping=True, random_state=0)
    model.fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert max(model.validation_scores_) == model.best_validation_score_ == model.score(X[1::2], Y[1::2])
    model.set_params(scoring="neg_log_loss").fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert 0.0 == model.model_.fitted.recipe.smoothing
    assert max(model.validation_scores_) == model.best_validation_score_ > -0.2


@pytest.mark.parametrize("early_stopping", [False, True])
def test_workers_make_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early_stopping: bool) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    x = np.random.default_rng(0).normal(size=(600, 5))
    given = {"recipe": "karp", "batch_size": 300, "max_iter": 3, "random_state": 1, "early_stopping": early_stopping}
    one = MLPRegressor(**given).fit(x, x[:, 0] * x[:, 1])
    two = MLPRegressor(**given, n_jobs=2).fit(x, x[:, 0] * x[:, 1])
    assert 2 == one.model_.fitted.recipe.shards
    np.testing.assert_array_equal(one.predict(x), two.predict(x))
    assert (one.loss_curve_, one.validation_scores_) == (two.loss_curve_, two.validation_scores_)
    assert [] == list(tmp_path.iterdir())


def test_its_model_is_one_of_karp_fit(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "y"]).assign(same=1.0)
    for labels in (Y, Y == 0):
        model = MLPClassifier(recipe="karp", max_iter=20, random_state=0).fit(frame, labels)
        model.model_.save(tmp_path / "iris.safetensors")
        loaded = karp.load(tmp_path / "iris.safetensors")
        np.testing.assert_array_equal(model.predict(frame), loaded.predict(frame))
    assert ("y_", "same") == (loaded.fitted.target.name, loaded.fitted.schema.columns[-1].name)


def test_parameters_that_were_changed_are_those_of_the_recipe() -> None:
    given = {"hidden_layer_sizes": 16, "activation": "tanh", "batch_size": 10, "max_iter": 2, "beta_2": 0.9}
    model = MLPClassifier(recipe="karp", learning_rate_init=0.01, random_state=0, **given).fit(X, Y)
    recipe = model.model_.fitted.recipe
    assert ((16,), "tanh", 10, 2, (0.9, 0.9), 0.01) == (
        recipe.layers, recipe.activation, recipe.batch_size, recipe.epochs, recipe.betas, recipe.rate
    )  # fmt: skip
    assert Recipe.default("classification", rows=150, score="accuracy", layers=(16,), activation="tanh", batch_size=10,
                          epochs=2, betas=(0.9, 0.9), rate=0.01, seed=recipe.seed) == recipe  # fmt: skip
    stopped = MLPClassifier(recipe="karp", n_iter_no_change=1, tol=10, random_state=0).fit(X, Y)
    assert 3 == stopped.n_iter_
    penalised = MLPClassifier(recipe="karp", alpha=10, max_iter=2, random_state=0).fit(X, Y)
    assert penalised.loss_ > 100


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"solver": "sgd"}, "solver must be 'adam', its default, with recipe='karp', not 'sgd'"),
        ({"momentum": 0.5}, r"momentum must be 0\.9, its default"),
        ({"warm_start": True}, "warm_start must be False"),
        ({"activation": "logistic"}, "activation must be relu, the default, or tanh"),
        ({"recipe": "torch"}, "recipe must be one of None, karp"),
        ({"hidden_layer_sizes": "wide"}, "hidden_layer_sizes"),
    ],
)
def test_what_has_no_meaning_with_a_recipe_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        MLPClassifier(**{"recipe": "karp", **given}).fit(X, Y)


def test_targets_that_the_network_has_not_are_refused() -> None:
    several = np.column_stack([TARGETS, TARGETS])
    with pytest.raises(SettingError, match="predicts one label or number for each row, and y has 2"):
        MLPRegressor(recipe="karp").fit(NUMBERS, several)
    with pytest.raises(SettingError, match="y has one class"):
        MLPClassifier(recipe="karp").fit(X, np.zeros(len(X)))
    with pytest.raises(SettingError, match="loss must be 'squared_error'"):
        MLPRegressor(loss="poisson", recipe="karp").fit(NUMBERS, TARGETS)
    assert not hasattr(MLPClassifier(recipe="karp"), "partial_fit")
