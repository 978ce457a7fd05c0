"""Reports as lines, and back."""

import json
import re

import pytest

from karp.protocol import reports
from karp.protocol.reports import KINDS, Activity, WorkerStatus, from_line, to_line

EVERY = [
    reports.Settings(0.0, 0, {"seed": 0, "optimizer": {"name": "SGD", "lr": 0.1}}),
    reports.Kernels(0.0, 0, None, {"numpy": "2.0"}),
    reports.Joined(0.0, 0, 1, "a", 17),
    reports.Begin(0.0, 0, 20, 10, 2),
    reports.Exchange(0.0, 0, 2, 1, False),
    reports.Progress(1.5, 7, 0, 0.5, 0.25, 100.0, 2, {"0": 3}),
    reports.Workers(2.0, 9, [WorkerStatus(0, "a", Activity.WAITING, 1.5, None, 100.0, 0.5, 0.25, 0.25, None, 0)]),
    reports.Workers(2.0, 9, [WorkerStatus(0, "a", Activity.COMPUTING, 1.5, [9, 0, 2], 100.0, 0.5, 0.25, 0.25, 0, 1)]),
    reports.Evaluation(2.5, 10, 0, {"accuracy": 0.5}),
    reports.Log(2.5, 10, "norm", 1.0),
    reports.Notice(2.5, 10, "é, \udce9 and a line\nbreak"),
    reports.Refused(2.5, 10, "no message"),
    reports.Rejected(2.5, 10, "no key"),
    reports.Traceback(2.5, 10, 1, "Traceback …", False),
    reports.Lost(2.5, 10, 1),
    reports.Main(3.0, 20, 0),
    reports.Scale(3.0, 20, 4, 2),
    reports.Released(3.0, 20, 1),
    reports.Left(3.0, 20, 0),
    reports.Closed(3.0, 20),
    reports.Listening(0.0, 0),
    reports.Failure(3.0, 20, "why"),
    reports.Arrivals(3.0, 20, [[0, 1, 0, 2]]),
]


@pytest.mark.parametrize("report", EVERY, ids=lambda report: type(report).__name__)
def test_a_report_is_one_line_and_comes_back_as_it_was(report: reports.Report) -> None:
    line = to_line(report)
    assert ["report", "seconds", "step"] == list(json.loads(line))[:3]
    assert "\n" not in line
    again = from_line(line)
    assert (type(report), report) == (type(again), again)
    assert ("seconds", "step") == type(report)._fields[:2]


def test_every_kind_is_here_and_in_the_table_of_the_docstring() -> None:
    assert set(KINDS.values()) == {type(report) for report in EVERY}
    assert reports.__doc__ is not None
    table = reports.__doc__.split("    report      its step is")[1].split("\n\n")[0]
    for name, kind in KINDS.items():
        if kind is not reports.Arrivals:
            (row,) = re.findall(rf"^    {name} .*(?:\n {{10,}}.*)*", table, re.M)
            assert [] == [field for field in kind._fields[2:] if field not in row]
            assert kind is not reports.Workers or [] == [field for field in WorkerStatus._fields if field not in row]


NO_REPORTS = ["", "{", "[]", "7", "{}", '{"report": "lost"}', '{"report": ["lost"]}', '{"report": 1}']


@pytest.mark.parametrize("line", NO_REPORTS)
def test_what_is_no_report_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_line(line)
