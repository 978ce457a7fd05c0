"""The pipes between a launcher and its server: lines of JSON, commands to the server and reports from it."""

import os


class PipeLines:
    """Reads the lines that arrive on a descriptor; `ended` tells that the other end is closed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._partial = b""  # the beginning of a line that has not arrived completely

    def read(self) -> list[bytes]:
        """Return the lines that are complete now, perhaps none; waits if the descriptor is not readable."""
        chunk = os.read(self.descriptor, 1 << 16)
        self.ended = not chunk
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        return lines
