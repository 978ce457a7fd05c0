"""`Value`: a number or an array that remembers how it was computed.

A value that the program makes is a **leaf**. A value that an operation makes is a **node**: it keeps the operation, its
inputs (values and constants in order), the operands (their arrays at that time) and a creation number. It refers to
its inputs and never the other way round, so there are no cycles: a graph is freed with the last value that needs it.

Whatever is wrapped in a `Value` is differentiated; plain numbers and arrays are constants. Scalars and arrays are one
type: the data is a Python float for a number and an ndarray of float32 or float64 for everything else.

The operators are written out, not generated: on Python floats, one more call per operator would double the cost of a
node, and a graph of numbers has hundreds of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from karp.autograd import modes, nan_check, write_guard
from karp.autograd.backward import backward
from karp.autograd.convert import comparable, constant, index_key, leaf_data
from karp.autograd.methods import Methods
from karp.autograd.operation import Operation, forward_error
from karp.autograd.operations import elementwise, products, shapes
from karp.autograd.operations.elementwise import ADD, DIVIDE, MULTIPLY, NEGATIVE, POWER, SUBTRACT
from karp.autograd.write_guard import next_number
from karp.errors import GraphError, ShapeError

_ndarray = np.ndarray
_ARRAYS = (np.ndarray, np.float32)  # NumPy returns a float32 for a result without axes


class Value(Methods):
    """A differentiable number or array.

    `data` is a number, a (nested) list of numbers or an ndarray. Numbers become Python floats, arrays of float32 and
    float64 are kept as they are (not copied), those of float16 become float32, integers and booleans float64.

    - `data`: a float or an ndarray.
    - `grad`: None until a backward reaches this value, then a float or an ndarray of the shape and dtype of `data`.
      Leaves add up over calls of `backward`; set it to None to begin again.
    - `operation`, `inputs`: the operation that made it, and its inputs; None and () for a leaf.
    - `grad_buffer`: for a leaf, None or the array that backward writes its gradient to (see `karp.parameters`).

    Raises GraphError for a Value and for numbers that are not real, ShapeError for no array and for masked elements.

    >>> x = Value(2.0)
    >>> y = Value(-3.0)
    >>> z = x * y + x
    >>> z.backward()
    >>> z, x.grad, y.grad
    (Value(-4.0), -2.0, 2.0)
    """

    # A node sets no slot that it does not need, as each costs time. `grad_buffer` is for leaves, `saved` for fused
    # operations, `owned` for a gradient that is an array, `line` for find_nan and `fingerprints` for guard. (A
    # `__getattr__` for those that are not set would slow down every attribute.)
    __slots__ = ("data", "fingerprints", "grad", "grad_buffer", "inputs", "line", "number", "operands", "operation",
                 "owned", "saved", "visit")

    data: Any
    grad: Any
    grad_buffer: Any
    operation: Operation | None
    inputs: tuple[Any, ...]
    operands: tuple[Any, ...]
    number: int  # the creation number; an input's is always smaller
    visit: object  # identifies the backward that visited this node last
    owned: bool  # whether the array in grad is this node's own
    saved: Any  # what the forward of a fused operation computed for backward
    fingerprints: tuple[Any, ...]  # under guard, of the operands that backward reads, see write_guard.py
    line: str | None  # under find_nan, where the program called the operation

    def __init__(self, data: Any) -> None:
        self.data = data if data.__class__ is float else leaf_data(data)
        self.grad = None
        self.operation = None
        self.inputs = self.operands = ()
        self.number = next_number()
        self.visit = self.grad_buffer = None

    def __init_subclass__(cls) -> None:
        raise GraphError("Value has no subclasses: the engine knows its values by their type; keep one in an attribute")

    # --- reading it -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        data = self.data
        if data.__class__ is float:
            return f"Value({data!r})"
        if data.ndim == 0:
            return f"Value({data.item()!r})" if data.dtype == np.float64 else f"Value({data!s})"
        return f"Value({np.array2string(data, prefix='Value(')})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, by pickle too, has a creation number and a grad_buffer of its own.
        if self.operation is not None:
            raise GraphError(f"the result of {self.operation.name} has a history and no copy; v.detach() has none")
        return _copy_leaf, (self.data, self.grad)

    @property
    def shape(self) -> tuple[int, ...]:
        return () if self.data.__class__ is float else self.data.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return 1 if self.data.__class__ is float else self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64) if self.data.__class__ is float else self.data.dtype

    def item(self) -> float:
        """Return the number of a value with one element, as a Python float; raise ShapeError for any other value."""
        if self.size != 1:
            raise ShapeError(f"item of shape {self.shape}: only a value of one element is a number")
        return self.data if self.data.__class__ is float else float(self.data.item())

    def __float__(self) -> float:
        return self.item()

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(f"an array of shape {self.shape} is neither true nor false; use (v > 0).any() or .all()")
        return bool(self.data)

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("a number has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Value]:
        return (self[row] for row in range(len(self)))

    def __array__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise GraphError("a Value does not turn into an array by itself, as its history would be lost; use value.data,"
                         " or karp.autograd.stack([...]) to make one Value of several")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        from karp.autograd.numpy_protocols import array_ufunc

        return array_ufunc(ufunc, method, *inputs, **settings)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from karp.autograd.numpy_protocols import array_function

        return array_function(function, args, kwargs)

    def detach(self) -> Value:
        """Return a new leaf with the same data, which is not copied, and no history."""
        return Value(self.data)

    # --- backward ---------------------------------------------------------------------------------------------------

    def backward(self, gradient: Any = None, retain_grad: bool = False) -> None:
        """Compute d self / d leaf for every leaf this value was computed from, and add it to the leaf's `grad`.

        `gradient` is the gradient of this value itself, of its shape; by default 1 for a value of one element.
        Gradients of leaves add up over calls, those of nodes inside the graph are computed anew. Numbers inside the
        graph keep their `grad` for inspection, arrays only with `retain_grad=True`.

        Raises ShapeError for several elements without `gradient` and for one of another shape, GraphError if parameters
        (under `guard`, any array that backward reads) were written to since, NotFiniteError under `find_nan`.

        >>> x = Value([1.0, 2.0])
        >>> (x * x).backward(gradient=[1.0, 10.0])
        >>> x.grad
        array([ 2., 40.])
        """
        backward(self, gradient, retain_grad)

    # --- arithmetic -------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Value:
        a = self.data
        kind = other.__class__
        if kind is Value:
            b = other.data
        elif kind is float or kind is int:
            b = other
        else:
            b = other = constant(other)
        try:
            data = a + b
        except (ValueError, OverflowError) as error:
            raise forward_error(ADD, (a, b), error) from None
        node = _new(Value)
        node.data = data
        node.grad = node.visit = None
        node.operation = ADD
        node.inputs = (self, other)
        node.operands = (a, b)
        node.number = next_number()
        if data.__class__ is not float or modes.active:
            finish(node)
        return node

    __radd__ = __add__

    def __mul__(self, other: Any) -> Value:
        a = self.data
        kind = other.__class__
        if kind is Value:
            b = other.data
        elif kind is float or kind is int:
            b = other
        else:
            b = other = constant(other)
        try:
            data = a * b
        except (ValueError, OverflowError) as error:
            raise forward_error(MULTIPLY, (a, b), error) from None
        node = _new(Value)
        node.data = data
        node.grad = node.visit = None
        node.operation = MULTIPLY
        node.inputs = (self, other)
        node.operands = (a, b)
        node.number = next_number()
        if data.__class__ is not float or modes.active:
            finish(node)
        return node

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Value:
        a = self.data
        kind = other.__class__
        if kind is Value:
            b = other.data
        elif kind is float or kind is int:
            b = other
        else:
            b = other = constant(other)
        try:
            data = a - b
        except (ValueError, OverflowError) as error:
            raise forward_error(SUBTRACT, (a, b), error) from None
        return record(SUBTRACT, (self, other), (a, b), data)

    def __pow__(self, other: Any) -> Value:
        if other.__class__ is not Value and other.__class__ is not float and other.__class__ is not int:
            other = constant(other)
        a = self.data
        b = other.data if other.__class__ is Value else other
        try:
            data = a ** b
        except (ArithmeticError, ValueError):
            return apply(POWER, self, other)
        if data.__class__ is complex:  # where Python has a complex number, NumPy has NaN
            return apply(POWER, self, other)
        return record(POWER, (self, other), (a, b), data)

    def __truediv__(self, other: Any) -> Value:
        if other.__class__ is not Value and other.__class__ is not float and other.__class__ is not int:
            other = constant(other)
        a = self.data
        b = other.data if other.__class__ is Value else other
        try:
            data = a / b
        except (ArithmeticError, ValueError):
            return apply(DIVIDE, self, other)
        return record(DIVIDE, (self, other), (a, b), data)

    def __neg__(self) -> Value:
        a = self.data
        return record(NEGATIVE, (self,), (a,), -a)

    def __pos__(self) -> Value:
        return self

    def __rsub__(self, other: Any) -> Value:
        return apply(SUBTRACT, constant(other), self)

    def __rtruediv__(self, other: Any) -> Value:
        return apply(DIVIDE, constant(other), self)

    def __rpow__(self, other: Any) -> Value:
        return apply(POWER, constant(other), self)

    def __matmul__(self, other: Any) -> Value:
        return apply(products.MATMUL, self, constant(other))

    def __rmatmul__(self, other: Any) -> Value:
        return apply(products.MATMUL, constant(other), self)

    def __abs__(self) -> Value:
        return apply(elementwise.ABS, self)

    # --- comparison: plain booleans ---------------------------------------------------------------------------------

    def __lt__(self, other: Any) -> Any:
        return self.data < comparable(other)

    def __le__(self, other: Any) -> Any:
        return self.data <= comparable(other)

    def __gt__(self, other: Any) -> Any:
        return self.data > comparable(other)

    def __ge__(self, other: Any) -> Any:
        return self.data >= comparable(other)

    def __eq__(self, other: Any) -> Any:
        return self.data == comparable(other)

    def __ne__(self, other: Any) -> Any:
        return self.data != comparable(other)

    __hash__ = object.__hash__

    # --- indexing ---------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Value:
        value = apply(shapes.RESHAPE, self, ()) if self.data.__class__ is float else self
        return apply(shapes.INDEX, value, index_key(key))

    def __setitem__(self, key: Any, item: Any) -> None:
        raise GraphError(
            "a Value cannot be written into, as its graph would be wrong: choose with where(mask, a, b), build a new"
            " array with concatenate or stack (all in karp.autograd), or write into a leaf's .data before it is used"
        )


def _copy_leaf(data: Any, gradient: Any) -> Value:
    """Return a leaf with this data and a copy of this gradient, for `copy` and `pickle`."""
    leaf = Value(data)
    leaf.grad = gradient.copy() if gradient.__class__ is _ndarray else gradient
    return leaf


_new = Value.__new__

# --- making nodes ---------------------------------------------------------------------------------------------------


def apply(operation: Operation, *inputs: Any) -> Value:
    """Run an operation on values, constants and settings, and return the node that records it; see `run`."""
    return run(operation, inputs, tuple([item.data if item.__class__ is Value else item for item in inputs]))


def run(operation: Operation, inputs: tuple[Any, ...], operands: tuple[Any, ...]) -> Value:
    """Run an operation on its inputs, whose arrays are `operands`, and record it; raise what `forward_error` makes."""
    try:
        data = operation.forward(*operands)
    except Exception as error:
        raise forward_error(operation, operands, error) from None
    if operation.saves:
        data, saved = data
        node = record(operation, inputs, operands, data)
        if node.operation is not None:
            node.saved = saved
        return node
    return record(operation, inputs, operands, data)


def record(operation: Operation, inputs: tuple[Any, ...], operands: tuple[Any, ...], data: Any) -> Value:
    """Return a node for the result `data` of an operation, whose array becomes read-only; in `no_grad` a leaf."""
    node = _new(Value)
    node.data = data
    node.grad = node.visit = None
    node.operation = operation
    node.inputs = inputs
    node.operands = operands
    node.number = next_number()
    if data.__class__ is _ndarray and not modes.active:
        data.setflags(False)  # type: ignore[call-arg]  # the keyword write= would take twice as long
    elif data.__class__ is not float or modes.active:
        finish(node)
    return node


def finish(node: Value) -> None:
    """Complete a new node: make its data a float or a read-only array; in `no_grad` make it a leaf (writable)."""
    data = node.data
    if data.__class__ is not _ndarray and data.__class__ is not float:
        number = not any(isinstance(operand, _ARRAYS) for operand in node.operands)
        data = node.data = float(data) if number else np.asarray(data)
    if modes.active:
        if modes.state.find_nan:
            nan_check.check_forward(node)
        if not modes.state.recording:
            node.operation = node.grad_buffer = None  # so it is a leaf
            node.inputs = node.operands = ()
            return
        if modes.state.guard and data.__class__ is _ndarray:
            write_guard.take_fingerprints(node)
    if data.__class__ is _ndarray:
        data.setflags(False)  # type: ignore[call-arg]  # the keyword write= would take twice as long
