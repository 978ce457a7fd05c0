"""Mutations of valid inputs: damaged bytes, and plain values of the wrong type, sign or size."""

from __future__ import annotations

import random
from typing import Any

NUMBERS = [0, 1, -1, 2, 1 << 31, 1 << 47, 1 << 48, 1 << 62, -(1 << 62), 0.0, 0.5, -1.5, 1e308]
TEXTS = ["", "x", "float32", "object", "\0", "é" * 300, "x" * 11_000, b"", b"\xff"]
LISTS = [[], {}, [[]], [0], [0, 1, 0.5], [[0, 1]], [[0, 1, 0.5]], {"a": 1}, {"": None}, [None] * 20]
ODD_VALUES = [None, True, False, float("nan"), float("inf"), -float("inf"), *NUMBERS, *TEXTS, *LISTS]


def damage(content: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one to four mutations: a flipped bit, another byte, a truncation, deletion or insertion."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        size = len(damaged)
        at, length = rng.randrange(size + 1), rng.choice([1, 1, 2, 4, 8, 64])
        match rng.randrange(6):
            case 0 if at < size:
                damaged[at] ^= 1 << rng.randrange(8)
            case 1 if at < size:
                damaged[at] = rng.choice([0, 0xFF, 0x7F, 0x80, 0xC1, 0xDF, rng.randrange(256)])
            case 2:
                del damaged[at:]
            case 3:
                del damaged[at : at + length]
            case 4:
                damaged[at:at] = damaged[at : at + length]
            case _:
                damaged[at:at] = rng.randbytes(length)
    return bytes(damaged)


def mutate(plain: Any, rng: random.Random) -> Any:
    """Return the plain value with one part of it, at any depth, replaced, dropped or added."""
    if isinstance(plain, dict) and plain and rng.random() < 0.9:
        name = rng.choice(list(plain))
        match rng.randrange(8):
            case 0:
                return {key: value for key, value in plain.items() if key != name}
            case 1:
                return plain | {rng.choice(["x", "kind", "weights", "nodes", 7]): rng.choice(ODD_VALUES)}
            case _:
                return plain | {name: mutate(plain[name], rng)}
    if isinstance(plain, list | tuple) and plain and rng.random() < 0.8:
        at = rng.randrange(len(plain))
        match rng.randrange(6):
            case 0:
                return [*plain[:at], *plain[at + 1 :]]
            case 1:
                return [*plain, plain[at]]
            case _:
                return [*plain[:at], mutate(plain[at], rng), *plain[at + 1 :]]
    if type(plain) is int and rng.random() < 0.5:
        return plain + rng.choice([-2, -1, 1, 2, 1 << 20])
    return rng.choice(ODD_VALUES)
