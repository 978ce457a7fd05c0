"""Predictions: the network's forward pass with weights that stay, in products of a fixed shape.

A row multiplied by itself has other bits than in a batch, so every product here has `PIECE` rows, the last filled up
with zeros: a row's prediction is the same bits however many rows are asked for, and wherever it stands among them. With
OpenBLAS 0.3.31 on an EPYC of the fifth generation this is as fast as one product of all rows (1.14 us a row and 256 x
256 weights, where that takes 1.26), if the part of the weight that is used stays in the cache: so a wide weight is
multiplied `BLOCK` numbers at a time. Everything else works on each element by itself, on as many rows at a time as have
`CHUNK` numbers in a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from karp.autograd.operations.scaled import activate
from karp.tabular.network.encoding import Encoding

if TYPE_CHECKING:
    Numbers = NDArray[np.float32]

PIECE = 4
BLOCK = 1 << 17
CHUNK = 1 << 17


class Predictor:
    """Predicts rows of a prepared table by a copy of a network's weights.

    `scale` ([members,] inputs), `weights` and `biases` are with their factors; the last ones ([members,] size, outputs)
    and ([members,] outputs).
    """

    def __init__(
        self, encoding: Encoding, scale: Numbers, weights: Sequence[Numbers], biases: Sequence[Numbers],
        activation: str, *, classes: bool,
    ) -> None:  # fmt: skip
        self._encoding = encoding
        self._activation = activation
        self._classes = classes
        self._members = len(scale) if scale.ndim > 1 else 1
        inputs, size = weights[0].shape
        first = np.zeros((inputs + 1, self._members * size), np.float32)  # the last row is for what counts nothing
        scales = scale.reshape(self._members, inputs).T[:, :, None]
        np.multiply(scales, weights[0][:, None, :], first[:-1].reshape(inputs, self._members, size))
        self._dense, self._levels = first[: encoding.dense], first[encoding.dense :]
        widest = max([*first.shape, *(self._members * weight.shape[-2] for weight in weights[1:])])
        self._chunk = max(CHUNK // widest // PIECE, 1) * PIECE
        self._weights, self._biases = [np.array(weight) for weight in weights[1:]], [*biases]

    def __call__(self, numbers: Numbers, categories: NDArray[np.int32]) -> Numbers:
        """Return probabilities of classes (n, outputs), or standardised numbers (n, 1): the mean over members."""
        result = np.empty((len(numbers), self._biases[-1].shape[-1]), np.float32)
        for start in range(0, len(numbers), self._chunk):
            part = slice(start, start + self._chunk)
            result[part] = self._predict(numbers[part], categories[part])
        return result

    def _predict(self, numbers: Numbers, categories: NDArray[np.int32]) -> Numbers:
        count = len(numbers)
        if count % PIECE:
            numbers, categories = _filled_up(numbers), _filled_up(categories)
        inputs = self._encoding(numbers, categories)
        x = _products(inputs.dense, self._dense)
        if inputs.rows is not None:
            for column in inputs.rows.T:
                x += self._levels.take(column, 0)
        x = x.reshape(len(x) * self._members, -1)
        for weight, bias in zip(self._weights, self._biases[:-1], strict=True):
            x += bias
            if count >= PIECE:
                x = activate(x, self._activation)
            else:  # the rows of zeros need none, which is most of a single row's time
                rows = x[: count * self._members]
                activate(rows, self._activation)
            if weight.ndim == 2:
                x = _products(x, weight)
        if self._weights and self._weights[-1].ndim == 3:
            x = x.reshape(-1, self._members, x.shape[-1])
            x = np.stack([_products(x[:, member], head) for member, head in enumerate(self._weights[-1])], 1)
        x += self._biases[-1]
        x = x.reshape(-1, self._members, x.shape[-1])
        if self._classes:
            x = _softmax(x)
        mean: Numbers = x[:, 0] if self._members == 1 else np.add.reduce(x, 1) / np.float32(self._members)
        return mean[:count]


def _filled_up(rows: Any) -> Any:
    """Return an array with so many rows of zeros behind it that they are a multiple of PIECE."""
    filled = np.zeros((len(rows) + -len(rows) % PIECE, rows.shape[1]), rows.dtype)
    filled[: len(rows)] = rows
    return filled


def _products(x: Any, weight: Any) -> Any:
    """Return x @ weight, computed PIECE rows and at most about BLOCK weights at a time."""
    rows, inputs = x.shape
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        pieces = x.T.reshape(inputs, rows // PIECE, PIECE).transpose(1, 2, 0)  # a view: a copy takes too long
    else:
        pieces = x.reshape(rows // PIECE, PIECE, inputs)
    outputs = weight.shape[1]
    columns = max(BLOCK // max(inputs, 1) // 64, 1) * 64
    if outputs <= columns:
        return np.matmul(pieces, weight).reshape(rows, outputs)
    out = np.empty((rows // PIECE, PIECE, outputs), np.float32)
    for start in range(0, outputs, columns):
        block = slice(start, start + columns)
        np.matmul(pieces, weight[:, block], out[:, :, block])
    return out.reshape(rows, outputs)


def _softmax(x: Any) -> Any:
    powers = np.exp(x - np.maximum.reduce(x, -1, keepdims=True))
    powers /= np.add.reduce(powers, -1, keepdims=True)
    return powers
