"""The grad modes of a thread: whether operations are recorded, checked by `find_nan`, and guarded by `guard`.

The engine reads `active`, a plain number that is 0 unless some thread is inside one of these contexts. Only then does
it read the thread's own state. So a run that uses none of them pays one comparison per operation, and one whose
process has a thread in a context pays 4 % of the step of a small network; nothing else of the count shows.
"""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

active = 0  # the number of contexts that are entered and not left, in all threads
_lock = threading.Lock()


class _State(threading.local):
    """The modes that are switched on in this thread."""

    recording = True
    find_nan = False
    guard = False


state = _State()


class _Mode(contextlib.ContextDecorator):
    """A context manager and decorator that sets one field of the thread's state."""

    _field = ""
    _setting = True

    def __init__(self) -> None:
        self._before: list[bool] = []  # a stack, as a decorated function may call itself

    def __enter__(self) -> None:
        global active
        self._before.append(getattr(state, self._field))
        setattr(state, self._field, self._setting)
        with _lock:
            active += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        global active
        setattr(state, self._field, self._before.pop())
        with _lock:
            active -= 1


class no_grad(_Mode):
    """Compute without recording: results have no history, and nothing is kept for backward.

    A context manager and a decorator; other threads are not affected.

    >>> from karp.autograd import Value, no_grad
    >>> x = Value(3.0)
    >>> with no_grad():
    ...     y = x * x
    >>> y.operation is None
    True
    """

    _field, _setting = "recording", False


class recording(_Mode):
    """Record operations, also inside of `no_grad`."""

    _field = "recording"


class find_nan(_Mode):
    """Stop at the operation that first makes a NaN or an infinity, forward or backward.

    `NotFiniteError` then names the operation and the line of the program that called it; for a gradient, the line
    that called the operation when it ran forward. The mode costs a pass over every array: a tool for debugging, not for
    every run. Only operations recorded inside the context know their lines.

    >>> import numpy as np
    >>> from karp.autograd import Value, find_nan, log
    >>> with find_nan(), np.errstate(divide="ignore"):
    ...     log(Value([1.0, 0.0]))
    Traceback (most recent call last):
    ...
    karp.errors.NotFiniteError: log of shape (2,) made 1 infinity ...
    """

    _field = "find_nan"


class guard(_Mode):
    """Find arrays that were written to between forward and backward: leaves, constants, batches filled again too early.

    Backward raises GraphError if an array that it reads has changed since forward. Without this mode, only results of
    operations are guarded (they are read-only), and parameters against karp's own updates; see `write_guard.py`. Wrap
    both the forward and the backward in it. The mode costs a pass over every array that backward reads: a tool for
    debugging.

    >>> import numpy as np
    >>> from karp.autograd import Value, guard
    >>> x, batch = Value(1.0), np.ones(3)
    >>> with guard():
    ...     loss = (x * batch).sum()
    ...     batch[0] = 5.0
    ...     loss.backward()
    Traceback (most recent call last):
    ...
    karp.errors.GraphError: the constant of shape (3,) that multiply read (operand 1) was written to between ...
    """

    _field = "guard"
