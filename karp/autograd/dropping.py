"""Dropout, and the trace that a dropout leaves where it was asked for without a generator, and so dropped nothing.

Nobody but the program knows whether a call is training or prediction, so both are right: with a generator elements are
dropped, without one none are, and a network that predicts outside of `no_grad` predicts what it does inside. But a
loss that is trained on must not have passed through a dropout that was left out in silence. So such a dropout makes a
node, and `left_out` finds it under a loss. Graphs without one need not be looked through: `newest` has then not
changed since the last look.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from karp.autograd import modes
from karp.autograd.convert import data_of, floating, refuse_value
from karp.autograd.operations.elementwise import DROPOUT
from karp.autograd.value import Value, apply, record
from karp.errors import SettingError

# The number of the newest node that stands for a dropout left out, in any thread. Numbers are never given twice, so
# whoever finds another than it saw last looks through its own graph, and nothing else depends on this.
newest = -1

_LEFT_OUT = 1.0  # what such a node multiplies by: a float, where a mask is an array


def dropout(x: Any, p: float, rng: np.random.Generator | None = None) -> Value:
    """Each element 0 with probability `p`, the others divided by 1 - p. Srivastava et al., 2014.

    The mask is drawn from `rng`, so the same generator state gives the same mask. Without `rng` nothing is dropped,
    as it should be for predictions; `Trainer.backward` refuses a loss that depends on such a call.

    >>> dropout(Value([1.0, 1.0, 1.0, 1.0]), 0.5, np.random.default_rng(0))
    Value([2. 2. 2. 0.])
    >>> dropout(Value([1.0, 1.0, 1.0, 1.0]), 0.5)
    Value([1. 1. 1. 1.])
    """
    refuse_value("p", p)
    if not isinstance(p, (int, float, np.floating)) or not 0.0 <= p < 1.0:
        raise SettingError(f"dropout: p={p!r:.60} must be a number from 0 to below 1")
    if rng is None:
        return _leave_out(x, p)
    if not isinstance(rng, np.random.Generator):
        raise SettingError(f"dropout draws from a numpy.random.Generator, such as trainer.rng, not from {rng!r:.60}")
    x = floating(x)
    data = np.asarray(data_of(x))
    kept = rng.random(data.shape, np.float32) >= p
    return apply(DROPOUT, x, kept * np.asarray(1.0 / (1.0 - p), data.dtype))


def _leave_out(x: Any, p: float) -> Value:
    """Return `x`, as a node that remembers the dropout; as it is where there is nothing to drop or to remember."""
    global newest
    if not p or (modes.active and not modes.state.recording):
        return x if x.__class__ is Value else Value(x)
    x = floating(x)
    data = data_of(x)
    node = record(DROPOUT, (x, _LEFT_OUT), (data, _LEFT_OUT), data if data.__class__ is float else data.view())
    newest = node.number
    return node


def left_out(root: Value) -> bool:
    """Return whether `root` was computed through a dropout that had no generator."""
    from karp.autograd.tools.graph import walk

    return any(node.operation is DROPOUT and node.operands[1].__class__ is float for node in walk(root))
