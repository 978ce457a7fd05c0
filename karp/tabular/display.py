"""The display of a fit: lines of 80 columns about epochs and scores, where a run's own speak of steps and losses.

Like all that a launcher needs, it imports no NumPy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from karp.monitor.terminal import Display, clock, number
from karp.protocol.best import Best, choose
from karp.text import counted

if TYPE_CHECKING:
    from karp.protocol.reports import Begin, Progress, Report

LABEL = 10  # columns


class FitDisplay(Display):
    """Shows the reports of a fit on a stream; without one it shows nothing.

    If the run's directory is not `kept`, nothing is said that needs it after the run.
    """

    def __init__(self, stream: TextIO | None, *, kept: bool = True, notebook: bool = False) -> None:
        super().__init__(stream, notebook=notebook)
        self.label = f"{'training':<{LABEL}}"
        self._kept = kept
        self._settings: dict[str, Any] = {"mode": "max", "ties": "last"}
        self._best: Best | None = None
        self._label = "training"
        self._workers = 0

    def report(self, report: Report) -> None:
        """Show a report, if it is of a kind that users see."""
        from karp.protocol import reports

        match report:
            case reports.Settings():
                self._settings = report.settings
            case reports.Begin():
                self._workers = report.workers
            case reports.Notice() if reports.ONE_PROCESS in report.text:
                if self._workers > 1:
                    self.write(f"{'workers':<{LABEL}}one would be faster than {self._workers}: pass -n 1")
                return
            case reports.Evaluation():
                for score in report.scores.values():
                    best = Best(report.epoch, float("nan") if score is None else score)
                    self._best = choose(self._best, best, self._settings["mode"], self._settings["ties"])
        super().report(report)

    def say(self, text: str) -> None:
        """Print a line of karp's own."""
        super().say(text if self._kept else text.partition("; to go on")[0])

    def begun(self, directory: Path, how_to_add: str) -> None:
        """Say where the run's files are."""
        self.write(f"{'run':<{LABEL}}{shown_path(str(directory))}")

    def line_of(self, report: Progress, begin: Begin) -> str:
        """Return epoch, score and time."""
        return epoch_line(
            report.epoch + 1, -(-begin.steps // begin.steps_per_epoch), self.scores.partition("  (")[0], self._best,
            report.seconds, (begin.steps - report.step) * (report.seconds - begin.seconds)
            / max(1, report.step - begin.step),
        )  # fmt: skip

    def plain_line_of(self, report: Progress, begin: Begin) -> str:
        """Return the line of progress where there is no terminal."""
        label, self._label = self._label, ""
        return f"{label:<{LABEL}}{self.line_of(report, begin)}"

    def conclude(self, summary: dict[str, Any], directory: Path | None, failed: bool = False) -> None:
        """End the display: name the best epoch, or say that the fit has failed."""
        best = summary.get("best")
        if failed or not best:
            super().conclude(summary, directory if self._kept else None, failed)
            return
        self.close()
        ((name, score),) = ((name, value) for name, value in best.items() if name != "epoch")
        steps = f"{counted(summary['steps'], 'step')} in {summary['seconds']:.1f} s"
        epochs = round(summary["epochs"])
        self.write(f"{'best':<{LABEL}}epoch {best['epoch'] + 1} of {epochs}, {name} {number(score, 4)}; {steps}")


def epoch_line(epoch: int, epochs: int, score: str, best: Best | None, seconds: float, to_go: float) -> str:
    """Return a line of progress.

    >>> epoch_line(3, 20, "accuracy 0.97", Best(0, 0.98), 61.2, 340.0)
    'epoch 3 of 20  accuracy 0.97  best 0.98 (epoch 1)  1:01, 5:40 to go'
    """
    parts = [f"epoch {epoch} of {epochs}"]
    if score:
        parts.append(score)
    if best is not None:
        parts.append(f"best {number(best.score, 4)} (epoch {best.epoch + 1})")
    return "  ".join([*parts, clock(seconds) + (f", {clock(to_go)} to go" if to_go >= 1 else "")])


def shown_path(path: str) -> str:
    """Return a path as short as it can be: from the current directory on, if it is in there."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
