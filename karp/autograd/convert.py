"""Conversion of the program's arguments to what the engine computes with: leaves, constants, axes, indices."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from karp.errors import DataError, GraphError, ShapeError

_ndarray = np.ndarray


def plain_array(data: Any) -> Any:
    """Return data as an array; raise DataError for a masked array, whose masked elements NumPy would use.

    Raises NumPy's ValueError for lists that make no array. (A DataError is a ValueError: callers that catch this one
    turn both into an error of their own.)

    >>> plain_array(np.ma.masked_equal([1, -1], -1))
    Traceback (most recent call last):
    ...
    karp.errors.DataError: 1 of 2 elements are masked: fill them (array.filled(0)) or leave them out
    """
    if isinstance(data, _ndarray) and (masked := np.count_nonzero(getattr(data, "mask", False))):
        raise DataError(f"{masked} of {data.size} elements are masked: fill them (array.filled(0)) or leave them out")
    return np.asarray(data)


def leaf_data(data: Any) -> Any:
    """Return data as a leaf holds it: a float, or an ndarray of float32 or float64.

    Raises GraphError for a value, and what `constant` raises.
    """
    if isinstance(data, _value.Value):
        raise GraphError("this is a Value already; use v.detach() for a new leaf with its data")
    if isinstance(data, (bool, int, float, np.integer, np.bool_)):  # np.float64 is a float
        return float(data)
    try:
        array = plain_array(data)
    except ValueError as error:
        raise ShapeError(f"no array can be made of this: {error}") from None
    kind = array.dtype.kind
    if kind in "iub":
        return array.astype(np.float64)
    if kind != "f" or array.dtype.itemsize > 8:
        raise GraphError(f"a Value holds real numbers of 32 or 64 bits, not {array.dtype}")
    if array.dtype.itemsize == 2:
        return array.astype(np.float32)
    return array if array.dtype.isnative else array.astype(array.dtype.char)


def constant(data: Any) -> Any:
    """Return an operation's input: a value, float or int as it is, other numbers as floats, other data as an array.

    An array of float16 becomes float32. Raises ShapeError if no array can be made and for masked elements, GraphError
    for numbers that are not real or have more than 64 bits.
    """
    kind = data.__class__
    if kind is _value.Value or kind is float or kind is int:
        return data
    if isinstance(data, (bool, int, float, np.integer, np.bool_)):
        return float(data)  # np.float64 too, so that it does not promote float32
    if kind is not _ndarray:
        try:
            data = plain_array(data)
        except ValueError as error:
            raise ShapeError(f"no array can be made of this: {error}") from None
    if data.dtype.kind not in "fiub" or data.dtype.itemsize > 8:
        raise GraphError(f"the engine computes with real numbers of up to 64 bits, not {data.dtype}")
    return data.astype(np.float32) if data.dtype.char == "e" else data  # float16: its sums of ones stop at 2048


def floating(data: Any) -> Any:
    """Return the input of an operation that has one: a value as it is, everything else as a leaf would hold it."""
    return data if data.__class__ is _value.Value else leaf_data(data)


def all_inputs(*data: Any) -> tuple[Any, ...]:
    """Return the inputs of an operation that has several; if none is a value, as leaves would hold them."""
    inputs = tuple([constant(item) for item in data])
    if any(item.__class__ is _value.Value for item in inputs):
        return inputs
    return tuple([leaf_data(item) for item in inputs])


def as_array(data: Any) -> Any:
    """Return an operation's input: a value as it is, a number as a 0-d float64 array, other data as an array.

    Raises what `constant` raises.
    """
    data = constant(data)
    return np.asarray(data, np.float64) if isinstance(data, (int, float)) else data


def data_of(data: Any) -> Any:
    """Return the plain number or array of a value or a constant."""
    return data.data if data.__class__ is _value.Value else data


def comparable(data: Any) -> Any:
    """Return the right side of a comparison as NumPy takes it: a list as an array, a value as its data."""
    return np.asarray(data) if isinstance(data, (list, tuple)) else data_of(data)


def bound(data: Any) -> Any:
    """Return a bound of `clip`, a constant or None; raise GraphError for a value."""
    if data.__class__ is _value.Value:
        raise GraphError("the bounds of clip are constants; use maximum and minimum to differentiate them")
    return data if data is None else constant(data)


def as_axis(axis: Any, x: Any) -> Any:
    """Return the axes to reduce as NumPy takes them; for a number axis 0 and -1 are None, as in torch.

    A list becomes a tuple; raises ShapeError unless it is of whole numbers.
    """
    if axis.__class__ is list or axis.__class__ is _ndarray:
        numbers = whole_numbers(axis, "an axis")
        axis = numbers if np.ndim(axis) else numbers[0]
    return None if not np.ndim(data_of(x)) and axis in (0, -1) else axis


def as_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape in a method's arguments: (2, 3) for the arguments 2, 3 and for one argument (2, 3).

    Raises ShapeError for anything but whole numbers.
    """
    if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)):
        return whole_numbers(shape[0], "a shape or an order of axes")
    return whole_numbers(shape, "a shape or an order of axes")


def whole_numbers(given: Any, what: str) -> tuple[int, ...]:
    """Return an integer, or a sequence of them, as a tuple; raise ShapeError, naming `what`, for anything else."""
    try:
        return tuple([operator.index(number) for number in (given if np.ndim(given) else (given,))])
    except (TypeError, ValueError):
        raise ShapeError(f"{what} is made of whole numbers, not of {given!r:.60}") from None


def refuse_value(name: str, data: Any) -> None:
    """Raise GraphError if an argument that has no gradient is a value."""
    if data.__class__ is _value.Value:
        raise GraphError(f"the {name} is a constant, no gradient is computed of it; pass {name}.data")


def setting(name: str, number: Any) -> float:
    """Return a setting of an operation as a float; raise GraphError for a Value, as no gradient is computed of it.

    Anything else that float() does not take is a GraphError, too.
    """
    refuse_value(name, number)
    try:
        return float(number)
    except (TypeError, ValueError):
        raise GraphError(f"{name} is a number, not {number!r:.60}") from None


def index_key(key: Any) -> Any:
    """Return an index as NumPy takes it, a list as an array, so that later changes of the list do not matter.

    Raises GraphError for a value in it.
    """
    if key.__class__ is tuple:
        return tuple([index_key(part) for part in key])
    if key.__class__ is list:
        array = np.asarray(key)
        return array.astype(np.intp) if not array.size else array
    if key.__class__ is _value.Value:
        raise GraphError("an index is made of integers, not of a Value; use v.data.astype(int)")
    return key


# `Value` and these functions need each other; this import stands last, so that value.py finds all that it needs here.
from karp.autograd import value as _value  # noqa: E402
