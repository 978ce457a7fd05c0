"""A run on the terminal: a progress bar, or plain lines where the output is no terminal."""

import contextlib
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from karp.protocol.reports import Progress, Report

HASH_DIGITS = 12  # of the weights' SHA-256 are enough to compare two runs by eye


class Display:
    """Shows reports as they come; with no stream it shows nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.plain = stream is None or os.environ.get("TERM") in ("dumb", "unknown") or not stream.isatty()
        self.steps = 0
        self.scores = ""  # of the epoch that was evaluated last, and which one that is
        self.bar: Any = None  # rich's, where the stream is a terminal
        self.progress: Any = None
        self.line: Any = None

    def report(self, report: "Report") -> None:
        """Show a report, if a person is to see it."""
        from karp.protocol import reports  # whose classes take longer to make than all else that a launcher begins with

        if self.stream is None:
            return
        match report:
            case reports.Begin():
                self.steps = report.steps
                if not self.plain:
                    self._begin_bar()
            case reports.Evaluation():
                scores = [f"{name} {number(score, 4)}" for name, score in report.scores.items()]
                self.scores = "  ".join([*scores, f"(epoch {report.epoch + 1})"]) if scores else ""
            case reports.Progress():
                self._progress(report)
            case reports.Notice():
                self.say(report.text)
            case reports.Failure():
                self.say(report.failure)
            case reports.Refused() | reports.Stranger():
                self.say(report.reason)
            case reports.Traceback():
                self._write(report.traceback.rstrip())

    def say(self, text: str) -> None:
        """A line of karp's own."""
        self._write(f"karp: {text}")

    def _write(self, text: str) -> None:
        try:
            if self.bar is not None:
                self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            elif self.stream is not None:
                print(text, file=self.stream, flush=True)
        except (OSError, ValueError):  # a program's own stream that is closed: the run goes on
            self.stream = self.bar = None

    def _begin_bar(self) -> None:
        """Two lines: how far, and how well."""
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.text import Text

        columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=None), TimeElapsedColumn()
        self.progress = Progress(*columns, expand=True)
        self.progress.add_task("", total=self.steps)
        self.line = Text("", no_wrap=True, overflow="ellipsis")
        lines, console = Group(self.progress, self.line), Console(file=self.stream)
        prints_there = sys.stdout is not None and sys.stdout.isatty()  # else it is a file's, or another process's
        self.bar = Live(lines, console=console, refresh_per_second=8, redirect_stdout=prints_there)
        self.bar.start()

    def _progress(self, report: "Progress") -> None:
        line = f"epoch {report.epoch + 1}  {describe(report, self.scores)}"
        if self.bar is not None:
            self.progress.update(self.progress.task_ids[0], completed=report.step)
            self.line.plain = line
        else:
            self._write(f"step {report.step}/{self.steps}  {line}")

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def abandon(self, text: str) -> None:
        """Say a last line, and give the terminal its cursor back, as this process ends at once.

        It goes past the stream and the bar: whoever was interrupted may hold their locks.
        """
        if self.stream is not None:
            cursor = "\x1b[?25h\n" if self.bar is not None else ""
            with contextlib.suppress(OSError, ValueError):  # it is closed
                os.write(self.stream.fileno(), f"{cursor}karp: {text}\n".encode(errors="backslashreplace"))

    def conclude(self, summary: dict[str, Any], directory: Path | None) -> None:
        """What came out, and where the files are, if there are any."""
        self.close()
        if self.stream is None:
            return
        metrics = summary["metrics"].items()
        found = [f"{name} {number(value, 6)}" for name, value in metrics]
        if summary["epoch_loss"] is not None:
            found.append(f"epoch loss {number(summary['epoch_loss'], 6)}")
        found.append(f"{summary.get('steps', 0):,} steps in {summary['seconds']:.2f} s")
        if digest := summary.get("weights_sha256"):
            found.append(f"weights {digest[:HASH_DIGITS]}")
        if directory is not None:
            found.append(f"files in {directory}")
        self.say("  ".join(found))


def describe(report: "Progress", scores: str) -> str:
    """Return what a line of progress says beside the step and the epoch.

    >>> from karp.protocol.reports import Progress
    >>> describe(Progress(2.5, 40, 1, 0.5, 0.4, 1234.5, 2, {}), "test_accuracy 0.975 (epoch 1)")
    'interval loss 0.5  1,234 samples/s  2 workers  test_accuracy 0.975 (epoch 1)'
    """
    workers = f"{report.workers} worker" + ("s" if report.workers != 1 else "")
    parts = [f"{report.samples_per_s:,.0f} samples/s", workers]
    if report.interval_loss is not None:
        parts.insert(0, f"interval loss {number(report.interval_loss, 4)}")
    return "  ".join([*parts, scores] if scores else parts)


def number(value: float | None, digits: int) -> str:
    """Return a number in so many digits; one that is not finite may have come as None.

    >>> number(0.123456, 4), number(float("nan"), 4), number(None, 4)
    ('0.1235', 'not finite', 'not finite')
    """
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"
