"""karp's autograd engine: values, the table of operations, backward, and tools that check and draw graphs.

Read `value.py` (what a node is), `operation.py` (the rows of the table) and `backward.py` (the order, and which arrays
backward owns) first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from karp.autograd.dropping import dropout
from karp.autograd.functions import (
    abs,
    add,
    broadcast_to,
    clip,
    concatenate,
    cos,
    divide,
    elu,
    exp,
    expand_dims,
    expm1,
    gelu,
    leaky_relu,
    log,
    log1p,
    log_softmax,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    mish,
    multiply,
    negative,
    norm,
    power,
    prod,
    relu,
    reshape,
    selu,
    sigmoid,
    silu,
    sin,
    softmax,
    softplus,
    split,
    sqrt,
    square,
    squeeze,
    stack,
    std,
    subtract,
    sum,
    swapaxes,
    tanh,
    transpose,
    var,
    where,
)
from karp.autograd.layers import embedding, input_linear, layer_norm, linear, scaled_linear
from karp.autograd.losses import cross_entropy, mse
from karp.autograd.modes import find_nan, guard, no_grad
from karp.autograd.value import Value
from karp.autograd.write_guard import mark_modified
from karp.lazy import lazy_attributes

if TYPE_CHECKING:
    from karp.autograd.tools.check import check_grads
    from karp.autograd.tools.draw import draw
    from karp.autograd.tools.functional import grad, value_and_grad

# The tools are imported when they are first used, so that a training run does without them.
__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "check_grads": "tools.check",
        "draw": "tools.draw",
        "grad": "tools.functional",
        "value_and_grad": "tools.functional",
    },
)

__all__ = [
    "Value",
    "abs",
    "add",
    "broadcast_to",
    "check_grads",
    "clip",
    "concatenate",
    "cos",
    "cross_entropy",
    "divide",
    "draw",
    "dropout",
    "elu",
    "embedding",
    "exp",
    "expand_dims",
    "expm1",
    "find_nan",
    "gelu",
    "grad",
    "guard",
    "input_linear",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "mark_modified",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mish",
    "mse",
    "multiply",
    "negative",
    "no_grad",
    "norm",
    "power",
    "prod",
    "relu",
    "reshape",
    "scaled_linear",
    "selu",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "swapaxes",
    "tanh",
    "transpose",
    "value_and_grad",
    "var",
    "where",
]
