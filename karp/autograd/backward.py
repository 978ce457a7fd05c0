"""Backward: the gradients of one value with respect to every leaf that it was computed from.

1. **Collect** the nodes that can be reached from the root, each once, without recursion, so that a chain of a million
   nodes works too. A node's `visit` identifies the backward that visited it last, so no set of nodes is needed.
2. **Order** them by creation number, newest first. A node is always newer than its inputs, so when it is processed all
   gradients that flow into it have arrived. (A depth-first walk that processes a node at its first use would not wait
   for its later uses: that is the classic mistake.) Inputs are tuples and numbers are unique, so the order, and with it
   every rounding, is the same in each run.
3. **Apply** each node's rules and pass the gradients to its inputs.

Who owns a gradient array? The first gradient to arrive at a node is kept as it is, also when the rule returned `g`
itself or a view of it. Only an array that belongs to the node (`owned`) is ever written to, so a second gradient is
added in place if the first is owned, and makes a new array if not. A leaf never keeps a borrowed array; a leaf with a
`grad_buffer` has its gradient written there. Gradients of array nodes inside the graph are dropped once they are used,
unless they are to be retained.

Before any gradient is written, every node is checked for a leaf that was modified after the node was made (see
`write_guard.py`), and under `guard` every operand that a rule will read is checked for a change since forward.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.autograd import modes, nan_check, write_guard
from karp.autograd.operation import Operation, undo_broadcast
from karp.autograd.operations.constants import ONE
from karp.autograd.operations.elementwise import ADD, MULTIPLY, RELU
from karp.errors import ShapeError

if TYPE_CHECKING:
    from karp.autograd.value import Value

_by_number = attrgetter("number")
_ndarray = np.ndarray


def backward(root: Value, gradient: Any = None, retain_grad: bool = False) -> None:
    """Add d root / d leaf to the `grad` of every leaf under `root`; see `Value.backward`."""
    start = _initial_gradient(root, gradient)
    if root.operation is None:
        accumulate_grad(root, start, borrowed=True)
        return
    order = _collect_nodes(root)
    order.sort(key=_by_number, reverse=True)
    if start.__class__ is not float:
        root.owned = False
    root.grad = start
    if modes.active and modes.state.find_nan:
        _process(root.__class__, nan_check.checked(order), retain_grad)
    else:
        _process(root.__class__, order, retain_grad)


def _initial_gradient(root: Value, gradient: Any) -> Any:
    """Return the gradient at the root, in its dtype and shape: the one given, or 1 for a single number.

    Raises ShapeError for a gradient of another shape, and for several elements without one.
    """
    data = root.data
    if gradient is None:
        if data.__class__ is float:
            return 1.0
        if data.ndim == 0:
            return ONE[data.dtype]
        if data.size != 1:
            raise ShapeError(f"backward of shape {data.shape}: the gradient of an array needs a direction; reduce the"
                             " array to one number (sum, mean, a loss) or pass gradient= of that shape")
        return np.ones(data.shape, data.dtype)
    if data.__class__ is float:
        if np.size(gradient) != 1:
            raise ShapeError(f"backward of a number: gradient has shape {np.shape(gradient)} and must be one number")
        return float(np.asarray(gradient).item())
    if gradient.__class__ is float and data.ndim == 0:
        return ONE[data.dtype] if gradient == 1.0 else np.array(gradient, data.dtype)
    start = np.asarray(gradient, data.dtype)
    if start.shape != data.shape:
        if start.size != 1 or data.size != 1:
            raise ShapeError(f"backward of shape {data.shape}: gradient has shape {start.shape} and must have the same")
        start = start.reshape(data.shape)
    return start


def _collect_nodes(root: Value) -> list[Value]:
    """Return the root and the nodes it was computed from, each once, and reset their gradients; leaves are left out.

    Raises GraphError if an array that a node reads was written to since forward.
    """
    value = root.__class__
    visit = object()
    guarded = modes.active and modes.state.guard
    last_modified = write_guard.last_modified
    order = [root]
    push = order.append
    for node in order:  # the list grows during this loop
        node.grad = None
        if node.number < last_modified or guarded:
            write_guard.check_operands(node)
        for source in node.inputs:
            if source.__class__ is value and source.operation is not None and source.visit is not visit:
                source.visit = visit
                push(source)
    return order


def _process(value: type[Value], order: Iterable[Value], retain_grad: bool) -> None:
    """Apply the rules of these nodes, each once; the order has every node before its inputs."""
    for node in order:
        g: Any = node.grad
        if g is None:  # no operation that uses this node gave it a gradient
            continue
        operation: Operation = node.operation  # type: ignore[assignment]
        inputs = node.inputs
        if g.__class__ is float:
            # A graph of numbers consists mostly of products, sums and ReLU, so their rules are inlined here.
            if operation is MULTIPLY or operation is ADD:
                a, b = inputs
                if operation is ADD:
                    left = right = g
                else:
                    right, left = node.operands
                    left *= g
                    right *= g
                if a.__class__ is value:
                    grad = a.grad
                    a.grad = left if grad is None else grad + left
                if b.__class__ is value:
                    grad = b.grad
                    b.grad = right if grad is None else grad + right
            elif operation is RELU:
                a = inputs[0]
                if a.__class__ is value:
                    left = g if node.data > 0.0 else 0.0
                    grad = a.grad
                    a.grad = left if grad is None else grad + left
            else:
                for a, left in zip(inputs, _number_gradients(node, g), strict=False):
                    if a.__class__ is value:
                        grad = a.grad
                        a.grad = left if grad is None else grad + left
            continue
        if retain_grad:
            node.owned = False  # no rule may overwrite the gradient that is retained
        if operation.backward is not None:
            operation.backward(node, g, accumulate_grad)
        else:
            _apply_rules(node, g)
        if not retain_grad:
            node.grad = None


def _number_gradients(node: Value, g: float) -> list[float]:
    """Return the gradients of a number node's inputs, 0 for a constant, with NumPy's semantics.

    So nothing raises a ZeroDivisionError, and no gradient is complex.
    """
    operands = node.operands
    data = node.data
    gradients = []
    for rule, source in zip(node.operation.gradients, node.inputs, strict=False):  # type: ignore[union-attr]
        if source.__class__ is not node.__class__:
            gradients.append(0.0)
            continue
        try:
            gradient = rule(g, data, *operands)
            if gradient.__class__ is not float:
                gradient = float(gradient)
        except (ArithmeticError, AttributeError, TypeError, ValueError):
            numbers = [np.float64(x) if isinstance(x, (float, int)) else x for x in operands]
            gradient = float(rule(np.float64(g), np.float64(data), *numbers))
        gradients.append(gradient)
    return gradients


def _apply_rules(node: Value, g: Any) -> None:
    """Apply the rules of an array node, whose gradient is `g`, and pass the gradients to its inputs."""
    operation: Operation = node.operation  # type: ignore[assignment]
    value = node.__class__
    operands = node.operands
    if operation.add_gradient is not None:
        target = node.inputs[0]
        if target.__class__ is value:
            operation.add_gradient(_grad_or_zeros(target), g, *operands)
        return
    for rule, source in zip(operation.gradients, node.inputs, strict=False):
        if source.__class__ is value:
            gradient = rule(g, node.data, *operands)
            accumulate_grad(source, gradient, gradient is g)


def accumulate_grad(value: Value, gradient: Any, borrowed: bool = False) -> None:
    """Add `gradient` to the value's `grad`; it is first summed over broadcast axes, and cast to the value's dtype.

    `borrowed` says that other code may use the array `gradient` further, so a leaf copies it instead of keeping it.
    """
    data = value.data
    if data.__class__ is float:
        if gradient.__class__ is float:
            amount = gradient
        else:
            amount = float(np.add.reduce(gradient, axis=None, dtype=np.float64))
        value.grad = amount if value.grad is None else value.grad + amount
        return
    if gradient.__class__ is not _ndarray:
        gradient = np.asarray(gradient)
    if gradient.shape != data.shape:
        gradient = undo_broadcast(gradient, data.shape)
        borrowed = False
    if gradient.dtype is not data.dtype:
        gradient = gradient.astype(data.dtype)
        borrowed = False
    grad = value.grad
    if grad is None:
        # The first gradient is kept without a copy by a node, and by a leaf only if no other array shares its memory.
        borrowed = borrowed or gradient.base is not None
        if value.operation is not None:
            value.grad = gradient
            value.owned = not borrowed
        elif value.grad_buffer is not None:
            value.grad_buffer[...] = gradient
            value.grad = value.grad_buffer
        else:
            value.grad = gradient.copy() if borrowed else gradient
    elif value.operation is None:
        grad = _grad_array(value)
        np.add(grad, gradient, grad)
    elif value.owned:
        np.add(grad, gradient, grad)
    else:
        value.grad = np.asarray(grad + gradient)
        value.owned = True


def _grad_array(value: Value) -> Any:
    """Return the value's `grad` as an array to add into; what the program has set (`x.grad = 0.0`) is converted.

    Raises ShapeError if that has another shape or is no number.
    """
    grad, data = value.grad, value.data
    if grad.__class__ is _ndarray and grad.shape == data.shape and grad.dtype == data.dtype:
        return grad
    try:
        value.grad = np.broadcast_to(np.asarray(grad, data.dtype), data.shape).copy()
        return value.grad
    except (TypeError, ValueError):
        raise ShapeError(f"the grad of a value of shape {data.shape} was replaced by {grad!r:.60}, which nothing can be"
                         " added to; set it to None, or to an array of that shape") from None


def _grad_or_zeros(value: Value) -> Any:
    """Return the value's `grad` as an array that may be added to in place; a value without one gets zeros.

    An array that a node shares with other code is copied first.
    """
    if value.grad is None:
        if value.operation is None and value.grad_buffer is not None:
            value.grad_buffer[...] = 0
            value.grad = value.grad_buffer
        else:
            value.grad = np.zeros(value.data.shape, value.data.dtype)
        value.owned = True
    elif value.operation is not None and not value.owned:
        value.grad = value.grad.copy()
        value.owned = True
    return _grad_array(value)
