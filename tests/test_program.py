"""What a Trainer makes of what a program hands it."""

import time

import pytest

from karp import program
from karp.program import Work


@pytest.mark.parametrize(("slept", "expected"), [(3, 0.5), (4, 2.0)], ids=["computed", "slept"])
def test_work_is_processor_time_unless_the_program_sleeps(
    monkeypatch: pytest.MonkeyPatch, slept: int, expected: float
) -> None:
    clocks = {"perf_counter": 100.0, "thread_time": 7.0}
    for name in clocks:
        monkeypatch.setattr(time, name, lambda name=name: clocks[name])
    monkeypatch.setattr(program, "sleeps", lambda: 3)
    work = Work()
    work.begin()
    clocks |= {"perf_counter": 102.0, "thread_time": 7.5}
    monkeypatch.setattr(program, "sleeps", lambda: slept)
    assert expected == work.seconds()
    clocks["perf_counter"] = 100.0 + Work.SECONDS  # the run has been compared by now
    assert 0.0 == work.seconds()
    work.begin()
    assert 0.0 == work.seconds()
