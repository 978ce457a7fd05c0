"""Layers, and models made of them: Linear, LayerNorm, Embedding, Dropout, Sequential, MLP."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import numpy as np

from karp import checks
from karp.autograd import (
    Value,
    dropout,
    elu,
    embedding,
    gelu,
    layer_norm,
    leaky_relu,
    linear,
    mish,
    relu,
    selu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from karp.autograd.operations.products import ACTIVATIONS as FUSED
from karp.errors import SettingError, ShapeError
from karp.nn.initialisers import INITIALISERS, Initialiser
from karp.nn.module import Module
from karp.parameters import LARGEST

if TYPE_CHECKING:
    import numpy.typing as npt

Seed = int | Sequence[int] | np.random.Generator
Activation = Callable[[Any], Value]

ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "gelu": gelu,
    "silu": silu,
    "softplus": softplus,
    "selu": selu,
    "mish": mish,
}

# --- arguments ------------------------------------------------------------------------------------------------------


def _floating(owner: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the dtype of a module's parameters; raise SettingError unless it is float32 or float64."""
    kind: Any = None
    with contextlib.suppress(TypeError):
        kind = np.dtype(dtype)
    if dtype is None or kind not in (np.float32, np.float64):  # NumPy takes None for float64
        given = short(dtype) if kind is None or dtype is None else kind
        raise SettingError(f"{owner}: dtype is {given}: parameters are float32 or float64")
    checked: np.dtype[Any] = kind
    return checked


def _sizes(owner: str, dtype: npt.DTypeLike, **sizes: object) -> tuple[int, ...]:
    """Return the sizes of a weight; raise SettingError for one below 1, and for more memory than the limit."""
    checked = tuple(checks.whole(f"{owner}: {name}", size, 1) for name, size in sizes.items())
    if math.prod(checked) * _floating(owner, dtype).itemsize > LARGEST:
        shape = " x ".join(map(str, checked))
        raise SettingError(f"{owner}: {' x '.join(sizes)} is {shape}, which takes more than {LARGEST >> 30} GiB")
    return checked


def _generator(owner: str, seed: object) -> np.random.Generator:
    """Return the random generator of a seed: a generator as it is, else a new one from whole numbers from 0.

    Raises SettingError for anything else, and so for None, as two runs without a seed would differ.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, (list, tuple)) or (isinstance(seed, np.ndarray) and seed.ndim):
        parts = [checks.whole(f"{owner}: each part of the seed", part, high=math.inf) for part in seed]
        return np.random.default_rng(parts)
    return np.random.default_rng(checks.whole(f"{owner}: seed", seed, high=math.inf))


def _activation(owner: str, name: object) -> str:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise SettingError(f"{owner}: no activation {short(name)}; there are {', '.join(ACTIVATIONS)}")
    return name


def _hidden_sizes(hidden: Any) -> list[int]:
    """Return the sizes of the hidden layers of an MLP; raise SettingError for anything but whole numbers from 1."""
    if isinstance(hidden, (str, bytes, set, frozenset, Mapping)) or not np.iterable(hidden):
        example = f"[{hidden}]" if isinstance(hidden, (int, np.integer)) else "[128, 64]"
        raise SettingError(f"MLP: hidden is a list of sizes, one for each hidden layer: {example}, not {short(hidden)}")
    return [checks.whole(f"MLP: hidden[{index}]", size, 1) for index, size in enumerate(hidden)]


def _draw_weight(
    init: Initialiser | str, inputs: int, outputs: int, seed: object, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Draw an initial weight (inputs, outputs), in this dtype.

    Raises SettingError for an initialiser that does not exist or makes numbers that are not finite, ShapeError for one
    that makes another shape.
    """
    if isinstance(init, str):
        if init not in INITIALISERS:
            raise SettingError(f"Linear: no initialiser {init!r}; there are {', '.join(INITIALISERS)}")
        init = INITIALISERS[init]
    if not callable(init):
        raise checks.refusal("Linear: init", init, "a name or a function of (inputs, outputs, rng)")
    drawn = np.asarray(init(inputs, outputs, _generator("Linear", seed)))
    if drawn.shape != (inputs, outputs):
        raise ShapeError(f"the initialiser made shape {drawn.shape}, the weight has shape {(inputs, outputs)}")
    with np.errstate(over="ignore"):
        weight = np.array(drawn, dtype, order="C") if drawn.dtype.kind in "fiu" else np.array(np.nan)
    if not np.isfinite(weight).all():
        raise SettingError(f"the initialiser made numbers of {drawn.dtype} that are not finite in {np.dtype(dtype)}")
    return weight


# --- layers ---------------------------------------------------------------------------------------------------------


class Linear(Module):
    """activation(x @ weight + bias), computed as one operation.

    `weight` (inputs, outputs) is drawn by `init`, a name in `INITIALISERS` or a function like them; by default
    `glorot_uniform` for tanh, sigmoid and no activation, `he_uniform` for the others. `bias` (outputs,) is of zeros, or
    None.

    Raises SettingError for sizes below 1, a weight of more than 16 GiB and names that do not exist, ShapeError for
    input, and for weights of `init`, that do not fit.

    >>> layer = Linear(3, 2, activation="tanh", seed=1)
    >>> layer(np.zeros((5, 3))).shape
    (5, 2)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool = True,
        activation: str | None = None,
        init: str | Initialiser | None = None,
        seed: Seed = 0,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        inputs, outputs = _sizes("Linear", dtype, inputs=inputs, outputs=outputs)
        if activation is not None:
            _activation("Linear", activation)
        checks.switch("Linear: bias", bias)
        if init is None:
            init = "glorot_uniform" if activation in (None, "tanh", "sigmoid") else "he_uniform"
        self.weight = Value(_draw_weight(init, inputs, outputs, seed, dtype))  # (inputs, outputs)
        self.bias = Value(np.zeros(outputs, dtype)) if bias else None  # (outputs,)
        self.activation = activation
        self._fused = activation if activation in FUSED else None
        self._after = None if activation is None or activation in FUSED else ACTIVATIONS[activation]

    def __repr__(self) -> str:
        inputs, outputs = self.weight.shape
        bias = "" if self.bias is not None else ", bias=False"
        activation = "" if self.activation is None else f", activation={self.activation!r}"
        return f"{type(self).__name__}({inputs}, {outputs}{bias}{activation})"

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Apply the layer to `x` (..., inputs); the result is (..., outputs). `rng` is not used."""
        out = linear(x, self.weight, self.bias, self._fused)
        return out if self._after is None else self._after(out)


class LayerNorm(Module):
    """Normalise the last axis to mean 0 and variance 1, then multiply by `weight` and add `bias`, both (features,)."""

    def __init__(self, features: int, eps: float = 1e-5, dtype: npt.DTypeLike = np.float32) -> None:
        (features,) = _sizes("LayerNorm", dtype, features=features)
        self.weight = Value(np.ones(features, dtype))
        self.bias = Value(np.zeros(features, dtype))
        self.eps = checks.number("LayerNorm: eps", eps, 0, 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.weight.size}, eps={self.eps})"

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Normalise `x` (..., features); the result has its shape. `rng` is not used."""
        return layer_norm(x, self.weight, self.bias, self.eps)


class Embedding(Module):
    """A table of `count` trainable vectors, selected by integers; its initial numbers are standard normal.

    >>> Embedding(10, 4)(np.array([[1, 2, 1]])).shape
    (1, 3, 4)
    """

    def __init__(self, count: int, features: int, seed: Seed = 0, dtype: npt.DTypeLike = np.float32) -> None:
        count, features = _sizes("Embedding", dtype, count=count, features=features)
        self.weight = Value(_generator("Embedding", seed).standard_normal((count, features)).astype(dtype))

    def __repr__(self) -> str:
        count, features = self.weight.shape
        return f"{type(self).__name__}({count}, {features})"

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Select the vectors of `x`, integers of any shape; the result is (*x.shape, features). `rng` is not used.

        Raises SettingError for rows that are not integers or below 0, ShapeError for one beyond the table.
        """
        return embedding(self.weight, x)


class Dropout(Module):
    """Drop elements with probability `p` when called with `rng` (see `dropout`); without, return the input.

    In a training loop the call is `model(x, trainer.rng)`; `trainer.backward` refuses a loss whose dropouts had no
    `rng`.
    """

    def __init__(self, p: float) -> None:
        self.p = checks.number("Dropout: p", p, 0, 1, below=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.p})"

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Apply dropout to `x` of any shape, which the result has too."""
        return dropout(x, self.p, rng if self.p else None)


class Sequential(Module):
    """Apply modules, and functions such as `karp.autograd.relu`, one after the other.

    >>> model = Sequential(Linear(4, 8), tanh, Dropout(0.1), Linear(8, 2))
    >>> model(np.zeros((5, 4))).shape
    (5, 2)
    """

    def __init__(self, *layers: Module | Activation) -> None:
        for layer in layers:
            if not callable(layer) or isinstance(layer, type):
                raise SettingError(f"Sequential takes modules and functions one by one, not {short(layer)}")
        self.layers = list(layers)

    def named_contents(self) -> Iterable[tuple[str, Any]]:
        """Return the layers with their names; functions are among them."""
        return ((f"layers.{index}", layer) for index, layer in enumerate(self.layers))

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Apply the layers to `x`, in order, and return a Value; modules are given `rng`, functions are not."""
        for layer in self.layers:
            x = layer(x, rng) if isinstance(layer, Module) else layer(x)
        return x if isinstance(x, Value) else Value(x)


class MLP(Module):
    """A multi-layer perceptron: layers of `hidden` sizes with an activation after each, and a last one without.

    `dropout` is applied to the output of each hidden layer when the model is called with `rng`, in a training loop
    `model(x, trainer.rng)`. `layer_norm` is applied between a hidden layer's product and its activation. Layer i draws
    its weights from (seed, i). `config` has all arguments as plain data. Raises SettingError for an argument that
    cannot be used.

    >>> model = MLP(3, [4, 4], 1, seed=0)
    >>> model(np.zeros((2, 3))).shape
    (2, 1)
    >>> [name for name, _ in model.named_parameters()][:2]
    ['layers.0.weight', 'layers.0.bias']
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        activation: str = "relu",
        dropout: float = 0.0,
        layer_norm: bool = False,
        seed: int = 0,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self._config: dict[str, Any] = {
            "inputs": checks.whole("MLP: inputs", inputs, 1),
            "hidden": _hidden_sizes(hidden),
            "outputs": checks.whole("MLP: outputs", outputs, 1),
            "activation": _activation("MLP", activation),
            "dropout": checks.number("MLP: dropout", dropout, 0, 1, below=True),
            "layer_norm": checks.switch("MLP: layer_norm", layer_norm),
            "seed": checks.whole("MLP: seed", seed, high=math.inf),
            "dtype": _floating("MLP", dtype).name,
        }
        sizes = [self._config["inputs"], *self._config["hidden"], self._config["outputs"]]
        init = "glorot_uniform" if activation in ("tanh", "sigmoid") else "he_uniform"
        inside = None if layer_norm else activation
        pairs = [*itertools.pairwise(sizes)]
        last = len(pairs) - 1
        self.layers = [
            Linear(
                size, following, activation=None if index == last else inside, init=None if index == last else init,
                seed=[seed, index], dtype=dtype,
            )
            for index, (size, following) in enumerate(pairs)
        ]  # fmt: skip
        self.norms = [LayerNorm(size, dtype=dtype) for size in sizes[1:-1]] if layer_norm else []
        self.activation = self._config["activation"]
        self.dropout = self._config["dropout"]
        self._initial_structure = self._structure()

    @property
    def config(self) -> dict[str, Any]:
        """All the arguments that this model was made with, as types that JSON has.

        `nn.MLP(**model.config)` is the model as it was before training. Raises SettingError if the program has replaced
        a layer or another setting since, so that these arguments would make another model.

        >>> config = MLP(3, [4], 1).config
        >>> config["hidden"], config["activation"], config["dtype"]
        ([4], 'relu', 'float32')
        """
        if self._structure() != self._initial_structure:
            raise SettingError(
                "the layers or settings of this MLP have been changed since it was made, so no arguments make it: make"
                " it with the arguments that are wanted, or as a Module of its own"
            )
        return {**self._config, "hidden": [*self._config["hidden"]]}

    def _structure(self) -> str:
        """Describe all that the constructor's arguments determine except the weights."""
        return f"{self.activation} {self.dropout} {self.layers} {self.norms}"

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Apply the model to `x` (samples, inputs); the result is (samples, outputs).

        `rng` draws the dropout; without it nothing is dropped.
        """
        if not self.norms and not self.dropout:
            for layer in self.layers:
                x = layer(x)
            return x  # type: ignore[no-any-return]
        for index, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if self.norms:
                x = ACTIVATIONS[self.activation](self.norms[index](x))
            if self.dropout:
                x = dropout(x, self.dropout, rng)
        return self.layers[-1](x)
