"""Orders by blocks: every row once (test_plan.py has that), near each other, in little memory, and as good as any."""

import tracemalloc

import numpy as np
import pytest

from karp.data import Plan

GOLDEN = [[12, 13, 14], [10, 11, 3], [1, 4, 0], [2, 6, 9], [5, 8, 7]]


def order(plan: Plan, epoch: int = 0) -> np.ndarray:
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return np.concatenate([plan.rows(step, 0, plan.shards_of(step)) for step in steps])


def test_the_order_is_this_one() -> None:
    plan = Plan(15, 3, 1, seed=7, block=6)
    assert GOLDEN == [plan.rows(step, 0).tolist() for step in range(5)]


@pytest.mark.parametrize(
    ("samples", "block", "sizes"), [(15, 6, [5] * 3), (16, 6, [6, 5, 5]), (7, 7, [7]), (4, 1, [1] * 4)]
)
def test_blocks_differ_by_a_row_at_most(samples: int, block: int, sizes: list[int]) -> None:
    bounds = np.cumsum([0, *sizes])
    rows = order(Plan(samples, samples, 1, block=block))
    numbers = np.searchsorted(bounds, rows, side="right") - 1  # of the blocks that rows are in
    changes = np.flatnonzero(np.diff(numbers)) + 1
    parts = np.split(rows, changes)
    assert sorted(map(len, parts)) == sorted(sizes)
    assert sorted(parts[place].min() for place in range(len(parts))) == bounds[:-1].tolist()


def test_epochs_and_seeds_have_other_orders_of_blocks_and_within_them() -> None:
    rows = [order(Plan(400, 50, 2, seed=seed, block=100), epoch) for seed in (0, 1) for epoch in range(4)]
    assert len({tuple(each) for each in rows}) == len(rows)
    blocks = {tuple(each[::100] // 100) for each in rows}
    assert len(blocks) > 4
    of_first_block = {tuple(each[each < 100]) for each in rows}
    assert len(of_first_block) == len(rows)


def test_rows_are_read_only_and_int64_across_blocks_too() -> None:
    plan = Plan(10, 4, 1, block=3)
    for step in range(3):
        rows = plan.rows(step, 0)
        assert (np.int64, False) == (rows.dtype, rows.flags.writeable)


def test_memory_does_not_grow_with_the_rows() -> None:
    tracemalloc.start()
    try:
        plan = Plan(10**10, 256, 4, block=1 << 16)
        for step in (0, 1, plan.steps_per_epoch, 10 * plan.steps_per_epoch - 1):
            plan.rows(step, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64e6  # a permutation of all would be 80 GB
