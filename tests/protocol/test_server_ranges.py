"""The server's part in ranges, event by event: when it opens and closes one, and what it takes over then."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from machines import LAYOUT, Run, gradient, leases, read_only, settings

from karp import optim
from karp.data import Plan
from karp.parameters import Layout
from karp.protocol import reports
from karp.protocol.messages import Contribution, Lease, Leave, Ping, Rejoin
from karp.protocol.ranges import CURRENT, RANGE, RING, SECONDS, STOPPED, Board, Copies, Participant, Seat, local_board
from karp.protocol.server.machine import Server
from karp.protocol.tree import Node, TreeSum

MOMENTUM = {"optimizer": optim.to_dict(optim.SGD(lr=0.5, momentum=0.9))}


class Lock:
    """A lock that the test may hold, as a process would that is stopped."""

    held = False

    def try_acquire(self) -> bool:
        return not self.held

    acquire = try_acquire

    def release(self) -> None:
        pass


class Memory:
    """The server's memory, in this process."""

    def __init__(self) -> None:
        self.board: Board
        self.lock = Lock()
        self.copies: list[list[np.ndarray]] = []
        self.slots: dict[bytes, tuple[list[int], list[float], np.ndarray]] = {}
        self.woken = 0

    def allocate(self, layout: Layout, vectors: int) -> list[list[np.ndarray]]:
        self.board, self.lock = local_board(), Lock()
        self.copies = [[layout.zeros() for _ in range(vectors)] for _ in range(2)]
        self.slots = {}
        return self.copies

    def seat(self, seated: Sequence[tuple[bytes, int, int]]) -> list[Seat] | None:
        if not all(peer in self.slots for peer, _, _ in seated):
            return None
        return [Seat(*self.slots[peer], start, stop) for peer, start, stop in seated]

    def open(self, peer: bytes) -> None:
        """A worker opens its slot."""
        self.slots[peer] = [0], [0.0] * 3, LAYOUT.zeros()

    def wake(self) -> None:
        self.woken += 1


class Shared(Run):
    """A run whose workers have seats, and can end steps."""

    def __init__(self, workers: int, **changes: Any) -> None:
        self.changes = MOMENTUM | changes
        super().__init__(workers, **self.changes)
        self.memory = Memory()
        self.server = Server(workers, Plan, 0.0, memory=self.memory)
        self.given: dict[int, Lease] = {}
        for worker in range(workers):
            self.note(self.join(worker))
        for worker in range(workers):
            self.memory.open(b"%d" % worker)

    def note(self, answers: list[tuple[bytes, Any]]) -> list[tuple[bytes, Any]]:
        self.given |= {worker: replace(lease) for worker, lease in leases(answers).items()}  # as another process has it
        return answers

    def do(self, worker: int) -> list[tuple[bytes, Any]]:
        """A worker sends the contribution of its lease."""
        lease = self.given.pop(worker)
        message = Contribution(lease.step, lease.version, self.nodes(lease), [], False)
        return self.note(self.send(b"%d" % worker, message))

    def nodes(self, lease: Lease) -> list[Node]:
        """The sums of a lease."""
        tree = TreeSum(self.settings.shards)
        for shard in range(lease.start, lease.stop):
            tree.add(Node(shard, shard + 1, 0.25, gradient(lease.step, shard)))
        return [Node(start, stop, loss, read_only(vector)) for start, stop, loss, vector in tree.nodes.values()]

    def ordinary(self) -> None:
        """One step by messages."""
        for worker in list(self.given):
            self.do(worker)

    def end_steps(self, count: int, seconds: float = 0.01) -> None:
        """The workers end so many steps among themselves, each computing for so many seconds."""
        held = {worker: lease for worker, lease in self.given.items() if lease.range}
        table = sorted((lease.start, lease.stop, worker) for worker, lease in held.items())
        seats = self.memory.seat([(b"%d" % worker, start, stop) for start, stop, worker in table])
        assert seats is not None
        copies = Copies(optim.from_dict(self.changes["optimizer"]), self.memory.copies, self.memory.board)
        for _ in range(count):
            ended = None
            for place, (_, _, worker) in enumerate(table):
                lease = held[worker]
                words, numbers, *_ = seats[place]
                part = Participant(self.memory.board, copies, self.memory.lock, words, numbers)
                part.enter(lease.range, lease.end, seats, self.settings.shards)
                assert lease.step < lease.end
                (node,) = self.nodes(lease)
                np.copyto(seats[place].vector, node.vector)  # type: ignore[arg-type]
                ended = part.arrive(lease.step, node.loss, 0.0, seconds)
            assert ended
            for lease in held.values():
                lease.step += 1
                lease.version += 1


@pytest.fixture
def run() -> Shared:
    """Two workers, 4 shards, two epochs of 100 steps, after the first step."""
    made = Shared(2, samples=800, epochs=2)
    made.ordinary()  # the first step, whose leases came before the slots were open
    return made


def twin(steps: int, **changes: Any) -> Run:
    """The same run without shared memory, after so many steps."""
    made = Run(2, **(MOMENTUM | {"samples": 800, "epochs": 2} | changes))
    given = {}
    for worker in range(2):
        given |= leases(made.join(worker))
    while made.step < steps:
        for worker in list(given):
            given |= leases(made.contribute(worker, given.pop(worker)))
    return made


def moved(run: Shared) -> dict[int, tuple[int, int]]:
    """Worker -> step and version of the lease that the server has noted for it."""
    tasks = {int(peer): member.task for peer, member in run.server.members.items()}
    return {worker: (task.step, task.version) for worker, task in tasks.items() if isinstance(task, Lease)}


def test_a_range_is_opened_with_a_step_that_is_leased_as_a_whole(run: Shared) -> None:
    words = run.memory.board.words
    assert [(1, 199), (1, 199)] == [(lease.range, lease.end) for lease in run.given.values()]
    assert (1, 0, 1) == (words[RANGE], words[STOPPED], words[CURRENT])
    assert run.server.restless


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_the_steps_of_a_range_are_taken_over_when_it_is_closed(run: Shared, count: int) -> None:
    run.end_steps(count)
    assert 1 + count == run.server.step  # also while it is open
    run.now = 0.5
    run.send(b"0", Ping(9))
    assert (False, 1 + count, 1 + count) == (run.server.ranges.is_open, run.version, run.step)
    assert 2 + count == run.memory.board.words[STOPPED]
    assert moved(run)[1] == (1 + count, 1 + count)
    other = twin(1 + count)
    assert other.weights.tobytes() == run.weights.tobytes()
    expected, actual = other.server.training.progress, run.server.training.progress
    for name in ("samples", "losses", "weight", "epoch_losses", "epoch_weight", "step_loss"):
        assert getattr(expected, name) == getattr(actual, name), name
    assert count == run.counts["steps_in_ranges"]
    assert 1 == run.memory.woken


def test_a_contribution_closes_the_range_and_counts_as_ever(run: Shared) -> None:
    run.end_steps(3)
    run.do(1)
    assert 4 == run.step
    run.do(0)
    assert 5 == run.step
    assert twin(5).weights.tobytes() == run.weights.tobytes()
    assert {2} == {lease.range for lease in run.given.values()}  # the next range
    assert 0 == run.counts["dropped"]


def test_a_contribution_to_a_step_that_has_ended_in_the_range_is_dropped(run: Shared) -> None:
    lease = run.given[0]
    message = Contribution(lease.step, lease.version, run.nodes(lease), [], False)
    run.end_steps(2)
    run.send(b"0", message)
    assert (3, 1) == (run.step, run.counts["dropped"])


def test_a_tick_closes_a_range_when_its_time_is_over_or_no_step_ends() -> None:
    run = Shared(2, samples=80_000)
    run.ordinary()
    run.end_steps(4)
    run.take(run.server.tick(0.04))
    assert run.server.ranges.is_open
    run.end_steps(4)
    run.take(run.server.tick(0.9))
    assert run.server.ranges.is_open
    run.take(run.server.tick(0.94))
    assert run.server.ranges.is_open
    run.take(run.server.tick(0.96))  # no step in 0.05 s
    assert not run.server.ranges.is_open
    assert 9 == run.step
    run.now = 0.97
    run.ordinary()
    run.take(run.server.tick(0.99))
    assert run.server.ranges.is_open
    run.take(run.server.tick(1.0))  # a report is due
    assert not run.server.ranges.is_open
    run.now = 1.01
    run.ordinary()
    assert [11] == [report.step for report in run.reported(reports.Progress)]



def test_a_worker_that_leaves_closes_the_range_and_its_shards_are_leased_again(run: Shared) -> None:
    run.end_steps(3)
    run.send(b"1", Leave([]))
    assert 4 == run.step
    run.given.pop(1)
    run.do(0)  # its own half
    assert {0} == run.given.keys()
    assert (4, 2, 4) == (run.given[0].step, run.given[0].start, run.given[0].stop)
    run.do(0)
    assert 5 == run.step
    assert run.given[0].range == 2
    assert (0, 4) == (run.given[0].start, run.given[0].stop)
    assert twin(5).weights.tobytes() == run.weights.tobytes()


def test_memory_is_left_behind_when_the_lock_s_holder_is_stopped(run: Shared) -> None:
    run.end_steps(3)
    old, board = run.memory.copies, run.memory.board
    run.memory.lock.held = True
    answers = run.take(run.server.lost(b"9", 0.5))
    assert [(b"0", Rejoin()), (b"1", Rejoin())] == answers
    assert board.words[RANGE] != 1  # nobody else begins to end a step there
    assert old is not run.memory.copies
    for copy in old:
        for vector in copy:
            vector[:] = np.nan
    board.words[CURRENT] = 77
    assert (4, 4) == (run.step, run.version)
    assert twin(4).weights.tobytes() == run.weights.tobytes()
    assert any("other memory" in report.text for report in run.reported(reports.Notice))
    run.given = {}
    run.note(run.join(0))
    assert (4, 0, 4, 0) == (run.given[0].step, run.given[0].start, run.given[0].stop, run.given[0].range)
    run.memory.open(b"0")
    run.do(0)
    assert 2 < run.given[0].range
    run.end_steps(2)
    run.take(run.server.lost(b"9", 0.6))
    assert twin(7).weights.tobytes() == run.weights.tobytes()
    run.take(run.server.lost(b"1", 0.7))  # who never comes back
    assert {0: b"0"} == run.server.numbers


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, 199),  # 100 steps an epoch: all but the last step of the run
        ({"evaluate": True}, 99),
        ({"samples": 802}, 99),  # an epoch's last step has two shards
        ({"samples": 804}, 201),  # half the samples in as many shards
        ({"samples": 80_000}, 1 + RING),
        ({"staleness": 1}, 0),
        ({"local_steps": 2, "outer": optim.to_dict(optim.SGD(lr=0.5))}, 0),
        ({"shards": 3}, 199),  # leases of two shards and of one are nodes of the tree
    ],
)
def test_a_range_ends_before_what_needs_the_server(changes: dict[str, Any], end: int) -> None:
    run = Shared(2, **({"samples": 800, "epochs": 2} | changes))
    run.ordinary()
    assert {end} == {lease.end for lease in run.given.values()}


def test_leases_that_are_no_nodes_of_the_tree_and_workers_without_slots_make_no_range() -> None:
    run = Shared(2, samples=800, shards=6)  # leases of three shards
    run.ordinary()
    assert [0, 0] == [lease.range for lease in run.given.values()]
    run = Shared(2, samples=800)
    del run.memory.slots[b"1"]
    run.ordinary()
    assert [0, 0] == [lease.range for lease in run.given.values()]


def test_the_time_that_workers_compute_in_a_range_is_theirs_and_the_remaining_time_is_waiting(run: Shared) -> None:
    run.end_steps(10, seconds=0.025)
    assert 0.25 == pytest.approx(run.memory.slots[b"0"][1][SECONDS])
    run.now = 0.5
    run.send(b"0", Ping(9))
    member = run.server.leasing.by_number[1]
    assert (0.25, 0.25) == (pytest.approx(member.computed), pytest.approx(member.leased))
    assert 22 == member.shards


def test_settings_are_those_that_the_tests_above_assume() -> None:
    assert 4 == settings().shards
    assert 8 == settings().batch_size
