"""What a run says of its own speed."""

import re

import pytest
from machines import Run, gradient, leases, read_only

from karp.protocol import reports
from karp.protocol.messages import Contribution
from karp.protocol.server.progress import COMPARE_SECONDS, WARM_SECONDS, Progress
from karp.protocol.tree import Node


def after(seconds: float, samples: int, busy: float) -> tuple[float, float] | None:
    """What is said of a run of so many samples in so many seconds, once it is warm."""
    progress = Progress(0.0)
    progress.begin(10.0)
    progress.step(0.5, 999, 999)
    progress.timed(999, 50.0)
    assert progress.compare(10.0 + WARM_SECONDS) is None
    progress.step(0.5, samples, samples)
    progress.timed(samples, busy)
    said = progress.compare(10.0 + WARM_SECONDS + seconds)
    assert progress.compare(1000.0) is None  # once is enough
    return said


@pytest.mark.parametrize(
    ("busy", "expected"),
    [(1.0, (250.0, 1000.0)), (3.6, (250.0, 1000 / 3.6)), (4.1, None), (8.0, None), (0.0, None)],
)
def test_one_process_is_named_where_it_would_be_faster(busy: float, expected: tuple[float, float] | None) -> None:
    assert (expected if expected is None else pytest.approx(expected)) == after(COMPARE_SECONDS + 1.0, 1000, busy)


def test_nothing_is_said_before_the_first_seconds_are_over() -> None:
    progress = Progress(0.0)
    progress.begin(0.0)
    assert progress.compare(WARM_SECONDS) is None
    progress.timed(100, 1.0)
    progress.step(0.5, 100, 100)
    assert progress.compare(WARM_SECONDS + COMPARE_SECONDS - 0.1) is None
    assert progress.compare(WARM_SECONDS + COMPARE_SECONDS) is not None


def test_the_launcher_gets_both_figures() -> None:
    run = Run(2, epochs=100, shards=2)
    given = leases(run.join(0) + run.join(1))
    for _ in range(12):
        run.now += 0.5
        answers = []
        for worker, lease in given.items():
            nodes = [Node(lease.start, lease.stop, 0.25, read_only(gradient(lease.step, lease.start)))]
            message = Contribution(lease.step, lease.version, nodes, [], False, 0, 0.1)
            answers += run.send(b"%d" % worker, message)
        given = leases(answers)
    (text,) = [report.text for report in run.reported(reports.Notice)]
    found = re.fullmatch(r"2 workers train (\d+) samples/s; one process, .*, would train about (\d+): run .+", text)
    assert found is not None, text
    together, alone = map(int, found.groups())  # 0.5 s a step, of which 0.2 s of computing
    assert abs(alone - 2.5 * together) < 2
