"""Sums of sample weights over shards, and what are no weights."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.data import Plan
from karp.data.sample_weights import ShardWeights, checked_weights
from karp.errors import SettingError
from karp.protocol.steps import Rounds

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(1, 7))  # samples, of a batch, shards


@given(SIZES, st.integers(1, 4), st.integers(0, 3))
def test_of_equal_weights_the_sums_count_samples(sizes: tuple[int, int, int], local_steps: int, seed: int) -> None:
    plan = Plan(*sizes, seed)
    steps = plan if local_steps == 1 else Rounds(plan, local_steps)
    sums = ShardWeights(np.full(sizes[0], 0.5, np.float32), plan, steps if isinstance(steps, Rounds) else None)
    for step in range(steps.steps_per_epoch + 1):
        shards = steps.shards_of(step)
        assert steps.samples_of(step) / 2 == sums(step, 0, shards)
        for shard in range(shards):
            assert steps.samples_in(step, shard) / 2 == sums(step, shard, shard + 1)
            assert steps.share(step, shard) == sums.share(step, shard)


@given(SIZES, st.data())
def test_the_sums_are_those_of_the_plans_rows_and_shares_make_one(sizes: tuple[int, int, int], data: Any) -> None:
    weights = np.array(data.draw(st.lists(st.floats(1e-3, 1e3), min_size=sizes[0], max_size=sizes[0])))
    plan = Plan(*sizes)
    sums, again = ShardWeights(weights, plan), ShardWeights(weights, plan)
    for step in reversed(range(2 * plan.steps_per_epoch)):
        shards = range(plan.shards_of(step))
        expected = [weights[plan.rows(step, shard)].sum() for shard in shards]
        np.testing.assert_allclose(expected, [sums.in_batch(step, shard) for shard in shards], rtol=1e-12)
        assert 1.0 == pytest.approx(sum(sums.share(step, shard) for shard in shards), rel=1e-12)
    for step in range(2 * plan.steps_per_epoch):  # whoever asks in another order has the same bits
        assert sums(step, 0, plan.shards_of(step)) == again(step, 0, plan.shards_of(step))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([1, 1], r"has the shape \(2,\): pass one weight for each row, \(3,\)"),
        (np.ones((3, 1)), r"has the shape \(3, 1\): pass one weight"),
        (2.0, r"has the shape \(\): pass one weight"),
        ([1, -0.5, 1], r"sample_weights\[1\] is -0.5: a weight is a finite number from 0"),
        ([1, 1, np.nan], r"sample_weights\[2\] is nan: a weight"),
        ([np.inf, 1, 1], r"sample_weights\[0\] is inf: a weight"),
        ([0, 0, 0], "the sum of sample_weights is 0.0; it must be above 0 and finite"),
        ([1e308, 1e308, 1], "the sum of sample_weights is inf; it must be above 0 and finite"),
        (np.array(["1e400", "1", "1"]).astype(np.longdouble), r"sample_weights\[0\] is inf: a weight"),
        (["a", "b", "c"], "sample_weights has the dtype <U1: pass numbers from 0"),
        ([[1], [1, 2], 3], "sample_weights is no array"),
        (np.ma.masked_equal([1, 2, 3], 2), "sample_weights is no array: 1 of 3 elements are masked"),
    ],
)
def test_what_are_no_weights_is_refused(given: Any, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        checked_weights(given, 3)


def test_weights_keep_their_precision() -> None:
    single = np.array([1, 2], np.float32)
    for weights, dtype in (([1, 2], np.float64), (single, np.float32), ([True, False], np.float64)):
        assert dtype == checked_weights(weights, 2).dtype
