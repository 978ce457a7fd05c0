"""What an operation is, and the helpers its rules share.

The engine records operations, not closures. An `Operation` is one row of a table: how to run it, how to
differentiate it, which shapes fit, what to write beside it in a drawing. Running, backward, the gradient
checker, drawing and export are all readers of that table; nothing else knows what `tanh` is.

A node keeps its `inputs` (values and constants in order, settings such as an axis last) and its `operands`
(the same tuple with every value replaced by its array). Forward is `forward(*operands)`. Backward has three forms,
of which a row has one:

- `gradients`: one rule per differentiable operand, `rule(g, out, *operands)`, a plain array expression for the
  gradient of that operand, before broadcasting is undone. Operands that are constants are never asked for.
- `add_gradient`: for operations that read a part of their first operand (indexing, embedding):
  `add_gradient(target, g, *operands)` adds into the operand's gradient, so a thousand rows taken from
  one array do not cost a thousand arrays of zeros.
- `backward(node, g, give)`: for fused operations whose gradients share work, and for those with any number of inputs.
  It hands each gradient over with `give(value, gradient)`.

Rules must return a new array, `g` itself, or a view, and never one of the operands: that is how backward knows
which arrays it owns and may add to in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from karp.errors import GraphError, KarpError, ShapeError

Rule = Callable[..., Any]


class Operation:
    """One row of the table.

    `shape(*operands)` gives the shape of the result and raises `ShapeError` with the reason where operands do not fit;
    it runs only after a forward has failed. `number` is the forward for one Python float, where there is a faster one.
    `reads` lists (operand, input): the operand's array is read for the gradient of that input. Only writing into such
    an array can make a gradient wrong.
    `label` stands in drawings. `saves`: forward returns (result, what backward needs besides).
    """

    __slots__ = ("add_gradient", "backward", "forward", "gradients", "label", "name", "number", "reads", "saves",
                 "shape")

    def __init__(
        self,
        name: str,
        forward: Rule,
        shape: Rule,
        gradients: tuple[Rule, ...] = (),
        *,
        label: str = "",
        number: Callable[[float], float] | None = None,
        reads: tuple[tuple[int, int], ...] = ((0, 0),),
        add_gradient: Rule | None = None,
        backward: Rule | None = None,
        saves: bool = False,
    ) -> None:
        self.name = name
        self.forward = forward
        self.shape = shape
        self.gradients = gradients
        self.label = label or name
        self.number = number
        self.reads = reads
        self.add_gradient = add_gradient
        self.backward = backward
        self.saves = saves

    def __repr__(self) -> str:
        return f"Operation({self.name!r})"


def explain(operation: Operation, operands: tuple[Any, ...], error: Exception) -> Exception:
    """The error to raise for a forward that failed: the shape rule's, if that is what is wrong."""
    if isinstance(error, KarpError) and not isinstance(error, ShapeError):
        return error
    shapes = [np.shape(operand) for operand in operands if isinstance(operand, (np.ndarray, float))]
    about = f"{operation.name} of shape{'s' if len(shapes) > 1 else ''} {' and '.join(map(str, shapes))}"
    try:
        operation.shape(*operands)
    except ShapeError as reason:
        return ShapeError(f"{about}: {reason}")
    except (KarpError, ArithmeticError, LookupError, TypeError, ValueError):
        pass  # the rule met the same fault as the forward, which says it better
    if isinstance(error, (ValueError, IndexError)):
        return ShapeError(f"{about}: {error}")
    if isinstance(error, TypeError):
        return GraphError(f"{about}: {error}")
    return error


# --- shape rules ----------------------------------------------------------------------------------------------------


def broadcast_shape(*operands: Any) -> tuple[int, ...]:
    """The shape NumPy's broadcasting gives to the operands; `None` stands for an operand left out."""
    shapes = [np.shape(operand) for operand in operands if operand is not None]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            "they do not broadcast: axes are matched from the last one backwards and must be equal or 1"
        ) from None


def same_shape(a: Any, *_settings: Any) -> tuple[int, ...]:
    """The shape of the first operand, for operations on each element."""
    return np.shape(a)


def normal_axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """The axes as non-negative numbers, all of them for `None`."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    for one in axes:
        if not -ndim <= one < ndim:
            raise ShapeError(f"there is no axis {one}, the array has {ndim}")
    normal = tuple(one % ndim for one in axes)
    if len(set(normal)) < len(normal):
        raise ShapeError(f"axis {axis} names one axis twice")
    return normal


# --- gradients ------------------------------------------------------------------------------------------------------


def undo_broadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Sum `gradient` over the axes along which an operand of `shape` was repeated."""
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        axis + extra for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis + extra] != 1
    )
    wide = np.float32 if gradient.dtype == np.float16 else None  # in which a sum of thousands is still right
    return np.add.reduce(gradient, axis=axes, keepdims=True, dtype=wide).reshape(shape)
