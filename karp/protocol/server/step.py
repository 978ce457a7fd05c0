"""One step under way: which of its shards are leased, and the tree of what has arrived."""

import math

import numpy as np

from karp.protocol.tree import Node, TreeSum, Vector


class Step:
    """The shards of step `number`.

    >>> step = Step(7, 5)
    >>> step.cut(3), step.cut(9), step.cut(1)
    ((0, 3), (3, 5), None)
    >>> step.give_back(3, 5)
    >>> step.unleased
    [(3, 5)]
    """

    __slots__ = ("arrivals", "large", "number", "refusals", "skipped", "tree", "unleased")

    def __init__(self, number: int, shards: int) -> None:
        self.number = number
        self.tree = TreeSum(shards, apart=True)
        self.large = False  # whether a sum of what is finite might not be
        self.unleased = [(0, shards)] if shards else []  # ranges, in order
        self.refusals: dict[int, bytes] = {}  # shard -> who sent a gradient of it that was not finite
        self.arrivals: list[list[int]] = []  # [worker, version, start, stop], in a run with staleness
        self.skipped: set[int] = set()  # shards left out because their gradient is not finite

    @property
    def untouched(self) -> bool:
        """Whether all of it is to be leased, and nothing of it has gone wrong."""
        return not self.refusals and self.unleased == [(0, self.tree.shards)]

    @property
    def to_lease(self) -> int:
        """How many shards are unleased."""
        return sum(stop - start for start, stop in self.unleased)

    def cut(self, shards: int) -> tuple[int, int] | None:
        """The next range to lease, of at most so many shards; None if nothing is unleased."""
        if not self.unleased or not shards:
            return None
        start, stop = self.unleased[0]
        if shards >= stop - start and not self.refusals:
            del self.unleased[0]
            return start, stop
        if self.refusals:  # a shard whose gradient was not finite goes alone, so that it can be named
            stop = next((shard for shard in range(start, stop) if shard in self.refusals), stop)
            if stop == start:
                stop = start + 1
            if stop < self.unleased[0][1]:
                self.unleased[:1] = [(start, stop), (stop, self.unleased[0][1])]
        if stop - start <= shards:
            del self.unleased[0]
            return start, stop
        self.unleased[0] = (start + shards, stop)
        return start, start + shards

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What has not arrived of a range."""
        return self.tree.missing(start, stop)

    def give_back(self, start: int, stop: int) -> None:
        """What has not arrived of a range that was leased can be leased again."""
        self.unleased = merged([*self.unleased, *self.missing(start, stop)])

    def lacks(self, missing: list[tuple[int, int]]) -> None:
        """All but these shards have arrived and left nothing; raises ValueError for what are none of its shards."""
        at = 0
        for start, stop in [*missing, (self.tree.shards, self.tree.shards)]:
            if not at <= start <= stop <= self.tree.shards:
                raise ValueError(f"shards {start} to {stop} of {self.tree.shards}")
            self.enter([Node(shard, shard + 1, 0.0, None) for shard in range(at, start)])
            at = stop

    def own(self, vector: Vector) -> None:
        """Copy what lies in this vector: whoever lent it wants to write there again."""
        for start, node in self.tree.nodes.items():
            if node.vector is vector:
                self.tree.nodes[start] = node._replace(vector=vector.copy())

    def leave_out(self, shard: int) -> None:
        """This shard is to be absent from the sum."""
        self.skipped.add(shard)
        self.enter([Node(shard, shard + 1, 0.0, None)])

    def enter(self, nodes: list[Node]) -> int:
        """Add these nodes; returns how many were there already."""
        dropped = 0
        for node in nodes:
            if self.tree.add(node):
                if self.unleased:
                    self._take(node.start, node.stop)
            else:
                dropped += 1
        return dropped

    def _take(self, start: int, stop: int) -> None:
        """Shards that have arrived need not be leased, even where they had been given back."""
        if any(low < stop and start < high for low, high in self.unleased):
            cut = [(low, min(high, start)) for low, high in self.unleased]
            cut += [(max(low, stop), high) for low, high in self.unleased]
            self.unleased = merged([(low, high) for low, high in cut if low < high])


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same shards as few ranges in order.

    >>> merged([(3, 4), (0, 2), (2, 3), (6, 7)])
    [(0, 4), (6, 7)]
    """
    found: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def named(start: int, stop: int) -> str:
    """A range of shards in words: 'shard 3', 'shards 3 to 5'."""
    return f"shard {start}" if stop - start == 1 else f"shards {start} to {stop - 1}"


def moderate(vector: Vector) -> bool:
    """Whether every element is finite and so small that sums of them, however many, are finite too.

    Where the sum of squares does not overflow, no element is beyond the root of the largest number there is.
    (vdot does not warn of an overflow.)

    >>> moderate(np.array([1e100, 1.0])), moderate(np.array([1e300, 1.0])), moderate(np.array([1.0, np.nan]))
    (True, False, False)
    """
    return math.isfinite(np.vdot(vector, vector))


def finite(vector: Vector) -> bool:
    """Whether every element is finite.

    >>> finite(np.array([1e300, 1e300])), finite(np.array([1.0, np.nan]))
    (True, False)
    """
    return moderate(vector) or bool(np.isfinite(vector).all())
