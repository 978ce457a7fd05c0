"""Operations that rearrange, repeat or select elements without changing them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from karp.autograd.operation import Operation, normalize_axes
from karp.errors import ShapeError


def _reshaped(a: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    size = int(np.size(a))
    known = math.prod(length for length in shape if length != -1)
    unknown = shape.count(-1)
    if unknown > 1:
        raise ShapeError(f"only one axis of {shape} can be -1")
    if (unknown and (known == 0 or size % known)) or (not unknown and known != size):
        raise ShapeError(f"{size} elements do not fill {shape}")
    return tuple(size // known if length == -1 else length for length in shape)


def _transposed(a: Any, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(a)
    if axes is None:
        return shape[::-1]
    if len(axes) != len(shape):
        raise ShapeError(f"axes={axes} must name each of the {len(shape)} axes once")
    return tuple(shape[axis] for axis in normalize_axes(axes, len(shape)))


def _swapped(a: Any, first: int, second: int) -> tuple[int, ...]:
    shape = list(np.shape(a))
    (first,), (second,) = normalize_axes(first, len(shape)), normalize_axes(second, len(shape))
    shape[first], shape[second] = shape[second], shape[first]
    return tuple(shape)


def _squeezed(a: Any, axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(a)
    if axis is None:
        return tuple(size for size in shape if size != 1)
    axes = normalize_axes(axis, len(shape))
    for index in axes:
        if shape[index] != 1:
            raise ShapeError(f"axis {index} has size {shape[index]}; only axes of size 1 can be left out")
    return tuple(size for index, size in enumerate(shape) if index not in axes)


def _expanded(a: Any, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    count = len(axis) if isinstance(axis, tuple) else 1
    ndim = np.ndim(a) + count
    axes = normalize_axes(axis, ndim)
    sizes = iter(np.shape(a))
    return tuple(1 if index in axes else next(sizes) for index in range(ndim))


def _broadcast(a: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        fits = np.broadcast_shapes(np.shape(a), shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"it does not broadcast to {shape}: each axis, from the last, must be equal or 1")
    return tuple(shape)


def _concatenated(*operands: Any) -> tuple[int, ...]:
    *arrays, axis = operands
    shapes = [np.shape(array) for array in arrays]
    if axis is None:
        return (sum(math.prod(shape) for shape in shapes),)
    if not shapes[0]:
        raise ShapeError("numbers cannot be concatenated; stack them")
    (index,) = normalize_axes(axis, len(shapes[0]))
    others = [shape[:index] + shape[index + 1:] for shape in shapes]
    for number, (shape, other) in enumerate(zip(shapes, others, strict=True)):
        if len(shape) != len(shapes[0]) or other != others[0]:
            raise ShapeError(f"all axes but axis {index} must be equal, and array {number} has shape {shape}")
    return (*shapes[0][:index], sum(shape[index] for shape in shapes), *shapes[0][index + 1:])


def _stacked(*operands: Any) -> tuple[int, ...]:
    *arrays, axis = operands
    shapes = [np.shape(array) for array in arrays]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ShapeError(f"arrays to stack must have one shape, and array {number} has shape {shape}")
    (index,) = normalize_axes(axis, len(shapes[0]) + 1)
    return (*shapes[0][:index], len(shapes), *shapes[0][index:])


def _concatenate_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    *arrays, axis = node.operands
    start = 0
    for value, array in zip(node.inputs, arrays, strict=False):
        if axis is None:
            stop = start + int(np.size(array))
            part = g[start:stop].reshape(np.shape(array))
        else:
            stop = start + array.shape[axis]
            before = axis % array.ndim
            part = g[(slice(None),) * before + (slice(start, stop),)]
        if value.__class__ is node.__class__:
            accumulate_grad(value, part)
        start = stop


def _stack_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    *arrays, axis = node.operands
    parts = np.moveaxis(g, axis, 0)
    for value, part, _ in zip(node.inputs, parts, arrays, strict=False):
        if value.__class__ is node.__class__:
            accumulate_grad(value, part)


# --- indexing -------------------------------------------------------------------------------------------------------


def is_basic(key: Any) -> bool:
    """Return whether an index has only slices, integers, boolean masks, None and `...`, so selects no element twice."""
    return all(
        part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer))
        or (isinstance(part, np.ndarray) and part.dtype == bool)
        for part in (key if isinstance(key, tuple) else (key,))
    )


def _indexed(a: Any, key: Any) -> tuple[int, ...]:
    try:
        return np.shape(np.broadcast_to(np.zeros(()), np.shape(a))[key])
    except IndexError as error:
        raise ShapeError(str(error)) from None


def _add_indexed(target: Any, g: Any, a: Any, key: Any) -> None:
    if is_basic(key):
        target[key] += g
    else:
        np.add.at(target, key, g)  # repeated indices add up


def _add_rows(target: Any, g: Any, a: Any, rows: Any) -> None:
    np.add.at(target, rows, g)


def _embedded(a: Any, rows: Any) -> tuple[int, ...]:
    return (*np.shape(rows), *np.shape(a)[1:])


def _reshape_back(g: Any, out: Any, a: Any, *_settings: Any) -> Any:
    return g.reshape(np.shape(a))


RESHAPE = Operation("reshape", lambda a, shape: np.reshape(a, shape), _reshaped, (_reshape_back,), reads=())
TRANSPOSE = Operation("transpose", np.transpose, _transposed,
                      (lambda g, out, a, axes: np.transpose(g, None if axes is None else np.argsort(
                          normalize_axes(axes, len(axes)))),), reads=())
SWAPAXES = Operation("swapaxes", np.swapaxes, _swapped,
                     (lambda g, out, a, first, second: np.swapaxes(g, first, second),), reads=())
# The result must be a view: NumPy returns the array itself where there is nothing to squeeze.
SQUEEZE = Operation("squeeze", lambda a, axis: np.squeeze(a, axis).view(), _squeezed, (_reshape_back,), reads=())
EXPAND_DIMS = Operation("expand_dims", np.expand_dims, _expanded, (_reshape_back,), reads=())
BROADCAST_TO = Operation("broadcast_to", np.broadcast_to, _broadcast, (lambda g, out, a, shape: g,), reads=())
CONCATENATE = Operation("concatenate", lambda *operands: np.concatenate(operands[:-1], axis=operands[-1]),
                        _concatenated, backward=_concatenate_backward, reads=())
STACK = Operation("stack", lambda *operands: np.stack(operands[:-1], axis=operands[-1]), _stacked,
                  backward=_stack_backward, reads=())
INDEX = Operation("index", lambda a, key: a[key], _indexed, add_gradient=_add_indexed, label="[ ]", reads=((1, 0),))
EMBEDDING = Operation("embedding", lambda a, rows: np.take(a, rows, axis=0), _embedded, add_gradient=_add_rows,
                      reads=((1, 0),))
