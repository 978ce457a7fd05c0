"""Finding the operation that first produces a NaN or an infinity, and the line of the program that called it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.errors import NotFiniteError

if TYPE_CHECKING:
    from karp.autograd.value import Value

_KARP = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def program_line() -> str:
    """Return the file and line of the innermost call from outside karp and NumPy."""
    numpy = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_KARP, numpy)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _faults(data: Any) -> str:
    """Return the numbers of NaNs and infinities in words; '' if there are none."""
    if np.isfinite(data).all():
        return ""
    nans = int(np.isnan(data).sum())
    infinities = int(np.isinf(data).sum())
    words = []
    if nans:
        words.append(f"{nans} NaN{'s' if nans > 1 else ''}")
    if infinities:
        words.append(f"{infinities} infinit{'ies' if infinities > 1 else 'y'}")
    return " and ".join(words)


def check_forward(node: Value) -> None:
    """Record the line of the program that made a node; raise NotFiniteError if its data is not finite."""
    node.line = program_line()
    faults = _faults(node.data)
    if not faults:
        return
    name = node.operation.name  # type: ignore[union-attr]
    for index, operand in enumerate(node.operands):
        if isinstance(operand, (np.ndarray, float)) and np.asarray(operand).dtype.kind == "f":
            before = _faults(operand)
            if before:
                raise NotFiniteError(
                    f"{name} was given {before} (operand {index}, shape {np.shape(operand)}) at {node.line}"
                )
    raise NotFiniteError(f"{name} of shape {np.shape(node.data)} made {faults} at {node.line}")


def checked(order: Iterable[Value]) -> Iterator[Value]:
    """Yield the nodes for backward; after each, raise NotFiniteError if a gradient of its inputs is not finite."""
    for node in order:
        yield node
        for source in node.inputs:
            if source.__class__ is node.__class__ and source.grad is not None:
                _check_gradient(node, source.grad)


def _check_gradient(node: Value, gradient: Any) -> None:
    """Raise NotFiniteError, which names the node's operation and line, for a gradient that is not finite."""
    faults = _faults(gradient)
    if faults:
        line = getattr(node, "line", None)
        where = f"called at {line}" if line else "called before find_nan was on"
        raise NotFiniteError(
            f"the gradient of {node.operation.name} of shape {np.shape(node.data)}, {where}, has {faults}"  # type: ignore[union-attr]
        )
