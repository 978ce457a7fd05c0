"""The laws of the codecs: bounds on the error, no bias, whose chance it is, and what is not finite stays so."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from karp import codecs
from karp.consistency import CODEC
from karp.errors import SettingError


def vectors(limit: float = 2.0**126) -> Any:
    """Flat vectors of either dtype, small and large numbers mixed."""
    kinds = st.sampled_from([(np.float32, 32), (np.float64, 64)])
    return kinds.flatmap(
        lambda kind: arrays.arrays(
            kind[0], st.integers(1, 600), elements=st.floats(-limit, limit, width=kind[1]), fill=st.just(0.0)
        )
    )


def there_and_back(codec: str, vector: np.ndarray, *key: int) -> np.ndarray:
    payload = codecs.encode(codec, vector, *key)
    assert codecs.fits(codec, payload, vector.size)
    found = codecs.decode(codec, payload, vector.size, vector.dtype)
    assert (vector.shape, vector.dtype, True) == (found.shape, found.dtype, found.flags.writeable)
    return found


@settings(deadline=None)
@given(vectors())
def test_float16_keeps_eleven_bits_of_what_is_not_tiny_beside_the_largest(vector: np.ndarray) -> None:
    largest = np.abs(vector).max()
    found = there_and_back("float16", vector)
    bound = np.maximum(np.abs(vector.astype(float)) * 2.0**-11, max(largest * 2.0**-38, 1e-36))
    assert (np.abs(found.astype(float) - vector.astype(float)) <= bound).all()
    assert (found[vector == 0] == 0).all()


@settings(deadline=None)
@given(vectors())
def test_bfloat16_keeps_eight_bits_of_everything(vector: np.ndarray) -> None:
    found = there_and_back("bfloat16", vector)
    exact = vector.astype(float)
    assert (np.abs(found.astype(float) - exact) <= np.abs(exact) * 2.0**-8 + 2.0**-133).all()
    assert there_and_back("bfloat16", found).tobytes() == found.tobytes()


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    one, ulp = np.float32(1), np.float32(2.0**-7)
    vector = np.array([one + ulp / 2, one + 3 * ulp / 2, one + ulp * 0.51, -one - ulp * 0.49], np.float32)
    assert [1.0, 1 + 2 * ulp, 1 + ulp, -1.0] == there_and_back("bfloat16", vector).tolist()


@settings(deadline=None)
@given(vectors(), st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(0, 100))
def test_int8_goes_to_a_neighbouring_multiple(vector: np.ndarray, seed: int, step: int, shard: int) -> None:
    found = there_and_back("int8", vector, seed, step, shard).astype(float)
    for start in range(0, vector.size, codecs.CHUNK):
        piece = vector[start : start + codecs.CHUNK].astype(float)
        bound = max(np.abs(piece).max() / 126, 1e-35)
        assert (np.abs(found[start : start + codecs.CHUNK] - piece) <= bound).all()
    assert (found[vector == 0] == 0).all()
    assert there_and_back("int8", vector, seed, step, shard).astype(float).tobytes() == found.tobytes()


def test_the_rounding_of_int8_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    vector = np.concatenate([rng.normal(size=700), [1e-3, 126.4, -0.5], rng.normal(size=97) * 1e-6]).astype(np.float32)
    draws = 4000
    total = np.zeros(vector.size)
    for step in range(draws):
        total += there_and_back("int8", vector, 3, step, 1) - vector.astype(float)
    scales = np.repeat([np.abs(vector[at : at + codecs.CHUNK]).max() for at in range(0, vector.size, codecs.CHUNK)],
                       codecs.CHUNK)[: vector.size] / 127  # fmt: skip
    bias = total / draws / scales
    deviation = 0.5 / np.sqrt(draws)  # at most, of each
    assert np.abs(bias).max() <= 4.5 * deviation
    assert abs(bias.mean()) <= 4.5 * deviation / np.sqrt(vector.size)


def test_the_chance_belongs_to_seed_step_and_shard() -> None:
    vector = np.random.default_rng(0).normal(size=300).astype(np.float32)
    keys = [(seed, step, shard) for seed in (0, 1) for step in (0, 1, 2**40) for shard in (0, 1)]
    payloads = [codecs.encode("int8", vector, *key).tobytes() for key in keys]
    assert len(keys) == len(set(payloads))
    assert payloads == [codecs.encode("int8", vector, *key).tobytes() for key in keys]


@pytest.mark.parametrize("codec", CODEC.values)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_stays_so(codec: str, bad: float, dtype: Any) -> None:
    vector = np.ones(300, dtype)
    vector[270] = bad
    assert not np.isfinite(there_and_back(codec, vector)).any()


@pytest.mark.parametrize("codec", CODEC.values)
def test_large_and_small_numbers_neither_overflow_nor_warn(codec: str) -> None:
    for scale in (2.0**127, 7e4, 1.0, 1e-7, 1e-30):
        vector = (np.array([1.0, -0.5, 0.25, 0.0]) * scale).astype(np.float32)
        found = there_and_back(codec, vector)
        assert np.allclose(found / scale, vector / scale, atol=0.01)


@pytest.mark.parametrize("codec", CODEC.values)
@settings(deadline=None)
@given(data=st.data())
def test_any_bytes_of_the_right_length_are_decoded_without_a_word(codec: str, data: Any) -> None:
    kind, length = codecs.encoded_spec(codec, 300)
    width = np.dtype(kind).itemsize
    payload = np.frombuffer(data.draw(st.binary(min_size=length * width, max_size=length * width)), kind)
    assert codecs.fits(codec, payload, 300)
    assert not codecs.fits(codec, payload[:-1], 300)
    assert not codecs.fits(codec, payload.astype(np.float32), 300)
    assert (300,) == codecs.decode(codec, payload, 300, np.float32).shape


def test_the_short_forms_are_short() -> None:
    vector = np.zeros(100_000, np.float32)
    sizes = {codec: codecs.encode(codec, vector).nbytes for codec in CODEC.values}
    assert {"float16": 200_002, "bfloat16": 200_000, "int8": 101_564} == sizes


def test_an_unknown_codec_is_named() -> None:
    assert CODEC.check(None) is None
    with pytest.raises(SettingError, match="codec must be one of float16, bfloat16, int8, not 'int4'"):
        CODEC.check("int4")
