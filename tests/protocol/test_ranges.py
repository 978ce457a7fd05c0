"""Ranges: whatever the order of accesses, each step ends once and with the bits of the reference."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interleaving import Cells, Lock, Task, Turns

from karp import optim
from karp.protocol.ranges import (
    BOARD_WORDS,
    CURRENT,
    RANGE,
    STOPPED,
    Board,
    Copies,
    Participant,
    Seat,
    SeatSum,
    local_board,
)
from karp.protocol.tree import Node, TreeSum

SIZE = 5
OPTIMIZER = optim.SGD(0.1, momentum=0.9)
STEPS = 8


def gradient(step: int, shard: int, weights: np.ndarray) -> np.ndarray:
    """A gradient that is a pure function of its name and the weights."""
    rng = np.random.default_rng([step, shard])
    return (weights * np.float32(0.25) + rng.normal(size=SIZE)).astype(np.float32)


def node_of(step: int, start: int, stop: int, shards: int, weights: np.ndarray) -> Node:
    """The sum over the shards of a seat."""
    tree = TreeSum(shards)
    for shard in range(start, stop):
        tree.add(Node(shard, shard + 1, float(shard + step), gradient(step, shard, weights)))
    (node,) = tree.nodes.values()
    return node


def reference(shards: int) -> list[tuple[bytes, bytes, float]]:
    """Weights, state and loss by step: those before step 0 first."""
    updater = optim.Updater(OPTIMIZER, np.ones(SIZE, np.float32))
    states = []
    for step in range(STEPS + 1):
        tree = TreeSum(shards)
        for shard in range(shards):
            tree.add(Node(shard, shard + 1, float(shard + step), gradient(step, shard, updater.weights)))
        total = tree.total()
        states.append((updater.weights.tobytes(), updater.state["momentum"].tobytes(), total.loss))
        updater.update(total.vector)  # type: ignore[arg-type]
    return states


class Memory:
    """What is shared: a board, two copies, seats, a lock."""

    def __init__(self, turns: Turns, workers: int) -> None:
        self.board = Board(Cells(turns, [0] * BOARD_WORDS), Cells(turns, [0.0] * 64), lambda: None)
        self.vectors = [[np.full(SIZE, np.nan, np.float32) for _ in range(2)] for _ in range(2)]
        self.lock = Lock(turns)
        self.words = [Cells(turns, [0]) for _ in range(workers)]
        self.numbers = [Cells(turns, [0.0] * 3) for _ in range(workers)]
        self.gradients = [np.full(SIZE, np.nan, np.float32) for _ in range(workers)]
        self.turns = turns

    def copies(self) -> Copies:
        """As a process has them: an update goes by halves, with points between."""
        copies = Copies(OPTIMIZER, self.vectors, self.board)
        for updater in copies.updaters:
            original = updater.update

            def update(*vectors: Any, source: Any, original: Any = original, updater: Any = updater) -> None:
                for vector in (updater.weights, *updater.state.values()):
                    self.turns.point()
                    vector[: SIZE // 2] = np.nan  # what a broken update leaves behind
                self.turns.point()
                original(*vectors, source=source)
                self.turns.point()

            updater.update = update  # type: ignore[method-assign]
        return copies

    def seats(self, ranges: Sequence[tuple[int, int, int]]) -> list[Seat]:
        return [
            Seat(self.words[worker], self.numbers[worker], self.gradients[worker], start, stop)
            for worker, start, stop in ranges
        ]


Lease = tuple[Memory, int, int, int, list[tuple[int, int, int]], int]  # memory, range, step, end, seats, own place


class World:
    """Some workers that take part in ranges, and a server that opens and closes them."""

    def __init__(self, rng: Random, workers: int, shards: int, faults: dict[tuple[int, int], str]) -> None:
        self.rng, self.shards, self.faults = rng, shards, faults
        self.turns = Turns(rng, rng.choice([0.2, 0.6, 0.95]))
        self.turns.at_point, self.turns.idle = self.strike, self.wake_up
        self.expected = reference(shards)
        self.memory = Memory(self.turns, workers)
        self.copies = self.memory.copies()
        self.copies.fill(0, np.ones(SIZE, np.float32), None)
        self.leases: list[Lease | None] = [None] * workers  # by worker, as a mailbox
        self.parked: list[tuple[Memory, int] | None] = [None] * workers  # by worker: the step it has sent
        self.workers = [self.turns.add(f"worker {number}", self.worker_body(number)) for number in range(workers)]
        self.server = self.turns.add("server", self.serve)
        self.claims: set[tuple[int, int]] = set()  # (range, step) that a worker believes to have ended in the range
        self.closed: dict[int, tuple[int, int]] = {}  # range -> the steps at which it was opened and closed
        self.left: set[int] = set()  # ranges in memory that was left: what happens there later counts for nothing
        self.in_ranges = self.renewed = 0

    def strike(self, task: Task) -> None:
        """Kill or stop a worker at a point."""
        if task is self.server:
            if self.rng.random() < 0.01:
                self.wake_up()
            return
        match self.faults.get((self.workers.index(task), task.points)):
            case "kill":
                task.killed = True
            case "stop":
                task.stopped = True

    def wake_up(self) -> bool:
        """Let a stopped worker go on; return whether there is one."""
        stopped = [task for task in self.workers if task.stopped and not task.ended]
        if not stopped:
            return False
        self.rng.choice(stopped).stopped = False
        return True

    # A worker.

    def worker_body(self, number: int) -> Any:
        return lambda: self.work(number)

    def work(self, number: int) -> None:
        memory: Memory | None = None
        while not self.server.ended:
            self.turns.point()
            lease = self.leases[number]
            if lease is None:
                continue
            self.leases[number] = None
            if lease[0] is not memory:
                memory = lease[0]
                copies = memory.copies()
                part = Participant(memory.board, copies, memory.lock, memory.words[number], memory.numbers[number])
            _, name, step, end, table, place = lease
            part.enter(name, end, memory.seats(table), self.shards)
            _, start, stop = table[place]
            while True:
                weights = copies.at(step).weights
                node = node_of(step, start, stop, self.shards, weights)
                for half in (slice(0, 2), slice(2, None)):
                    self.turns.point()
                    memory.gradients[number][half] = node.vector[half]  # type: ignore[index]
                if step >= part.end or self.rng.random() < 0.02:
                    break
                ended = part.arrive(step, node.loss, 1.0, 0.5)
                while ended is None:
                    self.turns.point()
                    if part.changed(step) or (self.rng.random() < 0.2 and not part.try_to_end(step)):
                        ended = part.ended(step)
                if not ended:
                    break
                self.claims.add((name, step))
                step += 1
            part.leave()
            self.parked[number] = memory, step

    # The server.

    def serve(self) -> None:
        step, name = 0, 0
        while step < STEPS:
            alive = [number for number, task in enumerate(self.workers) if not task.killed and not task.ended]
            idle = [number for number in alive if self.leases[number] is None and self.parked_here(number)]
            if not idle:
                if step == 0 and name == 0:
                    idle = alive
                if not idle:  # nobody takes part: the server's own workers would do it, here by itself
                    step = self.ordinary(step)
                    for number in alive:
                        if self.parked[number] is not None:
                            self.parked[number] = self.memory, -1
                    continue
            name += 1
            step = self.run_range(name, step, idle)
            step = self.ordinary(step)

    def parked_here(self, number: int) -> bool:
        return self.parked[number] is not None or (not self.in_ranges and self.leases[number] is None)

    def run_range(self, name: int, step: int, idle: list[int]) -> int:
        """Open a range with these workers, close it some time later; return the step at which it was closed."""
        words = self.memory.board.words
        table = self.divide(idle)
        words[RANGE] = name
        words[STOPPED] = 0
        end = min(STEPS, step + self.rng.randrange(1, 9))
        for place, (number, _, _) in enumerate(table):
            self.parked[number] = None
            self.leases[number] = self.memory, name, step, end, table, place
        for _ in range(self.rng.randrange(400)):
            self.turns.point()
            if any(self.parked[number] is not None for number, _, _ in table):
                break
        if self.memory.lock.acquire():
            words[STOPPED] = words[CURRENT] + 1
            self.memory.lock.release()
            current = words[CURRENT]
        else:  # its holder is stopped
            words[RANGE] = name + 1_000_000
            current = words[CURRENT]
            self.left.add(name)
            self.renew(current)
        self.closed[name] = step, current
        self.in_ranges += current - step
        for ended in range(step, current):
            assert self.expected[ended][2] == self.memory_before.board.read_losses(ended)[0]
        self.check(current)
        return current

    @property
    def memory_before(self) -> Memory:
        return getattr(self, "_before", self.memory)

    def renew(self, current: int) -> None:
        """Go on in other memory; whoever wakes up may write to the old."""
        self.renewed += 1
        self._before, old = self.memory, self.copies.at(current)
        self.memory = Memory(self.turns, len(self.workers))
        self.copies = self.memory.copies()
        copied = [np.full(SIZE, np.nan, np.float32) for _ in ('weights', *old.state)]
        for place in reversed(range(SIZE)):
            for vector, copy in zip((old.weights, *old.state.values()), copied, strict=True):
                for _ in range(self.rng.randrange(60)):
                    self.turns.point()
                if self.rng.random() < 0.2:
                    self.wake_up()
                copy[place] = vector[place]
        self.copies.fill(current, copied[0], {"momentum": copied[1]})

    def divide(self, idle: list[int]) -> list[tuple[int, int, int]]:
        """Leases that are nodes of the tree: whole powers of two, or all."""
        count = 1 << (min(len(idle), self.shards).bit_length() - 1)
        size = 1 << max(0, (self.shards - 1).bit_length() - (count.bit_length() - 1))
        starts = range(0, self.shards, size)
        chosen = self.rng.sample(idle, len(starts))
        return [(number, start, min(start + size, self.shards)) for number, start in zip(chosen, starts, strict=True)]

    def ordinary(self, step: int) -> int:
        """A step that the server ends; its contributions come from whoever is there, with the same bits."""
        if step >= STEPS:
            return step
        self._before = self.memory
        weights = self.copies.at(step).weights
        tree = TreeSum(self.shards)
        for shard in range(self.shards):
            tree.add(Node(shard, shard + 1, 0.0, gradient(step, shard, weights)))
        self.copies.update(step, tree.total().vector)  # type: ignore[arg-type]
        self.memory.board.words[CURRENT] = step + 1
        self.check(step + 1)
        return step + 1

    def check_all(self) -> None:
        """The weights are those of the reference, and every worker was right about the steps that have ended."""
        self.check(STEPS)
        for name, step in self.claims:
            first, current = self.closed[name]
            assert first <= step < current or name in self.left, (name, step)

    def check(self, version: int) -> None:
        """Weights and state are those of the reference."""
        assert self.copies.holds(version)
        updater = self.copies.at(version)
        found = updater.weights.tobytes(), updater.state["momentum"].tobytes()
        assert self.expected[version][:2] == found


faults = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(1, 150)), st.sampled_from(["kill", "stop"]), max_size=3
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 3), st.integers(1, 5), faults)
def test_each_step_ends_once_in_any_order_of_accesses_whoever_is_killed_or_stopped(
    seed: int, workers: int, shards: int, faults: dict[tuple[int, int], str]
) -> None:
    world = World(Random(seed), workers, shards, faults)
    world.turns.run()
    world.check_all()


def test_most_steps_end_in_ranges_and_a_stopped_holder_of_the_lock_is_left_behind() -> None:
    in_ranges = renewed = 0
    for seed in range(40):
        world = World(Random(seed), 2, 2, {} if seed % 2 else {(0, 20 + seed): "stop"})
        world.turns.run()
        world.check_all()
        in_ranges += world.in_ranges
        renewed += world.renewed
    assert in_ranges > 40
    assert renewed > 0


@pytest.mark.parametrize(
    ("shards", "bounds"),
    [(1, [0, 1]), (2, [0, 1, 2]), (3, [0, 2, 3]), (5, [0, 1, 2, 4, 5]), (8, [0, 2, 4, 6, 8]), (8, list(range(9)))],
)
def test_the_sum_over_seats_is_that_of_the_tree_and_reads_only(shards: int, bounds: list[int]) -> None:
    weights = np.zeros(SIZE, np.float32)
    nodes = [node_of(3, start, stop, shards, weights) for start, stop in pairwise(bounds)]
    seats = [Seat([0], [node.loss, 0.0, 0.0], node.vector, node.start, node.stop) for node in nodes]  # type: ignore[arg-type]
    tree = TreeSum(shards)
    for node in nodes:
        tree.add(node._replace(vector=node.vector.copy()))  # type: ignore[union-attr]
    before = [seat.vector.tobytes() for seat in seats]
    total = SeatSum(seats, shards)
    for _ in range(2):
        assert tree.total().loss == total.add_up()
        found = total.vectors[0] if len(total.vectors) == 1 else total.vectors[0] + total.vectors[1]
        assert tree.total().vector.tobytes() == found.tobytes()  # type: ignore[union-attr]
    assert before == [seat.vector.tobytes() for seat in seats]


def test_what_a_worker_is_told_when_it_was_away() -> None:
    board = local_board()
    part = Participant(board, Copies(OPTIMIZER, [[np.zeros(1), np.zeros(1)]] * 2, board), None, [0], [0.0] * 3)  # type: ignore[arg-type]
    part.enter(4, 9, [Seat(part.words, part.numbers, np.zeros(1), 0, 1)], 1)
    cases = {  # (RANGE, STOPPED, CURRENT) -> whether step 7 has ended
        (4, 0, 7): None,
        (4, 0, 8): True,
        (4, 8, 7): False,  # closed at 7
        (4, 8, 9): False,  # and the server has ended further steps
        (4, 9, 8): True,
        (4, 9, 11): True,
        (5, 0, 8): False,
        (5, 0, 30): False,
    }
    for words, expected in cases.items():
        board.words[RANGE], board.words[STOPPED], board.words[CURRENT] = words
        assert expected is part.ended(7), words
