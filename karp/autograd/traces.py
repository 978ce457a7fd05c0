"""The in-place guard: a gradient computed from an array that was written to since forward is an error, not a number.

Backward reads arrays that were there at forward. Three kinds of them can be told apart, and each has its own guard:

- Results of operations are read-only from birth: NumPy refuses the write, at the line that tries it.
- Parameters (leaves with a `home`) change by karp's own updates, which call `touch`. It gives the leaf a new creation
  number, so a node older than its input has lost what it read.
- Other leaves and constants belong to the program. What backward will read of them is remembered at
  forward and compared at backward: every byte up to 8 KiB, 512 evenly spaced elements beyond. A reused
  batch buffer is seen, a single element changed in a large array may not be; `with karp.guard():` compares them, and
  parameters, in full.

Only what a rule will read counts: writing into an operand of a sum is no error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.autograd import modes
from karp.errors import GraphError

if TYPE_CHECKING:
    from karp.autograd.value import Value

next_number = itertools.count().__next__  # creation numbers of values

_FULL_BYTES = 8192
_PLACES = 512
_ndarray = np.ndarray


def trace_of(array: Any) -> bytes | int:
    """What is remembered of an array: all of a small one, evenly spaced elements of a large one."""
    if array.nbytes <= _FULL_BYTES:
        return array.tobytes()  # type: ignore[no-any-return]
    if modes.active and modes.state.guard:
        return hash(array.tobytes())
    if array.flags.c_contiguous:
        return array.reshape(-1)[:: array.size // _PLACES].tobytes()  # type: ignore[no-any-return]
    steps = tuple(slice(None, None, max(1, size // 16)) for size in array.shape)
    return array[steps].tobytes()  # type: ignore[no-any-return]


def remember(node: Value) -> None:
    """Keep traces of the operands that backward will read and somebody could write to."""
    value = node.__class__
    inputs = node.inputs
    operands = node.operands
    for read, asker in node.operation.reads:  # type: ignore[union-attr]
        if inputs[asker].__class__ is value and operands[read].__class__ is _ndarray:
            owner = inputs[read]
            trace: Any = None
            if owner.__class__ is not value:
                owner = None
                trace = trace_of(operands[read])
            elif owner.operation is not None:
                continue  # read-only
            elif owner.home is None or (modes.active and modes.state.guard):
                trace = trace_of(operands[read])
            if node.traces is None:
                node.traces = [(read, owner, trace)]
            else:
                node.traces.append((read, owner, trace))


def check(node: Value) -> None:
    """Raise GraphError if an array that a rule of this node reads is no longer what it was."""
    for read, owner, trace in node.traces:  # type: ignore[union-attr]
        if (owner is not None and owner.number > node.number) or (
            trace is not None and trace_of(node.operands[read]) != trace
        ):
            raise GraphError(_message(node, read, owner))


def _message(node: Value, read: int, owner: Value | None) -> str:
    what = "constant" if owner is None else "parameter" if owner.home is not None else "value"
    shape = node.operands[read].shape
    name = node.operation.name  # type: ignore[union-attr]
    return (
        f"the {what} of shape {shape} that {name} read (operand {read}) was written to between forward and backward,"
        " so its gradient would be wrong. Call backward before the update, compute the result again after it,"
        " or give the operation a copy (array.copy())"
    )


def touch(values: Iterable[Value]) -> None:
    """Say that the arrays of these leaves were written to in place: graphs that read them can no longer go backward.

    Whatever updates parameters in place calls this after the update.

    >>> import numpy as np
    >>> from karp.autograd import Value, touch
    >>> x = Value(np.ones(3)); y = (x * x).sum()
    >>> touch([x]); y.backward()
    Traceback (most recent call last):
    ...
    karp.errors.GraphError: the value of shape (3,) that multiply read (operand 1) was written to between ...
    """
    number = next_number()
    for value in values:
        value.number = number
