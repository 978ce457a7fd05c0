"""What is trained: four networks, each on one fixed batch of synthetic data in memory.

T is where an engine's ceremony is all there is to see, S is a network as small as people train, M one for digits of
28 x 28 pixels, L one whose matrix products leave little else to see. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 0.01  # of SGD. Small, so that no gradient shrinks to denormal numbers, which are slow, in a million steps

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """An MLP with an activation after each hidden layer, a loss and the size of a batch."""

    name: str
    sizes: tuple[int, ...]  # inputs, hidden layers, outputs
    activation: str  # "relu" or "tanh"
    loss: str  # "cross_entropy" on class indices or "mse"
    batch: int

    def __str__(self) -> str:
        layers = "-".join(map(str, self.sizes))
        kinds = {"relu": "ReLU", "tanh": "tanh", "cross_entropy": "cross entropy", "mse": "MSE"}
        return f"{self.name}: {layers} {kinds[self.activation]}, {kinds[self.loss]}, {self.batch} samples"

    def layers(self) -> Iterator[tuple[Array, Array]]:
        """Initial weight (inputs, outputs) and bias (outputs,) of each layer, float32 from the first draw on."""
        rng = np.random.default_rng(0)
        for inputs, outputs in zip(self.sizes, self.sizes[1:], strict=False):
            weight = rng.standard_normal((inputs, outputs), dtype=np.float32)
            weight *= np.float32((2.0 / inputs) ** 0.5)
            yield weight, np.zeros(outputs, np.float32)

    def data(self, batches: int = 1) -> tuple[Array, Array]:
        """Samples (batches * batch, inputs) and targets: class indices (n,), or numbers -1 and 1 (n, outputs)."""
        rng = np.random.default_rng(1)
        rows = batches * self.batch
        x = rng.standard_normal((rows, self.sizes[0]), dtype=np.float32)
        if self.loss == "cross_entropy":
            return x, rng.integers(0, self.sizes[-1], rows)
        signs = 2 * rng.integers(0, 2, (rows, self.sizes[-1])) - 1
        return x, signs.astype(np.float32)


CASES = {
    case.name: case
    for case in (
        Case("T", (3, 4, 4, 1), "tanh", "mse", 4),
        Case("S", (64, 128, 10), "relu", "cross_entropy", 32),
        Case("M", (784, 256, 128, 10), "relu", "cross_entropy", 128),
        Case("L", (784, 1024, 1024, 10), "relu", "cross_entropy", 256),
    )
}
