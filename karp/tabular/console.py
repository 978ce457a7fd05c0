"""What a fit says while it works: a line for each thing a user must know, and how far the reading is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TextIO

from karp.tabular.report import LABEL, WIDTH, line

PLAIN_SECONDS, TERMINAL_SECONDS = 10.0, 0.1  # between two states of progress


class Console:
    """Writes to a stream; without one it writes nothing.

    On a terminal progress is one line that is written over; elsewhere it is a line every 10 s.
    """

    def __init__(self, stream: TextIO | None, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
        self._now = now
        self._shown = now()  # when progress was shown last
        self._covered = 0  # the characters of progress that are on the terminal's line

    def say(self, label: str, text: str) -> None:
        """Write a text under its label."""
        self._write(line(label, text) + "\n")

    def notes(self, notes: Iterable[str]) -> None:
        """Write each note under the label of the first."""
        for place, note in enumerate(notes):
            self.say("" if place else "note", note)

    def table(self, lines: Iterable[str]) -> None:
        """Write lines as they are, after an empty one."""
        self._write("\n".join(["", *lines, ""]))

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Say how many rows of all are done, if it is time to: that is what `prepare` calls."""
        now = self._now()
        if now - self._shown < (TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS):
            return
        self._shown = now
        rows = f"{done:,} rows" if total is None else f"{done:,} of {total:,} rows"
        if self._terminal:
            text = f"{'':<{LABEL}}{what}: {rows}"[: WIDTH - 1]
            self._write(f"{text:<{self._covered}}\r")
            self._covered = len(text)
        else:
            self._write(line("", f"{what}: {rows}") + "\n")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        if self._covered and not text.endswith("\r"):
            text = f"{'':<{self._covered}}\r{text}"
            self._covered = 0
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the stream is closed; the fit goes on without
            self._stream = None
