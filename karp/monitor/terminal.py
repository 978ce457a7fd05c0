"""The display of a run: a progress bar on a terminal, plain lines elsewhere."""

import contextlib
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from karp.monitor.status_line import NOTEBOOK_SECONDS, StatusLine, bar, is_notebook
from karp.text import counted

if TYPE_CHECKING:
    from karp.protocol.reports import Begin, Exchange, Progress, Report

PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal
EPOCH_SECONDS = 3.0  # the least time between two lines, if the later one is that of an epoch's end
HASH_DIGITS = 12  # the digits of the weights' SHA-256 that are shown, enough to compare two runs by eye


class Display:
    """Shows reports on a stream; without one it shows nothing.

    A terminal has the newest progress in its last lines. Elsewhere, as in a log, a line of progress is printed every
    10 s, at the end of an epoch if the last line is 3 s old, when workers have come or gone, and at the end. In a
    notebook, or what is shown in one as `notebook` says, it is one line that is written over.
    """

    def __init__(self, stream: TextIO | None, *, notebook: bool = False) -> None:
        self.stream = stream
        self._notebook = notebook or is_notebook(stream)
        self._status = StatusLine()
        self.plain = stream is None or os.environ.get("TERM") in ("dumb", "unknown") or not stream.isatty()
        self.label = ""  # what stands before a notebook's line
        self.begin: Begin | None = None
        self.shown: Progress | None = None  # the last plain line
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
                self.begin, self.shown = report, None
                if not self.plain and self.bar is None:
                    self._begin_bar()
            case reports.Exchange():
                self.say(f"exchange: {describe_exchange(report)}")
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
                self.write(report.traceback.rstrip())

    def say(self, text: str) -> None:
        """Print a line of karp's own, which begins with "karp: "."""
        self.write(f"karp: {text}")

    def begun(self, directory: Path, how_to_add: str) -> None:
        """Say where the run's files are, and how a worker is added."""
        self.say(f"files in {directory}; {how_to_add}")

    def write(self, text: str) -> None:
        """Print a line, above the progress bar if there is one."""
        self._write(text if self.bar is not None else self._status.before(text))

    def _write(self, text: str, end: str = "\n") -> None:
        try:
            if self.bar is not None:
                self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            elif self.stream is not None:
                print(text, file=self.stream, flush=True, end=end)
        except (OSError, ValueError):  # the program has closed its stream; the run goes on without a display
            self.stream = self.bar = None

    def _begin_bar(self) -> None:
        """Start the live display: the progress bar, and below it loss, speed, times and scores."""
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.text import Text

        self.progress = Progress(TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=None), expand=True)
        self.progress.add_task("", total=self.begin.steps if self.begin is not None else None)
        self.line = Text("", no_wrap=True, overflow="ellipsis")
        lines, console = Group(self.progress, self.line), Console(file=self.stream)
        prints_to_terminal = sys.stdout is not None and sys.stdout.isatty()  # then rich keeps prints above the bar
        self.bar = Live(lines, console=console, refresh_per_second=8, redirect_stdout=prints_to_terminal)
        self.bar.start()

    def _progress(self, report: "Progress") -> None:
        """Show the progress in the bar; without a bar, in a plain line if one is due."""
        if self.begin is None:
            return
        line = self.line_of(report, self.begin)
        if self.bar is not None:
            self.progress.update(self.progress.task_ids[0], completed=report.step)
            self.line.plain = fold(line, self.bar.console.width)
        elif self._notebook:
            if self.shown is None or report.seconds - self.shown.seconds >= NOTEBOOK_SECONDS:
                self.shown = report
                line = f"{self.label}{bar(report.step, self.begin.steps)}  {line}"
                self._write(self._status.over(line), end="")
        elif self._is_due(report, self.begin):
            self.shown = report
            self.write(self.plain_line_of(report, self.begin))

    def line_of(self, report: "Progress", begin: "Begin") -> str:
        """Return the text below the progress bar."""
        return describe(report, begin, self.scores)

    def plain_line_of(self, report: "Progress", begin: "Begin") -> str:
        """Return the line of progress where there is no terminal."""
        return f"step {report.step}/{begin.steps}  {self.line_of(report, begin)}"

    def _is_due(self, report: "Progress", begin: "Begin") -> bool:
        """Return whether a plain line of this progress is due."""
        if self.shown is None or report.workers != self.shown.workers or report.step >= begin.steps:
            return True
        ends_epoch = report.step % begin.steps_per_epoch == 0
        return report.seconds - self.shown.seconds >= (EPOCH_SECONDS if ends_epoch else PLAIN_SECONDS)

    def close(self) -> None:
        """End the live display; the bar stays as it is."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def abandon(self, text: str) -> None:
        """Print a last line and show the terminal's cursor again, as this process ends at once.

        The text goes to the descriptor itself: the code that was interrupted may hold the locks of stream and bar.
        """
        if self.stream is not None:
            cursor = "\x1b[?25h\n" if self.bar is not None else ""
            with contextlib.suppress(OSError, ValueError):  # the stream may be closed
                os.write(self.stream.fileno(), f"{cursor}karp: {text}\n".encode(errors="backslashreplace"))

    def conclude(self, summary: dict[str, Any], directory: Path | None, failed: bool = False) -> None:
        """End the display: show the results of a run, or say that it has failed, and name its directory, if any."""
        self.close()
        if self.stream is None:
            return
        steps = f"{summary.get('steps', 0):,} steps in {summary['seconds']:.2f} s"
        if failed:
            results = [f"the run has FAILED after {steps}"]
        else:
            results = [f"{name} {number(value, 6)}" for name, value in summary["metrics"].items()]
            if summary["epoch_loss"] is not None:
                results.append(f"epoch loss {number(summary['epoch_loss'], 6)}")
            if best := summary.get("best"):
                (score,) = (f"{name} {number(value, 6)}" for name, value in best.items() if name != "epoch")
                results.append(f"best epoch {best['epoch'] + 1} of {math.ceil(summary['epochs'])}: {score}")
            results.append(steps)
            if digest := summary.get("weights_sha256"):
                results.append(f"weights {digest[:HASH_DIGITS]}")
        if directory is not None:
            results.append(f"files in {directory}")
        self.say("  ".join(results))


def describe_exchange(report: "Exchange") -> str:
    """Say how gradients and weights travel.

    >>> from karp.protocol.reports import Exchange
    >>> describe_exchange(Exchange(0.0, 0, workers=2, sharing=2, in_ranges=True))
    'shared memory; steps end among the workers'
    >>> describe_exchange(Exchange(0.0, 0, workers=3, sharing=1, in_ranges=False))
    'shared memory for 1 worker, ZeroMQ for 2; the server ends each step'
    """
    frames = report.workers - report.sharing
    if report.sharing and frames:
        medium = f"shared memory for {counted(report.sharing, 'worker')}, ZeroMQ for {frames}"
    else:
        medium = "shared memory" if report.sharing else "ZeroMQ"
    return f"{medium}; {'steps end among the workers' if report.in_ranges else 'the server ends each step'}"


def describe(report: "Progress", begin: "Begin", scores: str) -> str:
    """Return the text of a progress line after the step.

    >>> from karp.protocol.reports import Begin, Progress
    >>> describe(Progress(65, 40, 1, 0.5, 0.4, 1234.5, 2, {}), Begin(0, 0, 60, 20, 2), "accuracy 0.975 (epoch 1)")
    'epoch 2/3  interval loss 0.5  1,234 samples/s  2 workers  elapsed 1:05  to go 0:32  accuracy 0.975 (epoch 1)'
    """
    parts = [f"epoch {report.epoch + 1}/{-(-begin.steps // begin.steps_per_epoch)}"]
    if report.interval_loss is not None:
        parts.append(f"interval loss {number(report.interval_loss, 4)}")
    workers = counted(report.workers, "worker")
    parts += [f"{report.samples_per_s:,.0f} samples/s", workers, f"elapsed {clock(report.seconds)}"]
    if report.step > begin.step and report.step < begin.steps:
        seconds_per_step = (report.seconds - begin.seconds) / (report.step - begin.step)
        parts.append(f"to go {clock((begin.steps - report.step) * seconds_per_step)}")
    return "  ".join([*parts, scores] if scores else parts)


def fold(line: str, width: int) -> str:
    """Break a line between its parts, which two spaces separate: no row is wider than `width`, unless one part is.

    >>> fold("2 workers  elapsed 1:05  accuracy 0.975  (epoch 1)", 25)
    '2 workers  elapsed 1:05\\naccuracy 0.975  (epoch 1)'
    """
    rows = [""]
    for part in line.split("  "):
        row = f"{rows[-1]}  {part}" if rows[-1] else part
        if len(row) <= width or not rows[-1]:
            rows[-1] = row
        else:
            rows.append(part)
    return "\n".join(rows)


def clock(seconds: float) -> str:
    """Return a duration in hours, minutes and seconds.

    >>> clock(7.9), clock(65), clock(36_000)
    ('0:07', '1:05', '10:00:00')
    """
    minutes, full_seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{full_seconds:02d}" if hours else f"{minutes}:{full_seconds:02d}"


def number(value: float | None, digits: int) -> str:
    """Return a number as text with so many significant digits; None stands for a number that is not finite.

    Large numbers keep all digits before the point, up to 15.

    >>> number(0.123456, 4), number(12345.6, 4), number(float("nan"), 4), number(None, 4)
    ('0.1235', '12,346', 'not finite', 'not finite')
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e+" in text and abs(value) < 1e15 else text
