"""The server's machine and workers that take part in its ranges, in random orders of events: the bits stay.

Workers are killed, stopped (also while they hold the lock, in half an update), taken for lost, and come back.
"""

from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
from machines import gradient, read_only, settings, weights
from test_server_ranges import MOMENTUM, Memory, twin

from karp import optim
from karp.data import Plan
from karp.protocol.messages import Contribution, Finish, Initial, Join, Lease, Leave, Ping, Rejoin, Welcome
from karp.protocol.ranges import CURRENT, RANGE, STOPPED, Copies, Participant, Seat
from karp.protocol.server.actions import Send
from karp.protocol.server.machine import Server
from karp.protocol.tree import Node, TreeSum

OPTIMIZER = optim.from_dict(MOMENTUM["optimizer"])
STEPS = 20


@cache
def expected(shards: int) -> list[bytes]:
    """The weights of each version."""
    return [twin(version, samples=80, shards=shards).weights.tobytes() for version in range(STEPS)]


class Lock:
    """The lock as one process has it; `unlucky` is the share of attempts in which another one has it for a moment."""

    def __init__(self, memory: "SharedMemory", who: Any, unlucky: float = 0.0) -> None:
        self.memory, self.who, self.unlucky = memory, who, unlucky

    def try_acquire(self) -> bool:
        if self.memory.holder not in (None, self.who) or self.memory.rng.random() < self.unlucky:
            return False
        self.memory.holder = self.who
        return True

    acquire = try_acquire

    def release(self) -> None:
        assert self.memory.holder is self.who
        self.memory.holder = None


class SharedMemory(Memory):
    """Memory with a lock that knows its holder, and the table that workers read."""

    holder: Any = None
    table: tuple[tuple[bytes, int, int], ...] = ()
    generation = 0

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self.rng = rng

    def allocate(self, layout: Any, vectors: int) -> list[list[np.ndarray]]:
        copies = super().allocate(layout, vectors)
        self.holder, self.generation = None, self.generation + 1
        self.lock = Lock(self, "server")  # type: ignore[assignment]
        return copies

    def seat(self, seated: Any) -> list[Seat] | None:
        seats = super().seat(seated)
        self.table = tuple(seated) if seats is not None else self.table
        return seats


class Worker:
    """A worker's process, as far as ranges go."""

    def __init__(self, world: "World", number: int, process: int) -> None:
        self.world, self.number, self.peer = world, number, b"%d-%d" % (number, process)
        self.inbox: list[Any] = []
        self.lease: Lease | None = None
        self.seen = -1
        self.generation = -1  # of the memory that it has opened
        self.arrived = self.in_half = self.stopped = self.over = False
        self.send(Join(number, world.settings, "host", 1))

    def send(self, message: Any) -> None:
        self.world.to_server(self.peer, message)

    @property
    def busy(self) -> bool:
        return self.lease is not None or bool(self.inbox)

    def act(self) -> None:
        """Do the next thing."""
        if self.in_half:
            self.end_half()
        elif self.inbox:
            self.receive(self.inbox.pop(0))
        elif self.lease is None:
            self.send(Ping(max(self.seen, 0)))
        elif self.arrived:
            self.look()
        else:
            self.compute(self.lease)

    def receive(self, message: Any) -> None:
        match message:
            case Welcome():
                memory = self.world.memory
                memory.open(self.peer)
                self.generation, self.board, self.slots = memory.generation, memory.board, memory.slots
                self.copies, self.seen = Copies(OPTIMIZER, memory.copies, memory.board), -1
                self.words, self.numbers, self.vector = memory.slots[self.peer]
                self.part = Participant(self.board, self.copies, Lock(memory, self, 0.4), self.words, self.numbers)
                if message.initial:
                    self.send(Initial(read_only(weights())))
            case Rejoin():
                self.lease, self.arrived = None, False
                self.send(Join(self.number, self.world.settings, "host", 1))
            case Lease() if message.number > self.seen and self.generation == self.world.memory.generation:
                self.seen, self.lease, self.arrived = message.number, message, False
                if message.range and self.board.words[RANGE] == message.range:
                    seats = [Seat(*self.slots[peer], start, stop) for peer, start, stop in self.world.memory.table]
                    self.part.enter(message.range, message.end, seats, self.world.settings.shards)
                else:
                    message.range = 0
            case Finish():
                assert message.failure == ""
                self.over = True
                self.send(Leave([]))

    def nodes(self, lease: Lease) -> list[Node]:
        tree = TreeSum(self.world.settings.shards)
        for shard in range(lease.start, lease.stop):
            tree.add(Node(shard, shard + 1, 0.25, gradient(lease.step, shard)))
        return list(tree.nodes.values())

    def compute(self, lease: Lease) -> None:
        nodes = self.nodes(lease)
        if not lease.range or lease.step >= lease.end or self.world.rng.random() < 0.03:
            self.contribute(nodes)
            return
        self.vector[:] = nodes[0].vector
        self.arrived = True
        self.settle(self.part.arrive(lease.step, nodes[0].loss, 0.0, 0.01))

    def look(self) -> None:
        assert self.lease is not None
        if self.world.rng.random() < 0.5:
            self.part.try_to_end(self.lease.step)
        self.settle(self.part.ended(self.lease.step))

    def settle(self, ended: bool | None) -> None:
        lease = self.lease
        assert lease is not None
        if ended:
            lease.step, lease.version, self.arrived = lease.step + 1, lease.version + 1, False
        elif ended is False:
            self.contribute(self.nodes(lease))

    def contribute(self, nodes: list[Node]) -> None:
        lease, self.lease, self.arrived = self.lease, None, False
        assert lease is not None
        if self.generation == self.world.memory.generation:  # otherwise nobody reads its mailbox
            nodes = [node._replace(vector=read_only(node.vector)) for node in nodes]  # type: ignore[arg-type]
            self.send(Contribution(lease.step, lease.version, nodes, [], False))

    def stop_in_half(self) -> None:
        """Stop in half an update, if the worker can begin one now."""
        lease, words = self.lease, self.board.words
        if lease is None or not self.arrived or self.in_half:
            return
        if any(self.slots[peer][0][0] != lease.step + 1 for peer, _, _ in self.world.memory.table):
            return
        if self.generation != self.world.memory.generation or not self.part.lock.try_acquire():
            return
        if words[RANGE] != lease.range or words[STOPPED] or words[CURRENT] != lease.step:
            self.part.lock.release()
            return
        self.in_half = self.stopped = True
        self.copies.begin_write(lease.step + 1)
        self.copies.at(lease.step + 1).weights[:3] = np.nan

    def end_half(self) -> None:
        """End the update that the worker was in, as it does not look again whether it may."""
        assert self.lease is not None
        step, self.in_half = self.lease.step, False
        self.board.write_losses(step, self.part.add_up(), 0.0)
        self.copies.update(step, *self.part.gradients)
        self.board.words[CURRENT] = step + 1
        if self.part.lock.memory.holder is self:  # type: ignore[attr-defined]
            self.part.lock.release()


class World:
    """A server and its workers."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.workers_expected, self.shards = self.rng.randint(1, 3), self.rng.randint(1, 5)
        self.settings = settings(**MOMENTUM, samples=80, shards=self.shards)
        self.memory, self.now = SharedMemory(self.rng), 0.0
        self.server = Server(self.workers_expected, Plan, 0.0, memory=self.memory)
        self.workers: list[Worker] = []
        self.by_peer: dict[bytes, Worker] = {}
        self.processes = 0
        for number in range(self.workers_expected):
            self.start(number)

    def start(self, number: int) -> None:
        self.processes += 1
        worker = Worker.__new__(Worker)
        self.by_peer[b"%d-%d" % (number, self.processes)] = worker
        worker.__init__(self, number, self.processes)  # type: ignore[misc]
        self.workers.append(worker)

    def to_server(self, peer: bytes, message: Any) -> None:
        self.perform(self.server.receive(peer, message, 0, self.now))

    def perform(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, Send) and (worker := self.by_peer.get(action.peer)) is not None:
                message = action.message
                worker.inbox.append(replace(message) if isinstance(message, Lease) else message)
        self.check()

    def check(self) -> None:
        """The weights of the current version are the reference's."""
        server = self.server
        if server.ready and server.weights is not None and not server.ranges.is_open and server.version < STEPS:
            assert expected(self.shards)[server.version] == server.weights.tobytes()

    def strike(self) -> None:
        """Something happens to a worker."""
        worker = self.rng.choice(self.workers)
        match self.rng.choice(["stop", "half", "half", "kill", "lost", "go on", "go on"]):
            case "stop":
                worker.stopped = True
            case "half" if worker.generation > 0:
                worker.stop_in_half()
            case "kill" if not worker.over:
                self.kill(worker)
            case "lost":
                self.perform(self.server.lost(worker.peer, self.now))
            case "go on":
                worker.stopped = False

    def kill(self, worker: Worker) -> None:
        if self.memory.holder is worker:
            self.memory.holder = None
        self.workers.remove(worker)
        del self.by_peer[worker.peer]
        self.perform(self.server.ended(worker.number, False, self.now))
        self.start(worker.number)

    def run(self) -> None:
        for event in range(6000):
            self.now += self.rng.choice([0.0, 0.001, 0.01])
            if event < 400 and self.rng.random() < 0.05:
                self.strike()
            elif self.rng.random() < 0.1:
                if event >= 400:
                    for worker in self.workers:
                        worker.stopped = False
                self.now += 0.05
                self.perform(self.server.tick(self.now))
            else:
                ready = [worker for worker in self.workers if not worker.stopped and not worker.over]
                if not ready:
                    if all(worker.over for worker in self.workers):
                        break
                    continue
                busy = [worker for worker in ready if worker.busy]
                self.rng.choice(busy if busy and self.rng.random() < 0.95 else ready).act()
        assert self.server.over
        assert STEPS == self.server.version
        assert twin(STEPS, samples=80, shards=self.shards).weights.tobytes() == self.server.weights.tobytes()  # type: ignore[union-attr]
        assert self.server.failure == ""


@pytest.mark.parametrize("seeds", [range(40), range(40, 80)], ids=str)
def test_the_bits_stay_whatever_happens_to_workers(seeds: range) -> None:
    in_ranges = generations = 0
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        in_ranges += world.server.counts["steps_in_ranges"]
        generations += world.memory.generation
    assert in_ranges > 5 * len(seeds)
    assert generations > len(seeds)
