"""The number of workers of an estimator's training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

_said: set[int] = set()  # the processes that have said that they are a worker of joblib's


def workers_of(n_jobs: int | None, shards: int, alone: Sequence[str]) -> int:
    """Return how many workers train together; 0 for a training in this process.

    `alone` are the reasons for which it is done here. Within a worker of joblib it is, too, and says so once.
    """
    if n_jobs == -1:
        from karp.launch.options import cores

        n_jobs = cores()
    wanted = min(n_jobs or 1, shards)
    if wanted == 1:
        return 0
    if alone:
        warnings.warn(f"n_jobs={n_jobs}: with {alone[0]} this process trains alone, to the same result", stacklevel=6)
        return 0
    if is_nested():
        if os.getpid() not in _said:
            _said.add(os.getpid())
            warnings.warn(f"n_jobs={n_jobs}: this is a worker of joblib's, so it trains alone", stacklevel=6)
        return 0
    return wanted


def is_nested() -> bool:
    """Return whether joblib runs this code, as one of several."""
    from joblib.parallel import get_active_backend

    backend, _ = get_active_backend()
    return bool(backend.nesting_level)
