"""NumPy's protocols: `np.exp(v)`, `np.ones(3) * v` and `np.concatenate([v, w])` return Values.

NumPy calls a foreign type before it computes (`__array_ufunc__` for ufuncs, `__array_function__` for other functions).
There are three answers: the differentiable function of the same name; the plain result, for a function that returns a
shape, a boolean, an index or a new array like its argument; and `GraphError` for every other function, never an array
of objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from karp.autograd import functions
from karp.autograd.convert import data_of
from karp.autograd.value import Value
from karp.errors import GraphError

Function = Callable[..., Any]

UFUNCS: dict[Any, Function] = {
    getattr(np, name): getattr(functions, name)
    for name in (
        "add", "subtract", "multiply", "divide", "power", "negative", "exp", "expm1", "log", "log1p", "sqrt", "square",
        "sin", "cos", "tanh", "maximum", "minimum", "matmul",
    )
}
UFUNCS[np.absolute] = UFUNCS[np.fabs] = functions.abs
UFUNCS[np.positive] = lambda x: +x

# The results of these are booleans, which have no gradient.
PLAIN_UFUNCS = frozenset({
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.isnan, np.isinf, np.isfinite,
    np.signbit, np.logical_and, np.logical_or, np.logical_not, np.logical_xor,
})


# The defaults of NumPy's arguments that karp's functions do not have.
DEFAULTS = {"out": None, "dtype": None, "where": True, "order": "C", "copy": None, "initial": None, "mean": None}


def _without_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that differ from NumPy's defaults."""
    given = {name: value for name, value in settings.items() if value is not np._NoValue}
    plain = (bool, str, type(None))  # the types of the defaults; an array is never one
    return {key: value for key, value in given.items() if type(value) not in plain or value != DEFAULTS.get(key, plain)}


def _reduction(function: Function, *order: str) -> Function:
    """Return a reduction that takes its arguments after the array in NumPy's order."""

    def reduce(a: Any, *args: Any, **settings: Any) -> Value:
        settings = _without_defaults(dict(zip(order, args, strict=False)) | settings)
        if "correction" in settings:
            settings["ddof"] = settings.pop("correction")
        result: Value = function(a, **settings)
        return result

    return reduce


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Value:
    return functions.clip(a, min if a_min is None else a_min, max if a_max is None else a_max)


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Value:
    vector = ord == 2 and (np.ndim(data_of(x)) == 1 or (np.size(axis) == 1 and axis is not None))
    if ord is not None and not vector and not (ord == "fro" and np.ndim(data_of(x)) == 2):
        raise GraphError(f"norm with ord={ord!r} is not differentiable here; only the Euclidean norm is")
    return functions.norm(x, axis, keepdims)


def _dot(a: Any, b: Any) -> Value:
    if not np.ndim(data_of(a)) or not np.ndim(data_of(b)):
        return functions.multiply(a, b)
    if np.ndim(data_of(b)) > 2:
        raise GraphError("np.dot with a second operand of more than two axes is not differentiable here; use np.matmul")
    return functions.matmul(a, b)


def _where(condition: Any, *choices: Any) -> Value:
    if len(choices) != 2:
        raise GraphError("np.where of a Value needs both choices; use np.nonzero(value.data) for places")
    return functions.where(condition, *choices)


FUNCTIONS: dict[Any, Function] = {
    np.sum: _reduction(functions.sum, "axis", "dtype", "out", "keepdims", "initial", "where"),
    np.mean: _reduction(functions.mean, "axis", "dtype", "out", "keepdims"),
    np.max: _reduction(functions.max, "axis", "out", "keepdims", "initial", "where"),
    np.min: _reduction(functions.min, "axis", "out", "keepdims", "initial", "where"),
    np.prod: _reduction(functions.prod, "axis", "dtype", "out", "keepdims", "initial", "where"),
    np.var: _reduction(functions.var, "axis", "dtype", "out", "ddof", "keepdims"),
    np.std: _reduction(functions.std, "axis", "dtype", "out", "ddof", "keepdims"),
    np.linalg.norm: _norm,
    np.reshape: lambda a, shape: functions.reshape(a, shape),
    np.ravel: lambda a: functions.reshape(a, -1),
    np.transpose: lambda a, axes=None: functions.transpose(a, axes),
    np.swapaxes: lambda a, axis1, axis2: functions.swapaxes(a, axis1, axis2),
    np.squeeze: lambda a, axis=None: functions.squeeze(a, axis),
    np.expand_dims: lambda a, axis: functions.expand_dims(a, axis),
    np.broadcast_to: lambda array, shape: functions.broadcast_to(array, shape),
    np.concatenate: lambda arrays, axis=0: functions.concatenate(arrays, axis),
    np.stack: lambda arrays, axis=0: functions.stack(arrays, axis),
    np.split: lambda ary, indices_or_sections, axis=0: functions.split(ary, indices_or_sections, axis),
    np.where: _where,
    np.clip: _clip,
    np.dot: _dot,
}

FUNCTIONS[np.amax], FUNCTIONS[np.amin] = FUNCTIONS[np.max], FUNCTIONS[np.min]

# Functions that return shapes, indices or booleans, or new arrays like their argument.
PLAIN_FUNCTIONS = frozenset({
    np.shape, np.ndim, np.size, np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero, np.any, np.all,
    np.allclose, np.isclose, np.array_equal, np.zeros_like, np.ones_like, np.full_like, np.empty_like,
    np.shares_memory, np.may_share_memory, np.result_type,
})


def array_ufunc(ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
    """Compute a ufunc one of whose operands is a Value: a Value, or plain booleans for a comparison or a test.

    Raises GraphError for a ufunc, a method (such as `reduce`) or an argument that has no gradient here, and for `out`.
    """
    if settings.get("out") is not None:
        raise GraphError(
            f"np.{ufunc.__name__} cannot write a Value into an array, as its history would be lost; instead of `a += v`"
            " write `a = a + v`"
        )
    settings = _without_defaults(settings)
    if method == "__call__" and not settings:
        if ufunc in UFUNCS:
            return UFUNCS[ufunc](*inputs)
        if ufunc in PLAIN_UFUNCS:
            return ufunc(*[data_of(item) for item in inputs])
    how = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}") + (f" with {', '.join(settings)}"
                                                                                    if settings else "")
    raise GraphError(_refusal(how))


def array_function(function: Any, args: Any, kwargs: Any) -> Any:
    """Compute any other function of NumPy that was given a Value, and return a Value.

    Functions in PLAIN_FUNCTIONS return NumPy's own result. Raises GraphError for any other function or argument that
    has no gradient here.
    """
    if function is np.full_like and isinstance(kwargs.get("fill_value", args[1] if args[1:] else None), Value):
        raise GraphError(_refusal("np.full_like of a Value to fill with"))
    if function in PLAIN_FUNCTIONS:
        return function(*[data_of(item) for item in args], **{key: data_of(item) for key, item in kwargs.items()})
    name = f"np.{function.__name__}"
    differentiable = FUNCTIONS.get(function)
    if differentiable is None:
        raise GraphError(_refusal(name))
    try:
        return differentiable(*args, **_without_defaults(kwargs))
    except TypeError as error:
        raise GraphError(f"{_refusal(name + ' with these arguments')} ({error})") from None


def _refusal(what: str) -> str:
    return (
        f"{what} is not differentiable here; compute it from karp's operations, or use value.data if no gradient is"
        " to flow through it"
    )
