"""What everybody trains on: an array in memory, in the sampling plan's order, gathered into a batch at every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.cases import Array, Case
from karp.data import Plan

ROWS = {"S": 65_536}  # about; 16 MB
OTHERS = 16_384  # M, L: 51 MB


def table(case: Case, workers: int) -> tuple[Array, Array]:
    """Samples and class indices, as many as whole global batches take."""
    steps = max(1, round(ROWS.get(case.name, OTHERS) / (workers * case.batch)))
    return case.data(steps * workers)


def orders(rows: int, case: Case, workers: int, shard: int) -> Iterator[Any]:
    """The rows of each step's shard, (batch,), for ever: those of `karp.data.Plan`, at the price of a slice."""
    plan, epoch = Plan(rows, rows, 1), 0
    while True:
        yield from np.ascontiguousarray(plan.rows(epoch, 0).reshape(-1, workers, case.batch)[:, shard])
        epoch += 1
