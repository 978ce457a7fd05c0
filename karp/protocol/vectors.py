"""The check of a run's vectors, which is made before anything else uses them: size, dtype, codec, finiteness."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from karp import codecs
from karp.errors import ProtocolError
from karp.protocol.settings import Settings
from karp.protocol.tree import Node, Vector, in_words, parent

Snapshot = tuple[dict[str, Any], dict[str, Vector]]  # a server's state as a checkpoint holds it: plain types, vectors


class VectorSpec:
    """The size, dtype and codec of a run's vectors, against which arriving vectors are checked."""

    def __init__(self, settings: Settings) -> None:
        self.size = settings.layout.size
        self.shape = (self.size,)
        self.dtype: np.dtype[Any] = np.dtype(settings.layout.dtype)
        self.codec = settings.codec
        self.single_shards = settings.staleness is None or settings.codec is not None  # whether sums are not accepted

    def check_weights(self, what: str, vector: Vector) -> None:
        """Raise ProtocolError unless a vector has the size and dtype of the model's weights."""
        if vector.shape != self.shape or vector.dtype != self.dtype:
            raise ProtocolError(
                f"{what}: {vector.shape} {vector.dtype}, but the model has {self.shape} {self.dtype}"
            )

    def check_nodes(self, nodes: Iterable[Node], step: int, shards: int) -> None:
        """Raise ProtocolError unless these are nodes of the step's tree, with vectors of the size that the codec makes.

        With a codec, or in an asynchronous run, each node must be a single shard.
        """
        for start, stop, _, vector in nodes:
            if vector is None or not (
                vector.shape == self.shape and vector.dtype == self.dtype
                if self.codec is None
                else codecs.fits(self.codec, vector, self.size)
            ):
                actual = "nothing" if vector is None else f"{vector.shape} {vector.dtype}"
                what = f"the gradient of step {step}, {in_words(start, stop)}"
                raise ProtocolError(f"{what}: {actual}, but {self._expected()}")
            if start != 0 or stop != shards:
                parent(start, stop, shards)  # raises for what is no node
            if stop - start > 1 and self.single_shards:
                raise ProtocolError(f"step {step}: a sum over {in_words(start, stop)}, but here each comes by itself")

    def decode(self, nodes: list[Node]) -> list[Node]:
        """Return the nodes with their vectors decoded: these can be added up."""
        if self.codec is None:
            return nodes
        return [
            node
            if node.vector is None
            else node._replace(vector=codecs.decode(self.codec, node.vector, self.size, self.dtype))
            for node in nodes
        ]

    def _expected(self) -> str:
        if self.codec is None:
            return f"the model has {self.shape} {self.dtype}"
        dtype, length = codecs.encoded_spec(self.codec, self.size)
        return f"one as {self.codec} is {(length,)} {dtype}"


def no_overflow(vector: Vector) -> bool:
    """Return whether every element is finite and so small that no sum of such vectors overflows.

    That is so if the sum of squares does not overflow, as no element is then beyond the square root of the dtype's
    largest number. False may also mean that the elements are only large. (vdot does not warn of an overflow.)

    >>> no_overflow(np.array([1e100, 1.0])), no_overflow(np.array([1e300, 1.0])), no_overflow(np.array([1.0, np.nan]))
    (True, False, False)
    """
    return math.isfinite(np.vdot(vector, vector))


def is_finite(vector: Vector) -> bool:
    """Return whether every element is finite.

    >>> is_finite(np.array([1e300, 1e300])), is_finite(np.array([1.0, np.nan]))
    (True, False)
    """
    return no_overflow(vector) or bool(np.isfinite(vector).all())
