"""The order of an epoch over rows that are in a random order already: blocks are permuted, and the rows within each.

A permutation of all rows takes 8 bytes for each of them in every worker, and reads rows that are far from each other.
Where the rows of a table are in a random order, as a prepared table's are, blocks of neighbours are as good: each block
is a random sample of the rows. The order then takes 16 bytes for each block, and 8 for each row of a few blocks.

    rows      | block 0  | block 1  | block 2  |        sizes differ by one row at most
    an epoch  | block 2  | block 0  | block 1  |        the rows within each are permuted, too

Rows of a table with one block are in any order, as in a permutation of all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
_CACHED_BLOCKS = 2


class BlockOrder:
    """The order of an epoch's rows; slicing gives a part of it, as of an array.

    Args:
        samples: the number of rows.
        block: the most rows of a block.
        order: returns a random generator for the order of the blocks.
        within: returns one for the order of the rows of a block.
    """

    def __init__(
        self,
        samples: int,
        block: int,
        order: Callable[[], np.random.Generator],
        within: Callable[[int], np.random.Generator],
    ) -> None:
        """Draw the order of the blocks; that of a block's rows is drawn when it is first needed, and again later."""
        count = -(-samples // block)
        self._size, self._larger = divmod(samples, count)  # so many rows in each block, and one more in the first ones
        self._within = within
        self._blocks = order().permutation(count)
        self._starts = np.zeros(count + 1, np.int64)  # where in the order blocks begin, and where the last ends
        np.cumsum(self._size + (self._blocks < self._larger), out=self._starts[1:])
        self._cache: dict[int, Rows] = {}  # place of a block in the order -> its rows
        self._first, self._last, self._rows = 0, 0, np.empty(0, np.int64)  # the block used last, and its bounds

    def __getitem__(self, part: slice) -> Rows:
        """Return rows from `part.start` to below `part.stop`, read-only."""
        start, stop = part.start, part.stop
        if self._first <= start and stop <= self._last:
            return self._rows[start - self._first : stop - self._first]
        pieces = []
        while start < stop:
            self._use(int(np.searchsorted(self._starts, start, side="right")) - 1)
            end = min(stop, self._last)
            pieces.append(self._rows[start - self._first : end - self._first])
            start = end
        if len(pieces) == 1:
            return pieces[0]
        rows = np.concatenate(pieces)
        rows.setflags(write=False)  # as the pieces are
        return rows

    def _use(self, place: int) -> None:
        """Make the block at this place of the order the current one; draw the order of its rows if it is not cached."""
        rows = self._cache.get(place)
        if rows is None:
            block = int(self._blocks[place])
            start = block * self._size + min(block, self._larger)
            rows = self._within(block).permutation(self._size + (block < self._larger)).astype(np.int64, copy=False)
            rows += start
            rows.setflags(write=False)  # as callers get views of it
            while len(self._cache) >= _CACHED_BLOCKS:
                del self._cache[next(iter(self._cache))]
            self._cache[place] = rows
        self._first, self._last, self._rows = int(self._starts[place]), int(self._starts[place + 1]), rows
