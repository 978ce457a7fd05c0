"""The in-place guard: a gradient computed from an array that was written to since forward is an error, not a number.

Backward reads arrays that were there at forward. Three kinds of them can be told apart:

- Results of operations are read-only from birth: NumPy refuses the write, at the line that tries it. (A result that is
  a view of a leaf's array is as open to writing as that.)
- Parameters (leaves with a `home`) change by karp's own updates, which call `touch`. It gives the leaf a new creation
  number, so a node older than its input comes from before the update. (Any such node is refused, also the rare one
  whose rule would not have read the parameter: its graph belongs to weights that are gone.)
- Other leaves and constants belong to the program, which may write into them at any time, into parameters too. To see
  that takes a pass over each, 5 % of a step of 64-128-10. So it is done within `with karp.guard():` only, where
  what backward will read is remembered at forward and compared at backward, every byte of it.

The first two cost nothing and are always on; a batch buffer that is filled again too early is found under `guard`.
Only what a rule will read counts: writing into an operand of a sum is no error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.errors import GraphError

if TYPE_CHECKING:
    from karp.autograd.value import Value

next_number = itertools.count().__next__  # creation numbers of values
touched = -1  # the number `touch` gave last: nodes that are newer need no look at their leaves

_KEPT_BYTES = 8192
_ndarray = np.ndarray


def trace_of(operand: Any) -> bytes | int | tuple[Any, ...]:
    """What is remembered of an array: its bytes if they are few, else a hash of them. An index may hold several."""
    if operand.__class__ is tuple:
        return tuple([trace_of(one) for one in operand if one.__class__ is _ndarray])
    content = operand.tobytes()
    return content if len(content) <= _KEPT_BYTES else hash(content)


def open_to_writing(array: Any) -> bool:
    """Whether it is a view of an array that can be written to."""
    while array is not None:
        if array.__class__ is not _ndarray or array.flags.writeable:
            return True
        array = array.base
    return False


def remember(node: Value) -> None:
    """Keep traces of the operands that backward will read and somebody could write to."""
    value = node.__class__
    inputs = node.inputs
    operands = node.operands
    found = {}
    for read, asker in node.operation.reads:  # type: ignore[union-attr]
        if inputs[asker].__class__ is value and operands[read].__class__ in (_ndarray, tuple):
            owner = inputs[read]
            if owner.__class__ is not value or owner.operation is None or open_to_writing(operands[read]):
                found[read] = trace_of(operands[read])
    node.traces = tuple(found.items())


def check(node: Value) -> None:
    """Raise GraphError if an array that a rule of this node reads is no longer what it was."""
    if node.data.__class__ is not float:  # numbers cannot be written to
        for place, one in enumerate(node.inputs):
            if one.__class__ is node.__class__ and one.operation is None and one.number > node.number:
                raise stale(node, place)
    for read, trace in getattr(node, "traces", ()):  # none if it was made outside of guard
        if trace_of(node.operands[read]) != trace:
            raise stale(node, read)


def stale(node: Value, read: int) -> GraphError:
    """The error for an operand that was written to."""
    owner = node.inputs[read]
    if owner.__class__ is not node.__class__:
        what = "constant"
    else:
        what = "parameter" if owner.operation is None and owner.home is not None else "value"
    operand = node.operands[read]
    arrays = operand if operand.__class__ is tuple else (operand,)
    shape = next(one.shape for one in arrays if one.__class__ is _ndarray)
    name = node.operation.name  # type: ignore[union-attr]
    return GraphError(
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
    karp.errors.GraphError: the value of shape (3,) that multiply read (operand 0) was written to between ...
    """
    global touched
    number = touched = next_number()
    for value in values:
        value.number = number
