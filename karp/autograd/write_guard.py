"""The write guard: backward raises an error where an array that it reads was written to since forward.

Backward reads arrays of the forward pass. There are three kinds:

- Results of operations are read-only from the beginning: NumPy refuses the write, at the line that tries it. (A result
  that is a view of a leaf's array can be written to through that array.)
- Parameters (leaves with a `grad_buffer`) are changed by karp's own updates, which call `mark_modified`. That gives the
  leaf a new creation number, so a node older than its input was made before the update. (Every such node is refused,
  also the rare one whose rule would not have read the parameter: its graph belongs to weights that are gone.)
- Other leaves and constants belong to the program, which may write into them at any time, and into parameters too. To
  detect that takes a pass over each, 5 % of a step of 64-128-10. So it is done only within `with karp.guard():`, which
  takes fingerprints of the arrays that backward will read, and compares them at backward.

The first two cost nothing and are always on. A batch buffer that is filled again too early is found under `guard`.
Only an array that a rule reads counts: writing into an operand of a sum is no error.
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
last_modified = -1  # the number that `mark_modified` gave last: leaves of newer nodes need no check

_COPIED_BYTES = 8192
_ndarray = np.ndarray


def fingerprint_of(operand: Any) -> bytes | int | tuple[Any, ...]:
    """Return the bytes of an array if they are few, else their hash; for an index a tuple, one item for each array."""
    if operand.__class__ is tuple:
        return tuple([fingerprint_of(part) for part in operand if part.__class__ is _ndarray])
    content = operand.tobytes()
    return content if len(content) <= _COPIED_BYTES else hash(content)


def is_writable(array: Any) -> bool:
    """Return whether an array can be written to, itself or through an array that it is a view of.

    An array over memory that is not NumPy's counts as writable.
    """
    while array is not None:
        if array.__class__ is not _ndarray or array.flags.writeable:
            return True
        array = array.base
    return False


def take_fingerprints(node: Value) -> None:
    """Keep in the node fingerprints of its operands that backward will read and that the program could write to."""
    value = node.__class__
    inputs = node.inputs
    operands = node.operands
    fingerprints = {}
    for read, reader in node.operation.reads:  # type: ignore[union-attr]
        if inputs[reader].__class__ is value and operands[read].__class__ in (_ndarray, tuple):
            owner = inputs[read]
            if owner.__class__ is not value or owner.operation is None or is_writable(operands[read]):
                fingerprints[read] = fingerprint_of(operands[read])
    node.fingerprints = tuple(fingerprints.items())


def check_operands(node: Value) -> None:
    """Raise GraphError if a leaf among this node's inputs was marked as modified since, or a fingerprint differs.

    Only a node that was made under `guard` has fingerprints.
    """
    if node.data.__class__ is not float:  # numbers cannot be written to
        for index, source in enumerate(node.inputs):
            if source.__class__ is node.__class__ and source.operation is None and source.number > node.number:
                raise modified_error(node, index)
    for read, fingerprint in getattr(node, "fingerprints", ()):  # a node made outside of guard has none
        if fingerprint_of(node.operands[read]) != fingerprint:
            raise modified_error(node, read)


def modified_error(node: Value, read: int) -> GraphError:
    """Return the error for an operand, by its index, that was written to."""
    owner = node.inputs[read]
    if owner.__class__ is not node.__class__:
        what = "constant"
    else:
        what = "parameter" if owner.operation is None and owner.grad_buffer is not None else "value"
    operand = node.operands[read]
    arrays = operand if operand.__class__ is tuple else (operand,)
    shape = next(array.shape for array in arrays if array.__class__ is _ndarray)
    name = node.operation.name  # type: ignore[union-attr]
    return GraphError(
        f"the {what} of shape {shape} that {name} read (operand {read}) was written to between forward and backward,"
        " so its gradient would be wrong. Call backward before the update, compute the result again after it,"
        " or give the operation a copy (array.copy())"
    )


def mark_modified(values: Iterable[Value]) -> None:
    """Mark the arrays of these leaves as written to in place: graphs made from them before can no longer go backward.

    Backward raises GraphError for such a graph. Code that updates parameters in place calls this after the update.

    >>> import numpy as np
    >>> from karp.autograd import Value, mark_modified
    >>> x = Value(np.ones(3)); y = (x * x).sum()
    >>> mark_modified([x]); y.backward()
    Traceback (most recent call last):
    ...
    karp.errors.GraphError: the value of shape (3,) that multiply read (operand 0) was written to between ...
    """
    global last_modified
    number = last_modified = next_number()
    for value in values:
        value.number = number
