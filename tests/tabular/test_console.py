"""What a fit says while it works, and the display of one that a launcher runs."""

import io
from typing import Any

import pytest

from karp.protocol.reports import ONE_PROCESS, Begin, Evaluation, Notice, Progress, Settings
from karp.tabular.console import Console
from karp.tabular.display import FitDisplay
from karp.tabular.scores import SCORES


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_wrapped_under_their_labels() -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.notes(["column 'name' is left out: " + "it is text " * 8, "column 'b' is left out"])
    console.say("run", "/" + "long/" * 30)
    lines = stream.getvalue().splitlines()
    assert "note      column 'name' is left out: it is text it is text it is text it is text" == lines[0]
    assert ["          it is text it is text it is text it is text", "          column 'b' is left out"] == lines[1:3]
    assert "run       /long/" == lines[3][:16]
    assert 4 == len(lines)


def clock(*seconds: float) -> Any:
    """A clock that shows these seconds, one after the other."""
    return iter(seconds).__next__


def test_progress_is_a_line_every_ten_seconds_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    console = Console(stream, clock(0.0, 5.0, 10.0, 19.0, 21.0))
    for rows in range(1, 5):
        console.progress("reading", 1000 * rows, 5000 if rows < 4 else None)
    assert ["          reading: 2,000 of 5,000 rows", "          reading: 4,000 rows"] == stream.getvalue().splitlines()


def test_progress_is_one_line_on_a_terminal_which_the_next_takes_over() -> None:
    stream = Terminal()
    console = Console(stream, clock(0.0, 1.0, 1.05, 2.0))
    for rows in (1, 2, 3):
        console.progress("reading", 1000 * rows, None)
    console.say("rows", "3")
    first, second, blank, last = stream.getvalue().split("\r")
    assert ("          reading: 1,000 rows", "          reading: 3,000 rows") == (first, second)
    assert (len(first), "", "rows      3\n") == (len(blank), blank.strip(), last)


def test_without_a_stream_and_with_a_closed_one_nothing_is_said() -> None:
    Console(None).say("rows", "3")
    stream = io.StringIO()
    console = Console(stream)
    stream.close()
    console.say("rows", "3")


def test_epochs_are_watched_and_the_best_is_named() -> None:
    stream = io.StringIO()
    watch = Console(stream, clock(0.0, 0.0, 1.0, 1.0, 20.0, 20.0, 30.5, 30.5)).watch("training", 3, SCORES["rmse"])
    for epoch, value in enumerate((2.0, 1.5, float("nan"))):
        watch(epoch, value)
    assert [
        "training  epoch 2 of 3  RMSE 1.5  best 1.5 (epoch 2)  0:20, 0:10 to go",
        "best      epoch 2 of 3, RMSE 1.5; 30.5 s",
    ] == stream.getvalue().splitlines()


@pytest.mark.parametrize(("mode", "best"), [("max", "0.9 (epoch 1)"), ("min", "0.8 (epoch 2)")])
def test_a_launched_fit_shows_epochs(mode: str, best: str) -> None:
    stream = io.StringIO()
    display = FitDisplay(stream)
    for report in (
        Settings(0.0, 0, {"mode": mode, "ties": "last"}),
        Begin(0.0, 0, 40, 10, 2),
        Evaluation(1.0, 10, 0, {"auc": 0.9}),
        Notice(1.0, 10, f"2 workers train 1 samples/s; {ONE_PROCESS} about 2: run program.py with python"),
        Notice(1.0, 10, "worker 1 is slow"),
        Evaluation(2.0, 20, 1, {"auc": 0.8}),
        Progress(2.5, 25, 2, 0.5, 0.5, 100.0, 2, {}),
        Progress(6.0, 40, 3, 0.5, 0.5, 100.0, 2, {}),
    ):
        display.report(report)  # type: ignore[arg-type]
    display.conclude({"best": {"epoch": 1, "auc": 0.8}, "steps": 40, "seconds": 6.04, "epochs": 4.0}, None)
    assert [
        "workers   one would be faster than 2: pass -n 1",
        "karp: worker 1 is slow",
        f"training  epoch 3 of 4  auc 0.8  best {best}  0:02, 0:01 to go",
        f"          epoch 4 of 4  auc 0.8  best {best}  0:06",
        "best      epoch 2 of 4, auc 0.8; 40 steps in 6.0 s",
    ] == stream.getvalue().splitlines()
