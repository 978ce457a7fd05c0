"""Sample weights: their check, and their sums over shards, batches and steps, which replace numbers of samples.

A sample of weight 2 counts as if it were there twice, one of weight 0 as if it were not there. So the share of a shard
in its batch is the sum of its weights divided by that of the batch. The sums are a pure function of weights, plan, step
and shard, so they are the same in every worker and in a replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from karp.autograd.convert import plain_array
from karp.data.plan import Plan
from karp.errors import SettingError

_CACHED = 64  # batches whose sums are cached


class Rounds(Protocol):
    """Steps that are rounds of several global batches, as local steps make them."""

    def batches(self, step: int, shard: int) -> Sequence[int]: ...


def checked_weights(given: Any, rows: int) -> NDArray[Any]:
    """Return sample weights as an array (rows,) of floats; raise SettingError unless all are finite and from 0.

    Masked elements, another shape or dtype and a sum that is 0 or infinite are SettingErrors, too. An array of float32
    or float64 is not copied.

    >>> checked_weights([1, 0, 2], 3)
    array([1., 0., 2.])
    """
    try:
        weights: NDArray[Any] = plain_array(given)
    except ValueError as error:
        raise SettingError(f"sample_weights is no array: {error}") from None
    if weights.dtype not in (np.float32, np.float64):
        if weights.dtype.kind not in "biuf":
            raise SettingError(f"sample_weights has the dtype {weights.dtype}: pass numbers from 0")
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            weights = weights.astype(np.float64)
    if weights.shape != (rows,):
        raise SettingError(f"sample_weights has the shape {weights.shape}: pass one weight for each row, ({rows},)")
    wrong = np.flatnonzero(~((weights >= 0) & (weights < np.inf)))
    if wrong.size:
        raise SettingError(f"sample_weights[{wrong[0]}] is {weights[wrong[0]]}: a weight is a finite number from 0")
    with np.errstate(over="ignore"):
        total = np.sum(weights, dtype=np.float64)
    if not 0 < total < np.inf:
        raise SettingError(f"the sum of sample_weights is {total}; it must be above 0 and finite")
    return weights


class ShardWeights:
    """The sums of sample weights over shards, batches and steps.

    Args:
        weights: (plan.samples,), each above 0.
        plan: which rows are in which shard of a global batch.
        rounds: the steps of a run with local steps; None: a step is a global batch.

    >>> sums = ShardWeights(np.array([1.0, 2.0, 3.0, 4.0]), Plan(samples=4, batch_size=4, shards=2, seed=0))
    >>> sums(0, 0, 2), sums.share(0, 0) + sums.share(0, 1)
    (10.0, 1.0)
    """

    def __init__(self, weights: NDArray[Any], plan: Plan, rounds: Rounds | None = None) -> None:
        self.weights = weights
        self.plan = plan
        self.rounds = rounds
        self._sums: dict[int, list[float]] = {}  # batch -> of each of its shards
        self._total = -1, 0.0  # the step that was asked for last, and its sum

    def __call__(self, step: int, start: int, stop: int) -> float:
        """Return the sum of the weights of the shards start … stop-1 of a step."""
        if self.rounds is None:
            return sum(self._of_shards(step)[start:stop])
        batches = self.rounds.batches
        return sum(self._of_shards(batch)[shard] for shard in range(start, stop) for batch in batches(step, shard))

    def in_batch(self, batch: int, shard: int) -> float:
        """Return the sum of the weights of a shard of a global batch."""
        return self._of_shards(batch)[shard]

    def share(self, step: int, shard: int) -> float:
        """Return the part of a step's weights that a shard has, with which backward starts; the parts sum to 1."""
        known, total = self._total
        if known != step:
            first = step if self.rounds is None else self.rounds.batches(step, 0)[0]
            total = self(step, 0, self.plan.shards_of(first))
            self._total = step, total
        return self(step, shard, shard + 1) / total

    def _of_shards(self, batch: int) -> list[float]:
        """Return the sums of the weights of a batch's shards; those of recent batches are kept."""
        sums = self._sums.get(batch)
        if sums is None:
            if len(self._sums) >= _CACHED:
                self._sums.clear()
            plan, shards = self.plan, self.plan.shards_of(batch)
            starts = [0, *accumulate(plan.samples_in(batch, shard) for shard in range(shards - 1))]
            weights = self.weights.take(plan.rows(batch, 0, shards)).astype(np.float64, copy=False)
            sums = self._sums[batch] = np.add.reduceat(weights, starts).tolist()
        return sums
