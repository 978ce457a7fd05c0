"""Weights in a safetensors file, and the layout of their matrices, which its metadata names.

karp keeps a layer's weight as (inputs, outputs) and writes `{"format": "karp"}`, torch as (outputs, inputs), and
`{"format": "pt"}` is what libraries on torch write. A square matrix fits both ways, so a file of the other layout is
refused, and one that names none is, too, if it has such a matrix.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.errors import DataError, SettingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[Any]]

KEY, KARP, TORCH = "format", "karp", "pt"
MODEL = "karp"  # the key of a model file's metadata


def read(path: str | os.PathLike[str]) -> tuple[Weights, dict[str, str]]:
    """Return the arrays of a safetensors file by name, and its metadata; raise DataError if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    where = f"the weights {os.fspath(path)!r}"
    try:
        with open(path, "rb"):  # the library's own error says only that there is no such file
            pass
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:  # of dtypes that NumPy lacks
        raise DataError(f"{where} are damaged, or no safetensors file: {error}") from None


def read_karp(path: str | os.PathLike[str]) -> Weights:
    """Return the arrays of a file of karp's layout by name.

    Raises SettingError for one of torch's, and for one of an unknown layout that has a square matrix, DataError if the
    file cannot be read.
    """
    weights, metadata = read(path)
    layout = KARP if MODEL in metadata else metadata.get(KEY)
    where = f"the weights {os.fspath(path)!r}"
    if layout == TORCH:
        raise SettingError(f"{where} have torch's layout, (outputs, inputs), and karp's is (inputs, outputs): "
                           "load the file that karp wrote, or transpose them and load the arrays")  # fmt: skip
    if layout == KARP:
        return weights
    square = [name for name, array in weights.items() if array.ndim == 2 and len(set(array.shape)) == 1]
    if square:
        raise SettingError(f"{where} do not name their layout, and {square[0]!r} is square, so it may be (inputs, "
                           "outputs) or (outputs, inputs): load the arrays, {name: array}, as the former")  # fmt: skip
    return weights


def write(weights: Weights, layout: str) -> bytes:
    """Return the content of a safetensors file of this layout, KARP or TORCH."""
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in weights.items()}  # it ignores strides
    return save(contiguous, metadata={KEY: layout})
