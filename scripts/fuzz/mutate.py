"""Inputs that are nearly right: bytes that were damaged, and plain values of the wrong type, sign or size."""

from __future__ import annotations

import random
from typing import Any

NUMBERS = [0, 1, -1, 2, 1 << 31, 1 << 47, 1 << 48, 1 << 62, -(1 << 62), 0.0, 0.5, -1.5, 1e308]
TEXTS = ["", "x", "float32", "object", "\0", "é" * 300, "x" * 11_000, b"", b"\xff"]
LISTS = [[], {}, [[]], [0], [0, 1, 0.5], [[0, 1]], [[0, 1, 0.5]], {"a": 1}, {"": None}, [None] * 20]
ODD = [None, True, False, float("nan"), float("inf"), -float("inf"), *NUMBERS, *TEXTS, *LISTS]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One to four pieces of damage: flipped bits, other bytes, a cut, a hole, a repetition, something put in."""
    found = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        size = len(found)
        at, length = chance.randrange(size + 1), chance.choice([1, 1, 2, 4, 8, 64])
        match chance.randrange(6):
            case 0 if at < size:
                found[at] ^= 1 << chance.randrange(8)
            case 1 if at < size:
                found[at] = chance.choice([0, 0xFF, 0x7F, 0x80, 0xC1, 0xDF, chance.randrange(256)])
            case 2:
                del found[at:]
            case 3:
                del found[at : at + length]
            case 4:
                found[at:at] = found[at : at + length]
            case _:
                found[at:at] = chance.randbytes(length)
    return bytes(found)


def bent(plain: Any, chance: random.Random) -> Any:
    """The same plain types with one thing in them, at any depth, replaced, dropped or added."""
    if isinstance(plain, dict) and plain and chance.random() < 0.9:
        name = chance.choice(list(plain))
        match chance.randrange(8):
            case 0:
                return {key: value for key, value in plain.items() if key != name}
            case 1:
                return plain | {chance.choice(["x", "kind", "weights", "nodes", 7]): chance.choice(ODD)}
            case _:
                return plain | {name: bent(plain[name], chance)}
    if isinstance(plain, list | tuple) and plain and chance.random() < 0.8:
        at = chance.randrange(len(plain))
        match chance.randrange(6):
            case 0:
                return [*plain[:at], *plain[at + 1 :]]
            case 1:
                return [*plain, plain[at]]
            case _:
                return [*plain[:at], bent(plain[at], chance), *plain[at + 1 :]]
    if type(plain) is int and chance.random() < 0.5:
        return plain + chance.choice([-2, -1, 1, 2, 1 << 20])
    return chance.choice(ODD)
