"""Models made of layers, their initial weights, and losses.

A `Module` is any object that holds parameters: values in its attributes, in lists or tuples of them, and in other
modules there. Where a parameter is found is its name: the weight of the first layer of an MLP is `layers.0.weight`.
All of them together are one contiguous vector, `module.parameters`.

Weights are stored (inputs, outputs), so a layer is `x @ weight + bias` and no product needs a transposed copy.
Everything random is drawn from a seed that is an argument.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.autograd import (
    Value,
    dropout,
    elu,
    embedding,
    gelu,
    layer_norm,
    leaky_relu,
    linear,
    relu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from karp.autograd.losses import binary_cross_entropy, cross_entropy, hinge, huber, mae, mse
from karp.autograd.operations.products import ACTIVATIONS as FUSED
from karp.errors import SettingError, ShapeError

if TYPE_CHECKING:
    import numpy.typing as npt

    from karp.parameters import Parameters

    Seed = int | Sequence[int] | np.random.Generator
    Initialiser = Callable[[int, int, np.random.Generator], npt.NDArray[Any]]

__all__ = [
    "ACTIVATIONS", "INITIALISERS", "MLP", "Dropout", "Embedding", "LayerNorm", "Linear", "Module", "Sequential",
    "binary_cross_entropy", "cross_entropy", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "hinge",
    "huber", "mae", "mse",
]

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
}

# --- initialisers: (inputs, outputs, rng) -> weights (inputs, outputs) ----------------------------------------------


def he_uniform(inputs: int, outputs: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Uniform of variance 2 / inputs, for ReLU and its kin. He, Zhang, Ren and Sun, 2015."""
    limit = math.sqrt(6.0 / inputs)
    return rng.uniform(-limit, limit, (inputs, outputs))


def he_normal(inputs: int, outputs: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Normal of variance 2 / inputs, for ReLU and its kin. He, Zhang, Ren and Sun, 2015."""
    return rng.normal(0.0, math.sqrt(2.0 / inputs), (inputs, outputs))


def glorot_uniform(inputs: int, outputs: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Uniform of variance 2 / (inputs + outputs), for tanh, sigmoid and no activation. Glorot and Bengio, 2010."""
    limit = math.sqrt(6.0 / (inputs + outputs))
    return rng.uniform(-limit, limit, (inputs, outputs))


def glorot_normal(inputs: int, outputs: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Normal of variance 2 / (inputs + outputs), for tanh, sigmoid and no activation. Glorot and Bengio, 2010."""
    return rng.normal(0.0, math.sqrt(2.0 / (inputs + outputs)), (inputs, outputs))


INITIALISERS: dict[str, Initialiser] = {
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
}


def _floating(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype of a module's parameters."""
    kind = np.dtype(dtype)
    if kind not in (np.float16, np.float32, np.float64):
        raise SettingError(f"dtype is {kind}: parameters are float32 or float64 (float16 in the engine alone)")
    return kind


# --- modules --------------------------------------------------------------------------------------------------------


class Module:
    """Something with parameters. Set values and modules as attributes and define `__call__`.

    >>> class Scale(Module):
    ...     def __init__(self) -> None:
    ...         self.factor = Value(np.ones(2))
    ...     def __call__(self, x, rng=None):
    ...         return x * self.factor
    >>> [name for name, _ in Sequential(Scale(), Linear(2, 1)).named_parameters()]
    ['layers.0.factor', 'layers.1.weight', 'layers.1.bias']
    """

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Apply to a batch. With `rng` whatever is random happens (training), without it does not."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def named_parameters(self) -> Iterator[tuple[str, Value]]:
        """Name and value of each parameter, in order of definition; one used in two places is named once."""
        return _walk(self, "", {id(self)}, [])

    @property
    def parameters(self) -> Parameters:
        """All parameters as one vector; made at the first use, and again when they are no longer the same."""
        found = self._find()
        if found.vector is not None and found.vector.is_current():
            return found.vector
        from karp.parameters import Parameters

        found.vector = Parameters(found.named)
        return found.vector

    def zero_grad(self) -> None:
        """Forget all gradients, so that the next backward begins anew."""
        for value in self._find().values:
            value.grad = None

    def _find(self) -> _Found:
        """The parameters, looked for again only if something can have changed since."""
        found: _Found | None = self.__dict__.get("_found")
        if found is not None and found.at == _Found.assignments:
            try:
                for items, known in found.lists:
                    if known != items:
                        break
                else:
                    return found
            except ValueError:  # from an array that was asked whether it equals a layer
                pass
        fresh = _Found(self)
        if found is not None and found.same(fresh):
            fresh.vector = found.vector
        self.__dict__["_found"] = fresh
        return fresh

    def __setattr__(self, name: str, item: Any) -> None:
        _Found.assignments += 1
        object.__setattr__(self, name, item)

    def __delattr__(self, name: str) -> None:
        _Found.assignments += 1
        object.__delattr__(self, name)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has arrays of its own, which are no views of the vector any more.
        return {name: item for name, item in vars(self).items() if name != "_found"}


class _Found:
    """What a walk through a module found. It takes 15 us to walk through a small MLP, as long as its forward."""

    assignments = 0  # to attributes of any module: while this stands, only lists can have changed

    __slots__ = ("at", "lists", "named", "values", "vector")

    def __init__(self, module: Module) -> None:
        self.at = self.assignments
        self.lists: list[tuple[list[Any], list[Any]]] = []  # those on the way, and a copy of each
        self.named = dict(_walk(module, "", {id(module)}, self.lists))
        self.values = list(self.named.values())
        self.vector: Parameters | None = None

    def same(self, other: _Found) -> bool:
        """Whether both found the same values under the same names."""
        return list(self.named) == list(other.named) and list(map(id, self.values)) == list(map(id, other.values))


_identity: Any = object.__eq__


class _Same:
    """Equal to one thing alone, whatever that thing itself takes for equal."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __eq__(self, other: object) -> bool:
        return self.item is other


def _walk(
    holder: Any, prefix: str, seen: set[int], lists: list[tuple[list[Any], list[Any]]]
) -> Iterator[tuple[str, Value]]:
    if isinstance(holder, list):
        plain = all(type(item).__eq__ is _identity for item in holder)  # equal is the same
        lists.append((holder, list(holder) if plain else [*map(_Same, holder)]))
    items = vars(holder).items() if isinstance(holder, Module) else enumerate(holder)
    for key, item in items:
        if isinstance(item, Value):
            if item.operation is None and id(item) not in seen:
                seen.add(id(item))
                yield f"{prefix}{key}", item
        elif isinstance(item, (Module, list, tuple)) and id(item) not in seen:
            if isinstance(item, Module):  # one that knows its parent, say
                seen.add(id(item))
            yield from _walk(item, f"{prefix}{key}.", seen, lists)


class Linear(Module):
    """activation(x @ weight + bias), computed as one operation.

    `weight` (inputs, outputs) drawn by `init` (a name in `INITIALISERS` or a function like them; by default
    `he_uniform` for ReLU and its kin, `glorot_uniform` otherwise), `bias` (outputs,) of zeros or None.

    Raises SettingError for sizes below 1 and names that do not exist, ShapeError for input that does not fit.

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
        if inputs < 1 or outputs < 1:
            raise SettingError(f"Linear({inputs}, {outputs}): sizes must be at least 1")
        if activation is not None and activation not in ACTIVATIONS:
            raise SettingError(f"no activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
        if init is None:
            init = "glorot_uniform" if activation in (None, "tanh", "sigmoid") else "he_uniform"
        if isinstance(init, str):
            if init not in INITIALISERS:
                raise SettingError(f"no initialiser {init!r}; there are {', '.join(INITIALISERS)}")
            init = INITIALISERS[init]
        dtype = _floating(dtype)
        drawn = np.asarray(init(inputs, outputs, np.random.default_rng(seed)))
        if drawn.shape != (inputs, outputs):
            raise ShapeError(f"the initialiser made shape {drawn.shape}, the weight has shape {(inputs, outputs)}")
        self.weight = Value(np.array(drawn, dtype, order="C"))  # (inputs, outputs)
        self.bias = Value(np.zeros(outputs, dtype)) if bias else None  # (outputs,)
        self.activation = activation
        self._fused = activation if activation in FUSED else None
        self._after = None if activation is None or activation in FUSED else ACTIVATIONS[activation]

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """`x` (..., inputs) to (..., outputs)."""
        out = linear(x, self.weight, self.bias, self._fused)
        return out if self._after is None else self._after(out)


class LayerNorm(Module):
    """The last axis brought to mean 0 and variance 1, then times `weight` plus `bias`, both (features,)."""

    def __init__(self, features: int, eps: float = 1e-5, dtype: npt.DTypeLike = np.float32) -> None:
        if features < 1:
            raise SettingError(f"LayerNorm({features}): at least one feature")
        self.weight = Value(np.ones(features, _floating(dtype)))
        self.bias = Value(np.zeros(features, dtype))
        self.eps = eps

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """`x` (..., features), and so is the result."""
        return layer_norm(x, self.weight, self.bias, self.eps)


class Embedding(Module):
    """A table of `count` vectors, looked up by integer; initially standard normal.

    >>> Embedding(10, 4)(np.array([[1, 2, 1]])).shape
    (1, 3, 4)
    """

    def __init__(self, count: int, features: int, seed: Seed = 0, dtype: npt.DTypeLike = np.float32) -> None:
        if count < 1 or features < 1:
            raise SettingError(f"Embedding({count}, {features}): sizes must be at least 1")
        self.weight = Value(np.random.default_rng(seed).standard_normal((count, features)).astype(_floating(dtype)))

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """Integers of any shape to (*shape, features)."""
        return embedding(self.weight, x)


class Dropout(Module):
    """`dropout(x, p, rng)` when called with `rng`, and nothing without."""

    def __init__(self, p: float) -> None:
        if not 0.0 <= p < 1.0:
            raise SettingError(f"Dropout({p}): the probability must be at least 0 and below 1")
        self.p = p

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """`x` of any shape, and so is the result."""
        if rng is None or not self.p:
            return x if isinstance(x, Value) else Value(x)
        return dropout(x, self.p, rng)


class Sequential(Module):
    """One after the other: modules, and functions such as `karp.autograd.relu`.

    >>> model = Sequential(Linear(4, 8), tanh, Dropout(0.1), Linear(8, 2))
    >>> model(np.zeros((5, 4))).shape
    (5, 2)
    """

    def __init__(self, *layers: Module | Activation) -> None:
        for layer in layers:
            if not callable(layer):
                raise SettingError(f"Sequential takes modules and functions one by one, not {layer!r:.60}")
        self.layers = list(layers)

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """The input of the first to the output of the last."""
        for layer in self.layers:
            x = layer(x, rng) if isinstance(layer, Module) else layer(x)
        return x if isinstance(x, Value) else Value(x)


class MLP(Module):
    """Layers of `hidden` sizes with an activation after each, and a last layer without one.

    `dropout` is applied to what each hidden layer gives, when called with `rng`; `layer_norm` stands between a hidden
    layer's product and its activation. Layer i draws its weights from (seed, i).

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
        if activation not in ACTIVATIONS:
            raise SettingError(f"no activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
        if not 0.0 <= dropout < 1.0:
            raise SettingError(f"dropout={dropout} must be at least 0 and below 1")
        if isinstance(hidden, int):
            raise SettingError(f"MLP: hidden is a list of sizes, one for each hidden layer: [{hidden}], not {hidden}")
        init = "glorot_uniform" if activation in ("tanh", "sigmoid") else "he_uniform"
        sizes = [inputs, *hidden]
        inside = None if layer_norm else activation
        self.layers = [
            Linear(size, following, activation=inside, init=init, seed=[seed, place], dtype=dtype)
            for place, (size, following) in enumerate(itertools.pairwise(sizes))
        ]
        self.layers.append(Linear(sizes[-1], outputs, seed=[seed, len(hidden)], dtype=dtype))
        self.norms = [LayerNorm(size, dtype=dtype) for size in hidden] if layer_norm else []
        self.activation = activation
        self.dropout = dropout

    def __call__(self, x: Any, rng: np.random.Generator | None = None) -> Value:
        """`x` (samples, inputs) to (samples, outputs)."""
        if not self.norms and (rng is None or not self.dropout):
            for layer in self.layers:
                if layer.__class__ is Linear and layer._after is None:
                    x = linear(x, layer.weight, layer.bias, layer._fused)  # what layer(x) does, one call less
                else:
                    x = layer(x)
            return x  # type: ignore[no-any-return]
        for place, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if self.norms:
                x = ACTIVATIONS[self.activation](self.norms[place](x))
            if rng is not None and self.dropout:
                x = dropout(x, self.dropout, rng)
        return self.layers[-1](x)
