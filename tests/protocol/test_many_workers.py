"""What keeps a step of many workers from costing the square of their number gives the same as what is obvious."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import Run, leases

from karp.errors import ProtocolError
from karp.protocol.messages import Stop
from karp.protocol.server.workers import Throughput, WorkerInfo
from karp.protocol.tree import middle, parent


def test_every_node_has_the_parent_that_the_tree_gives_it() -> None:
    def look(start: int, stop: int, shards: int) -> set[tuple[int, int]]:
        if stop - start == 1:
            return {(start, stop)}
        split = middle(start, stop)
        assert (start, stop) == parent(start, split, shards) == parent(split, stop, shards)
        return {(start, stop)} | look(start, split, shards) | look(split, stop, shards)

    for shards in range(1, 40):
        nodes = look(0, shards, shards)
        for start in range(-3, shards + 2):
            for stop in range(start - 2, shards + 5):
                if (start, stop) not in nodes:
                    with pytest.raises(ProtocolError):
                        parent(start, stop, shards)


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 10.0]), min_size=1, max_size=8), st.integers(0, 30))
def test_each_shard_goes_to_whom_it_would_end_soonest_with(paces: list[float], shards: int) -> None:
    throughput = Throughput()
    throughput.seconds = 1.0
    members = [WorkerInfo(b"%d" % index, index, 0.0, pace=each, slow_until=9.0) for index, each in enumerate(paces)]
    expected = [0] * len(paces)
    for _ in range(shards):
        first = min(range(len(paces)), key=lambda index: (expected[index] + 1) * paces[index])
        expected[first] += 1
    assert expected == throughput.allocate(members, shards, now=0.0)


def test_numbers_are_free_again_when_their_workers_are_gone() -> None:
    run = Run(3)
    for worker in range(3):
        run.join(worker)
    run.take(run.server.ended(1, False, 1.0))
    assert {0: b"0", 2: b"2"} == run.server.numbers
    run.send(b"2", Stop())
    run.take(run.server.lost(b"2", 2.0))
    assert {0: b"0"} == run.server.numbers


def test_the_leases_of_all_who_are_late_are_given_again_at_once() -> None:
    run = Run(4)
    given = {}
    for worker in range(4):
        given |= leases(run.join(worker))
    run.now = 1.0
    run.contribute(0, given[0])
    run.contribute(1, given[1])
    again = leases(run.take(run.server.tick(9.0)))
    assert {0: (2, 3), 1: (3, 4)} == {worker: (lease.start, lease.stop) for worker, lease in again.items()}
    assert 2 == run.counts["leased_again"]
