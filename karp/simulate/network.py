"""A virtual clock, and an imaginary network on it.

The clock holds the events to come in the order of their times; events of the same time happen in the order in which
they were scheduled. Nothing waits: time jumps from one event to the next.

A message is copied when it is sent, as it is on a wire: its sender may change the message and its vectors directly
afterwards. The arrays that arrive are read-only, as frames are. A copy travels for half the latency plus a random time
with that mean. It may be lost, duplicated and, unless the network keeps the order, overtaken.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from karp.protocol.messages import Contribution, Evaluation, Finish, Initial, Lease, Message
from karp.protocol.tree import Vector
from karp.simulate.randomness import Randomness
from karp.simulate.scenario import Scenario

HEAD_BYTES = 150  # the average size of a message without its vectors
MESSAGES_WITH_VECTORS = (Contribution, Evaluation, Finish, Initial, Lease)
AnyMessage = TypeVar("AnyMessage", bound=Message)


class Clock:
    """Hold the events to come, and run them in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0  # the number of events that have happened
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0  # the number of events that were ever scheduled

    def call_at(self, time: float, action: Callable[..., None], *arguments: Any) -> None:
        """Schedule action(*arguments) for this time, or for now if the time has passed."""
        self._scheduled += 1
        heapq.heappush(self._heap, (max(time, self.now), self._scheduled, action, arguments))

    def call_later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Schedule action(*arguments) so many seconds from now."""
        self.call_at(self.now + seconds, action, *arguments)

    def run_next(self) -> bool:
        """Run the next event; return False if there is none."""
        if not self._heap:
            return False
        self.now, _, action, arguments = heapq.heappop(self._heap)
        self.events += 1
        action(*arguments)
        return True


class Network:
    """Carry messages between the server and its workers."""

    def __init__(self, scenario: Scenario, clock: Clock, rng: Randomness) -> None:
        self.scenario = scenario
        self.clock = clock
        self.rng = rng
        self.counts: Counter[str] = Counter()  # messages and bytes up and down; messages lost and doubled
        self.unreliable = bool(scenario.loss_rate or scenario.duplicate_rate)
        self._last_arrival: dict[tuple[str, bytes], float] = {}  # (direction, peer) -> time

    def send(
        self, direction: str, peer: bytes, message: AnyMessage, receive: Callable[..., None], *arguments: Any
    ) -> None:
        """Carry a copy of the message; receive(*arguments, copy) is called once for each copy that arrives.

        `direction` is 'up' to the server or 'down' from it, `peer` the worker at the other end.
        """
        copied, size = copy_message(message)
        self.counts[f"messages {direction}"] += 1
        self.counts[f"bytes {direction}"] += size
        unreliable = self.unreliable and self.clock.now < self.scenario.faults_until
        for number in range(self._draw_copies() if unreliable else 1):
            self.clock.call_at(self._draw_arrival(direction, peer, number), receive, *arguments, copied)

    def _draw_copies(self) -> int:
        """Draw how many copies of a message arrive on an unreliable network, 0 to 2, and count lost and doubled."""
        copies = 1
        if self.rng.bernoulli(self.scenario.loss_rate):
            self.counts["messages lost"] += 1
            copies = 0
        if self.rng.bernoulli(self.scenario.duplicate_rate):
            self.counts["messages doubled"] += 1
            copies += 1
        return copies

    def _draw_arrival(self, direction: str, peer: bytes, number: int) -> float:
        """Draw the time at which copy `number` of a message arrives; with `in_order` not before earlier messages."""
        latency = self.scenario.latency
        time = self.clock.now + 0.5 * latency + self.rng.exponential(0.5 * latency)
        if number:  # A second copy may arrive long after the first.
            time += self.rng.exponential(1.0)
        elif self.scenario.in_order:
            time = self._last_arrival[direction, peer] = max(time, self._last_arrival.get((direction, peer), 0.0))
        return time


def copy_message(message: AnyMessage) -> tuple[AnyMessage, int]:
    """Return a copy that shares nothing mutable with the message, and its size in bytes.

    A message without vectors is returned itself, as neither end changes it.
    """
    if not isinstance(message, MESSAGES_WITH_VECTORS):
        return message, HEAD_BYTES  # Neither end changes these.
    copied, size = type(message)(*[getattr(message, name) for name in message.__slots__]), HEAD_BYTES
    if isinstance(copied, Contribution):
        nodes = []
        for node in copied.nodes:
            vector = None if node.vector is None else read_only_copy(node.vector)
            size += 0 if vector is None else vector.nbytes
            nodes.append(node._replace(vector=vector))
        copied.nodes, copied.logs = nodes, list(copied.logs)
    elif copied.weights is not None:
        copied.weights = read_only_copy(copied.weights)
        size += copied.weights.nbytes
    return copied, size


def read_only_copy(vector: Vector) -> Vector:
    """Return a copy of the vector that cannot be written to."""
    copied = vector.copy()
    copied.flags.writeable = False
    return copied
