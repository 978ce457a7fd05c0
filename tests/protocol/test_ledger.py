"""The ledger: each shard is entered once, nothing is forgotten, and it needs no array to know that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.protocol.server.ledger import Arrived, Step, Verdict


@given(st.integers(1, 40), st.data())
def test_what_has_arrived_is_known_in_every_range(shards: int, data: st.DataObject) -> None:
    arrived, there = Arrived(shards), set[int]()
    for _ in range(data.draw(st.integers(0, 12))):
        start = data.draw(st.integers(0, shards - 1))
        stop = data.draw(st.integers(start + 1, shards))
        new = there.isdisjoint(range(start, stop))
        assert new == arrived.add(start, stop)
        if new:
            there |= set(range(start, stop))
    start = data.draw(st.integers(0, shards - 1))
    stop = data.draw(st.integers(start + 1, shards))
    gaps = arrived.missing(start, stop)
    assert [shard for shard in range(start, stop) if shard not in there] == [s for gap in gaps for s in range(*gap)]
    assert all(start <= first < last <= stop for first, last in gaps)
    assert (not gaps) == arrived.holds(start, stop)
    assert (len(there) == shards) == arrived.complete


def test_a_shard_is_entered_once() -> None:
    step = Step(0, 4)
    assert step.enter(0, 2)
    assert [False] * 3 == [step.enter(*shards) for shards in [(1, 2), (0, 4), (0, 2)]]
    assert [(2, 4)] == step.missing(0, 4) == step.unleased


def test_a_gradient_that_is_not_finite_is_computed_once_more_and_then_refused() -> None:
    step = Step(0, 4)
    step.take_range(4)
    assert Verdict.RETRIED == step.reject(0, 4, b"a", True)
    step.lease_again(0, 4)
    assert [(0, 1), (1, 2)] == [step.take_range(4), step.take_range(4)]  # each alone, so that it can be named
    assert Verdict.DROPPED == step.reject(0, 1, b"a", False)  # a second copy of the first
    assert step.enter(0, 1)
    assert Verdict.REFUSED == step.reject(1, 2, b"b", True)
    assert not step.complete


def test_a_step_is_complete_with_what_is_left_out() -> None:
    step = Step(3, 2)
    assert step.fully_leased is False
    step.take_range(2)
    assert step.fully_leased is True
    assert step.enter(1, 2)
    assert (False, False) == (step.complete, step.fully_leased)
    assert step.leave_out(0, 8)
    assert (True, {0: 8}) == (step.complete, step.left_out)


@pytest.mark.parametrize("missing", [[(1, 0)], [(0, 5)], [(2, 3), (1, 2)], [(-1, 1)]])
def test_ranges_that_a_step_does_not_have_are_refused(missing: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="shards"):
        Step(0, 4).restore(missing)
