"""What a Trainer makes of what a program hands it."""

import time

import pytest

from karp.trainer import inputs
from karp.trainer.inputs import Work


@pytest.mark.parametrize(("slept", "expected"), [(3, 0.5), (4, 2.0)], ids=["computed", "slept"])
def test_work_is_processor_time_unless_the_program_sleeps(
    monkeypatch: pytest.MonkeyPatch, slept: int, expected: float
) -> None:
    clocks = {"perf_counter": 100.0, "thread_time": 7.0}
    for name in clocks:
        monkeypatch.setattr(time, name, lambda name=name: clocks[name])
    monkeypatch.setattr(inputs, "sleeps", lambda: 3)
    work = Work()
    measured = []
    for _ in range(2 * Work.EVERY):
        work.begin()
        clocks["perf_counter"] += 2.0
        clocks["thread_time"] += 0.5
        with monkeypatch.context() as later:
            later.setattr(inputs, "sleeps", lambda: slept)
            measured.append(work.seconds())
        clocks["perf_counter"] += Work.SECONDS / Work.EVERY  # so the second that is due comes too late
    assert [expected] + [0.0] * (2 * Work.EVERY - 1) == measured
