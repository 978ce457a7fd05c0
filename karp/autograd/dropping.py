"""Dropout, and how a loss is checked for a dropout that was called without a generator and so dropped nothing.

Only the program knows whether a call is training or prediction, so both are allowed: with a generator elements are
dropped, without one none are, inside of `no_grad` and outside. But a loss that is trained on must not depend on a
dropout that dropped nothing. So such a dropout makes a node, and `has_inactive_dropout` finds it in a loss's graph. A
graph need not be searched where `newest` has not changed since the last search.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from karp.autograd import modes
from karp.autograd.convert import data_of, floating, refuse_value
from karp.autograd.operations.elementwise import DROPOUT
from karp.autograd.value import Value, apply, record
from karp.errors import SettingError

# The creation number of the newest node of an inactive dropout, in any thread. Numbers are unique, so a caller that
# reads another number than the last time searches its own graph; nothing else depends on it.
newest = -1

_INACTIVE = 1.0  # such a node's factor: a float, where a mask would be an array


def dropout(x: Any, p: float, rng: np.random.Generator | None = None) -> Value:
    """Set each element to 0 with probability `p`, and divide the others by 1 - p. Srivastava et al., 2014.

    The mask is drawn from `rng`, so the same generator state gives the same mask. Without `rng` nothing is dropped,
    as predictions need it; `Trainer.backward` refuses a loss that depends on such a call. Raises SettingError for a `p`
    that is not from 0 to below 1, and for an `rng` of another type.

    >>> dropout(Value([1.0, 1.0, 1.0, 1.0]), 0.5, np.random.default_rng(0))
    Value([2. 2. 2. 0.])
    >>> dropout(Value([1.0, 1.0, 1.0, 1.0]), 0.5)
    Value([1. 1. 1. 1.])
    """
    refuse_value("p", p)
    if not isinstance(p, (int, float, np.floating)) or not 0.0 <= p < 1.0:
        raise SettingError(f"dropout: p={p!r:.60} must be a number from 0 to below 1")
    if rng is None:
        return _pass_through(x, p)
    if not isinstance(rng, np.random.Generator):
        raise SettingError(f"dropout draws from a numpy.random.Generator, such as trainer.rng, not from {rng!r:.60}")
    x = floating(x)
    data = np.asarray(data_of(x))
    mask = rng.random(data.shape, np.float32) >= p
    return apply(DROPOUT, x, mask * np.asarray(1.0 / (1.0 - p), data.dtype))


def _pass_through(x: Any, p: float) -> Value:
    """Return `x` unchanged, as a node of an inactive dropout; the value itself if `p` is 0 or nothing is recorded."""
    global newest
    if not p or (modes.active and not modes.state.recording):
        return x if x.__class__ is Value else Value(x)
    x = floating(x)
    data = data_of(x)
    node = record(DROPOUT, (x, _INACTIVE), (data, _INACTIVE), data if data.__class__ is float else data.view())
    newest = node.number
    return node


def has_inactive_dropout(root: Value) -> bool:
    """Return whether `root` was computed through a dropout that had no generator."""
    from karp.autograd.tools.graph import walk

    return any(node.operation is DROPOUT and node.operands[1].__class__ is float for node in walk(root))
