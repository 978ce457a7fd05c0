"""A small run without processes: the machines of a server and workers that call each other, and their reference."""

from __future__ import annotations

import functools
import random
from collections import deque
from typing import Any

import numpy as np

from karp import optim
from karp.data import Plan
from karp.errors import RunError
from karp.parameters import Layout
from karp.protocol.messages import FROM_SERVER, FROM_WORKER, Evaluation, FromWorker, Lease, decode, encode
from karp.protocol.reports import Report, from_line, to_line
from karp.protocol.server.actions import Send
from karp.protocol.server.machine import Server
from karp.protocol.settings import Settings
from karp.protocol.tree import Node, TreeSum
from karp.protocol.worker import Worker

Vector = np.ndarray[Any, np.dtype[Any]]
LAYOUT = Layout({"weight": (3, 2), "bias": (2,)}, "float32")
SHARDS = 5


def first_weights() -> Vector:
    """Return the initial weights."""
    vector = LAYOUT.zeros()
    LAYOUT.views(vector)["weight"][:] = np.arange(6, dtype=np.float32).reshape(3, 2)
    return vector


@functools.cache
def settings() -> Settings:
    """Return the settings of the run."""
    plain = {
        "program": "digits.py",
        "program_sha256": "p",
        "layout": LAYOUT.to_dict(),
        "weights_sha256": LAYOUT.sha256(first_weights()),
        "optimizer": optim.to_dict(optim.SGD(lr=0.5, momentum=0.5)),
        "samples": 20,
        "data_sha256": "d",
        "batch_size": 8,
        "epochs": 3,
        "shards": SHARDS,
        "seed": 0,
        "threads": 1,
        "evaluate": True,
        "wait_for_score": False,
        "keep_best": "accuracy",
    }
    return Settings.from_dict(plain)


@functools.cache
def noise(step: int, shard: int) -> Vector:
    """Return the part of a shard's gradient that does not depend on the weights."""
    vector = LAYOUT.zeros()
    for view in LAYOUT.views(vector).values():
        view[:] = np.random.default_rng([step, shard]).normal(size=view.shape)
    return vector


def gradient(weights: Vector, step: int, shard: int) -> Vector:
    """Return the gradient of a shard: a pure function of weights, step and shard."""
    vector: Vector = noise(step, shard) + np.float32(0.125) * weights
    return vector


@functools.cache
def reference() -> list[bytes]:
    """Return the weights of every version as bytes, computed without server or workers."""
    updater = optim.Updater(settings().optimizer, first_weights())
    plan = Plan(settings().samples, settings().batch_size, SHARDS, 0)
    versions = [updater.weights.tobytes()]
    for step in range(plan.steps_per_epoch * settings().epochs):
        tree = TreeSum(plan.shards_of(step))
        for shard in range(tree.shards):
            tree.add(Node(shard, shard + 1, 0.25, gradient(updater.weights, step, shard)))
        total = tree.nodes[0].vector
        assert total is not None
        updater.update(total)
        versions.append(updater.weights.tobytes())
    return versions


class HonestWorker:
    """Run a worker of the run: the real machine, and a program that computes at once."""

    def __init__(self, peer: bytes, number: int) -> None:
        self.peer = peer
        self.worker = Worker(first_weights(), number)
        self.inbox: deque[tuple[Any, int]] = deque()
        self.gone = False

    def turn(self, now: float, shards_of: Any) -> list[FromWorker]:
        """Return what it sends after one message, or after a silence."""
        worker = self.worker
        if self.inbox:
            reply = worker.receive(*self.inbox.popleft(), now)
        else:
            reply = worker.tick(now, "the world")
        sent = [reply] if reply is not None else []
        if isinstance(worker.task, Lease):
            lease = worker.task
            for shard in range(lease.start, lease.stop):
                worker.computed(gradient(worker.current, lease.step, shard), 0.25, shards_of(lease.step))
            sent.append(worker.contribution())
        elif isinstance(worker.task, Evaluation):
            sent.append(worker.scored({"accuracy": 0.5}))
        if worker.over is not None and not self.gone:
            self.gone = True
            sent.append(worker.leave())
        return sent


class World:
    """Run the server's machine with three honest workers, and check the weights after every event.

    A server that is given may be another run's: its weights are not checked.
    """

    def __init__(self, server: Server | None = None) -> None:
        self.now = 0.0
        self.server = server or Server(3, Plan, 0.0)
        self.checked = server is None
        self.plan = Plan(settings().samples, settings().batch_size, SHARDS, 0)
        self.honest = {b"w%d" % number: HonestWorker(b"w%d" % number, number) for number in range(3)}
        for peer, honest in self.honest.items():
            self.arrive(peer, honest.worker.request_join(settings(), "host", 1, self.now), 0)

    def arrive(self, peer: bytes, message: FromWorker, incarnation: int) -> None:
        """Deliver a message to the server, its vectors read-only as from a wire, and perform its actions."""
        head, payload = encode(message)
        message = decode(head, [np.frombuffer(vector.tobytes(), vector.dtype) for vector in payload], FROM_WORKER)
        self.perform(self.server.receive(peer, message, incarnation, self.now))

    def perform(self, actions: list[Any]) -> None:
        """Perform the server's actions: each message must be one that its receiver can read."""
        for action in actions:
            if isinstance(action, Send):
                decode(*encode(action.message), FROM_SERVER)
                if action.peer in self.honest:
                    self.honest[action.peer].inbox.append((action.message, self.server.incarnation))
            elif isinstance(action, Report):
                from_line(to_line(action))
        self.check()

    def check(self) -> None:
        """Check that the weights are those of the reference at their version; at the end, at the best epoch's."""
        weights, version, training = self.server.weights, self.server.version, self.server.training
        if training.has_best_weights and training.best is not None:
            version = min(version, (training.best.epoch + 1) * self.plan.steps_per_epoch)
        if self.checked and weights is not None and weights.tobytes() != reference()[version]:
            raise AssertionError(f"the weights of version {version} are not those of the reference")

    def turn(self, rng: random.Random) -> None:
        """Let one of the honest workers do something, and perhaps time pass.

        Raises RunError only where a member has failed the run.
        """
        honest = self.honest[rng.choice(sorted(self.honest))]
        if rng.random() < 0.1:
            self.now += rng.choice([0.01, 0.3, 1.5])
            self.perform(self.server.tick(self.now))
        try:
            messages = honest.turn(self.now, self.plan.shards_of)
        except RunError:
            if not self.server.failure:
                raise
            honest.gone = True
            return
        for message in messages:
            self.arrive(honest.peer, message, honest.worker.incarnation)

    @property
    def over(self) -> bool:
        """Return whether every honest worker has left."""
        return all(honest.gone for honest in self.honest.values())


def count_held(thing: object, seen: set[int] | None = None) -> int:
    """Return how many entries the containers of an object have, at any depth: a stranger may not make them grow."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | type | np.ndarray | Settings | Plan):
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        return len(thing) + sum(count_held(value, seen) for value in thing.values())
    if isinstance(thing, list | tuple | set | deque):
        return len(thing) + sum(count_held(value, seen) for value in thing)
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    values = [getattr(thing, name) for name in slots if hasattr(thing, name)]
    values += vars(thing).values() if hasattr(thing, "__dict__") else []
    return sum(count_held(value, seen) for value in values)

