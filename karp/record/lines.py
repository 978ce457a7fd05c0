"""A file of lines that grows while a run goes on, and is cut back when the run is resumed from a checkpoint.

A disk that is full stops nothing: what cannot be written is kept and tried again with the next lines.
"""

import os
from collections.abc import Callable
from pathlib import Path

PENDING_BYTES = 1 << 20  # are kept while the disk is full


class Lines:
    """Appends lines to a file.

    Args:
        path: of the file; it is made with the first line unless it is there, or opened at once with `mode`.
        say: is told, once until it is over, that the file cannot be written.
        mode: flags of `os.open`, to open it at once.
        buffer: bytes that may wait to be written together.
    """

    def __init__(self, path: Path, say: Callable[[str], None], mode: int | None = None, buffer: int = 0) -> None:
        self.path = path
        self.say = say
        self.buffer = buffer
        self.descriptor = -1 if mode is None else os.open(path, mode, 0o644)
        self.written = path.stat().st_size if path.exists() else 0
        self.pending = b""
        self.failing = False

    @property
    def end(self) -> int:
        """The file's length once all is written."""
        return self.written + len(self.pending)

    def append(self, line: str) -> None:
        self.pending += line.encode() + b"\n"
        if len(self.pending) >= self.buffer:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        try:
            if self.pending and self.descriptor < 0:
                self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
                os.lseek(self.descriptor, self.written, os.SEEK_SET)
            while self.pending:
                count = os.write(self.descriptor, self.pending)
                self.written += count
                self.pending = self.pending[count:]
            self.failing = False
        except OSError as error:
            self.pending = self.pending[-max(PENDING_BYTES, self.buffer) :]
            if not self.failing:
                self.failing = True
                text = f"{self.path.name} cannot be written ({error.strerror}); its lines are kept and tried again"
                self.say(text)

    def cut(self, size: int) -> None:
        """Go on after so many bytes; what stands behind them is gone."""
        if size > self.written:
            self.say(f"{self.path.name} is shorter than its run's checkpoint: {size - self.written} bytes are lost")
        self.written = min(size, self.written)
        if self.path.exists():
            os.truncate(self.path, self.written)
        if self.descriptor >= 0:
            os.lseek(self.descriptor, self.written, os.SEEK_SET)

    def close(self) -> None:
        self.flush()
        if self.descriptor >= 0:
            os.close(self.descriptor)
