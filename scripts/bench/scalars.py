"""The step with one value per number, as in micrograd's demonstration: MLP(3, [4, 4], 1) on four samples.

The code is the same for both engines and uses only what both have: + * ** and relu, in place of T's tanh. Numbers are
Python floats. A step makes about 300 nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.cases import RATE, Case
from bench.handwritten import Run


def karp(case: Case) -> Run:
    """One `karp.Value` per number."""
    from karp import Value

    return _run(case, Value)


def micrograd(case: Case) -> Run:
    """One of micrograd's values per number."""
    from micrograd.engine import Value  # type: ignore[import-untyped]

    return _run(case, Value)


def _run(case: Case, value: Callable[[float], Any]) -> Run:
    x, y = (array.tolist() for array in case.data())
    # layers of neurons, each (weights of its inputs, bias)
    layers = [
        [([value(w) for w in column], value(b)) for column, b in zip(weight.T.tolist(), bias.tolist(), strict=True)]
        for weight, bias in case.layers()
    ]
    parameters = [one for layer in layers for weights, bias in layer for one in (*weights, bias)]

    def predict(numbers: list[Any]) -> Any:
        for layer in layers:
            sums = [sum((w * n for w, n in zip(weights, numbers)), bias) for weights, bias in layer]  # noqa: B905
            numbers = [one.relu() for one in sums] if layer is not layers[-1] else sums
        return numbers[0]

    def run(steps: int) -> float:
        for _ in range(steps):
            total = sum((predict(sample) - aim) ** 2 for sample, (aim,) in zip(x, y, strict=True))
            loss = total * (1 / case.batch)
            for one in parameters:
                one.grad = 0.0
            loss.backward()
            for one in parameters:
                one.data -= RATE * one.grad
        return float(loss.data)

    return run
