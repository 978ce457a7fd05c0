"""Frames: what a stranger may send is refused before anything looks at it."""

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.errors import ProtocolError
from karp.protocol.messages import FROM_WORKER, MOST_LOGGED, PROTOCOL, Contribution, Failure, Initial, Ping
from karp.protocol.tree import Node
from karp.text import NAME_CHARACTERS
from karp.transport.frames import HEAD_BYTES, Envelope, pack, unpack

ENVELOPE = Envelope("run-1", 2)


def packed(message: object) -> list[bytes]:
    return [bytes(memoryview(frame).cast("B")) for frame in pack(message, ENVELOPE)]  # type: ignore[arg-type]


def test_all_that_may_be_logged_has_room() -> None:
    name = "\N{GRINNING FACE}" * NAME_CHARACTERS
    logs = [(1, name, 0.5)] * MOST_LOGGED
    message, _ = unpack(packed(Contribution(1, 1, [], logs, False)), "run-1", FROM_WORKER)
    assert isinstance(message, Contribution)
    assert logs == message.logs


def test_a_text_that_nobody_has_escaped_is() -> None:
    message, _ = unpack(packed(Failure(0, 0, -1, "caf\udce9", "")), "run-1", FROM_WORKER)
    assert isinstance(message, Failure)
    assert "caf\\udce9" == message.error


def head(**changes: object) -> bytes:
    plain = {"kind": "ping", "seen": 0, "karp": PROTOCOL, "run": "run-1", "incarnation": 2, "dtypes": []} | changes
    return msgpack.packb({name: value for name, value in plain.items() if value is not ...})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_message_survives_the_way(dtype: type) -> None:
    vectors = [np.arange(4, dtype=dtype), np.arange(4, 8, dtype=dtype)]
    sent = Contribution(1, 1, [Node(0, 1, 0.5, vectors[0]), Node(2, 3, 0.5, vectors[1])], [(0, "a", 1.0)], False)
    message, envelope = unpack(packed(sent), "run-1", FROM_WORKER)
    assert ENVELOPE == envelope
    assert isinstance(message, Contribution)
    for expected, node in zip(vectors, message.nodes, strict=True):
        assert expected.dtype == node.vector.dtype
        assert expected.tobytes() == node.vector.tobytes()
        assert not node.vector.flags.writeable


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "a message of 0 frames"),
        ([b""], "not msgpack"),
        ([b"\xc1"], "not msgpack"),
        ([b"GET / HTTP/1.1\r\n\r\n"], "not msgpack"),
        ([msgpack.packb([1])], "not a map"),
        ([b"\0" * (HEAD_BYTES + 1)], "a head of more than"),
        ([head(karp=1)], f"protocol 1 instead of {PROTOCOL}: both ends need the same karp"),
        ([head(karp=True)], f"protocol True instead of {PROTOCOL}"),
        ([head(karp=...)], "protocol None"),
        ([head(run="run-2")], "a message of run 'run-2', but this is run 'run-1'"),
        ([head(incarnation="2")], "without a good incarnation"),
        ([head(dtypes=["float32"])], "dtypes do not match the frames"),
        ([head(unshared=1)], "whose unshared is not a text of at most 500 characters"),
        ([head(unshared="x" * 501)], "whose unshared is not a text"),
        ([head(invitation=None)], "whose invitation is not a text"),
        ([head(dtypes=["object"], kind="initial", weights=1), b"\0" * 8], "a vector of 'object'"),
        ([head(dtypes=[["float32"]], kind="initial", weights=1), b"\0" * 8], "a vector of"),
        ([head(dtypes=["float32"], kind="initial", weights=1), b"\0" * 7], "7 bytes is no vector of float32"),
        ([head(dtypes=["float32"]), b"\0" * 8], "1 vectors, but its head announces 0"),
        ([head()] + [b""] * 5000, "a message of 5001 frames"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(frames: list[bytes], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        unpack(frames, "run-1", FROM_WORKER)


def test_a_worker_that_knows_only_an_address_learns_the_run() -> None:
    assert Envelope("", 0) == unpack([head(run="", incarnation=0)], "run-1", FROM_WORKER)[1]
    assert ENVELOPE == unpack([head()], "", FROM_WORKER)[1]


def test_a_worker_without_shared_memory_says_why() -> None:
    told = Envelope("run-1", 2, unshared="Permission denied")
    assert told == unpack(pack(Ping(0), told), "run-1", FROM_WORKER)[1]


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        unpack(frames, "run-1", FROM_WORKER)


@given(st.sampled_from([Ping(0), Initial(np.arange(4.0))]), st.data())
def test_flipped_bits_are_a_message_or_refused(message: object, data: st.DataObject) -> None:
    frames = packed(message)
    which = data.draw(st.integers(0, len(frames) - 1))
    at = data.draw(st.integers(0, len(frames[which]) - 1))
    frames[which] = (
        frames[which][:at]
        + bytes([frames[which][at] ^ (1 << data.draw(st.integers(0, 7)))])
        + frames[which][at + 1 :]
    )
    with contextlib.suppress(ProtocolError):
        assert unpack(frames, "run-1", FROM_WORKER)
