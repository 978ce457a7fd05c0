"""Backward: from one value to every value it was computed from.

1. **Collect** the nodes that can be reached from the root, each once, without recursion: a chain of a million nodes
   is as good as any other graph. Each node carries the mark of the backward that saw it last, so nothing is hashed.
2. **Order** them by creation number, newest first. A node is always newer than its inputs, so when its turn comes every
   gradient that flows into it has arrived. (A depth-first walk that visits a node at its first use would not wait for
   its later uses: that is the classic mistake.) Inputs are tuples and numbers are unique, so the order, and
   with it every rounding, is the same in each run.
3. **Apply** each node's rules and hand the gradients to its inputs.

Who owns a gradient array? The first one to arrive at a node is kept as it is, also when the rule returned `g` itself
or a view of it; only an array that is ours (`owned`) is ever written to. So a second arrival adds in place if the
first is owned and makes a new array if not. A leaf never keeps a borrowed array; a leaf with a `home` has its gradient
written there. Gradients of array nodes inside the graph are dropped as soon as they are used.

Before anything is written, every node is checked for being older than its leaves (see `write_guard.py`), and under
`guard` every operand that a rule will read for having been changed since forward.
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
    start = _start(root, gradient)
    if root.operation is None:
        accumulate_grad(root, start, borrowed=True)
        return
    order = _collect(root)
    order.sort(key=_by_number, reverse=True)
    if start.__class__ is not float:
        root.owned = False
    root.grad = start
    if modes.active and modes.state.find_nan:
        _run(root.__class__, nan_check.checked(order), retain_grad)
    else:
        _run(root.__class__, order, retain_grad)


def _start(root: Value, gradient: Any) -> Any:
    """The gradient at the root, in its dtype and shape."""
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


def _collect(root: Value) -> list[Value]:
    """The nodes under the root, each once, their gradients reset; leaves are left out, and keep theirs."""
    value = root.__class__
    mark = object()
    guarded = modes.active and modes.state.guard
    touched = write_guard.touched
    order = [root]
    push = order.append
    for node in order:  # grows while it is read
        node.grad = None
        if node.number < touched or guarded:
            write_guard.check(node)
        for one in node.inputs:
            if one.__class__ is value and one.operation is not None and one.mark is not mark:
                one.mark = mark
                push(one)
    return order


def _run(value: type[Value], order: Iterable[Value], retain_grad: bool) -> None:
    """Apply the rules of these nodes, each once, users before what they use."""
    for node in order:
        g: Any = node.grad
        if g is None:  # an operation above gives its inputs no gradient
            continue
        operation: Operation = node.operation  # type: ignore[assignment]
        inputs = node.inputs
        if g.__class__ is float:
            # Numbers. Products, sums and ReLU, most of what a graph of numbers is made of, are written out.
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
            node.owned = False  # nobody may compute in its place
        if operation.backward is not None:
            operation.backward(node, g, accumulate_grad)
        else:
            _apply_rules(node, g)
        if not retain_grad:
            node.grad = None


def _number_gradients(node: Value, g: float) -> list[float]:
    """The gradients of a node of Python floats, to NumPy's semantics: no ZeroDivisionError, no complex number."""
    operands = node.operands
    data = node.data
    gradients = []
    for rule, one in zip(node.operation.gradients, node.inputs, strict=False):  # type: ignore[union-attr]
        if one.__class__ is not node.__class__:
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
    """Hand the gradients of one array node to its inputs, by the rules of its operation."""
    operation: Operation = node.operation  # type: ignore[assignment]
    value = node.__class__
    operands = node.operands
    if operation.add_gradient is not None:
        target = node.inputs[0]
        if target.__class__ is value:
            operation.add_gradient(_gathering(target), g, *operands)
        return
    for rule, one in zip(operation.gradients, node.inputs, strict=False):
        if one.__class__ is value:
            gradient = rule(g, node.data, *operands)
            accumulate_grad(one, gradient, gradient is g)


def accumulate_grad(value: Value, gradient: Any, borrowed: bool = False) -> None:
    """Add `gradient` to the value's, in its shape, dtype and place. A borrowed array has another owner."""
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
        # The first to arrive: kept as it is inside the graph, and at a leaf only if it is nobody else's.
        borrowed = borrowed or gradient.base is not None
        if value.operation is not None:
            value.grad = gradient
            value.owned = not borrowed
        elif value.home is not None:
            value.home[...] = gradient
            value.grad = value.home
        else:
            value.grad = gradient.copy() if borrowed else gradient
    elif value.operation is None:
        grad = _ready(value)
        np.add(grad, gradient, grad)
    elif value.owned:
        np.add(grad, gradient, grad)
    else:
        value.grad = np.asarray(grad + gradient)
        value.owned = True


def _ready(value: Value) -> Any:
    """The value's gradient to add into; what the program has put in its place, `x.grad = 0.0` say, is made an array."""
    grad, data = value.grad, value.data
    if grad.__class__ is _ndarray and grad.shape == data.shape and grad.dtype == data.dtype:
        return grad
    try:
        value.grad = np.broadcast_to(np.asarray(grad, data.dtype), data.shape).copy()
        return value.grad
    except (TypeError, ValueError):
        raise ShapeError(f"the grad of a value of shape {data.shape} was replaced by {grad!r:.60}, which nothing can be"
                         " added to; set it to None, or to an array of that shape") from None


def _gathering(value: Value) -> Any:
    """The value's gradient as an array to add into, zeros to begin with."""
    if value.grad is None:
        if value.operation is None and value.home is not None:
            value.home[...] = 0
            value.grad = value.home
        else:
            value.grad = np.zeros(value.data.shape, value.data.dtype)
        value.owned = True
    elif value.operation is not None and not value.owned:
        value.grad = value.grad.copy()
        value.owned = True
    return _ready(value)
