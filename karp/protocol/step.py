"""One step under way: which of its shards are leased, and the tree of what has arrived."""

import math

import numpy as np

from karp.protocol.tree import Node, TreeSum, Vector


class Step:
    """The shards of step `number`.

    >>> step = Step(7, 5)
    >>> step.cut(2), step.cut(1), step.cut(1)
    ((0, 3), (3, 5), None)
    >>> step.give_back(3, 5)
    >>> step.unleased
    [(3, 5)]
    """

    __slots__ = ("number", "tree", "unleased")

    def __init__(self, number: int, shards: int) -> None:
        self.number = number
        self.tree = TreeSum(shards)
        self.unleased = [(0, shards)] if shards else []  # ranges, in order

    @property
    def complete(self) -> bool:
        return self.tree.complete

    @property
    def total(self) -> Node:
        """The sum over all shards, once it is complete."""
        return self.tree.nodes[0]

    def cut(self, workers: int) -> tuple[int, int] | None:
        """The next range to lease where this many workers share what is unleased; None if nothing is."""
        if not self.unleased:
            return None
        start, stop = self.unleased[0]
        share = -(-sum(last - first for first, last in self.unleased) // workers)
        if stop - start <= share:
            del self.unleased[0]
            return start, stop
        self.unleased[0] = (start + share, stop)
        return start, start + share

    def give_back(self, start: int, stop: int) -> None:
        """What has not arrived of a range that was leased can be leased again."""
        for first, last in self.tree.missing():
            if (low := max(first, start)) < (high := min(last, stop)):
                self.unleased.append((low, high))
        self.unleased.sort()

    def enter(self, nodes: list[Node]) -> int:
        """Add these nodes; returns how many were there already."""
        return sum(not self.tree.add(node) for node in nodes)


def named(start: int, stop: int) -> str:
    """A range of shards in words: 'shard 3', 'shards 3 to 5'."""
    return f"shard {start}" if stop - start == 1 else f"shards {start} to {stop - 1}"


def finite(vector: Vector) -> bool:
    """Whether every element is finite: one product, and a look at each only if that overflowed.

    >>> finite(np.array([1e300, 1e300])), finite(np.array([1.0, np.nan]))
    (True, False)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.dot(vector, vector)) or bool(np.isfinite(vector).all())
