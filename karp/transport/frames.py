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

HEAD_BYTES = 1 << 23  # no head is longer: MOST_LOGGED numbers have room in it
ANY_RUN = ""  # of a worker that has an address and no more: it learns the run from the server
UNSHARED = 500  # characters
FRAMES = 1 << 12  # no message has more vectors
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}
DTYPES |= {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2")}  # of codecs
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Envelope(NamedTuple):
    """What stands around a message: the run it belongs to and the server's incarnation.

    A worker that was offered memory and cannot open it says why.
    """

    run: str
    incarnation: int
    unshared: str = ""


def pack(message: Message, envelope: Envelope) -> list[Any]:
    """The frames of a message: bytes, then the vectors themselves."""
    head, payload = encode(message)
    head |= {
        "karp": PROTOCOL,
        "run": envelope.run,
        "incarnation": envelope.incarnation,
        "dtypes": [NAMES[vector.dtype] for vector in payload],
    }
    if envelope.unshared:
        head["unshared"] = envelope.unshared
    try:
        return [msgpack.packb(head), *payload]
    except UnicodeEncodeError:  # a text that nobody has escaped (text.py); always to ask for this takes 1 us
        return [msgpack.packb(head, unicode_errors="backslashreplace"), *payload]


def unpack(frames: Sequence[Any], run: str, kinds: Mapping[str, type[Kind]]) -> tuple[Kind, Envelope]:
    """The message in these frames and the envelope it names; the vectors are views of the frames.

    Raises ProtocolError for whatever is not a message of this protocol and run.
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
    protocol, theirs = head.pop("karp", None), head.pop("run", None)
    incarnation, dtypes, unshared = head.pop("incarnation", None), head.pop("dtypes", None), head.pop("unshared", "")
    if protocol != PROTOCOL or type(protocol) is not int:
        raise ProtocolError(f"protocol {protocol!r:.20} instead of {PROTOCOL}: both ends need the same karp")
    if type(theirs) is not str or (theirs != run and theirs != ANY_RUN != run):
        raise ProtocolError(f"a message of run {theirs!r:.60}, but this is run {run!r:.60}")
    if type(incarnation) is not int or type(dtypes) is not list or len(dtypes) != len(frames) - 1:
        raise ProtocolError("a head without a good incarnation, or whose dtypes do not match the frames")
    if type(unshared) is not str or len(unshared) > UNSHARED:
        raise ProtocolError(f"a head whose unshared is not a text of at most {UNSHARED} characters")
    payload = [vector(frame, dtype) for frame, dtype in zip(frames[1:], dtypes, strict=True)]
    return decode(head, payload, kinds), Envelope(theirs, incarnation, unshared)


def vector(frame: Any, dtype: object) -> Vector:
    """A frame as a flat vector."""
    kind = DTYPES.get(dtype) if isinstance(dtype, str) else None
    if kind is None:
        raise ProtocolError(f"a vector of {dtype!r:.20}; known: {', '.join(DTYPES)}")
    if len(memoryview(frame)) % kind.itemsize:
        raise ProtocolError(f"a frame of {len(memoryview(frame))} bytes is no vector of {kind.name}")
    return np.frombuffer(frame, kind)
