"""The rows of the table of operations, and helpers that their rules share.

The engine records operations, not closures. An `Operation` is one row of a table: how to run it, how to differentiate
it, which shapes fit, its label in a drawing. Running, backward, the gradient checker, drawing and export all read that
table; no other code knows what `tanh` is.

A node keeps its `inputs` (values and constants in order, settings such as an axis last) and its `operands`
(the same tuple with every value replaced by its array). Forward is `forward(*operands)`. Backward has three forms,
of which a row has one:

- `gradients`: one rule per differentiable operand, `rule(g, out, *operands)`, a plain array expression for the
  gradient of that operand, before broadcasting is undone. Operands that are constants are never asked for.
- `add_gradient`: for operations that read a part of their first operand (indexing, embedding):
  `add_gradient(target, g, *operands)` adds into the operand's gradient, so a thousand rows taken from
  one array do not cost a thousand arrays of zeros.
- `backward(node, g, accumulate_grad)`: for fused operations whose gradients share work, and for those with any number
  of inputs. It hands each gradient over with `accumulate_grad(value, gradient)`.

Rules must return a new array, `g` itself, or a view, and never one of the operands: so backward knows which arrays it
owns and may add to in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from karp.errors import GraphError, KarpError, ShapeError

Rule = Callable[..., Any]


class Operation:
    """One row of the table of operations.

    `shape(*operands)` returns the shape of the result, or raises `ShapeError` with the reason where operands do not
    fit; the engine calls it only after a forward has failed. `number` is a faster forward for one Python float, where
    there is one.
    `reads` lists (operand, input): the operand's array is read for the gradient of that input, and only writing into
    such an array can make a gradient wrong. `label` is for drawings. `saves` says that forward returns (result, what
    backward needs besides). `operands` are the names of the operands in errors, where their order is not enough.
    """

    __slots__ = ("add_gradient", "backward", "forward", "gradients", "label", "name", "number", "operands", "reads",
                 "saves", "shape")

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
        operands: tuple[str, ...] = (),
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
        self.operands = operands

    def __repr__(self) -> str:
        return f"Operation({self.name!r})"


def forward_error(operation: Operation, operands: tuple[Any, ...], error: Exception) -> Exception:
    """Return the error to raise for a forward that failed with `error`: the shape rule's, if the shapes do not fit.

    Else a ValueError or IndexError becomes a ShapeError and a TypeError a GraphError; any other error is returned.
    """
    if isinstance(error, KarpError) and not isinstance(error, ShapeError):
        return error
    about = f"{operation.name} of {_describe_operands(operation, operands)}"
    try:
        operation.shape(*operands)
    except ShapeError as reason:
        return ShapeError(f"{about}: {reason}")
    except (KarpError, ArithmeticError, LookupError, TypeError, ValueError):
        pass  # the shape rule met the same fault as the forward, whose message is better
    if isinstance(error, (ValueError, IndexError)):
        return ShapeError(f"{about}: {error}")
    if isinstance(error, TypeError):
        return GraphError(f"{about}: {error}")
    return error


def _describe_operands(operation: Operation, operands: tuple[Any, ...]) -> str:
    """Describe an operation's arrays for a message: by name and shape where they have names, else by shape."""
    if operation.operands:
        named = zip(operation.operands, operands, strict=False)
        arrays = [f"{name} {np.shape(array)}" for name, array in named if isinstance(array, (np.ndarray, float))]
        return join_words(arrays)
    # A number counts if the operation has a gradient rule for it; behind those it is a setting, such as a slope.
    differentiable = len(operation.gradients)
    return shapes_in_words(*[
        np.shape(operand)
        for index, operand in enumerate(operands)
        if isinstance(operand, np.ndarray) or (isinstance(operand, float) and index < differentiable)
    ])


def shapes_in_words(*shapes: tuple[int, ...]) -> str:
    """Describe shapes for a message; of more than four, at most the first distinct ones.

    >>> shapes_in_words((2, 3)), shapes_in_words((2, 3), (4,)), shapes_in_words((2,), ())
    ('shape (2, 3)', 'shapes (2, 3) and (4,)', 'shape (2,) and a number')
    >>> shapes_in_words(*[(2, 3)] * 90, (4,))
    '91 arrays of shapes (2, 3) and (4,)'
    """
    if len(shapes) > 4:
        words = [str(shape) for shape in dict.fromkeys(shapes)]
        if len(words) > 4:
            words[3:] = [f"{len(words) - 3} others"]
        return f"{len(shapes)} arrays of shape{'s' if len(words) > 1 else ''} {join_words(words)}"
    if len(shapes) > 1 and all(shapes):
        return f"shapes {join_words(list(map(str, shapes)))}"
    return join_words([f"shape {shape}" if shape else "a number" for shape in shapes])


def join_words(words: list[str]) -> str:
    """Join words with commas, and "and" before the last."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# --- shape rules ----------------------------------------------------------------------------------------------------


def broadcast_shape(*operands: Any) -> tuple[int, ...]:
    """Return the shape to which NumPy broadcasts the operands; `None` stands for an operand that is left out."""
    shapes = [np.shape(operand) for operand in operands if operand is not None]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            "they do not broadcast: axes are matched from the last one backwards and must be equal or 1"
        ) from None


def same_shape(a: Any, *_settings: Any) -> tuple[int, ...]:
    """Return the shape of the first operand: the shape rule of elementwise operations."""
    return np.shape(a)


def normalize_axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Return the axes as non-negative numbers, all of them for `None`; raise ShapeError for one that is not there.

    An axis that is named twice is a ShapeError, too.
    """
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    for number in axes:
        if not -ndim <= number < ndim:
            raise ShapeError(f"there is no axis {number}, the array has {ndim}")
    normalized = tuple(number % ndim for number in axes)
    if len(set(normalized)) < len(normalized):
        raise ShapeError(f"axis {axis} names one axis twice")
    return normalized


# --- gradients ------------------------------------------------------------------------------------------------------


def undo_broadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Return the sum of `gradient` over the axes along which an operand of `shape` was repeated; it has this shape."""
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        axis + extra for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis + extra] != 1
    )
    return np.add.reduce(gradient, axis=axes, keepdims=True).reshape(shape)
