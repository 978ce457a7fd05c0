"""Gradients of functions, as in JAX: `grad(f)` is a function that returns the gradient of `f`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from karp.autograd import modes
from karp.autograd.tools.graph import leaves
from karp.autograd.value import Value
from karp.errors import GraphError, ShapeError

Argnums = int | tuple[int, ...]


class _State(threading.local):
    """The ids of the leaves by which this thread differentiates at the moment, those of outer calls first."""

    active_leaves: tuple[int, ...] = ()


_state = _State()


def value_and_grad(f: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., tuple[Any, Any]]:
    """Return a function of the same arguments that returns f's result and its gradient, as plain numbers or arrays.

    `argnums` are the positions of the arguments to differentiate: a number, or a tuple for a tuple of gradients. `f`
    gets Values there and must return one number. Gradients of other leaves that `f` uses stay as they were. The
    gradient by an argument that the result does not depend on is 0. The function works inside of `no_grad`, too.

    The function raises ShapeError for a result of several numbers, GraphError for an argument that is not there, and
    for gradients of gradients.

    >>> value_and_grad(lambda x, y: x * x * y)(3.0, 2.0)
    (18.0, 12.0)
    """

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        numbers = argnums if isinstance(argnums, tuple) else (argnums,)
        inputs = list(args)
        for number in numbers:
            if not -len(args) <= number < len(args):
                raise GraphError(f"there is no argument {number} to differentiate, only {len(args)}")
            if isinstance(args[number], Value):
                _refuse_nested(args[number])
                inputs[number] = args[number].detach()
            else:
                inputs[number] = Value(args[number])
        own = [inputs[number] for number in numbers]
        outer = _state.active_leaves
        _state.active_leaves = (*outer, *map(id, own))
        try:
            with modes.recording() if modes.active else contextlib.nullcontext():
                result = f(*inputs, **kwargs)
        finally:
            _state.active_leaves = outer
        if not isinstance(result, Value):
            result = Value(result)  # f's result depends on no argument
        _refuse_nested(result)
        if result.size != 1:
            raise ShapeError(f"grad: the function must give one number, not shape {result.shape}")
        others = [leaf for leaf in leaves(result) if not any(leaf is argument for argument in own)]
        saved = [(leaf, leaf.grad, leaf.grad_buffer) for leaf in others]
        try:
            for leaf in others:
                leaf.grad = leaf.grad_buffer = None
            result.backward()
        finally:
            for leaf, gradient, grad_buffer in saved:
                leaf.grad, leaf.grad_buffer = gradient, grad_buffer
        gradients = tuple(_gradient(leaf) for leaf in own)
        return result.data, gradients if isinstance(argnums, tuple) else gradients[0]

    return both


def grad(f: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """Return a function of the same arguments that returns the gradient of f; see `value_and_grad`.

    >>> grad(lambda x: x ** 3)(2.0)
    12.0
    >>> grad(lambda x, w: (x * w).sum(), (0, 1))([1.0, 2.0], [3.0, 4.0])
    (array([3., 4.]), array([1., 2.]))
    """
    both = value_and_grad(f, argnums)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return gradient


def _refuse_nested(value: Value) -> None:
    """Raise GraphError if a value depends on an argument of an outer `grad`, whose gradient would be wrong."""
    if _state.active_leaves and any(id(leaf) in _state.active_leaves for leaf in leaves(value)):
        raise GraphError("grad within grad: a gradient has no history, so gradients of it are not computed")


def _gradient(leaf: Value) -> Any:
    if leaf.grad is not None:
        return leaf.grad
    return 0.0 if leaf.data.__class__ is float else np.zeros_like(leaf.data)
