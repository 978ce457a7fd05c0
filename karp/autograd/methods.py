"""The methods of a `Value` that name an operation: `x.exp()`, `x.sum(axis=0)`, `x.reshape(2, 3)`.

Most are made from their row in the table. (The operators are in `value.py`, written out for speed.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from karp.autograd.convert import as_axis, as_shape, bound
from karp.autograd.operation import Operation
from karp.autograd.operations import elementwise, reductions, shapes

if TYPE_CHECKING:
    from karp.autograd.value import Value

Axis = int | tuple[int, ...] | None


def _unary(operation: Operation) -> Callable[[Any], Value]:
    """Return a method that applies an operation of one operand, with a fast path for a Python float."""
    number = operation.number

    def method(self: Any) -> Value:
        a = self.data
        if number is None or a.__class__ is not float:
            return _value.apply(operation, self)
        try:
            data = number(a)
        except (ArithmeticError, ValueError):  # outside of the domain NumPy returns a number, with a warning
            return _value.apply(operation, self)
        return _value.record(operation, (self,), (a,), data)

    method.__name__ = operation.name
    method.__doc__ = f"`karp.autograd.{operation.name}` of this value."
    return method


def _reduction(operation: Operation) -> Callable[..., Value]:
    """Return a method that applies an operation to `axis` (all axes for None, one, or a tuple)."""

    def method(self: Value, axis: Axis = None, keepdims: bool = False) -> Value:
        return _value.apply(operation, self, as_axis(axis, self), keepdims)

    method.__name__ = operation.name
    method.__doc__ = f"`karp.autograd.{operation.name}` of this value, over `axis`."
    return method


class Methods:
    """The base class of `Value`, with its methods that are named after operations."""

    __slots__ = ()

    @property
    def T(self) -> Value:
        """The value with its axes reversed."""
        return _value.apply(shapes.TRANSPOSE, self, None)

    def reshape(self, *shape: int | tuple[int, ...]) -> Value:
        """Return the same elements in another shape; one axis may be -1."""
        return _value.apply(shapes.RESHAPE, self, as_shape(shape))

    def transpose(self, *axes: int | tuple[int, ...]) -> Value:
        """Permute the axes: in the order given, reversed if none is."""
        return _value.apply(shapes.TRANSPOSE, self, None if not axes or axes[0] is None else as_shape(axes))

    def swapaxes(self, first: int, second: int) -> Value:
        """Exchange two axes."""
        return _value.apply(shapes.SWAPAXES, self, first, second)

    def squeeze(self, axis: Axis = None) -> Value:
        """Remove axes of size 1: all of them, or those named."""
        return _value.apply(shapes.SQUEEZE, self, axis)

    def flatten(self) -> Value:
        """Return all elements in one axis."""
        return _value.apply(shapes.RESHAPE, self, (-1,))

    def clip(self, min: Any = None, max: Any = None) -> Value:
        """Return the elements limited to the range from min to max, constants or None; raise GraphError for a Value."""
        return _value.apply(elementwise.CLIP, self, bound(min), bound(max))

    def var(self, axis: Axis = None, keepdims: bool = False, ddof: float = 0) -> Value:
        """Return the variance over `axis`; the divisor is the number of elements minus `ddof`."""
        return _value.apply(reductions.VAR, self, as_axis(axis, self), keepdims, ddof)

    def std(self, axis: Axis = None, keepdims: bool = False, ddof: float = 0) -> Value:
        """Return the standard deviation over `axis`."""
        return _value.apply(reductions.STD, self, as_axis(axis, self), keepdims, ddof)

    exp = _unary(elementwise.EXP)
    log = _unary(elementwise.LOG)
    sqrt = _unary(elementwise.SQRT)
    tanh = _unary(elementwise.TANH)
    sigmoid = _unary(elementwise.SIGMOID)
    relu = _unary(elementwise.RELU)
    abs = _unary(elementwise.ABS)
    sum = _reduction(reductions.SUM)
    mean = _reduction(reductions.MEAN)
    max = _reduction(reductions.MAX)
    min = _reduction(reductions.MIN)
    prod = _reduction(reductions.PROD)


# `Value` inherits from this class, and these methods make Values, so this import stands last.
from karp.autograd import value as _value  # noqa: E402
