"""Limits of a run: the ranges of its settings, the seconds after which a silent peer is lost.

They stand in a file of their own because a launcher checks its options by them, and imports no NumPy.
"""

from karp.checks import whole

SEEDS = 1 << 63
ANY_SHARDS = 0  # the `shards` of a program that leaves the number to the run
RANGES = {  # setting -> the least and the largest number
    "samples": (1, (1 << 48) - 1),
    "batch_size": (1, (1 << 48) - 1),
    "epochs": (1, (1 << 32) - 1),
    "shards": (ANY_SHARDS, (1 << 20) - 1),
    "threads": (1, (1 << 16) - 1),
    "seed": (0, SEEDS - 1),
    "block": (0, (1 << 48) - 1),
}
DEAD_SECONDS = 6.0  # a peer without a heartbeat for so long is gone


def setting(name: str, value: object) -> int:
    """Return the setting of this name as a Python int; raise SettingError unless it is an integer in its range.

    >>> setting("epochs", 2.5)
    Traceback (most recent call last):
    ...
    karp.errors.SettingError: epochs must be a whole number from 1 to 4294967295, not 2.5
    """
    return whole(name, value, *RANGES[name])
