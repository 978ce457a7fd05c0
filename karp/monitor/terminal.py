"""The display of a run: a progress bar on a terminal, plain lines elsewhere."""

import contextlib
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from karp.protocol.reports import Progress, Report

HASH_DIGITS = 12  # the digits of the weights' SHA-256 that are shown, enough to compare two runs by eye


class Display:
    """Shows reports on a stream; without one it shows nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.plain = stream is None or os.environ.get("TERM") in ("dumb", "unknown") or not stream.isatty()
        self.steps = 0
        self.scores = ""  # the scores of the epoch that was evaluated last, and its number
        self.bar: Any = None  # rich's `Live`, where the stream is a terminal
        self.progress: Any = None
        self.line: Any = None

    def report(self, report: "Report") -> None:
        """Show a report, if it is of a kind that users see."""
        from karp.protocol import reports  # imported here, as its classes would take a large part of a launcher's start

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
            case reports.Refused() | reports.Rejected():
                self.say(report.reason)
            case reports.Traceback():
                self._write(report.traceback.rstrip())

    def say(self, text: str) -> None:
        """Print a line of karp's own, which begins with "karp: "."""
        self._write(f"karp: {text}")

    def _write(self, text: str) -> None:
        try:
            if self.bar is not None:
                self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            elif self.stream is not None:
                print(text, file=self.stream, flush=True)
        except (OSError, ValueError):  # the program has closed its stream; the run goes on without a display
            self.stream = self.bar = None

    def _begin_bar(self) -> None:
        """Start the live display of two lines: the progress bar, and loss, speed and scores."""
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.text import Text

        columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=None), TimeElapsedColumn()
        self.progress = Progress(*columns, expand=True)
        self.progress.add_task("", total=self.steps)
        self.line = Text("", no_wrap=True, overflow="ellipsis")
        lines, console = Group(self.progress, self.line), Console(file=self.stream)
        prints_to_terminal = sys.stdout is not None and sys.stdout.isatty()  # then rich keeps prints above the bar
        self.bar = Live(lines, console=console, refresh_per_second=8, redirect_stdout=prints_to_terminal)
        self.bar.start()

    def _progress(self, report: "Progress") -> None:
        line = f"epoch {report.epoch + 1}  {describe(report, self.scores)}"
        if self.bar is not None:
            self.progress.update(self.progress.task_ids[0], completed=report.step)
            self.line.plain = line
        else:
            self._write(f"step {report.step}/{self.steps}  {line}")

    def close(self) -> None:
        """End the live display; the bar stays as it is."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def abandon(self, text: str) -> None:
        """Print a last line and show the terminal's cursor again, as this process ends at once.

        It writes to the descriptor itself: the code that was interrupted may hold the locks of the stream and the bar.
        """
        if self.stream is not None:
            cursor = "\x1b[?25h\n" if self.bar is not None else ""
            with contextlib.suppress(OSError, ValueError):  # the stream may be closed
                os.write(self.stream.fileno(), f"{cursor}karp: {text}\n".encode(errors="backslashreplace"))

    def conclude(self, summary: dict[str, Any], directory: Path | None) -> None:
        """Show the results of a run that has ended, and the directory of its files, if it has any."""
        self.close()
        if self.stream is None:
            return
        metrics = summary["metrics"].items()
        results = [f"{name} {number(value, 6)}" for name, value in metrics]
        if summary["epoch_loss"] is not None:
            results.append(f"epoch loss {number(summary['epoch_loss'], 6)}")
        results.append(f"{summary.get('steps', 0):,} steps in {summary['seconds']:.2f} s")
        if digest := summary.get("weights_sha256"):
            results.append(f"weights {digest[:HASH_DIGITS]}")
        if directory is not None:
            results.append(f"files in {directory}")
        self.say("  ".join(results))


def describe(report: "Progress", scores: str) -> str:
    """Return the text of a progress line after the step and the epoch.

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
    """Return a number as text with so many digits; None stands for one that is not finite.

    >>> number(0.123456, 4), number(float("nan"), 4), number(None, 4)
    ('0.1235', 'not finite', 'not finite')
    """
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"
