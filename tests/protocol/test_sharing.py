"""Most steps are shared out as the one before; what happens when that does not fit any more."""

from typing import Any

import pytest
from machines import Run, leases

from karp.protocol.messages import Lease, Score


def spans_of(given: dict[int, Lease]) -> dict[int, tuple[int, int]]:
    """Worker -> its shards."""
    return {worker: (lease.start, lease.stop) for worker, lease in given.items()}


def begun(workers: int, **changes: Any) -> tuple[Run, dict[int, Lease]]:
    run = Run(workers, **({"batch_size": 4, "samples": 40} | changes))
    answers = [answer for worker in range(workers) for answer in run.join(worker)]
    return run, leases(answers)


def step(run: Run, given: dict[int, Lease]) -> dict[int, Lease]:
    """Everybody contributes, the last worker first; returns what they are leased then."""
    answers = [answer for worker in reversed(given) for answer in run.contribute(worker, given[worker])]
    return leases(answers)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6])
def test_everybody_gets_the_same_shards_of_every_step(workers: int) -> None:
    run, given = begun(workers)
    first = spans_of(given)
    assert [*range(4)] == sorted(shard for start, stop in first.values() for shard in range(start, stop))
    for number in range(1, 8):
        given = step(run, given)
        assert first == spans_of(given)
        assert {number} == {lease.step for lease in given.values()}


def test_a_smaller_batch_is_shared_out_anew() -> None:
    run, given = begun(2, samples=10)  # batches of 4, 4 and 2 samples
    spans = []
    for _ in range(4):
        spans.append(sorted((lease.start, lease.stop) for lease in given.values()))
        given = step(run, given)
    assert [[(0, 2), (2, 4)], [(0, 2), (2, 4)], [(0, 1), (1, 2)], [(0, 2), (2, 4)]] == spans


def test_who_joins_gets_a_share_and_who_is_lost_none() -> None:
    run, given = begun(2)
    given = step(run, given)
    run.join(2)
    given = step(run, given)
    assert {0: (0, 2), 1: (2, 3), 2: (3, 4)} == spans_of(given)
    run.take(run.server.lost(b"1", run.now))
    answers = [answer for worker in (0, 2) for answer in run.contribute(worker, given[worker])]
    # What the lost one had goes to the first that waits.
    assert {0: (2, 3)} == spans_of(leases(answers))
    answers = run.contribute(0, leases(answers)[0])
    assert {0: (0, 2), 2: (2, 4)} == spans_of(leases(answers))


def test_who_evaluates_is_not_waited_for() -> None:
    run, given = begun(2, evaluate=True, samples=12)  # epochs of 3 steps
    given = step(run, step(run, step(run, given)))
    assert {0: (0, 4)} == spans_of(given)  # worker 1 evaluates
    assert {} == leases(run.send(b"1", Score(0, {"score": 1.0}, False)))
    given = step(run, given)
    assert {0: (0, 2), 1: (2, 4)} == spans_of(given)


def test_who_is_slow_gets_less_until_that_is_forgotten() -> None:
    run, given = begun(2, epochs=1000)
    for _ in range(3):
        run.now += 0.01
        given = step(run, given)
    answers = run.contribute(0, given[0])
    run.now += 1.0  # worker 1 takes a hundred times as long
    answers = run.contribute(1, given[1])
    assert {0: (0, 4)} == spans_of(leases(answers))
    given = leases(answers)
    while len(given) == 1:
        run.now += 0.01
        given = step(run, given)
    assert {0: (0, 2), 1: (2, 4)} == spans_of(given)
