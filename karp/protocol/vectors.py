"""What the vectors of a run look like when they arrive; they are checked before anything else looks at them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from karp import codecs
from karp.errors import ProtocolError
from karp.protocol.server.step import named
from karp.protocol.settings import Settings
from karp.protocol.tree import Node, Vector, parent


class Form:
    """Size, dtype and codec of a run's vectors."""

    def __init__(self, settings: Settings) -> None:
        self.size = settings.layout.size
        self.shape = (self.size,)
        self.dtype: np.dtype[Any] = np.dtype(settings.layout.dtype)
        self.codec = settings.codec
        self.alone = settings.staleness is None or settings.codec is not None  # each shard comes by itself

    def check_weights(self, what: str, vector: Vector) -> None:
        """Raises ProtocolError for what cannot be the model's weights."""
        if vector.shape != self.shape or vector.dtype != self.dtype:
            raise ProtocolError(
                f"{what}: {vector.shape} {vector.dtype}, but the model has {self.shape} {self.dtype}"
            )

    def check_nodes(self, nodes: Iterable[Node], step: int, shards: int) -> None:
        """Raises ProtocolError for what cannot be sums of this step's gradients."""
        for start, stop, _, vector in nodes:
            if vector is None or not (
                vector.shape == self.shape and vector.dtype == self.dtype
                if self.codec is None
                else codecs.fits(self.codec, vector, self.size)
            ):
                found = "nothing" if vector is None else f"{vector.shape} {vector.dtype}"
                what = f"the gradient of step {step}, {named(start, stop)}"
                raise ProtocolError(f"{what}: {found}, but {self._expected()}")
            if start != 0 or stop != shards:
                parent(start, stop, shards)  # refuses what is no node
            if stop - start > 1 and self.alone:
                raise ProtocolError(f"step {step}: a sum over {named(start, stop)}, but here each comes by itself")

    def decoded(self, node: Node) -> Node:
        """As it is added up."""
        if self.codec is None or node.vector is None:
            return node
        return node._replace(vector=codecs.decode(self.codec, node.vector, self.size, self.dtype))

    def _expected(self) -> str:
        if self.codec is None:
            return f"the model has {self.shape} {self.dtype}"
        dtype, length = codecs.form(self.codec, self.size)
        return f"one as {self.codec} is {(length,)} {dtype}"
