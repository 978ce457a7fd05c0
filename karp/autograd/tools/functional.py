"""Gradients of functions, for those who think in functions: `grad(f)` is a function that gives the gradient."""

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

Places = int | tuple[int, ...]


class _State(threading.local):
    under_way: tuple[int, ...] = ()  # what this thread differentiates by at the moment, outer calls first: ids


_state = _State()


def value_and_grad(f: Callable[..., Any], places: Places = 0) -> Callable[..., tuple[Any, Any]]:
    """A function of the same arguments that gives f's result and its gradient, both as plain numbers or arrays.

    `places` names the positional arguments to differentiate: a number, or a tuple for a tuple of gradients. `f` gets
    Values there and must give one number. Leaves from outside that `f` uses are left as they were. `no_grad` around it
    changes nothing. Gradients of gradients are refused.

    >>> value_and_grad(lambda x, y: x * x * y)(3.0, 2.0)
    (18.0, 12.0)
    """

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        wanted = places if isinstance(places, tuple) else (places,)
        inputs = list(args)
        for place in wanted:
            if not -len(args) <= place < len(args):
                raise GraphError(f"there is no argument {place} to differentiate, only {len(args)}")
            if isinstance(args[place], Value):
                _refuse_within(args[place])
                inputs[place] = args[place].detach()
            else:
                inputs[place] = Value(args[place])
        inner = [inputs[place] for place in wanted]
        outer = _state.under_way
        _state.under_way = (*outer, *map(id, inner))
        try:
            with modes.recording() if modes.active else contextlib.nullcontext():
                result = f(*inputs, **kwargs)
        finally:
            _state.under_way = outer
        if not isinstance(result, Value):
            result = Value(result)  # does not depend on them
        _refuse_within(result)
        if result.size != 1:
            raise ShapeError(f"grad: the function must give one number, not shape {result.shape}")
        outside = [leaf for leaf in leaves(result) if not any(leaf is one for one in inner)]
        kept = [(leaf, leaf.grad, leaf.grad_buffer) for leaf in outside]
        try:
            for leaf in outside:
                leaf.grad = leaf.grad_buffer = None
            result.backward()
        finally:
            for leaf, gradient, grad_buffer in kept:
                leaf.grad, leaf.grad_buffer = gradient, grad_buffer
        gradients = tuple(_gradient(leaf) for leaf in inner)
        return result.data, gradients if isinstance(places, tuple) else gradients[0]

    return both


def grad(f: Callable[..., Any], places: Places = 0) -> Callable[..., Any]:
    """A function of the same arguments that gives the gradient of f; see `value_and_grad`.

    >>> grad(lambda x: x ** 3)(2.0)
    12.0
    >>> grad(lambda x, w: (x * w).sum(), (0, 1))([1.0, 2.0], [3.0, 4.0])
    (array([3., 4.]), array([1., 2.]))
    """
    both = value_and_grad(f, places)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return gradient


def _refuse_within(value: Value) -> None:
    """Raise GraphError if a value depends on what an outer call differentiates by: its gradient would be lost."""
    if _state.under_way and any(id(leaf) in _state.under_way for leaf in leaves(value)):
        raise GraphError("grad within grad: a gradient has no history, so gradients of it are not computed")


def _gradient(leaf: Value) -> Any:
    if leaf.grad is not None:
        return leaf.grad
    return 0.0 if leaf.data.__class__ is float else np.zeros_like(leaf.data)
