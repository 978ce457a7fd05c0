"""The sampling plan: which rows of the table belong to shard s of step t.

Theory of operation. The plan is arithmetic on (seed, epoch, step, shard) and nothing else, so every worker,
the server, a resumed run and one process without sockets agree on it without a message. An epoch is one
permutation of all rows, drawn from (seed, epoch). The permutation is cut into global batches of `batch_size` rows; the
last one may be smaller, no row is dropped and none is used twice. A global batch of m rows is cut into
`shards` neighbouring slices, the first m % shards of them one row larger than the others; with fewer rows
than shards only the first m shards exist: an empty shard is absent, never zero (design, section 3).

    epoch 0                           epoch 1
    |-- step 0 --|-- step 1 --|- 2 -| |-- step 3 --|-- ...       step counts over all epochs
    |s0 |s1 |s2  |s0 |s1 |s2  |s0|s1| |s0 |s1 |s2  |             a batch of 2 rows has 2 shards

Rows that are in a random order already, as those of a prepared table, are permuted by blocks (`block`, see blocks.py).

Only the permutation costs time, so the last two are cached: steps of two neighbouring epochs may be needed in turn (a
straggler's shard is leased again, or staleness lets the next epoch begin). The cache never changes a result.

Random numbers come in streams. Each is a SeedSequence of the seed with a spawn key that begins with a word for the
stream's purpose, so no two are equal: not the order of epoch 7 and the dropout of step 7, nor either of them and
`default_rng(seed)` or its spawned children.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from karp.checks import whole
from karp.data.blocks import BlockOrder
from karp.errors import SettingError
from karp.limits import SEEDS

ORDER_STREAM = int.from_bytes(b"ordr")  # the permutation of an epoch, with the key (word, epoch)
BLOCK_STREAM = int.from_bytes(b"blok")  # the rows within a block of an epoch, with the key (word, block, epoch)
DRAW_STREAM = int.from_bytes(b"draw")   # programs and dropout, with the key (word, shard, step)
SPLIT_STREAM = int.from_bytes(b"splt")  # train and test rows, with the key (word,)

_CACHED_ORDERS = 2
_LARGEST = SEEDS - 1
_MOST_SHARDS = _MOST_BLOCKS = 2**32 - 1  # one word of a spawn key


def stream(seed: int, word: int, *key: int) -> np.random.Generator:
    """Return the random generator of a stream; `seed` must have passed `whole`.

    NumPy splits larger keys into 32-bit words, so only the last number of a key may be larger than one word.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(word, *key))))


def generator(seed: int, step: int, shard: int) -> np.random.Generator:
    """Return the random generator of (seed, step, shard), for programs and dropout.

    Two calls with the same three numbers return generators of the same stream, in any worker and in any order
    of calls; its numbers are not those of the sample order. Making one takes some 15 µs, so make it only in steps
    that use it.

    Raises SettingError for a number that is negative or not whole.

    >>> float(generator(0, 3, 1).random()) == float(generator(0, 3, 1).random())
    True
    """
    shard = whole("shard", shard, 0, _MOST_SHARDS)
    return stream(whole("seed", seed, 0, _LARGEST), DRAW_STREAM, shard, whole("step", step, 0, _LARGEST))


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of the table that belong to each (step, shard) of a run.

    `samples` is the number of rows of the table, `batch_size` the rows of a global batch, `shards` the slices
    of a global batch. With `block`, an epoch permutes blocks of at most so many neighbouring rows, and the rows within
    each; with 0 all rows. `order` prescribes the order of an epoch, (samples,), as a pure function of the epoch; then
    nothing is drawn. `step` counts from 0 over all epochs. Raises SettingError for a number that is not whole or
    out of range, here and in every method.

    >>> plan = Plan(samples=10, batch_size=4, shards=3, seed=0)
    >>> plan.steps_per_epoch, plan.samples_of(2), plan.shards_of(2)
    (3, 2, 2)
    >>> [plan.samples_in(0, shard) for shard in range(3)], plan.samples_in(0, 1, 3), plan.share(0, 0)
    ([2, 1, 1], 2, 0.5)
    >>> shards = [plan.rows(step, shard) for step in range(3) for shard in range(plan.shards_of(step))]
    >>> np.sort(np.concatenate(shards)).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    samples: int
    batch_size: int
    shards: int
    seed: int = 0
    block: int = 0
    order: Callable[[int], NDArray[np.int64]] | None = field(default=None, repr=False, compare=False)
    steps_per_epoch: int = field(init=False, repr=False, compare=False)
    """The number of steps of an epoch, the smaller last one included."""
    # The bounds of the shards in a batch, those in an epoch's last batch, and epoch -> its order, (samples,).
    _bounds: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _last_bounds: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _orders: dict[int, NDArray[np.int64] | BlockOrder] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        samples = whole("samples", self.samples, 1, _LARGEST)
        batch_size = whole("batch_size", self.batch_size, 1, _LARGEST)
        shards = whole("shards", self.shards, 1, _MOST_SHARDS)
        steps = -(-samples // batch_size)
        put = object.__setattr__  # as the dataclass is frozen
        put(self, "samples", samples)
        put(self, "batch_size", batch_size)
        put(self, "shards", shards)
        put(self, "seed", whole("seed", self.seed, 0, _LARGEST))
        block = whole("block", self.block, 0, _LARGEST)
        put(self, "block", block and whole("block", block, -(-samples // _MOST_BLOCKS), _LARGEST))
        put(self, "steps_per_epoch", steps)
        put(self, "_bounds", _cut(min(batch_size, samples), shards))
        put(self, "_last_bounds", _cut(samples - (steps - 1) * batch_size, shards))
        put(self, "_orders", {})

    def samples_of(self, step: int) -> int:
        """Return the number of rows in the global batch of `step`."""
        return self._bounds_of(step)[-1]

    def shards_of(self, step: int) -> int:
        """Return the number of shards that exist in `step`: `shards`, or fewer when the batch has fewer rows."""
        return len(self._bounds_of(step)) - 1

    def samples_in(self, step: int, shard: int, stop: int | None = None) -> int:
        """Return the number of rows in `shard` of `step`; with `stop`, in all shards from `shard` to ``stop - 1``."""
        bounds = self._bounds_of(step)
        last = shard if stop is None else stop - 1
        if type(shard) is not int or type(last) is not int or not 0 <= shard <= last < len(bounds) - 1:
            shard, last = self._shard(step, shard), self._shard(step, last)
        return bounds[last + 1] - bounds[shard]

    def share(self, step: int, shard: int) -> float:
        """Return the shard's share of the global batch's rows, with which backward starts; a step's shares sum to 1."""
        bounds = self._bounds_of(step)
        if type(shard) is not int or not 0 <= shard < len(bounds) - 1:
            shard = self._shard(step, shard)
        return (bounds[shard + 1] - bounds[shard]) / bounds[-1]

    def rows(self, step: int, shard: int, stop: int | None = None) -> NDArray[np.int64]:
        """Return the rows of `shard` in `step`; with `stop`, of all shards from `shard` to ``stop - 1``.

        The result is their indices in the table, (samples_in(step, shard, stop),), in the order of the plan.
        The array is a read-only view.
        """
        if type(step) is not int or step < 0:
            step = whole("step", step, 0, _LARGEST)
        epoch, batch = divmod(step, self.steps_per_epoch)
        bounds = self._last_bounds if batch == self.steps_per_epoch - 1 else self._bounds
        last = shard if stop is None else stop - 1
        if type(shard) is not int or type(last) is not int or not 0 <= shard <= last < len(bounds) - 1:
            shard, last = self._shard(step, shard), self._shard(step, last)
        order = self._orders.get(epoch)
        if order is None:
            order = self._draw(epoch)
        start = batch * self.batch_size
        return order[start + bounds[shard] : start + bounds[last + 1]]

    def _bounds_of(self, step: int) -> tuple[int, ...]:
        """Return the bounds of the shards of `step` in its batch: where each begins, and where the last ends."""
        if type(step) is not int or step < 0:
            step = whole("step", step, 0, _LARGEST)
        return self._last_bounds if (step + 1) % self.steps_per_epoch == 0 else self._bounds

    def _shard(self, step: int, shard: int) -> int:
        """Return `shard` as a Python int; raise SettingError if the step has no such shard."""
        return whole(f"shard of step {step}", shard, 0, self.shards_of(step) - 1)

    def _draw(self, epoch: int) -> NDArray[np.int64] | BlockOrder:
        """Draw the order of an epoch, and cache it."""
        order: NDArray[np.int64] | BlockOrder
        if self.order is not None:
            order = self.order(epoch)
            if order.shape != (self.samples,):
                raise SettingError(f"the order of epoch {epoch} has shape {order.shape}, not {(self.samples,)}")
        elif self.block:
            order = BlockOrder(
                self.samples,
                self.block,
                lambda: stream(self.seed, ORDER_STREAM, epoch),
                lambda block: stream(self.seed, BLOCK_STREAM, block, epoch),
            )
        else:
            order = stream(self.seed, ORDER_STREAM, epoch).permutation(self.samples).astype(np.int64, copy=False)
            order.setflags(write=False)  # as callers get views of it
        while len(self._orders) >= _CACHED_ORDERS:
            del self._orders[next(iter(self._orders))]
        self._orders[epoch] = order
        return order


def _cut(samples: int, shards: int) -> tuple[int, ...]:
    """Return the bounds of the shards that exist in a batch: count + 1 offsets from 0 to `samples`."""
    count = min(samples, shards)
    size, larger = divmod(samples, count)
    return tuple(shard * size + min(shard, larger) for shard in range(count + 1))
