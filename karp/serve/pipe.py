"""The pipe between a launcher and its server: lines of JSON, orders one way and reports the other."""

import os


class PipeLines:
    """The lines that arrive on a descriptor; `ended` tells that the other end is closed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._rest = b""

    def read(self) -> list[bytes]:
        """Return the lines that have become whole; to be called when there is something to read, as it waits else."""
        chunk = os.read(self.descriptor, 1 << 16)
        self.ended = not chunk
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines
