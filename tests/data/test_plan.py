"""The sampling plan: every row once per epoch, fixed by (seed, epoch, step, shard) and by nothing else."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.data import Plan, generator
from karp.errors import SettingError

GOLDEN = {
    0: [[8, 14, 11], [4, 2, 7], [10, 16]],
    2: [[12, 13], [17], [15]],
    3: [[13, 18, 0], [14, 2, 16], [8, 17]],
    5: [[3, 9], [12], [7]],
}
GOLDEN_LARGE = [[29753, 10331], [43694, 14949]]
GOLDEN_DRAWS = [298, 105, 10, 217]

plans = st.builds(
    Plan,
    samples=st.integers(1, 200),
    batch_size=st.integers(1, 250),
    shards=st.integers(1, 40),
    seed=st.integers(0, 2**63 - 1),
    block=st.integers(0, 250),
)


def shards(plan: Plan, step: int) -> list[np.ndarray]:
    return [plan.rows(step, shard) for shard in range(plan.shards_of(step))]


def epoch(plan: Plan, number: int) -> list[int]:
    first = number * plan.steps_per_epoch
    steps = range(first, first + plan.steps_per_epoch)
    return [int(row) for step in steps for rows in shards(plan, step) for row in rows]


@given(plans, st.integers(0, 5))
def test_every_row_is_used_exactly_once_per_epoch(plan: Plan, number: int) -> None:
    assert sorted(epoch(plan, number)) == list(range(plan.samples))


@given(plans, st.integers(0, 1000))
def test_a_step_is_its_shards(plan: Plan, step: int) -> None:
    sizes = [len(rows) for rows in shards(plan, step)]
    total = plan.samples_of(step)
    assert sum(sizes) == total
    assert len(sizes) == min(plan.shards, total)
    assert [plan.samples_in(step, shard) for shard in range(len(sizes))] == sizes
    assert plan.rows(step, 0, len(sizes)).tolist() == [row for rows in shards(plan, step) for row in rows]
    assert [plan.share(step, shard) for shard in range(len(sizes))] == [size / total for size in sizes]
    assert sum(Fraction(size, total) for size in sizes) == 1
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert all(left >= right for left, right in pairwise(sizes))


@given(plans)
def test_only_the_last_batch_of_an_epoch_may_be_smaller(plan: Plan) -> None:
    sizes = [plan.samples_of(step) for step in range(2 * plan.steps_per_epoch)]
    one = sizes[: plan.steps_per_epoch]
    assert sizes == one + one
    assert one[:-1] == [plan.batch_size] * (plan.steps_per_epoch - 1)
    assert 1 <= one[-1] <= plan.batch_size


@given(plans, st.lists(st.integers(0, 60), max_size=12))
def test_the_order_of_calls_does_not_show(plan: Plan, asked: list[int]) -> None:
    for step in asked:
        fresh = Plan(plan.samples, plan.batch_size, plan.shards, plan.seed, plan.block)
        shard = step % plan.shards_of(step)
        assert plan.rows(step, shard).tolist() == fresh.rows(step, shard).tolist()


def test_neighbouring_epochs_in_turn_are_drawn_once() -> None:
    plan = Plan(samples=100, batch_size=10, shards=2)
    first, second = plan.rows(9, 0).base, plan.rows(10, 0).base
    assert all(plan.rows(9, 1).base is first and plan.rows(10, 1).base is second for _ in range(3))
    assert plan.rows(25, 0).base is not None
    assert plan.rows(9, 0).tolist() == Plan(100, 10, 2).rows(9, 0).tolist()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
def test_the_number_of_shards_does_not_change_the_global_batches(
    samples: int, batch_size: int, some: int, others: int
) -> None:
    assert epoch(Plan(samples, batch_size, some), 1) == epoch(Plan(samples, batch_size, others), 1)


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [tuple(epoch(Plan(50, 8, 3, seed), number)) for seed in range(10) for number in range(10)]
    assert len(set(orders)) == 100


def test_golden_rows() -> None:
    """A change of these numbers is a change of every run there is: same program, same seed, other weights."""
    plan = Plan(samples=20, batch_size=8, shards=3, seed=0)
    assert {step: [rows.tolist() for rows in shards(plan, step)] for step in GOLDEN} == GOLDEN
    large = Plan(samples=100_000, batch_size=4, shards=2, seed=2**40 + 3)
    assert [rows.tolist() for rows in shards(large, 30_000)] == GOLDEN_LARGE


def test_more_shards_than_rows() -> None:
    plan = Plan(samples=5, batch_size=3, shards=8)
    assert [plan.shards_of(step) for step in range(4)] == [3, 2, 3, 2]
    assert plan.share(1, 1) == 0.5
    with pytest.raises(SettingError, match=r"shard of step 1 must be a whole number from 0 to 1, not 2"):
        plan.rows(1, 2)


def test_a_batch_larger_than_the_table_is_the_table() -> None:
    plan = Plan(samples=5, batch_size=100, shards=1)
    assert (plan.steps_per_epoch, plan.samples_of(7)) == (1, 5)
    assert sorted(plan.rows(7, 0).tolist()) == [0, 1, 2, 3, 4]


def test_rows_are_int64_and_cannot_be_written() -> None:
    rows = Plan(samples=5, batch_size=2, shards=1).rows(0, 0)
    assert rows.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 1


def test_plans_are_equal_by_their_settings() -> None:
    plan = Plan(5, 2, 1)
    plan.rows(0, 0)
    assert plan == Plan(np.int64(5), 2, 1, seed=0)
    assert hash(plan) == hash(Plan(5, 2, 1))
    assert repr(plan) == "Plan(samples=5, batch_size=2, shards=1, seed=0, block=0)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples must be a whole number from 1 to 9223372036854775807, not 0"),
        ({"batch_size": -1}, "batch_size must be .*, not -1"),
        ({"batch_size": 2.0}, "batch_size must be .*, not 2.0"),
        ({"shards": 0}, "shards must be a whole number from 1 to 4294967295, not 0"),
        ({"shards": True}, "shards must be .*, not True"),
        ({"seed": -1}, "seed must be a whole number from 0 to 9223372036854775807, not -1"),
        ({"seed": 2**63}, "seed must be .*, not 9223372036854775808"),
        ({"seed": None}, "seed must be .*, not None"),
        ({"seed": "1"}, "seed must be .*, not '1'"),
        ({"block": -1}, "block must be a whole number from 0 to 9223372036854775807, not -1"),
        ({"block": 1.5}, "block must be .*, not 1.5"),
        ({"samples": 2**40, "block": 1}, "block must be a whole number from 257 to"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Plan(**({"samples": 5, "batch_size": 2, "shards": 2} | settings))


@pytest.mark.parametrize("method", ["rows", "share", "samples_in"])
@pytest.mark.parametrize(("step", "shard"), [(-1, 0), (0.5, 0), (0, -1), (0, 2), (0, 0.0), (True, 0)])
def test_steps_and_shards_that_do_not_exist(method: str, step: int, shard: int) -> None:
    with pytest.raises(SettingError, match="must be a whole number from 0"):
        getattr(Plan(samples=5, batch_size=2, shards=2), method)(step, shard)


@pytest.mark.parametrize("method", ["samples_of", "shards_of"])
@pytest.mark.parametrize("step", [-1, 1.5, "1"])
def test_steps_that_do_not_exist(method: str, step: int) -> None:
    with pytest.raises(SettingError, match="step must be a whole number"):
        getattr(Plan(samples=5, batch_size=2, shards=2), method)(step)


def test_numpy_integers_are_whole_numbers() -> None:
    plan = Plan(samples=5, batch_size=2, shards=2)
    assert plan.rows(np.int64(1), np.int32(0)).tolist() == plan.rows(1, 0).tolist()
    assert type(plan.share(np.int64(1), np.int64(0))) is float


def test_generators_are_fixed_by_seed_step_and_shard() -> None:
    draws = {key: float(generator(*key).random()) for key in np.ndindex(4, 4, 4)}
    assert len(set(draws.values())) == 64
    assert draws == {key: float(generator(*key).random()) for key in reversed(draws)}
    assert generator(1, 2, 3).integers(1000, size=4).tolist() == GOLDEN_DRAWS


def test_generators_are_apart_from_the_orders_and_from_plain_seeds() -> None:
    keys = [(seed, step, shard) for seed in range(3) for step in range(20) for shard in range(3)]
    drawn = {tuple(generator(*key).permutation(20).tolist()) for key in keys}
    orders = {tuple(epoch(Plan(20, 4, 1, seed), number)) for seed in range(3) for number in range(20)}
    plain = {tuple(np.random.default_rng(seed).permutation(20).tolist()) for seed in range(3)}
    assert len(drawn | orders | plain) == len(keys) + 60 + 3


def test_steps_past_32_bits_are_not_taken_for_other_shards() -> None:
    assert generator(0, 2**32, 0).random() != generator(0, 0, 1).random()
    assert generator(0, 2**32 + 1, 0).random() != generator(0, 1, 0).random()


@pytest.mark.parametrize("key", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 2**32), (0, 0.5, 0)])
def test_generators_of_nothing(key: tuple[int, int, int]) -> None:
    with pytest.raises(SettingError, match="must be a whole number from 0"):
        generator(*key)
