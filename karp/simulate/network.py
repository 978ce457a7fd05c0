"""A virtual clock, and an imaginary network on it.

The clock holds what is to happen, in order of time; two things of one time happen in the order in which they were
announced. Nothing waits: time jumps from one event to the next.

A message is copied when it is sent, as bytes on a wire are: its sender may change the message and its vectors the
moment after. What arrives is read-only, like a frame. A copy travels for half the latency and a random time with that
mean; it may be lost, doubled and, unless the network keeps the order, overtaken.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from karp.protocol.messages import Contribution, Evaluation, Finish, Initial, Lease, Message
from karp.simulate.randomness import Chance
from karp.simulate.scenario import Schedule

HEAD_BYTES = 150  # of a message beside its vectors, on average
CARRIERS = (Contribution, Evaluation, Finish, Initial, Lease)  # messages with vectors
Kind = TypeVar("Kind", bound=Message)
Vector = np.ndarray[Any, np.dtype[Any]]


class Clock:
    """What is to happen, and when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0  # that have happened
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._announced = 0

    def at(self, time: float, action: Callable[..., None], *arguments: Any) -> None:
        """Have this happen at that time, or at once if it has passed."""
        self._announced += 1
        heapq.heappush(self._heap, (max(time, self.now), self._announced, action, arguments))

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + seconds, action, *arguments)

    def step(self) -> bool:
        """The next event; False if there is none."""
        if not self._heap:
            return False
        self.now, _, action, arguments = heapq.heappop(self._heap)
        self.events += 1
        action(*arguments)
        return True


class Network:
    """How messages travel."""

    def __init__(self, schedule: Schedule, clock: Clock, chance: Chance) -> None:
        self.schedule = schedule
        self.clock = clock
        self.chance = chance
        self.counts: Counter[str] = Counter()  # messages and bytes, up and down; lost and doubled
        self.rough = bool(schedule.loss or schedule.duplicate)
        self._last: dict[tuple[str, bytes], float] = {}  # when the last message of a direction arrives

    def send(self, way: str, peer: bytes, message: Kind, arrive: Callable[..., None], *arguments: Any) -> None:
        """Carry a copy of the message; arrive(*arguments, copy) is called when and if it is there.

        `way` is 'up' to the server or 'down', `peer` the worker at the other end.
        """
        copied, size = duplicate(message)
        self.counts[f"messages {way}"] += 1
        self.counts[f"bytes {way}"] += size
        rough = self.rough and self.clock.now < self.schedule.calm
        copies = self._copies() if rough else 1
        for number in range(copies):
            self.clock.at(self._arrival(way, peer, number), arrive, *arguments, copied)

    def _copies(self) -> int:
        """How many copies of a message arrive."""
        copies = 1
        if self.chance.happens(self.schedule.loss):
            self.counts["messages lost"] += 1
            copies = 0
        if self.chance.happens(self.schedule.duplicate):
            self.counts["messages doubled"] += 1
            copies += 1
        return copies

    def _arrival(self, way: str, peer: bytes, number: int) -> float:
        latency = self.schedule.latency
        time = self.clock.now + 0.5 * latency + self.chance.exponential(0.5 * latency)
        if number:  # a second copy may come long after
            time += self.chance.exponential(1.0)
        elif self.schedule.in_order:
            time = self._last[way, peer] = max(time, self._last.get((way, peer), 0.0))
        return time


def duplicate(message: Kind) -> tuple[Kind, int]:
    """A copy of a message that shares nothing which may change, and its size in bytes."""
    if not isinstance(message, CARRIERS):
        return message, HEAD_BYTES  # nobody changes these
    copied, size = type(message)(*[getattr(message, name) for name in message.__slots__]), HEAD_BYTES
    if isinstance(copied, Contribution):
        nodes = []
        for node in copied.nodes:
            vector = None if node.vector is None else frozen(node.vector)
            size += 0 if vector is None else vector.nbytes
            nodes.append(node._replace(vector=vector))
        copied.nodes, copied.logs = nodes, list(copied.logs)
    elif copied.weights is not None:
        copied.weights = frozen(copied.weights)
        size += copied.weights.nbytes
    return copied, size


def frozen(vector: Vector) -> Vector:
    """A read-only copy."""
    found = vector.copy()
    found.flags.writeable = False
    return found
