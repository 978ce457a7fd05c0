"""A fixed part of scripts/fuzz.sh: malformed inputs are refused and change nothing."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_frames_that_are_nearly_messages(seed: int) -> None:
    from fuzz.targets import wire

    assert 0 < wire(2500, random.Random(f"wire {seed}")) < 500


@pytest.mark.parametrize("seed", range(6))
def test_messages_in_any_order_change_no_weights_and_leave_nothing(seed: int) -> None:
    from fuzz.targets import machine

    assert 0 < machine(500, random.Random(f"machine {seed}")) <= 500


@pytest.mark.parametrize("seed", range(3))
def test_damaged_checkpoints_are_never_taken_for_whole(seed: int, tmp_path: Path) -> None:
    from fuzz.targets import files

    assert files(300, random.Random(f"files {seed}"), tmp_path) < 100


@pytest.mark.parametrize("kind", ["Ping", "Stop", "Done", "Leave", "Failure", "Contribution", "Score", "Initial"])
def test_the_server_remembers_nothing_of_a_stranger(kind: str) -> None:
    from fuzz.world import World, count_held, first_weights

    from karp.protocol import messages

    made: dict[str, Callable[[], object]] = {
        "Contribution": lambda: messages.Contribution(0, 0, [], [(0, "a", 1.0)], True),
        "Score": lambda: messages.Score(0, {"a": 1.0}, True),
        "Initial": lambda: messages.Initial(first_weights()),
        "Failure": lambda: messages.Failure(0, 0, -1, "E", "T"),
        "Leave": lambda: messages.Leave([(-1, "a", 1.0)]),
        "Ping": lambda: messages.Ping(1),
        "Stop": messages.Stop,
        "Done": messages.Done,
    }
    world = World()
    before = count_held(world.server)
    for number in range(200):
        world.arrive(b"stranger %d" % number, made[kind](), number % 2)  # type: ignore[arg-type]
    assert before == count_held(world.server)
    assert {} == world.server.ending.left_workers
