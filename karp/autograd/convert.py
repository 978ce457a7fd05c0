"""Taking what the program gives: leaves, constants, shapes and indices in the forms the engine computes with."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from karp.errors import DataError, GraphError, ShapeError

_ndarray = np.ndarray


def plain_array(data: Any) -> Any:
    """Return this as an array; raises DataError for one of which elements are masked, as NumPy would take those too.

    >>> plain_array(np.ma.masked_equal([1, -1], -1))
    Traceback (most recent call last):
    ...
    karp.errors.DataError: 1 of 2 elements are masked: fill them (array.filled(0)) or leave them out
    """
    if isinstance(data, _ndarray) and (masked := np.count_nonzero(getattr(data, "mask", False))):
        raise DataError(f"{masked} of {data.size} elements are masked: fill them (array.filled(0)) or leave them out")
    return np.asarray(data)


def leaf_data(data: Any) -> Any:
    """What a leaf holds: a float, or a floating ndarray."""
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
    """An input that is no setting: a value as it is, a number as a float, all else as an array, float16 as float32."""
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
    return data.astype(np.float32) if data.dtype.char == "e" else data  # of 16 bits, whose sums stop at 2048


def floating(data: Any) -> Any:
    """The only operand of an operation: a value as it is, everything else as a leaf would hold it."""
    return data if data.__class__ is _value.Value else leaf_data(data)


def together(*operands: Any) -> tuple[Any, ...]:
    """The operands of one operation: constants as they are beside a value, and as leaves hold them without one."""
    found = tuple([constant(one) for one in operands])
    if any(one.__class__ is _value.Value for one in found):
        return found
    return tuple([leaf_data(one) for one in found])


def as_array(data: Any) -> Any:
    """A constant, or a value as it is; a number as a 0-d array."""
    data = constant(data)
    return np.asarray(data, np.float64) if isinstance(data, (int, float)) else data


def data_of(data: Any) -> Any:
    """The plain number or array of a value or a constant."""
    return data.data if data.__class__ is _value.Value else data


def comparable(data: Any) -> Any:
    """The other side of a comparison: a list as an array, as NumPy sees it."""
    return np.asarray(data) if isinstance(data, (list, tuple)) else data_of(data)


def bound(data: Any) -> Any:
    """A bound of `clip`: a constant or None."""
    if data.__class__ is _value.Value:
        raise GraphError("the bounds of clip are constants; use maximum and minimum to differentiate them")
    return data if data is None else constant(data)


def as_axis(axis: Any, x: Any) -> Any:
    """The axes to reduce of a value or a constant, as NumPy takes them; a number has none, as torch sees it."""
    if axis.__class__ is list or axis.__class__ is _ndarray:
        numbers = whole_numbers(axis, "an axis")
        axis = numbers if np.ndim(axis) else numbers[0]
    return None if not np.ndim(data_of(x)) and axis in (0, -1) else axis


def as_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """`(2, 3)` for the arguments 2, 3 and for one argument (2, 3)."""
    if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)):
        return whole_numbers(shape[0], "a shape or an order of axes")
    return whole_numbers(shape, "a shape or an order of axes")


def whole_numbers(given: Any, what: str) -> tuple[int, ...]:
    """Integers as a tuple; nothing else is taken for one."""
    try:
        return tuple([operator.index(one) for one in (given if np.ndim(given) else (given,))])
    except (TypeError, ValueError):
        raise ShapeError(f"{what} is made of whole numbers, not of {given!r:.60}") from None


def refuse_value(name: str, data: Any) -> None:
    """Raise GraphError if an argument of which no gradient is computed is a value."""
    if data.__class__ is _value.Value:
        raise GraphError(f"the {name} is a constant, no gradient is computed of it; pass {name}.data")


def setting(name: str, number: Any) -> float:
    """A parameter of an operation, which is not differentiated."""
    refuse_value(name, number)
    try:
        return float(number)
    except (TypeError, ValueError):
        raise GraphError(f"{name} is a number, not {number!r:.60}") from None


def index_key(key: Any) -> Any:
    """An index as NumPy takes it, lists as arrays, so that it is one thing and cannot be changed by its list."""
    if key.__class__ is tuple:
        return tuple([index_key(one) for one in key])
    if key.__class__ is list:
        array = np.asarray(key)
        return array.astype(np.intp) if not array.size else array
    if key.__class__ is _value.Value:
        raise GraphError("an index is made of integers, not of a Value; use v.data.astype(int)")
    return key


# Value and these functions need each other; the last to be read is the last to be needed.
from karp.autograd import value as _value  # noqa: E402
