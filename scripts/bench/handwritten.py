"""The step in plain NumPy: the opponent that has no engine to pay for.

`step` is a training step as one writes it by hand for speed: every buffer is made once, every operation writes into
one, weights and gradients are one vector each with a view per layer, and what NumPy does slowly is said in another way:

- a bias gradient is a product with a vector of ones, faster than a sum over the first axis;
- ReLU is a maximum with a whole array of zeros, three times as fast as with a single one; its derivative is read off
  the bits of its result: as integers, min(bits, 1) is 1 where the result is above 0 and 0 elsewhere, and the integer
  product with it keeps the bits of a gradient or clears them (a product with booleans takes twice as long, `where=`
  and `np.sign` ten times);
- the logits lie transposed, so that maximum and sum over classes run along memory;
- softmax and cross entropy are one formula, p - t, computed in the buffer of the logits;
- constants are 0-d arrays, as a Python float is converted at every call;
- the update goes over the vector in pieces that fit the cache.

What it does not do is work that can be done once for the fixed batch but not in training: it takes class indices,
and the gradient is a true gradient, with the rate left to the update.

`products` makes the same matrix products and nothing else, which nothing on the same BLAS can beat. `losses` is the
yardstick of correctness, written as plainly as can be and in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.cases import RATE, Array, Case

Run = Callable[[int], float]  # trains for so many steps and returns the last one's loss

PIECE = 1 << 18  # numbers updated at a time: 1 MiB


def empty(*shape: int) -> Array:
    """float32, beginning on a multiple of 64 bytes."""
    size = 4 * int(np.prod(shape))
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(np.float32).reshape(shape)


class Vectors:
    """Weights and gradient, a vector each, and per layer the views (weight, bias)."""

    def __init__(self, case: Case) -> None:
        shapes = [shape for pair in zip(case.sizes, case.sizes[1:], strict=False) for shape in (pair, pair[1:])]
        sizes = [-(-int(np.prod(shape)) // 16) * 16 for shape in shapes]  # each on a multiple of 64 bytes
        self.weights, self.gradient = empty(sum(sizes)), empty(sum(sizes))
        self.layers: list[tuple[Array, Array]] = []
        self.gradients: list[tuple[Array, Array]] = []
        for vector, layers in (self.weights, self.layers), (self.gradient, self.gradients):
            views = [
                vector[sum(sizes[:i]) :][: int(np.prod(shape))].reshape(shape) for i, shape in enumerate(shapes)
            ]
            layers.extend(zip(views[::2], views[1::2], strict=True))
        for layer, arrays in zip(self.layers, case.layers(), strict=True):
            for view, array in zip(layer, arrays, strict=True):
                view[...] = array


def step(case: Case) -> Run:
    """The whole step, as fast as it gets in NumPy."""
    x, target = case.data()
    vectors = Vectors(case)
    return stepping(case, x, target, vectors, updating(vectors))


def stepping(
    case: Case,
    x: Array,
    target: Array,
    vectors: Vectors,
    update: Callable[[], None],
    gather: Callable[[], None] | None = None,
) -> Run:
    """Steps on what lies in `x` and `target`: `gather` puts it there, `update` does something about the gradient."""
    outs = [empty(case.batch, size) for size in case.sizes[1:-1]]  # what hidden layers give
    slopes = [empty(case.batch, size) for size in case.sizes[1:-1]]  # their gradients
    final = empty(case.sizes[-1], case.batch)  # (outputs, samples): prediction, and then its gradient
    activate = (relu if case.activation == "relu" else tanh)(outs, slopes)
    loss = (cross_entropy if case.loss == "cross_entropy" else mean_square)(final, target)

    dot, add = np.dot, np.add
    ones = np.ones(case.batch, np.float32)
    (weight, bias), (d_weight, d_bias) = vectors.layers[-1], vectors.gradients[-1]
    last, bias = outs[-1], bias.reshape(-1, 1)
    weight_t, last_t, final_t = weight.T, last.T, final.T
    ahead = [
        (inputs, *layer, out, forward)
        for inputs, layer, out, (forward, _) in zip([x, *outs], vectors.layers[:-1], outs, activate, strict=False)
    ]
    back = [
        ([*slopes, final_t][i + 1], vectors.layers[i + 1][0].T, slopes[i], activate[i][1], [x, *outs][i].T,
         *vectors.gradients[i])
        for i in reversed(range(len(outs)))
    ]  # fmt: skip

    def run(steps: int) -> float:
        value = 0.0
        for _ in range(steps):
            if gather is not None:
                gather()
            for inputs, w, b, out, forward in ahead:
                dot(inputs, w, out)
                add(out, b, out)
                forward()
            dot(weight_t, last_t, final)
            add(final, bias, final)
            value = loss()
            dot(final, ones, d_bias)
            dot(last_t, final_t, d_weight)
            for above, w_t, slope, backward, inputs_t, dw, db in back:
                dot(above, w_t, slope)
                backward()
                dot(ones, slope, db)
                dot(inputs_t, slope, dw)
            update()
        return float(value)

    return run


Pair = tuple[Callable[[], None], Callable[[], None]]


def relu(outs: list[Array], slopes: list[Array]) -> list[Pair]:
    """Per layer: apply ReLU to `out` in place; multiply `slope` by its derivative in place."""
    maximum, minimum, multiply = np.maximum, np.minimum, np.multiply
    largest = max(out.size for out in outs)
    whole = np.zeros(largest, np.float32), np.ones(largest, np.int32), np.empty(largest, np.int32)  # for all layers

    def pair(out: Array, slope: Array) -> Pair:
        zeros, ones, mask = (array[: out.size].reshape(out.shape) for array in whole)
        bits, slope_bits = out.view(np.int32), slope.view(np.int32)

        def forward() -> None:
            maximum(out, zeros, out=out)

        def backward() -> None:
            minimum(bits, ones, out=mask)
            multiply(slope_bits, mask, slope_bits)

        return forward, backward

    return [pair(out, slope) for out, slope in zip(outs, slopes, strict=True)]


def tanh(outs: list[Array], slopes: list[Array]) -> list[Pair]:
    """Per layer: apply tanh to `out` in place; multiply `slope` by its derivative in place."""
    apply, multiply, subtract = np.tanh, np.multiply, np.subtract
    one = np.ones((), np.float32)

    def pair(out: Array, slope: Array) -> Pair:
        def forward() -> None:
            apply(out, out)

        def backward() -> None:
            multiply(out, out, out)  # its last reader has gone
            subtract(one, out, out)
            multiply(slope, out, slope)

        return forward, backward

    return [pair(out, slope) for out, slope in zip(outs, slopes, strict=True)]


def cross_entropy(logits: Array, target: Array) -> Callable[[], float]:
    """Mean loss of `logits` (classes, samples) against class indices (samples,); leaves the gradient in their place."""
    add, subtract, multiply, divide = np.add, np.subtract, np.multiply, np.divide
    exp, log, dot, highest_of = np.exp, np.log, np.dot, np.maximum.reduce
    classes, samples = logits.shape
    flat, places, stride = logits.reshape(-1), np.arange(samples), np.array(samples)
    picks = np.empty_like(places)
    highest, totals, picked, logs = (np.empty(samples, np.float32) for _ in range(4))
    ones, shares = np.ones(classes, np.float32), np.full(samples, 1.0 / samples, np.float32)
    share = np.array(1.0 / samples, np.float32)

    def loss() -> float:
        highest_of(logits, 0, out=highest)
        subtract(logits, highest, logits)
        multiply(target, stride, picks)
        add(picks, places, picks)
        flat.take(picks, None, picked, "clip")
        exp(logits, logits)
        dot(ones, logits, totals)
        log(totals, logs)
        subtract(logs, picked, logs)
        divide(share, totals, totals)
        multiply(logits, totals, logits)
        flat[picks] -= share
        return dot(logs, shares)  # type: ignore[no-any-return]

    return loss


def mean_square(prediction: Array, target: Array) -> Callable[[], float]:
    """Mean loss of `prediction` (outputs, samples) against (samples, outputs); leaves the gradient in its place."""
    subtract, multiply, dot = np.subtract, np.multiply, np.dot
    flat, aim = prediction.reshape(-1), target.T
    share, scale = np.float32(1.0 / flat.size), np.array(2.0 / flat.size, np.float32)

    def loss() -> float:
        subtract(prediction, aim, prediction)
        value = dot(flat, flat) * share
        multiply(prediction, scale, prediction)
        return value  # type: ignore[no-any-return]

    return loss


def updating(vectors: Vectors, share: float = 1.0) -> Callable[[], None]:
    """weights -= RATE * share * gradient."""
    multiply, subtract = np.multiply, np.subtract
    weights, gradient = vectors.weights, vectors.gradient
    rate = np.array(RATE * share, np.float32)
    scratch = empty(min(PIECE, weights.size))
    pieces = [
        (weights[start : start + PIECE], gradient[start : start + PIECE], scratch[: weights.size - start])
        for start in range(0, weights.size, PIECE)
    ]

    def update() -> None:
        for part, slope, room in pieces:
            multiply(slope, rate, room)
            subtract(part, room, part)

    return update


def products(case: Case) -> Run:
    """Only the matrix products the step cannot do without: forward, weight gradients, gradients of hidden layers."""
    dot = np.dot
    x, _ = case.data()
    vectors = Vectors(case)
    arrays = [x, *(np.ones((case.batch, size), np.float32) for size in case.sizes[1:])]
    every = []
    for i, ((weight, _), (d_weight, _)) in enumerate(zip(vectors.layers, vectors.gradients, strict=True)):
        every.append((arrays[i], weight, np.empty_like(arrays[i + 1])))
        every.append((arrays[i].T, arrays[i + 1], d_weight))
        if i:
            every.append((arrays[i + 1], weight.T, np.empty_like(arrays[i])))

    def run(steps: int) -> float:
        for _ in range(steps):
            for a, b, out in every:
                dot(a, b, out)
        return 0.0

    return run


def losses(case: Case, steps: int, activation: str | None = None) -> list[float]:
    """The loss of each of the first steps, in float64; `activation` instead of the case's own."""
    rectify = (activation or case.activation) == "relu"
    x, target = case.data()
    layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in case.layers()]
    found = []
    for _ in range(steps):
        inputs, out = [], x.astype(np.float64)
        for i, (weight, bias) in enumerate(layers):
            inputs.append(out)
            out = out @ weight + bias
            if i < len(layers) - 1:
                out = np.maximum(out, 0) if rectify else np.tanh(out)
        loss, slope = _loss(case, out, target)
        found.append(loss)
        for i in reversed(range(len(layers))):
            weight, bias = layers[i]
            layers[i] = weight - RATE * inputs[i].T @ slope, bias - RATE * slope.sum(axis=0)
            slope = slope @ weight.T * (inputs[i] > 0 if rectify else 1 - inputs[i] ** 2)
    return found


def _loss(case: Case, out: Array, target: Array) -> tuple[float, Array]:
    """The mean loss and its gradient."""
    if case.loss == "mse":
        return float(np.square(out - target).mean()), 2 * (out - target) / out.size
    powers = np.exp(out - out.max(axis=1, keepdims=True))
    chances = powers / powers.sum(axis=1, keepdims=True)
    aims = np.eye(case.sizes[-1])[target]
    return float(-np.log((chances * aims).sum(axis=1)).mean()), (chances - aims) / case.batch
