"""Fewer or more workers are asked for: a worker that is to end sends what it computes, and gets no other task."""

from typing import Any

import pytest
from machines import Run

from karp.protocol.messages import Join, Lease, Refusal, Scale, Waiting
from karp.protocol.reports import Released
from karp.protocol.reports import Scale as ScaleReport


def leases(answers: list[tuple[bytes, Any]]) -> dict[int, Lease]:
    """The leases among these messages, by worker."""
    return {int(peer): message for peer, message in answers if isinstance(message, Lease)}


def reported(run: Run, kind: type) -> list[Any]:
    return [report for report in run.reports if isinstance(report, kind)]


def begun(workers: int) -> tuple[Run, dict[int, Lease]]:
    run = Run(workers)
    given = leases([answer for worker in range(workers) for answer in run.join(worker)])
    assert set(range(workers)) == set(given)
    return run, given


def test_a_worker_that_is_released_ends_its_task_and_gets_no_other() -> None:
    run, given = begun(2)
    assert {} == leases(run.take(run.server.release([1], 0.0)))
    assert [] == reported(run, Released)
    run.contribute(1, given[1])
    assert [1] == [report.worker for report in reported(run, Released)]
    after = leases(run.contribute(0, given[0]))
    assert {0: (1, 0, 4)} == {worker: (lease.step, lease.start, lease.stop) for worker, lease in after.items()}
    run.take(run.server.ended(1, False, 0.0))
    assert (1, 0) == (run.version, run.counts["leased_again"])


def test_one_that_joins_later_gets_no_task_at_all() -> None:
    run, _ = begun(1)
    run.take(run.server.release([1], 0.0))
    assert {} == leases(run.join(1))
    assert [1] == [report.worker for report in reported(run, Released)]


def test_a_number_that_is_wanted_again_gets_tasks() -> None:
    run, given = begun(2)
    run.take(run.server.release([1], 0.0))
    run.contribute(1, given[1])
    run.take(run.server.ended(1, False, 0.0))
    run.take(run.server.release([], 0.0))
    run.join(1)
    assert {0, 1} == set(leases(run.contribute(0, given[0])))


def test_one_that_is_released_is_no_leader() -> None:
    run = Run(2, epochs=1, samples=8)
    given = leases(run.join(0) + run.join(1))
    run.take(run.server.release([0], 0.0))
    run.contribute(0, given[0])
    run.contribute(1, given[1])
    assert (True, 1) == (run.over, run.main)


def test_new_workers_have_numbers_that_nobody_has() -> None:
    """Neither a worker that was started elsewhere, nor one that comes before they do."""
    run, _ = begun(2)
    run.join(-1)
    (answer,) = run.send(b"user", Scale(3))
    assert (b"user", Waiting("the launcher to have 3 workers")) == answer
    (report,) = reported(run, ScaleReport)
    assert (3, 3) == (report.workers, report.first)
    run.send(b"another", Join(-1, run.settings, "host", 1))
    assert {0, 1, 2, 6} == set(run.server.numbers)


@pytest.mark.parametrize(
    ("joined", "launched", "reason"),
    [(1, 2, "the run has not begun"), (2, 0, "this run's workers are started elsewhere"), (2, 2, "the run is over")],
)
def test_what_cannot_be_is_refused(joined: int, launched: int, reason: str) -> None:
    run = Run(2, epochs=1, samples=8)
    run.server.joining.launched = launched
    given = leases([answer for worker in range(joined) for answer in run.join(worker)])
    if "over" in reason:
        for worker, lease in given.items():
            run.contribute(worker, lease)
    (answer,) = run.send(b"user", Scale(3))
    assert isinstance(answer[1], Refusal)
    assert reason in answer[1].reason
    assert [] == reported(run, ScaleReport)
