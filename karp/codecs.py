"""Codecs: shorter forms of a gradient (or, in 16 bits, of weights) for messages between worker and server.

A shard's gradient is encoded by itself, in one process too, and the server adds what it has decoded. If a sum of
shards were encoded, the bits would depend on which worker computed which shards. An encoded vector is again a flat
array, so a message carries it as it carries any vector:

    float16     uint16 (size + 1)   IEEE half precision of v·2^k, and k, which brings the largest |v| near 2^15:
                                    no overflow, and gradients of 1e-7 lose nothing
    bfloat16    uint16 (size)       the upper half of a float32, rounded to nearest, ties to even
    int8        uint8 (size + 4·⌈size/256⌉)   whole multiples -127 … 127 of a scale per 256 numbers, then the scales

The rounding of int8 is stochastic and unbiased: x lies between two multiples and is rounded to either with the
probability that makes the mean x (to within 2^-17 of the scale). The random numbers are drawn from (seed, step, shard),
so they do not depend on the worker (QSGD: Alistarh et al., 2017). The error of a number x in a vector whose largest
magnitude is m:

    float16     at most max(2^-11 |x|, 2^-38 m)
    bfloat16    at most 2^-8 |x|, and 2^-133
    int8        below m'/126, m' the largest magnitude of its 256

A vector with a number that is not finite, or beyond 2^127, is encoded as one without a finite number: the server
refuses it as it refuses every gradient that is not finite. Zeros stay zeros.
"""

import math
from typing import Any

import numpy as np

Vector = np.ndarray[Any, np.dtype[Any]]

CHUNK = 256  # numbers that share a scale in int8
TOP = np.float32(1.000001 / 127)  # a little more than 1/127, so that no multiple rounds to 128
LARGEST = 2.0**127  # a larger number counts as not finite, as rounding could make it infinite
OFFSET = 1 << 15  # added to the exponent that float16 carries, so that it is not negative
HALF_NAN, BRAIN_NAN = 0x7E00, 0x7FC0
STREAM = int.from_bytes(b"code")  # the key of these random numbers is (STREAM, shard, step); data/plan.py has others


def encode(codec: str, vector: Vector, seed: int = 0, step: int = 0, shard: int = 0) -> Vector:
    """Encode a flat float32 or float64 vector; return a new array of the dtype and length of `encoded_spec`.

    `codec` is float16, bfloat16 or int8; the caller has checked that. Only int8 uses seed, step and shard.

    >>> encode("bfloat16", np.array([1.0, -2.0], np.float32))
    array([16256, 49152], dtype=uint16)
    """
    if codec == "int8":
        return _to_int8(vector, seed, step, shard)
    largest = float(max(vector.max(), -vector.min())) if vector.size else 0.0
    return _to_float16(vector, largest) if codec == "float16" else _to_bfloat16(vector, largest)


def decode(codec: str, payload: Vector, size: int, dtype: Any) -> Vector:
    """Decode a payload, for which `fits` must be true, to a new vector (size,) of the dtype.

    Its numbers may be infinite or NaN.

    >>> decode("float16", encode("float16", np.array([0.5, -3.0])), 2, np.float64)
    array([ 0.5, -3. ])
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the server checks afterwards that the numbers are finite
        if codec == "int8":
            return _from_int8(payload, size, dtype)
        return _from_float16(payload, dtype) if codec == "float16" else _from_bfloat16(payload, dtype)


def fits(codec: str, payload: Vector, size: int) -> bool:
    """Return whether a payload has the dtype and length of an encoded vector of `size` numbers."""
    kind, length = encoded_spec(codec, size)
    return payload.ndim == 1 and payload.size == length and payload.dtype == kind


def encoded_spec(codec: str, size: int) -> tuple[str, int]:
    """Return the dtype and length of an encoded vector of `size` numbers.

    >>> encoded_spec("int8", 1000), encoded_spec("float16", 1000)
    (('uint8', 1016), ('uint16', 1001))
    """
    if codec == "int8":
        return "uint8", size + 4 * -(-size // CHUNK)
    return "uint16", size + (codec == "float16")


def _to_float16(vector: Vector, largest: float) -> Vector:
    payload = np.empty(vector.size + 1, np.uint16)
    if not largest <= LARGEST:
        payload.fill(HALF_NAN)
        payload[-1] = OFFSET
        return payload
    limits = np.finfo(vector.dtype)
    power = 15 - math.frexp(largest)[1] if largest else 0
    power = min(max(power, int(limits.minexp)), int(limits.maxexp) - 1)
    np.multiply(vector, vector.dtype.type(2.0**power), out=payload[:-1].view(np.float16), casting="same_kind")
    payload[-1] = OFFSET + power
    return payload


def _from_float16(payload: Vector, dtype: Any) -> Vector:
    vector: Vector = payload[:-1].view(np.float16).astype(dtype)
    limits = np.finfo(vector.dtype)
    power = min(max(OFFSET - int(payload[-1]), 1 - int(limits.maxexp)), -int(limits.minexp))
    vector *= vector.dtype.type(2.0**power)
    return vector


def _to_bfloat16(vector: Vector, largest: float) -> Vector:
    if not largest <= LARGEST:
        return np.full(vector.size, BRAIN_NAN, np.uint16)
    bits = vector.astype(np.float32).view(np.uint32)
    last_bit = bits >> np.uint32(16)
    last_bit &= np.uint32(1)
    bits += last_bit
    bits += np.uint32(0x7FFF)
    bits >>= np.uint32(16)
    return bits.astype(np.uint16)


def _from_bfloat16(payload: Vector, dtype: Any) -> Vector:
    bits = payload.astype(np.uint32)
    bits <<= np.uint32(16)
    return bits.view(np.float32).astype(dtype, copy=False)


def _to_int8(vector: Vector, seed: int, step: int, shard: int) -> Vector:
    size, chunks = vector.size, -(-vector.size // CHUNK)
    table = np.zeros((chunks, CHUNK), np.float32)
    flat = table.reshape(-1)
    with np.errstate(over="ignore"):  # a float64 may be beyond float32
        flat[:size] = vector
    payload = np.empty(size + 4 * chunks, np.uint8)
    scales = np.maximum(table.max(axis=1), -table.min(axis=1)) * TOP
    if not scales.max(initial=0.0) <= LARGEST * TOP:
        payload[:size] = 0
        payload[size:] = np.full(chunks, np.nan, np.float32).view(np.uint8)
        return payload
    scales[scales < np.finfo(np.float32).tiny] = 0.0  # the inverse of a smaller scale would overflow
    table *= np.divide(1.0, scales, out=np.zeros_like(scales), where=scales > 0)[:, None]
    noise = random_integers(seed, step, shard, size).astype(np.float32)
    noise += np.float32(0.5)
    noise *= np.float32(2.0**-16)
    flat[:size] += noise
    np.floor(flat[:size], out=payload[:size].view(np.int8), casting="unsafe")
    payload[size:] = scales.view(np.uint8)
    return payload


def _from_int8(payload: Vector, size: int, dtype: Any) -> Vector:
    chunks = -(-size // CHUNK)
    scales = payload[size:].copy().view(np.float32)
    table = np.zeros((chunks, CHUNK), np.float32)
    flat = table.reshape(-1)
    flat[:size] = payload[:size].view(np.int8)
    table *= scales[:, None]
    return flat[:size].astype(dtype, copy=False)


def random_integers(seed: int, step: int, shard: int, size: int) -> Vector:
    """Draw `size` whole numbers below 2^16, a pure function of (seed, step, shard)."""
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(STREAM, shard, step)))
    return np.frombuffer(np.random.Generator(bits).bytes(2 * size), "<u2")
