"""Scores: their definitions, by small examples and by scikit-learn's."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from karp.errors import SettingError
from karp.tabular import scores
from karp.tabular.scores import MOST_RANKED, SCORES, ClassTally, names_of, score_for, value_scores


def class_scores(
    probabilities: Any, classes: Any, weights: Any = None, only: str | None = None, size: int = 7
) -> dict[str, float]:
    """The scores of rows in batches of a size."""
    tally = ClassTally(probabilities.shape[1], only)
    for start in range(0, len(classes), size):
        part = slice(start, start + size)
        tally.add(probabilities[part], classes[part], None if weights is None else weights[part])
    return tally.scores()


def test_scores_of_classes_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]], np.float32)
    found = class_scores(probabilities, np.array([0, 0, 1, 1]))
    assert ["accuracy", "log_loss", "auc"] == list(found)
    assert 0.75 == found["accuracy"]
    assert pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(0.4) + math.log(0.8)) / 4) == found["log_loss"]
    assert 0.875 == found["auc"]  # of four pairs three are in order and one is equal


def test_scores_of_numbers_by_hand() -> None:
    found = value_scores(np.array([1.0, 3.0, 5.0]), np.array([1.0, 3.0, 2.0]))
    assert ["rmse", "r2"] == list(found)
    assert pytest.approx(math.sqrt(3)) == found["rmse"]
    assert pytest.approx(1 - 9 / 2) == found["r2"]


def test_one_score_alone_is_the_same() -> None:
    generator = np.random.default_rng(0)
    probabilities, classes = generator.dirichlet([1, 1, 1], 20), generator.integers(0, 3, 20)
    for name, score in class_scores(probabilities, classes).items():
        assert {name: score} == class_scores(probabilities, classes, only=name)


def test_what_rows_do_not_determine_is_not_a_number() -> None:
    half = np.full((3, 2), 0.5)
    assert math.isnan(class_scores(half, np.array([1, 1, 1]))["auc"])
    assert math.isnan(value_scores(np.zeros(2), np.ones(2))["r2"])
    for name, score in class_scores(np.empty((0, 3)), np.empty(0, np.int64)).items():
        assert math.isnan(score), name
    assert all(map(math.isnan, value_scores(np.empty(0), np.empty(0)).values()))


def test_an_impossible_class_costs_a_bounded_loss() -> None:
    assert 23 * math.log(2) == class_scores(np.array([[0.0, 1.0]]), np.array([0]))["log_loss"]


def test_a_class_that_does_not_occur_is_left_out_of_the_mean() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1]])
    assert 1.0 == class_scores(probabilities, np.array([0, 1, 1]))["auc"]


def test_a_row_of_an_unknown_class_is_wrong() -> None:
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]])
    known = class_scores(probabilities[:2], np.array([0, 1]))
    assert {**known, "accuracy": 2 / 3} == class_scores(probabilities, np.array([0, 1, -2]))


@given(st.integers(0, 1 << 30), st.integers(1, 40), st.integers(2, 4))
def test_a_weight_is_as_often_the_row(seed: int, rows: int, outputs: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = np.round(generator.dirichlet([1] * outputs, rows), 1)
    classes, weights = generator.integers(0, outputs, rows), generator.integers(0, 4, rows)
    often = np.repeat(np.arange(rows), weights)
    close(class_scores(probabilities[often], classes[often]), class_scores(probabilities, classes, weights))
    values = generator.integers(0, 9, rows).astype(np.float64)
    predicted = values + generator.normal(size=rows)
    close(value_scores(predicted[often], values[often]), value_scores(predicted, values, weights))


def close(expected: dict[str, float], actual: dict[str, float]) -> None:
    assert pytest.approx(expected, nan_ok=True) == actual


@pytest.mark.parametrize("outputs", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_scikit_learn_has_the_same(outputs: int, weighted: bool) -> None:
    metrics: Any = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(outputs)
    probabilities = np.round(generator.dirichlet([1] * outputs, 200), 2) + 0.01
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    classes = generator.integers(0, outputs, 200)
    weights: NDArray[np.float64] | None = generator.uniform(0, 2, 200) if weighted else None
    several = {"multi_class": "ovr"} if outputs > 2 else {}
    ranked = probabilities if outputs > 2 else probabilities[:, 1]
    expected = {
        "accuracy": metrics.accuracy_score(classes, probabilities.argmax(axis=1), sample_weight=weights),
        "log_loss": metrics.log_loss(classes, probabilities, sample_weight=weights),
        "auc": metrics.roc_auc_score(classes, ranked, sample_weight=weights, **several),
    }
    close(expected, class_scores(probabilities, classes, weights))
    values, predicted = generator.normal(size=(2, 200))
    expected = {
        "rmse": metrics.root_mean_squared_error(values, predicted, sample_weight=weights),
        "r2": metrics.r2_score(values, predicted, sample_weight=weights),
    }
    close(expected, value_scores(predicted, values, weights))


def test_the_area_of_many_classes_is_that_of_rounded_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batches; weights are those of rows."""
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([0.2] * 120, 300).astype(np.float32)
    classes, weights = generator.integers(0, 110, 300), generator.integers(0, 3, 300).astype(np.float64)
    probabilities[np.arange(150), classes[:150]] = 0.5
    probabilities[0, :2] = 0.0, 1.0
    found = class_scores(probabilities, classes, weights)["auc"]
    assert found == class_scores(probabilities, classes, weights, only="auc", size=300)["auc"]
    monkeypatch.setattr(scores, "MOST_RANKED", 120)
    assert pytest.approx(class_scores(probabilities, classes, weights)["auc"], abs=1e-3) == found
    rounded = np.maximum((probabilities.view(np.int32) >> 16 << 16).view(np.float32), np.float32(2.0**-16))
    assert pytest.approx(class_scores(rounded, classes, weights)["auc"], rel=1e-12) == found


def test_what_many_classes_do_not_determine_is_not_a_number() -> None:
    assert math.isnan(class_scores(np.eye(MOST_RANKED + 1), np.zeros(MOST_RANKED + 1, np.int64))["auc"])
    assert 1.0 == class_scores(np.eye(MOST_RANKED + 1), np.arange(MOST_RANKED + 1))["auc"]


def test_which_score_is_meant() -> None:
    assert ("accuracy", "log_loss", "auc") == names_of("classification")
    assert ("rmse", "r2") == names_of("regression")
    assert {"accuracy": "max", "log_loss": "min", "auc": "max", "rmse": "min", "r2": "max"} == {
        name: score.mode for name, score in SCORES.items()
    }
    with pytest.raises(SettingError, match="score is 'rmse': of a classification pass accuracy, log_loss, auc"):
        score_for("classification", "rmse")
    with pytest.raises(SettingError, match=r"score is 'mcc'.*pass rmse, r2"):
        score_for("regression", "mcc")
