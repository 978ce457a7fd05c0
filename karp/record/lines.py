"""A file of lines that grows while a run goes on, and is cut back when the run is resumed from a checkpoint.

A full disk does not stop the run: lines that cannot be written are kept, up to PENDING_BYTES of them, and written with
later ones. At the end the log knows whether its file is complete.
"""

import os
from collections.abc import Callable
from pathlib import Path

from karp.record.files import reason

PENDING_BYTES = 1 << 20  # so many are kept while the disk is full; further lines are lost


class LineLog:
    """Appends lines to a file.

    Args:
        path: the file; it is created with the first line, unless it exists or `mode` opens it at once.
        say: gets a line when the file cannot be written, for the first of consecutive failures.
        mode: flags of `os.open`, to open the file at once.
        buffer: the bytes that are collected before they are written.
    """

    def __init__(self, path: Path, say: Callable[[str], None], mode: int | None = None, buffer: int = 0) -> None:
        self.path = path
        self.say = say
        self.buffer = buffer
        self.descriptor = -1 if mode is None else os.open(path, mode, 0o644)
        self.written = path.stat().st_size if path.is_file() else 0
        self.pending = b""
        self.lost = 0  # lines that were dropped as too many were pending
        self.gap = 0  # bytes that the file lacked, compared with the checkpoint, when the run was resumed
        self.failure = ""  # why the last attempt to write failed

    @property
    def end(self) -> int:
        """The length of the file once all lines are written."""
        return self.written + len(self.pending)

    def append(self, line: str) -> None:
        """Add a line, which is written now, with later lines, or when the disk has space again.

        If it does not fit into what is kept for a full disk, the line is lost and counted.
        """
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
        """Write the pending lines; if that fails, they stay pending, and `failure` says why."""
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
        """Cut the file to so many bytes, after which new lines are appended; a shorter file is left, and reported.

        Raises OSError if it cannot be cut.
        """
        if size > self.written:
            self.gap = size - self.written
            self.say(f"{self.path.name} is shorter than its run's checkpoint: {self.gap} bytes are lost")
        self.written = min(size, self.written)
        if self.path.exists():
            os.truncate(self.path, self.written)
        if self.descriptor >= 0:
            os.lseek(self.descriptor, self.written, os.SEEK_SET)

    def sync(self) -> str:
        """Flush all lines to the disk; return why the file is incomplete, or '' if it is complete."""
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
        """Close the file, which releases its lock."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
