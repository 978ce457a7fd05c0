"""Messages: what goes in comes out, and nothing else does."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import gradient, settings

from karp.errors import ProtocolError, SettingError
from karp.protocol.messages import (
    CHECKS,
    FROM_SERVER,
    FROM_WORKER,
    Closed,
    Contribution,
    Done,
    Evaluation,
    Failure,
    Finish,
    Initial,
    Join,
    Lease,
    Leave,
    Ping,
    Refusal,
    Rejoin,
    Scale,
    Score,
    Stop,
    Waiting,
    Welcome,
    decode,
    encode,
)
from karp.protocol.settings import Settings
from karp.protocol.tree import Node

EVERY_KIND = [
    Join(2, settings(), "host", 4711),
    Initial(gradient(0, 0)),
    Contribution(3, 3, [Node(0, 2, 0.5, gradient(3, 0)), Node(2, 3, 1.0, gradient(3, 2))], [(0, "norm", 1.5)], True),
    Score(4, {"test_accuracy": 0.5}, False),
    Ping(3),
    Done(),
    Stop(),
    Leave([(-1, "test_accuracy", 0.5)]),
    Failure(3, 1, -1, "ValueError: x", "Traceback …"),
    Scale(16),
    Welcome(2, 8, True),
    Rejoin(),
    Closed(),
    Refusal("no"),
    Lease(4, 3, 0, 2, 3, gradient(3, 1)),
    Lease(4, 3, 0, 2, 3, None),
    Evaluation(5, 1, 12, None),
    Waiting("worker 1"),
    Finish(9, True, "", gradient(9, 0)),
]


def plain(message: Any) -> tuple[Any, ...]:
    """Head and payload in comparable form."""
    head, payload = encode(message)
    return head, [vector.tobytes() for vector in payload]


@pytest.mark.parametrize("message", EVERY_KIND, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_way(message: Any) -> None:
    kinds: Any = FROM_WORKER if type(message) in FROM_WORKER.values() else FROM_SERVER
    assert plain(message) == plain(decode(*encode(message), kinds))


def test_nobody_on_a_wire_can_say_that_his_gradient_needs_no_look() -> None:
    head, payload = encode(Contribution(3, 3, [Node(0, 2, 0.5, gradient(3, 0))], [], False, no_overflow=True))
    assert not decode(head, payload, FROM_WORKER).no_overflow  # type: ignore[union-attr]
    with pytest.raises(ProtocolError, match="unknown fields: no_overflow"):
        decode(head | {"no_overflow": True}, payload, FROM_WORKER)


def test_every_kind_is_tested_and_every_field_has_a_check() -> None:
    assert {*FROM_WORKER.values(), *FROM_SERVER.values()} == {type(message) for message in EVERY_KIND}
    fields = {field for message in EVERY_KIND for field in encode(message)[0]} - {"kind"}
    assert fields == set(CHECKS)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(EVERY_KIND), st.data())
def test_a_message_with_any_field_changed_is_refused_or_a_message(message: Any, data: Any) -> None:
    kinds: Any = FROM_WORKER if type(message) in FROM_WORKER.values() else FROM_SERVER
    head, payload = encode(message)
    field = data.draw(st.sampled_from(sorted(head)))
    head[field] = data.draw(ODD)
    with contextlib.suppress(ProtocolError):
        assert decode(head, payload, kinds)


@pytest.mark.parametrize(
    ("head", "payload", "reason"),
    [
        ({"kind": "lease"}, [], "lease: fields missing: number, step, start, stop, version, weights"),
        ({"kind": "ping", "seen": 0, "extra": 1}, [], "ping: unknown fields: extra"),
        ({"kind": "nonsense"}, [], "unknown kind of message 'nonsense'"),
        ({"kind": ["lease"]}, [], "unknown kind of message"),
        ({}, [], "unknown kind of message None"),
        ({"kind": "score", "epoch": True, "scores": {}, "last": False}, [], "epoch is True, not a whole number"),
        ({"kind": "score", "epoch": -2, "scores": {}, "last": False}, [], "epoch is -2, not a whole number"),
        ({"kind": "score", "epoch": 0, "scores": {"a": "b"}, "last": False}, [], "scores is {'a': 'b'}, not a number"),
        ({"kind": "initial", "weights": 0, "remarks": []}, [], "the weights are missing"),
        ({"kind": "initial", "weights": 1, "remarks": []}, [], "0 vectors, but its head announces 1"),
        ({"kind": "initial", "weights": 1, "remarks": [1]}, [], "remarks is .*, not a text of at most 10000"),
        ({"kind": "initial", "weights": 1, "remarks": ["x"] * 101}, [], "not a list of at most 100 texts"),
        ({"kind": "ping", "seen": 0}, [np.zeros(1)], "1 vectors, but its head announces 0"),
        ({"kind": "leave", "logs": [[0, "x"]]}, [], r"not a list of \[shard, name, value\]"),
    ],
)
def test_what_is_wrong_is_named(head: dict[str, Any], payload: list[np.ndarray], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode(head, payload, FROM_WORKER | FROM_SERVER)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epochs": 0}, "epochs must be a whole number from 1 to 4294967295, not 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number from 1 to .*, not 1.5"),
        ({"seed": -1}, "seed must be a whole number from 0 to .*, not -1"),
        ({"threads": True}, "threads must be a whole number .*, not True"),
        ({"program": 3}, "program is 3, not a text"),
        ({"evaluate": 1}, "evaluate is 1, not true or false"),
        ({"extra": 1}, "missing or unknown: extra"),
        ({"optimizer": {"name": "Eval"}}, "Eval"),
        ({"layout": {}}, "layout"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        Settings.from_dict(settings().to_dict() | change)


def test_settings_survive_the_way() -> None:
    assert settings() == Settings.from_dict(settings().to_dict())
    assert [] == settings().differences(settings())
