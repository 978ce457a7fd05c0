"""A list of cases for every operation, checked against differences, torch, the shape rule and the dtype law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from karp import autograd as ag


@dataclass(frozen=True)
class Case:
    """`f` on Values; `torch(t)` gives the same function on tensors, None where torch has none."""

    name: str
    f: Callable[..., Any]
    arrays: tuple[Any, ...]
    torch: Callable[..., Callable[..., Any]] | None


def draw(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
    """Numbers away from 0, -1 and 1, where some functions have kinks; the same for the same arguments."""
    rng = np.random.default_rng([7, *shape, int(low * 10) + 100, int(high * 10) + 100])
    array = np.round(rng.uniform(low, high, shape), 1) + 0.05
    return array + rng.uniform(-0.01, 0.01, shape)


X = draw(3, 4)
POSITIVE = draw(3, 4, low=0.2, high=3.0)
SHARES = POSITIVE / POSITIVE.sum(1, keepdims=True)
TALL = draw(2, 3, 4)
LABELS = np.array([1, 0, 3])
MASK = np.arange(12).reshape(3, 4) % 3 == 0
WEIGHTS = draw(4, low=0.2, high=1.0)
SAMPLES = draw(3, low=0.2, high=1.0)


def elementwise(name: str, array: Any = X, torch: str | None = None) -> Case:
    function = getattr(ag, name)

    def of_torch(t: Any) -> Any:
        for place in (t, t.nn.functional):
            if hasattr(place, torch or name):
                return getattr(place, torch or name)
        raise LookupError(name)

    return Case(name, function, (array,), of_torch)


def reduction(name: str, axis: Any, keepdims: bool, torch: Callable[..., Any], array: Any = TALL) -> Case:
    function = getattr(ag, name)
    return Case(
        f"{name} axis={axis} keepdims={keepdims}",
        lambda x: function(x, axis=axis, keepdims=keepdims),
        (array,),
        lambda t: lambda x: torch(t, x, axis, keepdims),
    )


def _axes(axis: Any) -> Any:
    return (0, 1, 2) if axis is None else axis


def _prod(t: Any, x: Any, axis: Any, keep: bool) -> Any:
    for one in sorted(axis if isinstance(axis, tuple) else (_axes(axis) if axis is None else (axis,)), reverse=True):
        x = t.prod(x, dim=one % 3, keepdim=keep)
    return x


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda t, x, axis, keep: t.sum(x, dim=_axes(axis), keepdim=keep),
    "mean": lambda t, x, axis, keep: t.mean(x, dim=_axes(axis), keepdim=keep),
    "max": lambda t, x, axis, keep: t.amax(x, dim=_axes(axis), keepdim=keep),
    "min": lambda t, x, axis, keep: t.amin(x, dim=_axes(axis), keepdim=keep),
    "prod": _prod,
    "var": lambda t, x, axis, keep: t.var(x, dim=_axes(axis), keepdim=keep, correction=0),
    "std": lambda t, x, axis, keep: t.std(x, dim=_axes(axis), keepdim=keep, correction=0),
    "norm": lambda t, x, axis, keep: t.linalg.vector_norm(x, dim=_axes(axis), keepdim=keep),
    "logsumexp": lambda t, x, axis, keep: t.logsumexp(x, dim=_axes(axis), keepdim=keep),
}

FUSED = ("relu", "tanh", "sigmoid", "softplus", "leaky_relu", "elu", "selu")


def linear(activation: str | None, *x_shape: int) -> Case:
    def of_torch(t: Any) -> Any:
        after = (lambda x: x) if activation is None else getattr(t.nn.functional, activation)
        return lambda x, w, b: after(t.nn.functional.linear(x, w.T, b))

    arrays = (draw(*x_shape, 4), draw(4, 5), draw(5))
    return Case(f"linear {activation} {x_shape}", lambda x, w, b: ag.linear(x, w, b, activation), arrays, of_torch)


ROWS = np.array([[0, 3], [1, 5], [0, 4]])  # of a weight of 3 + 5 inputs; 5 adds nothing


def scaled_linear(activation: str | None, *x_shape: int) -> Case:
    def of_torch(t: Any) -> Any:
        after = (lambda x: x) if activation is None else getattr(t.nn.functional, activation)
        return lambda x, w, b: after(0.5 * (x @ w) + 0.1 * b)

    arrays = (draw(*x_shape, 4), draw(4, 5), draw(5))
    name = f"scaled_linear {activation} {x_shape}"
    return Case(name, lambda x, w, b: ag.scaled_linear(x, w, b, activation, 0.5, 0.1), arrays, of_torch)


def input_linear(activation: str | None, rows: Any, *members: int) -> Case:
    dense = draw(3, 3)

    def of_torch(t: Any) -> Any:
        after = (lambda x: x) if activation is None else getattr(t.nn.functional, activation)
        ones = np.zeros((3, 6))
        if rows is not None:
            np.add.at(ones, (np.arange(3)[:, None], rows), 1.0)
        inputs = t.tensor(np.concatenate([dense, ones[:, :5]], 1))
        if members:
            return lambda s, w, b: after(0.5 * ((inputs[:, None, :] * s) @ w) + 0.1 * b)
        return lambda s, w, b: after(0.5 * ((inputs * s) @ w) + 0.1 * b)

    arrays = (draw(*members, 8), draw(8, 4), draw(4))
    name = f"input_linear {activation} {members} {'' if rows is None else 'rows'}"
    return Case(name, lambda s, w, b: ag.input_linear(dense, rows, s, w, b, activation, 0.5, 0.1), arrays, of_torch)


def matmul(left: tuple[int, ...], right: tuple[int, ...]) -> Case:
    return Case(f"matmul {left} {right}", ag.matmul, (draw(*left), draw(*right)), lambda t: t.matmul)


def index(name: str, key: Any) -> Case:
    return Case(f"index {name}", lambda x: x[key], (TALL,), lambda t: lambda x: x[_torch_key(t, key)])


def _torch_key(t: Any, key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_torch_key(t, one) for one in key)
    return t.tensor(key, dtype=None if len(key) else t.long) if isinstance(key, (list, np.ndarray)) else key


CASES: list[Case] = [
    Case("add", lambda a, b: a + b, (X, draw(4)), lambda t: t.add),
    Case("subtract", lambda a, b: a - b, (X, draw(3, 1)), lambda t: t.sub),
    Case("multiply", lambda a, b: a * b, (X, draw(1, 4)), lambda t: t.mul),
    Case("divide", lambda a, b: a / b, (draw(4), POSITIVE), lambda t: t.div),
    Case("power number", lambda a: a**3, (X,), lambda t: lambda a: a**3),
    Case("power negative number", lambda a: a**-1.5, (POSITIVE,), lambda t: lambda a: a**-1.5),
    Case("power array", lambda a, b: a**b, (POSITIVE, draw(4)), lambda t: t.pow),
    Case("power of a number", lambda b: 2.5**b, (X,), lambda t: lambda b: 2.5**b),
    Case("reflected", lambda a: 1.0 - 2.0 / (3.0 + a * 0.5), (X,), lambda t: lambda a: 1.0 - 2.0 / (3.0 + a * 0.5)),
    elementwise("negative"),
    elementwise("exp"),
    elementwise("expm1"),
    elementwise("log", POSITIVE),
    elementwise("log1p", POSITIVE),
    elementwise("sqrt", POSITIVE),
    elementwise("square"),
    elementwise("abs"),
    elementwise("sin"),
    elementwise("cos"),
    elementwise("tanh"),
    elementwise("sigmoid"),
    elementwise("relu"),
    elementwise("leaky_relu"),
    elementwise("elu"),
    elementwise("gelu"),
    elementwise("silu"),
    elementwise("softplus"),
    elementwise("selu"),
    elementwise("mish"),
    Case(
        "leaky_relu slope",
        lambda a: ag.leaky_relu(a, 0.3),
        (X,),
        lambda t: lambda a: t.nn.functional.leaky_relu(a, 0.3),
    ),
    Case("elu alpha", lambda a: ag.elu(a, 0.7), (X,), lambda t: lambda a: t.nn.functional.elu(a, 0.7)),
    Case("maximum", ag.maximum, (X, draw(4)), lambda t: t.maximum),
    Case("minimum", ag.minimum, (X, draw(4)), lambda t: t.minimum),
    Case(
        "where", lambda a, b: ag.where(MASK, a, b), (X, draw(4)), lambda t: lambda a, b: t.where(t.tensor(MASK), a, b)
    ),
    Case("clip", lambda a: ag.clip(a, -0.8, 1.3), (X,), lambda t: lambda a: t.clip(a, -0.8, 1.3)),
    Case("clip above", lambda a: ag.clip(a, None, 1.3), (X,), lambda t: lambda a: t.clip(a, None, 1.3)),
    *[
        reduction(name, axis, keep, torch)
        for name, torch in REDUCTIONS.items()
        for axis, keep in ((None, False), (1, False), (-1, True), ((0, 2), False), ((0, 2), True))
    ],
    Case("var ddof", lambda x: ag.var(x, axis=1, ddof=1), (X,), lambda t: lambda x: t.var(x, dim=1, correction=1)),
    Case("softmax", lambda x: ag.softmax(x, 1), (TALL,), lambda t: lambda x: t.softmax(x, 1)),
    Case("log_softmax", ag.log_softmax, (TALL,), lambda t: lambda x: t.log_softmax(x, -1)),
    *[
        matmul(*shapes)
        for shapes in (
            ((3, 4), (4, 2)),
            ((4,), (4,)),
            ((4,), (4, 2)),
            ((3, 4), (4,)),
            ((5, 3, 4), (4, 2)),
            ((5, 3, 4), (5, 4, 2)),
            ((3, 4), (5, 4, 2)),
            ((2, 1, 3, 4), (5, 4, 2)),
            ((4,), (5, 4, 2)),
            ((5, 3, 4), (4,)),
        )
    ],
    Case("reshape", lambda x: x.reshape(4, -1), (TALL,), lambda t: lambda x: x.reshape(4, -1)),
    Case("transpose", lambda x: x.T, (X,), lambda t: lambda x: x.T),
    Case("transpose axes", lambda x: ag.transpose(x, (2, 0, -2)), (TALL,), lambda t: lambda x: x.permute(2, 0, 1)),
    Case("swapaxes", lambda x: ag.swapaxes(x, 0, -1), (TALL,), lambda t: lambda x: x.swapaxes(0, -1)),
    Case("squeeze", lambda x: ag.squeeze(x, 1), (draw(3, 1, 2),), lambda t: lambda x: x.squeeze(1)),
    Case("expand_dims", lambda x: ag.expand_dims(x, 1), (X,), lambda t: lambda x: x.unsqueeze(1)),
    Case("broadcast_to", lambda x: ag.broadcast_to(x, (2, 3, 4)), (draw(3, 1),), lambda t: lambda x: x.expand(2, 3, 4)),
    Case(
        "concatenate", lambda a, b: ag.concatenate([a, b], 1), (X, draw(3, 2)), lambda t: lambda a, b: t.cat([a, b], 1)
    ),
    Case(
        "concatenate flat",
        lambda a, b: ag.concatenate([a, b], None),
        (X, draw(3, 2)),
        lambda t: lambda a, b: t.cat([a.reshape(-1), b.reshape(-1)]),
    ),
    Case(
        "stack",
        lambda a, b: ag.stack([a, b, a], -1),
        (X, draw(3, 4, low=-1)),
        lambda t: lambda a, b: t.stack([a, b, a], -1),
    ),
    Case(
        "split",
        lambda x: ag.split(x, 2, 1)[1] * ag.split(x, [1], 1)[0],
        (X,),
        lambda t: lambda x: t.split(x, 2, 1)[1] * x[:, :1],
    ),
    index("number", 1),
    index("slice", (slice(None), slice(0, 3, 2))),
    index("ellipsis", (..., 1)),
    index("new axis", (None, 0)),
    index("list with repeats", [0, 1, 0]),
    index("two lists", ([0, 1, 0], [2, 2, 2])),
    index("mask", np.arange(24).reshape(2, 3, 4) % 5 == 0),
    index("mask of rows", (slice(None), np.array([True, False, True]))),
    index("negative", (-1, [0, -1], slice(None))),
    index("empty", []),
    Case("dropout", lambda x: ag.dropout(x, 0.4, np.random.default_rng(3)), (X,), None),
    Case(
        "embedding",
        lambda x: ag.embedding(x, np.array([[0, 2], [2, 1]])),
        (X,),
        lambda t: lambda x: t.nn.functional.embedding(t.tensor([[0, 2], [2, 1]]), x),
    ),
    Case(
        "layer_norm",
        ag.layer_norm,
        (TALL, draw(4), draw(4, low=-1)),
        lambda t: lambda x, w, b: t.nn.functional.layer_norm(x, (4,), w, b),
    ),
    Case("layer_norm plain", ag.layer_norm, (X,), lambda t: lambda x: t.nn.functional.layer_norm(x, (4,))),
    *[linear(activation, 3) for activation in (None, *FUSED)],
    linear("relu"),
    linear(None, 2, 3),
    linear("tanh", 2, 3),
    Case("linear without bias", ag.linear, (X, draw(4, 5)), lambda t: lambda x, w: x @ w),
    *[scaled_linear(activation, 3) for activation in (None, *FUSED, "mish")],
    scaled_linear("mish", 2, 3),
    input_linear(None, ROWS),
    input_linear("selu", None),
    input_linear("mish", ROWS, 2),
    input_linear("selu", ROWS, 3),
    Case("mse", ag.mse, (X, draw(3, 4, low=-1)), lambda t: t.nn.functional.mse_loss),
    Case(
        "cross_entropy",
        lambda z: ag.cross_entropy(z, LABELS),
        (X,),
        lambda t: lambda z: t.nn.functional.cross_entropy(z, t.tensor(LABELS)),
    ),
    Case(
        "cross_entropy 3-D",
        lambda z: ag.cross_entropy(z, LABELS.reshape(1, 3) % 2),
        (draw(1, 3, 2),),
        lambda t: lambda z: t.nn.functional.cross_entropy(z[0], t.tensor(LABELS % 2)),
    ),
    Case(
        "cross_entropy smoothed",
        lambda z: ag.cross_entropy(z, LABELS, label_smoothing=0.1),
        (X,),
        lambda t: lambda z: t.nn.functional.cross_entropy(z, t.tensor(LABELS), label_smoothing=0.1),
    ),
    Case(
        "cross_entropy class weights",
        lambda z: ag.cross_entropy(z, LABELS, class_weights=WEIGHTS, label_smoothing=0.2),
        (X,),
        lambda t: (
            lambda z: t.nn.functional.cross_entropy(z, t.tensor(LABELS), weight=t.tensor(WEIGHTS), label_smoothing=0.2)
        ),
    ),
    Case(
        "cross_entropy sample weights",
        lambda z: ag.cross_entropy(z, LABELS, sample_weights=SAMPLES),
        (X,),
        lambda t: (
            lambda z: (
                t.nn.functional.cross_entropy(z, t.tensor(LABELS), reduction="none") * t.tensor(SAMPLES / SAMPLES.sum())
            ).sum()
        ),
    ),
    Case(
        "cross_entropy probabilities",
        lambda z: ag.cross_entropy(z, SHARES),
        (X,),
        lambda t: lambda z: t.nn.functional.cross_entropy(z, t.tensor(SHARES)),
    ),
    Case(
        "cross_entropy probabilities, weights",
        lambda z: ag.cross_entropy(z, SHARES, class_weights=WEIGHTS, label_smoothing=0.1),
        (X,),
        lambda t: (
            lambda z: t.nn.functional.cross_entropy(
                z, t.tensor(SHARES), weight=t.tensor(WEIGHTS), label_smoothing=0.1
            )
        ),
    ),
]
