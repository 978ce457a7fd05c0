"""What a person sees of a run: lines of progress where there is no terminal, and the last line."""

import io
import re
from pathlib import Path
from typing import Any

import pytest

from karp.monitor.terminal import Display
from karp.protocol.reports import Begin, Evaluation, Progress, Report, Traceback, Workers

SUMMARY: dict[str, Any] = {
    "metrics": {"accuracy": 0.5, "auc": None}, "epoch_loss": 0.25, "steps": 1200, "seconds": 2.5,
    "weights_sha256": "0123456789abcdef",
}  # fmt: skip


def shown(*reports: Report) -> list[str]:
    stream = io.StringIO()
    display = Display(stream)
    for report in reports:
        display.report(report)
    return stream.getvalue().splitlines()


def progress(seconds: float, step: int, workers: int = 2) -> Progress:
    """In a run with epochs of 100 steps."""
    return Progress(seconds, step, (step - 1) // 100, 0.5, 0.25, 1000.0, workers, {})


BEGIN = Begin(0.0, 0, 1000, 100, 2)


def test_a_line_says_whose_epoch_a_score_is_the_time_and_what_is_left_of_it() -> None:
    lines = shown(BEGIN, Evaluation(61.0, 200, 1, {"accuracy": 0.5}), progress(62.5, 250))
    assert [
        "step 250/1000  epoch 3/10  interval loss 0.5  1,000 samples/s  2 workers  elapsed 1:02  to go 3:07  "
        "accuracy 0.5  (epoch 2)"
    ] == lines


@pytest.mark.parametrize("columns", [120, 80, 40, 26])
def test_a_narrow_terminal_shows_all_of_it(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "24", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    display = Display(stream)
    for report in (BEGIN, Evaluation(61.0, 200, 1, {"accuracy": 0.5}), progress(62.5, 250)):
        display.report(report)
    display.close()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue().rpartition("step ")[2])
    rows = [row.strip() for row in last.splitlines()[1:]]
    parts = ["epoch 3/10", "interval loss 0.5", "1,000 samples/s", "2 workers", "elapsed 1:02", "to go 3:07"]
    assert [*parts, "accuracy 0.5", "(epoch 2)"] == [part for row in rows if row for part in row.split("  ")]
    assert columns >= max(map(len, rows))


def test_a_notebook_has_one_line_with_a_bar_that_is_written_over() -> None:
    stream = io.StringIO()
    display = Display(stream, notebook=True)
    for report in (BEGIN, progress(1.0, 10), progress(1.1, 20), progress(62.5, 250), progress(70.0, 300, 1)):
        display.report(report)
    display.say("done")
    first, second, third, blank, last = stream.getvalue().split("\r")
    assert "━━━━━───────────────  epoch 3/10  interval loss 0.5" == second[:51]
    assert ("─" * 20, "━━━━━━──────") == (first[:20], third[:12])
    assert (len(second), len(third.rstrip()), "", "karp: done\n") == (len(third), len(blank), blank.strip(), last)


def test_where_there_is_no_terminal_lines_are_few() -> None:
    seconds = [(1.0, 10), (2.0, 100), (3.9, 200), (4.0, 300), (5.0, 350), (13.9, 390), (14.0, 395), (15.0, 1000)]
    lines = shown(BEGIN, *(progress(*each) for each in seconds))
    assert ["10", "300", "395", "1000"] == [line.split("/")[0].removeprefix("step ") for line in lines]


def test_a_change_of_workers_and_a_restart_are_shown_at_once() -> None:
    again = Begin(2.5, 30, 1000, 100, 2)
    lines = shown(BEGIN, progress(1.0, 10), progress(2.0, 20, workers=3), progress(3.0, 30, workers=3),
                  again, progress(2.6, 31, workers=3))  # fmt: skip
    assert ["10", "20", "31"] == [line.split("/")[0].removeprefix("step ") for line in lines]


def test_what_only_others_need_is_not_shown() -> None:
    assert ["Traceback …"] == shown(BEGIN, Workers(1.0, 1, []), Traceback(1.0, 1, 0, "Traceback …\n", False))


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (False, "karp: accuracy 0.5  auc not finite  epoch loss 0.25  1,200 steps in 2.50 s  weights 0123456789ab  "
                "files in runs/a"),
        (True, "karp: the run has FAILED after 1,200 steps in 2.50 s  files in runs/a"),
    ],
)  # fmt: skip
def test_the_last_line_of_a_run_that_has_failed_does_not_look_like_a_success(failed: bool, expected: str) -> None:
    stream = io.StringIO()
    Display(stream).conclude(SUMMARY, Path("runs/a"), failed)
    assert [expected] == stream.getvalue().splitlines()
