"""Messages as frames: a msgpack map, the head, then one raw little-endian frame for each vector of the payload.

The head says which protocol, which run and which incarnation of the server it belongs to, and the dtypes of the
vectors that follow. Everything that comes in is checked here or in `protocol.decode` before anything looks at it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import numpy as np

from karp.errors import ProtocolError
from karp.protocol.messages import PROTOCOL, Kind, Message, decode, encode
from karp.protocol.tree import Vector

HEAD_BYTES = 1 << 23  # the longest head; MOST_LOGGED numbers fit in it
ANY_RUN = ""  # the run of a worker that knows only an address; it learns the run from the server's first answer
NOTHING_SHARED = ("", "")
SHARED_TEXT = 500  # the most characters of what an envelope says of shared memory
FRAMES = 1 << 12  # the most frames of a message
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}
DTYPES |= {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2")}  # the dtypes of encoded vectors
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Envelope(NamedTuple):
    """The run that a message belongs to, the server's incarnation, and what the ends say of shared memory."""

    run: str
    incarnation: int
    invitation: str = ""  # where a worker that has joined finds the server's shared memory
    unshared: str = ""  # why that worker cannot open it


def pack(message: Message, envelope: Envelope) -> list[Any]:
    """Encode a message as frames: the head's bytes, then the vectors themselves, not copied."""
    head, payload = encode(message)
    head |= {
        "karp": PROTOCOL,
        "run": envelope.run,
        "incarnation": envelope.incarnation,
        "dtypes": [NAMES[vector.dtype] for vector in payload],
    }
    if envelope.invitation or envelope.unshared:
        head |= {"invitation": envelope.invitation, "unshared": envelope.unshared}
    try:
        return [msgpack.packb(head), *payload]
    except UnicodeEncodeError:  # a text that was not escaped (text.py); asking for this every time costs 1 us
        return [msgpack.packb(head, unicode_errors="backslashreplace"), *payload]


def unpack(frames: Sequence[Any], run: str, kinds: Mapping[str, type[Kind]]) -> tuple[Kind, Envelope]:
    """Decode frames to a message and its envelope; the vectors are views of the frames.

    Raises ProtocolError for anything that is not a message of this protocol and run. A message of ANY_RUN is accepted,
    and with `run` ANY_RUN a message of any run.
    """
    if not 1 <= len(frames) <= FRAMES:
        raise ProtocolError(f"a message of {len(frames)} frames")
    if len(memoryview(frames[0])) > HEAD_BYTES:
        raise ProtocolError(f"a head of more than {HEAD_BYTES} bytes")
    try:
        head = msgpack.unpackb(frames[0], strict_map_key=True)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"a head that is not msgpack: {error!r:.80}") from None
    if type(head) is not dict:
        raise ProtocolError(f"a head that is not a map: {head!r:.60}")
    protocol, sender_run = head.pop("karp", None), head.pop("run", None)
    incarnation, dtypes = head.pop("incarnation", None), head.pop("dtypes", None)
    shared = head.pop("invitation", ""), head.pop("unshared", "")
    if protocol != PROTOCOL or type(protocol) is not int:
        raise ProtocolError(f"protocol {protocol!r:.20} instead of {PROTOCOL}: both ends need the same karp")
    if type(sender_run) is not str or (sender_run != run and sender_run != ANY_RUN != run):
        raise ProtocolError(f"a message of run {sender_run!r:.60}, but this is run {run!r:.60}")
    if type(incarnation) is not int or type(dtypes) is not list or len(dtypes) != len(frames) - 1:
        raise ProtocolError("a head without a good incarnation, or whose dtypes do not match the frames")
    if shared != NOTHING_SHARED:  # almost no head has more to say
        check_shared(*shared)
    payload = [vector(frame, dtype) for frame, dtype in zip(frames[1:], dtypes, strict=True)]
    return decode(head, payload, kinds), Envelope(sender_run, incarnation, *shared)


def check_shared(invitation: object, unshared: object) -> None:
    """Raise ProtocolError unless what a head says of shared memory are two texts of a moderate length."""
    for name, text in (("invitation", invitation), ("unshared", unshared)):
        if type(text) is not str or len(text) > SHARED_TEXT:
            raise ProtocolError(f"a head whose {name} is not a text of at most {SHARED_TEXT} characters")


def vector(frame: Any, dtype: object) -> Vector:
    """Return a frame as a flat vector of this dtype, a view; raises ProtocolError for a wrong dtype or length."""
    kind = DTYPES.get(dtype) if isinstance(dtype, str) else None
    if kind is None:
        raise ProtocolError(f"a vector of {dtype!r:.20}; known: {', '.join(DTYPES)}")
    if len(memoryview(frame)) % kind.itemsize:
        raise ProtocolError(f"a frame of {len(memoryview(frame))} bytes is no vector of {kind.name}")
    return np.frombuffer(frame, kind)
