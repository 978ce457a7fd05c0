"""What the server's machine needs of memory for its weights that other processes read while it writes there."""

from typing import Protocol

from karp.parameters import Layout
from karp.protocol.tree import Vector


class Store(Protocol):
    """Such memory; `karp.transport.segment.Exchange` is one."""

    def allocate(self, layout: Layout) -> Vector | None:
        """The vector to keep them in; None if there is none."""

    def writing(self, version: int) -> None:
        """The weights are about to change (-1), or are now those of a version."""
