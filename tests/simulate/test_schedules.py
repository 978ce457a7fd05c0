"""Thousands of clusters in which everything goes wrong; every invariant is looked at after every event."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from karp.protocol.leasing import Leasing
from karp.protocol.step import Step
from karp.protocol.tree import TreeSum
from karp.simulate import Cluster, Schedule, Violation, draw

SCHEDULES = 1500
CHUNK = 150


def run(schedule: Schedule) -> Cluster:
    cluster = Cluster(schedule)
    cluster.run()
    return cluster


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_every_invariant_holds_in_every_history(first: int) -> None:
    happened: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        happened += run(draw(seed)).happened
    assert len(happened) >= 5, happened  # the schedules are full of faults, of many kinds


def test_one_seed_is_one_history() -> None:
    first, again = run(draw(7)), run(draw(7))
    assert (first.clock.events, first.clock.now) == (again.clock.events, again.clock.now)


def violated(count: int = 300) -> bool:
    """Whether the checker objects to one of the first schedules."""
    for seed in range(count):
        try:
            run(draw(seed))
        except Violation as violation:
            return f"--seed {seed}" in str(violation)  # it says how to repeat it
    return False


def test_the_checker_sees_a_sum_in_the_order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TreeSum.add

    def in_order_of_arrival(self: TreeSum, node: Any) -> bool:
        if not right(self, node):
            return False
        if self.complete and node.start > 0 and self.nodes[0].vector is not None:
            total = self.nodes[0]
            self.nodes[0] = total._replace(vector=(total.vector + node.vector) - node.vector)
        return True

    monkeypatch.setattr(TreeSum, "add", in_order_of_arrival)
    assert violated()


def test_the_checker_sees_a_shard_that_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TreeSum, "has", lambda self, start, stop: False)
    assert violated()


def test_the_checker_sees_a_lease_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Step, "give_back", lambda self, start, stop: None)
    assert violated()


def test_the_checker_sees_work_that_is_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgotten(self: Leasing, member: Any) -> None:
        member.task = None

    monkeypatch.setattr(Leasing, "withdraw", forgotten)
    assert violated()


def test_a_worker_ten_times_slower_costs_half_a_run_at_most_and_no_bits() -> None:
    """Each worker has a core of its own here. Bits are checked after every event, as in every history."""
    calm = Schedule(seed=0, workers=4, shards=12, samples=240, batch_size=24, epochs=5)
    slow = replace(calm, slow=((3, 10.0),))
    assert 50 == calm.steps
    assert run(slow).clock.now <= 1.5 * run(calm).clock.now
