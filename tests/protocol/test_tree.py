"""The tree sum: one order of addition, whatever the order of arrival and whoever adds."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.errors import ProtocolError
from karp.protocol.tree import Node, TreeSum, parent


def leaves(shards: int) -> list[Node]:
    rng = np.random.default_rng(shards)
    vectors = rng.normal(size=(shards, 5)) * 10.0 ** rng.integers(-8, 8, (shards, 1))
    return [Node(shard, shard + 1, float(vector[0]), vector.astype(np.float32)) for shard, vector in enumerate(vectors)]


def halves(start: int, stop: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a node splits: at the largest power of two below its size."""
    size = 1
    while 2 * size < stop - start:
        size *= 2
    return (start, start + size), (start + size, stop)


def by_recursion(nodes: list[Node], start: int, stop: int) -> np.ndarray:
    if stop - start == 1:
        return nodes[start].vector
    left, right = halves(start, stop)
    return by_recursion(nodes, *left) + by_recursion(nodes, *right)


def copied(node: Node) -> Node:
    return node._replace(vector=node.vector.copy())


@given(st.integers(1, 40), st.randoms())
def test_any_order_of_arrival_gives_the_same_bits(shards: int, random) -> None:
    nodes = leaves(shards)
    expected = by_recursion(nodes, 0, shards)
    tree = TreeSum(shards)
    order = list(range(shards))
    random.shuffle(order)
    for shard in order:
        assert not tree.complete
        tree.add(copied(nodes[shard]))
    assert tree.complete
    assert expected.tobytes() == tree.nodes[0].vector.tobytes()


@given(st.integers(1, 40), st.data())
def test_any_cut_into_leases_gives_the_same_bits(shards: int, data) -> None:
    nodes = leaves(shards)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, shards - 1)), max_size=shards)) | {0, shards})
    whole = TreeSum(shards)
    contributions = []
    for start, stop in pairwise(cuts):
        part = TreeSum(shards)
        for shard in range(start, stop):
            part.add(copied(nodes[shard]))
        contributions.append(list(part.nodes.values()))
    for nodes_of_one in data.draw(st.permutations(contributions)):
        for node in nodes_of_one:
            whole.add(node)
    assert by_recursion(nodes, 0, shards).tobytes() == whole.nodes[0].vector.tobytes()


@pytest.mark.parametrize("shards", range(1, 41))
def test_every_node_has_its_parent_and_nothing_else_has_one(shards: int) -> None:
    above = {}

    def walk(start: int, stop: int) -> None:
        if stop - start > 1:
            for half in halves(start, stop):
                above[half] = (start, stop)
                walk(*half)

    walk(0, shards)
    for start in range(shards):
        for stop in range(start + 1, shards + 1):
            if (start, stop) in above:
                assert above[start, stop] == parent(start, stop, shards)
            else:
                with pytest.raises(ProtocolError):
                    parent(start, stop, shards)


def test_a_contribution_has_one_sum_per_maximal_node() -> None:
    tree = TreeSum(8)
    for node in leaves(8)[1:7]:
        tree.add(copied(node))
    assert sorted(node[:2] for node in tree.nodes.values()) == [(1, 2), (2, 4), (4, 6), (6, 7)]


@pytest.mark.parametrize("pair", [(0, 3), (1, 3), (3, 3), (4, 6), (-1, 0), (0, 9), (5, 4), (2, 5)])
def test_what_is_no_node_is_refused(pair: tuple[int, int]) -> None:
    tree = TreeSum(5)
    with pytest.raises(ProtocolError, match="no node of the tree over 5 shards"):
        tree.add(Node(*pair, 0.0, np.zeros(1)))
    assert tree.nodes == {}


def test_a_negative_zero_survives_alone() -> None:
    tree = TreeSum(1)
    tree.add(Node(0, 1, 0.0, np.array([-0.0])))
    assert np.signbit(tree.nodes[0].vector[0])


def test_a_read_only_vector_is_not_written() -> None:
    nodes = leaves(2)
    nodes[0].vector.flags.writeable = False
    before = nodes[0].vector.tobytes()
    tree = TreeSum(2)
    tree.add(nodes[1])
    tree.add(nodes[0])
    assert before == nodes[0].vector.tobytes()
    assert (nodes[0].vector + nodes[1].vector).tobytes() == tree.nodes[0].vector.tobytes()
