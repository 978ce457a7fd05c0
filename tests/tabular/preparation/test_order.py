"""The order of rows: keys are random and of the seed alone, and a sorted table is trained on like a shuffled one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.data import Plan
from karp.tabular.preparation.row_keys import ORDER, PART, row_keys

GOLDEN = [6728889560554755729, 15560426119050594703, 11807841216919464483]


def test_the_keys_are_these() -> None:
    """A change of these numbers is a change of every table that is prepared: same file, same seed, another order."""
    assert GOLDEN == row_keys(3, ORDER, 10, 3).tolist()


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(1, 50), st.integers(0, 50))
def test_a_row_has_its_key_whatever_is_read_with_it(seed: int, first: int, count: int, skipped: int) -> None:
    keys = row_keys(seed, ORDER, first, count + skipped)
    assert keys[skipped:].tolist() == row_keys(seed, ORDER, first + skipped, count).tolist()
    assert len(keys) == len(np.unique(keys))
    assert keys.tolist() != row_keys(seed, PART, first, count + skipped).tolist()


def test_keys_are_uniform_and_neighbours_independent() -> None:
    keys = row_keys(0, ORDER, 0, 1 << 16) / 2.0**64
    counts = np.histogram(keys, 64, (0, 1))[0]
    assert np.square(counts - 1024).sum() / 1024 < 63 + 5 * np.sqrt(2 * 63)
    others = [row_keys(seed, purpose, 0, 1 << 16) / 2.0**64 for seed, purpose in ((0, PART), (1, ORDER))]
    for left, right in [(keys[:-1], keys[1:]), *((keys, other) for other in others)]:
        assert abs(np.corrcoef(left, right)[0, 1]) < 5 / 256


@pytest.mark.parametrize("seed", [0, 1])
def test_batches_of_a_sorted_table_are_as_those_of_a_shuffled_one(seed: int) -> None:
    """The means of a batch's targets vary as those of random rows do, from batch to batch and from epoch to epoch."""
    rows, batch, epochs = 20_000, 50, 3
    target = np.linspace(-1, 1, rows)  # in the order of the file, and of variance 1/3
    prepared = target[np.argsort(row_keys(seed, ORDER, 0, rows))]
    plan = Plan(rows, batch, 1, seed, block=2000)
    means = np.array([prepared[plan.rows(step, 0)].mean() for step in range(epochs * plan.steps_per_epoch)])
    variance = means.var() * 3 * batch / (1 - batch / rows)
    assert abs(variance - 1) < 5 * np.sqrt(2 / len(means))
    by_epoch = means.reshape(epochs, -1)
    for left, right in [(means[:-1], means[1:]), (by_epoch[0], by_epoch[1]), (by_epoch[1], by_epoch[2])]:
        assert abs(np.corrcoef(left, right)[0, 1]) < 5 / np.sqrt(len(left))
