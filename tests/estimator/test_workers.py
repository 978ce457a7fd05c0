"""Several workers that train together: the same bits, and nothing is left."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karp.estimator import MLPClassifier, jobs, training
from karp.estimator.job import Job, write
from karp.estimator.network import Network
from karp.estimator.samples import Samples
from karp.estimator.training import Rules

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 300)).astype(np.float32)
Y = RNG.integers(0, 3, 600)
LARGE: dict[str, Any] = {"hidden_layer_sizes": (256,), "batch_size": 256, "max_iter": 3, "random_state": 1}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_workers_make_the_same_bits_and_leave_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Early stopping, weights, a schedule; and the optimiser goes on in a partial fit."""
    monkeypatch.setattr(training, "SHARED_WORK", 1)
    weights = RNG.uniform(0.2, 2, 600)
    given = LARGE | {"solver": "sgd", "learning_rate": "invscaling", "early_stopping": True}
    one = MLPClassifier(**given).fit(X, Y, weights)
    two = MLPClassifier(**given, n_jobs=2).fit(X, Y, weights)
    for expected, actual in zip(one.coefs_ + one.intercepts_, two.coefs_ + two.intercepts_, strict=True):
        np.testing.assert_array_equal(expected, actual)
    for name in ("loss_curve_", "validation_scores_", "best_validation_score_", "n_iter_", "t_"):
        assert getattr(one, name) == getattr(two, name)
    assert [] == list(folder.iterdir())
    for model in (one, two):
        model.set_params(early_stopping=False, n_jobs=None).partial_fit(X, Y)
    np.testing.assert_array_equal(one.coefs_[0], two.coefs_[0])


def test_rules_of_numpy_s_numbers_are_read_as_they_were_written() -> None:
    """A grid of `np.logspace` has such."""
    rules = Rules("sgd", np.float64(0.1), np.int64(8), "constant", np.float32(0.5), 0.5, 0.9, np.bool_(True), 0.9,
                  0.999, 1e-8, 1e-4, np.inf, 5, False, 2, 0.1, 3, np.inf, 1)  # fmt: skip
    assert rules == Rules.from_plain(json.loads(json.dumps(rules.plain())))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_job_is_read_as_it_was_written(tmp_path: Path, sparse: bool) -> None:
    from scipy.sparse import csr_matrix

    x = csr_matrix(X * (X > 1)) if sparse else X
    network = Network([np.ones((300, 2)), np.ones((2, 1))], [np.zeros(2), np.zeros(1)], "tanh", "logistic")
    rules = Rules("sgd", 0.1, 8, "constant", 0.1, 0.5, 0.9, True, 0.9, 0.999, 1e-8, 1e-4, np.inf, 5, False, 2, 0.1, 3,
                  np.inf, 1)  # fmt: skip
    random = np.random.RandomState(3)
    samples = Samples(x, Y[:, None].astype(np.float32), np.ones(600, np.float32))
    write(tmp_path / "job", network, samples, rules, Samples(x[:5], samples.y[:5], None), random)
    job = Job.read(tmp_path / "job")
    assert (rules, "tanh", "logistic") == (job.rules, job.network.activation, job.network.output)
    rows = job.rows.order(0)
    permutation = np.arange(600)
    random.shuffle(permutation)
    np.testing.assert_array_equal(permutation, rows)
    np.testing.assert_array_equal((x.toarray() if sparse else x)[rows], job.rows.take(rows)[0])
    assert job.held_out is not None
    assert (5, None) == (len(job.held_out.y), job.held_out.weights)


def test_what_workers_cannot_do_is_done_here_and_said() -> None:
    assert 0 == jobs.workers_of(None, 8, ["partial_fit"])
    assert 0 == jobs.workers_of(2, 1, [])
    assert 2 == jobs.workers_of(2, 8, [])
    with pytest.warns(UserWarning, match="n_jobs=2: with callbacks this process trains alone"):
        assert 0 == jobs.workers_of(2, 8, ["callbacks"])


def test_a_worker_of_joblib_s_trains_alone_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib

    monkeypatch.setattr(jobs, "_said", set())
    with warnings.catch_warnings(record=True) as caught, joblib.parallel_config(backend="threading"):
        warnings.simplefilter("always")
        assert [0, 0] == joblib.Parallel(n_jobs=2)(joblib.delayed(jobs.workers_of)(2, 8, []) for _ in range(2))
    assert ["n_jobs=2: this is a worker of joblib's, so it trains alone"] == [str(item.message) for item in caught]
