"""What a fit says while it works: a line for each thing a user must know, and how far the reading is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from karp.monitor.status_line import NOTEBOOK_SECONDS, StatusLine, bar, is_notebook
from karp.monitor.terminal import number
from karp.protocol.best import Best, choose
from karp.tabular.display import LABEL, epoch_line
from karp.tabular.report import WIDTH, line
from karp.tabular.scores import Score

MOST_NOTES = 20
PLAIN_SECONDS, TERMINAL_SECONDS = 10.0, 0.1


class Console:
    """Writes to a stream; without one it writes nothing.

    On a terminal and in a notebook progress is one line that is written over; elsewhere it is a line every 10 s.
    """

    def __init__(self, stream: TextIO | None, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._notebook = is_notebook(stream)
        self._terminal = self._notebook or (stream is not None and stream.isatty())
        self._seconds = TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS  # between two states of progress
        if self._notebook:
            self._seconds = NOTEBOOK_SECONDS
        self._now = now
        self._shown = now()  # when progress was shown last
        self._line = StatusLine()

    def say(self, label: str, text: str) -> None:
        """Write a text under its label."""
        self._write(line(label, text) + "\n")

    def notes(self, notes: Sequence[str]) -> None:
        """Write each note under the label of the first; of many only the first ones."""
        for place, note in enumerate(notes[:MOST_NOTES]):
            self.say("" if place else "note", note)
        if len(notes) > MOST_NOTES:
            self.say("", f"and {len(notes) - MOST_NOTES:,} more; karp show says what became of each column")

    def table(self, lines: Iterable[str]) -> None:
        """Write lines as they are, between empty ones."""
        self._write("\n".join(["", *lines, "", ""]))

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Say how many rows of all are done, if it is time to: that is what `prepare` calls."""
        if self._is_time():
            self._show("", f"{what}: {done:,} rows" if total is None else f"{what}: {done:,} of {total:,} rows")

    def watch(self, label: str, epochs: int, score: Score) -> Callable[[int, float], None]:
        """Return what `train` calls with each epoch and its score, to say it, if it is time to, and at last the best.

        A best epoch is said under the label "best"; with another label than "training" it is not.
        """
        began = self._now()
        best: Best | None = None

        def watch(epoch: int, value: float) -> None:
            nonlocal best
            best = choose(best, Best(epoch, value), score.mode, "last")
            last = epoch + 1 == epochs
            seconds = self._now() - began
            if self._is_time() and not last:
                to_go = (epochs - epoch - 1) * seconds / (epoch + 1)
                text = epoch_line(epoch + 1, epochs, f"{score.title} {number(value, 4)}", best, seconds, to_go)
                self._show(label, f"{bar(epoch + 1, epochs)}  {text}" if self._notebook else text)
            if last:
                self._write("")  # the launcher's lines come next, which know of no progress here
            if last and label == "training" and best is not None:
                time = f"{seconds:.1f} s"
                self.say("best", f"epoch {best.epoch + 1} of {epochs}, {score.title} {number(best.score, 4)}; {time}")

        return watch

    def _is_time(self) -> bool:
        """Return whether progress is to be shown now."""
        now = self._now()
        if now - self._shown < self._seconds:
            return False
        self._shown = now
        return True

    def _show(self, label: str, text: str) -> None:
        """Show progress: over the last one on a terminal, else in a line of its own."""
        if self._terminal:
            text = f"{label:<{LABEL}}{text}"
            self._write(self._line.over(text if self._notebook else text[: WIDTH - 1]))
        else:
            self._write(line(label, text) + "\n")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text if text.endswith("\r") else self._line.before(text))
            self._stream.flush()
        except (OSError, ValueError):  # the stream is closed; the fit goes on without
            self._stream = None
