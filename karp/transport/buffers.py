"""Vectors that are sent without being copied."""

from typing import Any

import numpy as np

from karp.protocol.tree import Vector

LARGE_BYTES = 1 << 16  # of a vector that is not to be copied on its way; smaller ones are faster with a copy


def is_large(frame: Any) -> bool:
    """Whether it is a vector that is not to be copied."""
    return isinstance(frame, np.ndarray) and frame.nbytes >= LARGE_BYTES


class Rooms:
    """Vectors that are sent without being copied, none of which is written to while ZeroMQ may still read it."""

    def __init__(self) -> None:
        self.rooms: list[tuple[Vector, list[Any]]] = []  # each with what tells whether it is sent
        self.sending: list[Any] = []  # of the room that was named last

    def free(self, like: Vector) -> Vector:
        """One that may be written to, of this size and dtype."""
        for vector, sending in self.rooms:
            if vector.dtype == like.dtype and vector.shape == like.shape and all(one.done for one in sending):
                sending.clear()
                self.sending = sending
                return vector
        self.sending = []
        self.rooms.append((np.zeros_like(like), self.sending))
        return self.rooms[-1][0]

    def busy(self, tracker: Any) -> None:
        """The room named last is being sent."""
        self.sending.append(tracker)
