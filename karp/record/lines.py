"""A file of lines that grows while a run goes on, and is cut back when the run is resumed from a checkpoint.

A disk that is full stops nothing: what cannot be written is kept and tried again with the next lines. At the end the
file says whether it is whole.
"""

import os
from collections.abc import Callable
from pathlib import Path

from karp.record.files import reason

PENDING_BYTES = 1 << 20  # are kept while the disk is full; lines that come then are lost


class LineLog:
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
        self.written = path.stat().st_size if path.is_file() else 0
        self.pending = b""
        self.lost = 0  # lines for which there was no room
        self.gap = 0  # bytes that the run had written, and a resume did not find
        self.failure = ""  # why the last attempt to write failed

    @property
    def end(self) -> int:
        """Return the file's length once all is written."""
        return self.written + len(self.pending)

    def append(self, line: str) -> None:
        """Add a line; it is written now, with later ones, or when the disk has room again."""
        content = line.encode() + b"\n"
        if self.failure and len(self.pending) + len(content) > PENDING_BYTES:
            self.flush()
            if self.failure:
                self.lost += 1
                return
        self.pending += content
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
            self.failure = ""
        except OSError as error:
            before, self.failure = self.failure, reason(error)
            if not before:
                text = f"{self.path.name} cannot be written ({self.failure}); its lines are kept and tried again"
                self.say(text)

    def cut(self, size: int) -> None:
        """Go on after so many bytes; what stands behind them is gone."""
        if size > self.written:
            self.gap = size - self.written
            self.say(f"{self.path.name} is shorter than its run's checkpoint: {self.gap} bytes are lost")
        self.written = min(size, self.written)
        if self.path.exists():
            os.truncate(self.path, self.written)
        if self.descriptor >= 0:
            os.lseek(self.descriptor, self.written, os.SEEK_SET)

    def settle(self) -> str:
        """Bring all lines to the disk; return why the file is not whole, or ''."""
        self.flush()
        if self.descriptor < 0:
            return self.failure
        try:
            os.fsync(self.descriptor)
            opened, named = os.fstat(self.descriptor), os.stat(self.path)
        except OSError as error:
            return self.failure or reason(error)
        if self.failure:
            return self.failure
        if self.lost:
            return f"{self.lost} lines of it are lost, as there was no room"
        if self.gap:
            return f"{self.gap} bytes of it are lost"
        if (opened.st_dev, opened.st_ino) != (named.st_dev, named.st_ino):
            return "another file has taken its place"
        return ""

    def close(self) -> None:
        """Let go of the file, and of its lock."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
