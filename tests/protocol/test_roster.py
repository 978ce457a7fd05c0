"""What the server says of its workers, once a second, and when it says that one process would be faster."""

import re
from typing import Any

import pytest
from machines import Run, gradient, leases, read_only, settings

from karp.protocol import reports
from karp.protocol.messages import Contribution, Evaluation, Join, Lease, Score
from karp.protocol.reports import Activity, WorkerStatus
from karp.protocol.tree import Node


def contribution(lease: Lease, seconds: float) -> Contribution:
    """Every shard of a lease, one by one, in so many seconds of computing."""
    shards = range(lease.start, lease.stop)
    nodes = [Node(shard, shard + 1, 0.25, read_only(gradient(lease.step, shard))) for shard in shards]
    return Contribution(lease.step, lease.version, nodes, [], False, 0, seconds)


def tick(run: Run, now: float) -> None:
    run.now = now
    run.take(run.server.tick(now))


def statuses(run: Run) -> list[WorkerStatus]:
    """Of the last report."""
    return run.reported(reports.Workers)[-1].workers


def begin(**changes: Any) -> tuple[Run, dict[int, Lease]]:
    """Two workers with two shards each of a step, 20 samples in epochs of 3 steps; the last report was at 1.0."""
    run = Run(2, epochs=1000, **changes)
    given = leases(run.join(0) + run.join(1))
    tick(run, 1.0)
    return run, given


def test_time_is_told_apart_and_adds_up() -> None:
    run, given = begin()
    run.now = 1.5  # half a second of this lease has been reported at 1.0, as computing
    run.send(b"0", contribution(given[0], 1.25))
    tick(run, 2.0)
    fast, slow = statuses(run)
    per_shard = 20 / 3 / 4
    assert WorkerStatus(
        0, "host", Activity.WAITING, 1.5, None, pytest.approx(2 * per_shard, abs=0.05), 0.25, 0.5, 0.25, None, 0
    ) == fast  # fmt: skip
    assert WorkerStatus(1, "host", Activity.COMPUTING, 0.0, [0, 2, 4], 0.0, 1.0, 0.0, 0.0, 0, 0) == slow
    run.now = 2.25
    given = leases(run.send(b"1", contribution(given[1], 2.25)))
    assert {0, 1} == set(given)
    tick(run, 3.0)
    fast, slow = statuses(run)
    assert [(1.0 - 0.25, 0.25), (1.0, 0.0)] == [(each.computing, each.waiting) for each in (fast, slow)]
    assert [2.25, 2.25] == [each.since for each in (fast, slow)]


def test_a_worker_that_is_gone_and_comes_again_is_counted() -> None:
    run, _ = begin()
    run.take(run.server.lost(b"1", 1.25))
    tick(run, 2.0)
    assert [(Activity.COMPUTING, 0), (Activity.GONE, 0)] == [(each.state, each.restarts) for each in statuses(run)]
    run.now = 2.5
    run.send(b"another", Join(1, settings(epochs=1000), "elsewhere", 2))
    tick(run, 3.0)
    assert ("elsewhere", 1, Activity.COMPUTING, 2.5) == (
        statuses(run)[1].host, statuses(run)[1].restarts, statuses(run)[1].state, statuses(run)[1].since
    )  # fmt: skip


def test_an_evaluation_is_one_state_and_counts_as_computing() -> None:
    run = Run(1, shards=1, evaluate=True)
    lease = leases(run.join(0))[0]
    for _ in range(3):
        (_, answer), *_ = run.send(b"0", contribution(lease, 0.5))
        lease = answer
    assert isinstance(answer, Evaluation)
    tick(run, 1.0)
    assert (Activity.EVALUATING, None) == (statuses(run)[0].state, statuses(run)[0].lease)
    run.now = 1.5
    run.send(b"0", Score(0, {"a": 1.0}, False))
    tick(run, 2.0)
    assert (1.0, 0.0) == (statuses(run)[0].computing, statuses(run)[0].waiting)


def test_staleness_is_that_of_the_weights_at_work() -> None:
    run = Run(2, epochs=100, staleness=1, shards=2)
    given = leases(run.join(0) + run.join(1))
    fast = given.pop(0)
    following = leases(run.send(b"0", contribution(fast, 0.1)))[0]  # of the next step, with the same weights
    run.send(b"1", contribution(given[1], 0.1))
    tick(run, 1.0)
    assert (following.step, 1) == (1, statuses(run)[0].staleness)


def test_many_workers_are_reported_more_rarely() -> None:
    run = Run(250, shards=1, samples=20)
    for worker in range(250):
        run.join(worker)
    tick(run, 1.0)
    for now in (2.0, 3.0, 3.5):
        tick(run, now)
    assert [250, 250] == [len(report.workers) for report in run.reported(reports.Workers)]


def test_there_is_nothing_to_report_before_the_first_step_and_after_the_last() -> None:
    run = Run(2, epochs=1)
    run.join(0)
    tick(run, 1.0)
    given = leases(run.join(1))
    while given:
        worker, lease = given.popitem()
        given |= leases(run.send(b"%d" % worker, contribution(lease, 0.1)))
    assert run.over
    tick(run, 2.0)
    assert [] == run.reported(reports.Workers)


def notices(computing: float, workers: int = 2, seconds: float = 6.0) -> list[str]:
    """What is said of steps of half a second, each of them with so many seconds of computing in each worker."""
    run = Run(workers, epochs=100, shards=workers)
    given: dict[int, Lease] = {}
    for worker in range(workers):
        given |= leases(run.join(worker))
    while run.now < seconds:
        run.now += 0.5
        answers = []
        for worker, lease in given.items():
            answers += run.send(b"%d" % worker, contribution(lease, computing))
        given = leases(answers)
    return [report.text for report in run.reported(reports.Notice)]


def test_one_process_is_named_once_where_it_would_be_faster() -> None:
    (text,) = notices(0.1)
    found = re.fullmatch(r"2 workers train (\d+) samples/s; one process, .*, would train about (\d+): run .+", text)
    assert found is not None, text
    together, alone = map(int, found.groups())  # 0.5 s a step, of which 0.2 s of computing
    assert abs(alone - 2.5 * together) < 3


@pytest.mark.parametrize(
    ("computing", "workers", "seconds"),
    [(0.3, 2, 6.0), (0.4, 1, 3.0), (0.0, 1, 6.0)],
    ids=["two are faster", "too early", "one process measures nothing"],
)
def test_one_process_is_not_named_without_need(computing: float, workers: int, seconds: float) -> None:
    assert [] == notices(computing, workers, seconds)
