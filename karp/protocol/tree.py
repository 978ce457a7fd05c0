"""The sum over shards, in one order whatever the order of arrival.

Floating-point addition is not associative, so the bits of a sum of n gradients depend on the order. karp fixes one: a
binary tree over the shards 0 … n-1 in which a node of n shards splits at the largest power of two below n:

        n = 5            (0,5)
                        /     \\
                    (0,4)     (4,5)
                   /     \\
               (0,2)     (2,4)
               /   \\     /   \\
            (0,1)(1,2)(2,3)(3,4)

A node's sum is always the sum of its left half plus the sum of its right half. A worker with a lease of several shards
sends one sum for each maximal node inside it, and the server joins nodes as their siblings arrive. Both use TreeSum, so
the result does not depend on which worker computed a shard, or when. A tree over fewer shards is a subtree of
a larger one, so shards that a small last batch leaves empty are absent, never zero (-0.0 + 0.0 would be +0.0).
"""

from bisect import bisect_left, insort
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from karp.errors import ProtocolError

Vector = np.ndarray[Any, np.dtype[Any]]


class Node(NamedTuple):
    """The sum over shards start … stop-1: their weighted loss and their weighted gradient, a flat vector.

    Shards that are left out are absent, never zero: where all are left out, there is no vector.
    """

    start: int
    stop: int
    loss: float
    vector: Vector | None


def middle(start: int, stop: int) -> int:
    """Return the shard at which the node (start, stop), of at least two shards, splits.

    >>> middle(0, 5), middle(0, 4), middle(4, 7)
    (4, 2, 6)
    """
    return start + (1 << (stop - start - 1).bit_length() - 1)


@lru_cache(1 << 12)  # it is called several times for each contribution, with the same arguments at every step
def parent(start: int, stop: int, shards: int) -> tuple[int, int]:
    """Return the parent of the node (start, stop) in the tree over `shards` shards.

    Raises ProtocolError for the root, and for a pair of numbers that is not a node of this tree.

    >>> parent(2, 4, 5), parent(4, 5, 5)
    ((0, 4), (0, 5))
    """
    size = stop - start
    if size > 0 and size & (size - 1) == 0 == start & (size - 1) and start >= 0:
        low = start & -2 * size
        if low + 2 * size <= shards:  # the parent is a complete power of two, as most are in a large tree
            return low, low + 2 * size
    low, high = 0, shards
    while high - low > 1:
        split = middle(low, high)
        if (start, stop) in ((low, split), (split, high)):
            return low, high
        if stop <= split:
            high = split
        elif start >= split:
            low = split
        else:
            break
    raise ProtocolError(f"({start}, {stop}) is no node of the tree over {shards} shards")


@lru_cache(1 << 12)
def is_node(start: int, stop: int, shards: int) -> bool:
    """Return whether a pair of numbers is a node of the tree over `shards` shards.

    >>> [is_node(*pair, 5) for pair in ((0, 5), (2, 4), (4, 5), (0, 3), (1, 3))]
    [True, True, True, False, False]
    """
    low, high = 0, shards
    while (low, high) != (start, stop) and high - low > 1:
        split = middle(low, high)
        low, high = (low, split) if start < split else (split, high)
    return (low, high) == (start, stop)


class TreeSum:
    """Collects nodes of the tree over `shards` shards, and joins two nodes as soon as both halves of one are there.

    It does not check whether a shard was added before: a worker computes each once, and the server has its ledger.
    With `defer_last_join` the last two halves are not joined: an update adds them up piece by piece.

    >>> tree = TreeSum(3)
    >>> tree.add(Node(1, 2, 0.5, np.array([2.0])))
    >>> tree.add(Node(2, 3, 0.25, np.array([4.0])))
    >>> sorted(node[:2] for node in tree.nodes.values()), tree.complete
    ([(1, 2), (2, 3)], False)
    >>> tree.add(Node(0, 1, 0.25, np.array([1.0])))
    >>> tree.complete, tree.nodes[0].vector
    (True, array([7.]))
    """

    __slots__ = ("_starts", "complete", "defer_last_join", "nodes", "shards")

    def __init__(self, shards: int, defer_last_join: bool = False) -> None:
        self.shards = shards
        self.defer_last_join = defer_last_join
        self.nodes: dict[int, Node] = {}  # start -> node; disjoint
        self._starts: list[int] = []  # the nodes' starts, sorted, for binary search
        self.complete = False  # whether all shards are there

    def add(self, node: Node) -> None:
        """Add a node none of whose shards was added before.

        The tree may overwrite the node's vector if it is writable. Raises ProtocolError for a pair of numbers that is
        not a node of this tree.
        """
        start, stop, shards = node.start, node.stop, self.shards
        is_root = start == 0 and stop == shards
        if not is_root:
            parent(start, stop, shards)  # raises for what is no node
        if not self.nodes:  # there is no sibling to join it with
            self.nodes[start] = node
            self._starts = [start]
            self.complete = is_root
            return
        while node.stop - node.start < shards:
            low, high = parent(node.start, node.stop, shards)
            split = middle(low, high)
            start, stop = (split, high) if node.start == low else (low, split)
            sibling = self.nodes.get(start)
            if sibling is None or sibling.stop != stop:
                break
            if self.defer_last_join and high - low == shards:
                self.complete = True
                break
            del self.nodes[start]
            del self._starts[bisect_left(self._starts, start)]
            node = join(node, sibling) if node.start == low else join(sibling, node)
        self.nodes[node.start] = node
        insort(self._starts, node.start)
        self.complete = self.complete or node.stop - node.start == shards

    def total(self) -> Node:
        """Return the sum over all shards; call it once the tree is complete."""
        left, *right = (self.nodes[start] for start in self._starts)
        return join(left, right[0]) if right else left


def join(left: Node, right: Node) -> Node:
    """Return the sum of two sibling nodes, written over left's vector where that is writable."""
    if left.vector is None or right.vector is None:
        total = right.vector if left.vector is None else left.vector
    else:
        out = left.vector if left.vector.flags.writeable else None
        total = np.add(left.vector, right.vector, out=out)
    return Node(left.start, right.stop, left.loss + right.loss, total)


def merge_ranges(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the shards of these ranges as the fewest possible ranges, in order.

    >>> merge_ranges([(3, 4), (0, 2), (2, 3), (6, 7)])
    [(0, 4), (6, 7)]
    """
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def in_words(start: int, stop: int) -> str:
    """Return a range of shards in words: 'shard 3', 'shards 3 to 5'."""
    return f"shard {start}" if stop - start == 1 else f"shards {start} to {stop - 1}"
