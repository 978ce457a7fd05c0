"""The estimators where scikit-learn's own tools use them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from karp.estimator import MLPClassifier, MLPRegressor

X, Y = load_iris(return_X_y=True)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
CHECK = """
import warnings
from sklearn.utils.estimator_checks import check_estimator
from karp.estimator import MLPClassifier, MLPRegressor
warnings.simplefilter("ignore")
for model in (MLPClassifier(), MLPRegressor()):
    results = check_estimator(model, on_fail=None)
    print(len(results))
    for result in results:
        if result["status"] != "passed":
            print(result["check_name"], result["status"])
"""


def test_every_check_of_scikit_learn_passes() -> None:
    """In a process of its own, as the checks of the array API are made only where SciPy knows of it from the start."""
    pytest.importorskip("pandas")  # without it scikit-learn leaves some out
    environment = os.environ | {"SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    # scikit-learn's MLPClassifier has one less, as it takes no class_weight, and no decision_function either.
    expected = ["68", "check_classifiers_multilabel_output_format_decision_function skipped", "60"]
    assert (expected, 0) == (done.stdout.splitlines(), done.returncode), done.stderr


def test_pipelines_clones_and_pickles() -> None:
    model = make_pipeline(StandardScaler(), MLPClassifier(random_state=0, max_iter=30)).fit(X, Y)
    assert model.score(X, Y) > 0.8
    for copy in (clone(model).fit(X, Y), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(model.predict_proba(X), copy.predict_proba(X))
    assert cross_val_score(model, X, Y, cv=2).shape == (2,)


def test_a_copy_of_a_partly_fitted_one_goes_on_as_it_would() -> None:
    model = MLPClassifier(random_state=0).partial_fit(X, Y, classes=[0, 1, 2])
    copy = pickle.loads(pickle.dumps(model)).partial_fit(X, Y)
    np.testing.assert_array_equal(model.partial_fit(X, Y).coefs_[0], copy.coefs_[0])


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_grid_search_with_two_jobs(backend: str) -> None:
    import joblib

    grid = GridSearchCV(MLPClassifier(random_state=0, max_iter=5), {"alpha": [1e-4, 1.0]}, cv=2, n_jobs=2)
    alone = GridSearchCV(grid.estimator, grid.param_grid, cv=2).fit(X, Y)
    with joblib.parallel_config(backend=backend):
        grid.fit(X, Y)
    np.testing.assert_array_equal(alone.cv_results_["mean_test_score"], grid.cv_results_["mean_test_score"])


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_matrix])
def test_sparse_rows_are_rows(kind: Any) -> None:
    dense = MLPClassifier(random_state=0, max_iter=5).fit(X, Y)
    sparse = MLPClassifier(random_state=0, max_iter=5).fit(kind(X), Y)
    np.testing.assert_allclose(dense.predict_proba(X), sparse.predict_proba(kind(X)), rtol=1e-9)


def test_class_weights_are_sample_weights() -> None:
    given: dict[str, Any] = {"random_state": 0, "max_iter": 5}
    weights = np.where(Y == 0, 3.0, 1.0)
    expected = MLPClassifier(**given).fit(X, Y, weights).coefs_[0]
    np.testing.assert_array_equal(expected, MLPClassifier(**given, class_weight={0: 3.0}).fit(X, Y).coefs_[0])
    few = np.r_[:50, 50:60]
    balanced = MLPClassifier(**given, class_weight="balanced").fit(X[few], Y[few])
    expected = MLPClassifier(**given).fit(X[few], Y[few], np.where(Y[few] == 0, 60 / 100, 60 / 20)).coefs_[0]
    np.testing.assert_allclose(expected, balanced.coefs_[0], rtol=1e-12)


def test_a_row_of_weight_0_is_not_there() -> None:
    weights = np.ones(150)
    weights[::3] = 0
    given: dict[str, Any] = {"random_state": 0, "max_iter": 5, "batch_size": 20, "early_stopping": True}
    expected = MLPClassifier(**given).fit(X[weights > 0], Y[weights > 0], weights[weights > 0])
    actual = MLPClassifier(**given).fit(X, Y, weights)
    np.testing.assert_array_equal(expected.coefs_[0], actual.coefs_[0])


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "int64[pyarrow]", "str", "category"])
def test_labels_keep_their_kind(dtype: str) -> None:
    labels = Y == 1 if dtype == "boolean" else Y.astype(str) if dtype in ("str", "category") else Y
    pd = pytest.importorskip("pandas")
    model = MLPClassifier(random_state=0, max_iter=2).fit(X, pd.Series(labels).astype(dtype))
    expected = {"boolean": "b", "str": "U", "category": "U"}.get(dtype, "i")
    assert expected == model.classes_.dtype.kind.replace("O", "U") == model.predict(X).dtype.kind.replace("O", "U")


def test_validation_rows_are_scored() -> None:
    model = MLPClassifier(random_state=0, max_iter=8, early_stopping=True, scoring="neg_log_loss")
    model.fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert model.n_iter_ == len(model.validation_scores_) == len(model.validation_loss_curve_)
    np.testing.assert_allclose(model.validation_loss_curve_, -np.array(model.validation_scores_), rtol=1e-12)
    assert model.best_validation_score_ == max(model.validation_scores_)
    plain = MLPClassifier(random_state=0, max_iter=8).fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert (8, None) == (len(plain.validation_loss_curve_), plain.best_validation_score_)
    with pytest.raises(ValueError, match="X_val and y_val go together"):
        plain.fit(X, Y, X_val=X)


def test_scikit_learn_s_callbacks_see_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    MLPClassifier(random_state=0, max_iter=3).set_callbacks(ProgressBar()).fit(X, Y)
    assert "MLPClassifier" in capsys.readouterr().out


def test_a_callback_can_stop_and_predict() -> None:
    class Third:
        def setup(self, estimator: Any, context: Any) -> None: ...
        def teardown(self, estimator: Any, context: Any) -> None: ...
        def on_fit_task_begin(self, estimator: Any, context: Any) -> None: ...

        def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any) -> bool:
            assert (150, 3) == fitted_estimator.predict_proba(X).shape
            return context.task_name == "epoch" and context.task_id == 2

    model = MLPClassifier(random_state=0, max_iter=30).set_callbacks(Third()).fit(X, Y)
    assert 3 == model.n_iter_


def test_nothing_is_left_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MLPClassifier(random_state=0, max_iter=2).fit(X, Y)
    assert [] == list(tmp_path.iterdir())


def test_two_in_two_threads_do_not_meet() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def fit(seed: int) -> Any:
        return MLPClassifier(random_state=seed, max_iter=5).fit(X, Y).coefs_[0]

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fit, range(4)))
    for seed in range(4):
        np.testing.assert_array_equal(fit(seed), together[seed])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"solver": "lbfgs"}, "solver must be one of adam, sgd .lbfgs is scikit-learn's"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes"),
        ({"learning_rate_init": 0}, "learning_rate_init .* above 0"),
        ({"alpha": -1}, "alpha"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"early_stopping": 1}, "early_stopping"),
        ({"class_weight": "even"}, "class_weight"),
        ({"early_stopping": True, "validation_fraction": 0.001}, "fewer than two"),
    ],
)
def test_parameters_that_cannot_be_used(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MLPClassifier(**given).fit(X, Y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_that_are_not_finite_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="not finite: scale the inputs"):
        MLPRegressor(solver="sgd", learning_rate_init=1e5, max_iter=50).fit(1e5 * X, 1e5 * Y)
    with pytest.raises(ValueError, match="poisson"):
        MLPRegressor(loss="poisson").fit(X, Y - 1.0)


class Breaking:
    """Callbacks that ask to stop, or interrupt, at the end of an epoch."""

    def __init__(self, epoch: int, interrupts: bool = False) -> None:
        self.epoch, self.interrupts = epoch, interrupts

    def setup(self, estimator: Any, context: Any) -> None: ...
    def teardown(self, estimator: Any, context: Any) -> None: ...
    def on_fit_task_begin(self, estimator: Any, context: Any) -> None: ...

    def on_fit_task_end(self, estimator: Any, context: Any) -> bool:
        reached = context.task_name == "epoch" and context.task_id == self.epoch
        if reached and self.interrupts:
            raise KeyboardInterrupt
        return bool(reached)


def test_a_callback_s_stop_is_no_lack_of_convergence_and_comes_before_a_lower_rate() -> None:
    given = {"random_state": 0, "max_iter": 30, "solver": "sgd", "learning_rate": "adaptive", "tol": 1e9}
    model = MLPClassifier(**given, n_iter_no_change=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_callbacks(Breaking(2)).fit(X, Y)
    assert 3 == model.n_iter_


def test_an_interrupt_is_said_also_in_the_first_epoch_and_keeps_the_optimiser_s_age() -> None:
    model = MLPClassifier(random_state=0, batch_size=50, max_iter=9).set_callbacks(Breaking(0, interrupts=True))
    with pytest.warns(UserWarning, match="the training was interrupted in epoch"):
        model.fit(X, Y)
    assert 3 == model._optimizer_state.age
