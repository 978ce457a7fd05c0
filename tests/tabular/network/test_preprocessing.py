"""Preprocessing: scaling by median and quartiles, edges, plain data."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.errors import DataError, ShapeError
from karp.tabular.network.preprocessing import Preprocessing

NAN = math.nan


def learn(*columns: list[float], bins: int = 16) -> Preprocessing:
    names = tuple("abcdefgh"[: len(columns)])
    return Preprocessing.learn(np.array(columns, np.float64).T.reshape(-1, len(columns)), names, bins)


def test_numbers_are_divided_by_the_quartiles_distance() -> None:
    learnt = learn([0, 1, 2, 3, 100])
    assert [-1.0, -0.5, 0.0, 0.5, 49.0] == learnt.scale(np.array([[0.0], [1], [2], [3], [100]])).ravel().tolist()


def test_without_one_by_half_the_range_and_a_constant_is_zero() -> None:
    learnt = learn([5, 5, 5, 5, 9], [7, 7, 7, 7, 7])
    rows = np.array([[5.0, 7.0], [9.0, 7.0], [1.0, 1e300], [NAN, NAN]])
    expected = np.array([[0, 0], [2, 0], [-2, 0], [NAN, NAN]], np.float32)
    np.testing.assert_array_equal(expected, learnt.scale(rows))
    assert [[0.0, 2.0], []] == [edges.tolist() for edges in learnt.edges]


def test_missing_numbers_are_passed_over_and_a_column_of_them_is_a_constant() -> None:
    assert learn([1, 2, 3]).to_dict() == learn([1, NAN, 2, NAN, 3]).to_dict()
    nothing = learn([NAN, NAN])
    assert ((0.0,), (0.0,), 0) == (nothing.medians, nothing.scales, nothing.edges[0].size)
    assert [0.0] == nothing.scale(np.array([[3.0]])).ravel().tolist()
    assert 0 == Preprocessing.learn(np.empty((0, 1)), ("a",)).edges[0].size


def test_edges_are_quantiles_each_once() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    learnt = learn(values.tolist(), bins=4)
    expected = learnt.scale(np.quantile(values, (0, 0.25, 0.5, 0.75, 1))[:, None]).ravel()
    np.testing.assert_array_equal(expected, learnt.edges[0])


def test_frequent_values_are_edges_and_the_rest_has_all_others() -> None:
    mixed = [0.0] * 700 + [50.0] * 200 + np.arange(1.0, 101).tolist()
    learnt = learn(mixed)
    rest = np.quantile(np.setdiff1d(np.arange(1.0, 101), [50.0]), np.linspace(0, 1, 15))
    expected = np.unique(np.concatenate([[0.0, 50.0], rest]))
    np.testing.assert_array_equal(learnt.scale(expected[:, None]).ravel(), learnt.edges[0])


def test_few_distinct_values_are_the_edges() -> None:
    learnt = learn([0.0] * 1000 + [1.0, 3.0], [1.0, 2.0] * 501)
    assert [0.0, 2 / 3, 2.0] == pytest.approx(learnt.edges[0].tolist())
    assert [-0.5, 0.5] == learnt.edges[1].tolist()


def test_a_date_keeps_its_minutes() -> None:
    start = 1.7e9  # seconds; in float32 they are 128 apart
    learnt = learn([start + 60 * minute for minute in range(600)])
    scaled = learnt.scale(np.array([[start], [start + 60]]))
    assert 60 / learnt.scales[0] == pytest.approx(float(scaled[1, 0] - scaled[0, 0]), rel=1e-3)


def test_numbers_far_out_stay_finite() -> None:
    learnt = learn([-1.7e308, 0.0, 1e-300, 1.7e308], [1e-320, 2e-320, 3e-320, 4e-320])
    scaled = learnt.scale(np.array([[1.79e308, 1e300], [-1.79e308, -1e300]]))
    assert np.isfinite(np.square(scaled / 3)).all()
    assert all(np.isfinite(edges).all() for edges in learnt.edges)


def test_the_order_of_rows_does_not_show() -> None:
    rows = np.random.default_rng(1).normal(size=(500, 3)).round(2)
    assert Preprocessing.learn(rows, "abc").to_dict() == Preprocessing.learn(rows[::-1], "abc").to_dict()


def test_plain_data_are_exact() -> None:
    learnt = learn(np.random.default_rng(2).lognormal(size=300).tolist(), [3.0] * 300)
    read = Preprocessing.from_dict(json.loads(json.dumps(learnt.to_dict())))
    assert (learnt.names, learnt.medians, learnt.scales) == (read.names, read.medians, read.scales)
    assert [edges.tobytes() for edges in learnt.edges] == [edges.tobytes() for edges in read.edges]
    assert learnt.to_dict() == read.to_dict()


def test_no_numbers_at_all() -> None:
    learnt = Preprocessing.learn(np.empty((4, 0)), ())
    assert (4, 0) == learnt.scale(np.empty((4, 0))).shape
    assert learnt.to_dict() == Preprocessing.from_dict(learnt.to_dict()).to_dict()


def test_shapes_and_infinite_numbers_are_refused() -> None:
    with pytest.raises(ShapeError, match="1 names"):
        Preprocessing.learn(np.ones((3, 2)), ("a",))
    with pytest.raises(ShapeError, match="of 1 numbers"):
        learn([1, 2]).scale(np.ones((3, 2)))
    with pytest.raises(DataError, match="'a' holds an infinite"):
        learn([1, math.inf])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": [1]}, "names are"),
        ({"medians": []}, "medians has to be a list of 1"),
        ({"medians": [NAN]}, "finite"),
        ({"scales": [-1.0]}, "scales from 0"),
        ({"scales": [True]}, "finite"),
        ({"edges": [[1.0]]}, "do not rise"),
        ({"edges": [[1.0, 1.0]]}, "do not rise"),
        ({"edges": [[0.0, 1e300]]}, "do not rise"),
        ({"edges": ["01"]}, "no list"),
        ({"more": 1}, "no preprocessing"),
    ],
)
def test_other_data_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocessing.from_dict({**learn([1, 2, 3]).to_dict(), **changes})
    with pytest.raises(DataError, match="no preprocessing"):
        Preprocessing.from_dict([changes])


@given(st.lists(st.integers(-5, 60) | st.floats(-1e3, 1e3), min_size=1, max_size=200), st.integers(1, 16))
def test_edges_rise_and_are_no_more_than_the_bins_have(values: list[float], bins: int) -> None:
    edges = learn(values, bins=bins).edges[0]
    assert len(edges) in (0, *range(2, bins + 2))
    assert (np.diff(edges) > 0).all()
