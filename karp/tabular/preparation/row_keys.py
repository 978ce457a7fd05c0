"""Keys of rows: a random 64-bit number for each row of a table, drawn from the seed and the row's number alone.

The prepared order is that of the rows' keys. So it depends neither on the format of the file, nor on how many rows
are read at a time, nor on memory. Two rows never have the same key: the number of a row goes through functions that
are one to one (the finaliser of splitmix64, twice).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

ORDER = int.from_bytes(b"prep")  # the prepared order
PART = int.from_bytes(b"part")   # which part a row belongs to, training or validation


def row_keys(seed: int, purpose: int, first: int, count: int) -> Keys:
    """Return the keys of `count` rows from row number `first` on; each purpose has others.

    >>> keys = row_keys(0, ORDER, 0, 1000)
    >>> len(np.unique(keys)), bool((keys[500:] == row_keys(0, ORDER, 500, 500)).all())
    (1000, True)
    """
    start, twist = np.random.SeedSequence(seed, spawn_key=(purpose,)).generate_state(2, np.uint64)
    with np.errstate(over="ignore"):
        keys = np.arange(count, dtype=np.uint64) + (np.uint64(first) + start)
    return _mixed(_mixed(keys) ^ twist)


def _mixed(numbers: Keys) -> Keys:
    """Return the numbers mixed, each to another one; this overwrites them."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers ^= numbers >> np.uint64(shift)
        numbers *= np.uint64(factor)
    numbers ^= numbers >> np.uint64(31)
    return numbers
