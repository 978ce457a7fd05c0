"""Initial weights: functions (inputs, outputs, rng) -> weights (inputs, outputs)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Initialiser = Callable[[int, int, np.random.Generator], "npt.NDArray[Any]"]


def he_uniform(inputs: int, outputs: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw uniform weights of variance 2 / inputs, for ReLU and similar activations. He, Zhang, Ren and Sun, 2015."""
    limit = math.sqrt(6.0 / inputs)
    return rng.uniform(-limit, limit, (inputs, outputs))


def he_normal(inputs: int, outputs: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw normal weights of variance 2 / inputs, for ReLU and similar activations. He, Zhang, Ren and Sun, 2015."""
    return rng.normal(0.0, math.sqrt(2.0 / inputs), (inputs, outputs))


def glorot_uniform(inputs: int, outputs: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw uniform weights of variance 2 / (inputs + outputs), for tanh, sigmoid or none. Glorot and Bengio, 2010."""
    limit = math.sqrt(6.0 / (inputs + outputs))
    return rng.uniform(-limit, limit, (inputs, outputs))


def glorot_normal(inputs: int, outputs: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw normal weights of variance 2 / (inputs + outputs), for tanh, sigmoid or none. Glorot and Bengio, 2010."""
    return rng.normal(0.0, math.sqrt(2.0 / (inputs + outputs)), (inputs, outputs))


INITIALISERS: dict[str, Initialiser] = {
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
}
