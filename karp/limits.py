"""Limits of a run's settings: the ranges of numbers, the names of codecs.

They stand in a file of their own because a launcher checks its options by them, and imports no NumPy.
"""

from karp.errors import SettingError

SEEDS = 1 << 63
LIMITS = {"samples": 1 << 48, "batch_size": 1 << 48, "epochs": 1 << 32, "shards": 1 << 20, "threads": 1 << 16}
LIMITS["local_steps"] = 1 << 32
STALENESS = 1 << 16
GRADIENT_CODECS = ("float16", "bfloat16", "int8")
WEIGHT_CODECS = ("float16", "bfloat16")  # those without stochastic rounding


def check_codec(name: str, codec: object, known: tuple[str, ...]) -> None:
    """Raise SettingError, naming the argument `name`, unless `codec` is None or one of those known."""
    if codec is not None and codec not in known:
        raise SettingError(f"{name} is {codec!r:.60}; known: {', '.join(known)}")
