"""Buffers for large vectors, which ZeroMQ sends without copying them."""

from typing import Any

import numpy as np

from karp.protocol.tree import Vector

LARGE_BYTES = 1 << 16  # a vector of this size is sent without a copy; a smaller one is faster with one


def is_large(frame: Any) -> bool:
    """Return whether a frame is a vector so large that it is sent without a copy."""
    return isinstance(frame, np.ndarray) and frame.nbytes >= LARGE_BYTES


class BufferPool:
    """Buffers for vectors that are sent without a copy; a buffer that ZeroMQ may still read is not handed out."""

    def __init__(self) -> None:
        self.buffers: list[tuple[Vector, list[Any]]] = []  # each with ZeroMQ's trackers of its messages
        self.trackers: list[Any] = []  # the trackers of the buffer that was handed out last

    def get(self, like: Vector) -> Vector:
        """Return a buffer of the shape and dtype of `like` that may be written to; a new one if all are being sent."""
        for buffer, trackers in self.buffers:
            if buffer.dtype == like.dtype and buffer.shape == like.shape and all(sent.done for sent in trackers):
                trackers.clear()
                self.trackers = trackers
                return buffer
        self.trackers = []
        self.buffers.append((np.zeros_like(like), self.trackers))
        return self.buffers[-1][0]

    def mark_sending(self, tracker: Any) -> None:
        """Note that the buffer handed out last is being sent until this tracker is done."""
        self.trackers.append(tracker)
