"""The virtual clock, and what arrives of a message."""

import numpy as np
import pytest

from karp.protocol.messages import Contribution, Initial, Ping
from karp.protocol.tree import Node
from karp.simulate.network import HEAD_BYTES, Clock, Network, copy_message
from karp.simulate.randomness import Randomness
from karp.simulate.scenario import Scenario


def test_events_happen_in_the_order_of_their_times_and_of_their_scheduling() -> None:
    clock = Clock()
    happened: list[tuple[str, float]] = []

    def note(name: str) -> None:
        happened.append((name, clock.now))

    clock.call_at(2.0, note, "second")
    clock.call_at(1.0, clock.call_at, 0.5, note, "late")  # 0.5 s has passed by then
    clock.call_later(2.0, note, "third")
    while clock.run_next():
        pass
    assert [("late", 1.0), ("second", 2.0), ("third", 2.0)] == happened
    assert 4 == clock.events


def arrivals(messages: int, seed: int = 0, **network: float) -> list[int]:
    """The messages of one direction in the order of their arrival; all are sent at once."""
    scenario = Scenario(latency=0.1, **network)  # type: ignore[arg-type]
    clock = Clock()
    carrier = Network(scenario, clock, Randomness(seed))
    arrived: list[int] = []
    for number in range(messages):
        carrier.send("up", b"worker", Ping(number), lambda ping: arrived.append(ping.seen))
    while clock.run_next():
        pass
    return arrived


def test_a_network_that_keeps_the_order_delivers_each_message_once_and_in_order() -> None:
    assert list(range(100)) == arrivals(100)


def test_any_other_network_lets_messages_overtake_each_other() -> None:
    arrived = arrivals(100, in_order=False)
    assert list(range(100)) == sorted(arrived) != arrived


def test_messages_are_lost_and_duplicated_at_the_rates_of_the_scenario() -> None:
    assert 900 == pytest.approx(len(arrivals(1000, loss_rate=0.1)), abs=40)
    assert 1100 == pytest.approx(len(arrivals(1000, duplicate_rate=0.1)), abs=40)
    assert 1000 == len(arrivals(1000, loss_rate=0.1, faults_until=0.0))


def test_what_arrives_shares_nothing_with_what_was_sent() -> None:
    vector = np.ones(4, np.float32)
    sent = Contribution(3, 3, [Node(0, 1, 0.5, vector), Node(1, 2, 0.5, None)], [(0, "norm", 1.0)], False)
    copied, size = copy_message(sent)
    weights, _ = copy_message(Initial(vector))
    vector[:] = 7.0
    sent.logs.clear()
    assert [1.0] * 4 == copied.nodes[0].vector.tolist() == weights.weights.tolist()  # type: ignore[union-attr]
    assert ([(0, "norm", 1.0)], None) == (copied.logs, copied.nodes[1].vector)
    assert HEAD_BYTES + vector.nbytes == size
    with pytest.raises(ValueError, match="read-only"):
        weights.weights[0] = 1.0
