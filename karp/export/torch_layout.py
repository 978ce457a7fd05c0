"""Weights in torch's layout: matrices (outputs, inputs), under the names of a state dict.

A `torch.nn.Sequential` numbers all of its modules, activations and dropouts too, and these have no weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.autograd import Value
from karp.errors import RecordError, SettingError
from karp.nn.layers import MLP, LayerNorm, Linear, Sequential
from karp.nn.module import Module
from karp.parameters import weights_file
from karp.record.files import reason, replacing
from karp.tabular.model import Model

Array = NDArray[Any]
Named = Iterator[tuple[str, Array]]


def write_torch(model: Any, path: str | os.PathLike[str]) -> None:
    """Write the weights of a model; see `karp.export.torch`."""
    content = weights_file.write(dict(_named(model)), weights_file.TORCH)
    try:
        with replacing(Path(path)) as file:
            file.write(content)
    except OSError as error:
        raise RecordError(f"{os.fspath(path)!r} cannot be written: {reason(error)}") from None


def _named(model: Any) -> Named:
    """Return the names and arrays of a model, or of a run's file of weights."""
    if isinstance(model, str | os.PathLike):
        return _of_file(model)
    if isinstance(model, Model):
        if model.fitted.recipe.members > 1:
            raise SettingError(f"the model has {model.fitted.recipe.members} members, and no module of torch has: fit "
                               "it with members=1, or write it as ONNX")  # fmt: skip
        (first, *weights), biases = model.network.factored()
        return _layers([first * model.network.input_scale()[:, None], *weights], biases)
    if isinstance(model, Module):
        return _of_module(model, "")
    if hasattr(model, "coefs_"):
        return _layers(model.coefs_, model.intercepts_)
    raise SettingError(f"{type(model).__name__} has no weights for torch: pass a model of karp.fit, a Module or "
                       "a fitted estimator")  # fmt: skip


def _layers(weights: Any, biases: Any) -> Named:
    """Yield the layers of a Sequential in which an activation follows each but the last."""
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        yield f"{2 * number}.weight", weight.T
        yield f"{2 * number}.bias", bias


def _of_file(path: str | os.PathLike[str]) -> Named:
    """Yield the weights of a file under their names; a matrix that has a bias beside it is a `Linear`'s.

    Raises SettingError for any other matrix, as it may be that of an `Embedding`.
    """
    weights = weights_file.read_karp(path)
    for name, array in weights.items():
        bias = weights.get(f"{name.removesuffix('weight')}bias")
        if array.ndim == 2 and (bias is None or bias.shape != array.shape[1:]):
            raise SettingError(f"the weights {os.fspath(path)!r}: {name!r} has no bias, so it may be a Linear or an "
                               "Embedding: load it into its module, and pass that to karp.export.torch")  # fmt: skip
        yield name, array.T if array.ndim == 2 else array


def _of_module(module: Module, prefix: str) -> Named:
    if isinstance(module, Linear):
        yield f"{prefix}weight", module.weight.data.T
        if module.bias is not None:
            yield f"{prefix}bias", module.bias.data
    elif isinstance(module, Sequential | MLP):
        number = 0
        for layer in _in_sequence(module):
            if isinstance(layer, Module):
                yield from _of_module(layer, f"{prefix}{number}.")
            number += 1 + (isinstance(layer, Linear) and layer.activation is not None)
    else:
        for name, item in module.named_contents():
            if isinstance(item, Value):
                yield f"{prefix}{name}", np.asarray(item.data)
            else:
                yield from _of_module(item, f"{prefix}{name}.")


def _in_sequence(module: Sequential | MLP) -> Iterator[Any]:
    """Yield what a Sequential of torch has in a module's place, but for the activations inside of a `Linear`."""
    if isinstance(module, Sequential):
        yield from module.layers
        return
    *hidden, last = module.layers
    norms: list[LayerNorm | None] = [*module.norms] or [None] * len(hidden)
    for layer, norm in zip(hidden, norms, strict=True):
        yield layer
        if norm is not None:
            yield norm
            yield module.activation
        if module.dropout:
            yield "dropout"
    yield last
