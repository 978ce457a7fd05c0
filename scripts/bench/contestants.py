"""The step in karp and in the engines people use, each written as its users write it.

A contestant is a function of a case that gives `run(steps)`: train for so many steps on the case's batch, then return
the last loss. Everybody begins with the same weights, and nobody reads a loss inside the loop. Each runs in a process
of its own, which `ENVIRONMENT` holds to one thread.

Nobody can be timed doing less work: before the rounds the first losses are compared with `handwritten.losses`. Two are
excepted. `matmul` trains nothing. scikit-learn shuffles, so its batches are others; its step includes
gathering them, and its rate is taken over whole epochs of a table, as only there is a step of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import handwritten, scalars
from bench.cases import RATE, Case
from bench.handwritten import Run

ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NPROC": "1",  # XLA's own pool: without this JAX trains on 1.2 to 1.9 cores
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}


def karp(case: Case) -> Run:
    """As in karp's README."""
    from karp import nn, optim

    inputs, *hidden, outputs = case.sizes
    model = nn.MLP(inputs, hidden, outputs, activation=case.activation)
    model.parameters.load({
        f"layers.{i}.{kind}": array
        for i, layer in enumerate(case.layers())
        for kind, array in zip(("weight", "bias"), layer, strict=True)
    })
    parameters = model.parameters
    updater = optim.Updater(optim.SGD(RATE), parameters)
    criterion = getattr(nn, case.loss)
    x, y = case.data()

    def run(steps: int) -> float:
        for _ in range(steps):
            parameters.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            updater.update(parameters.grad)
        return float(loss.item())

    return run


def torch(case: Case, compiled: bool = False) -> Run:
    """Eager PyTorch with its own SGD."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    layers: list[Any] = []
    for weight, bias in case.layers():
        layer = nn.Linear(*weight.shape)
        layer.load_state_dict({"weight": torch.from_numpy(weight.T.copy()), "bias": torch.from_numpy(bias)})
        layers += [layer, nn.ReLU() if case.activation == "relu" else nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    criterion = nn.CrossEntropyLoss() if case.loss == "cross_entropy" else nn.MSELoss()
    x, y = (torch.from_numpy(array) for array in case.data())

    def forward(x: Any, y: Any) -> Any:
        return criterion(model(x), y)

    if compiled:  # the optimiser too, or the whole step, was no faster
        forward = torch.compile(forward)

    def run(steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = forward(x, y)
            loss.backward()
            optimizer.step()
        return float(loss.item())

    return run


def torch_compile(case: Case) -> Run:
    """PyTorch, model and loss through its compiler."""
    return torch(case, compiled=True)


def jax(case: Case) -> Run:
    """JAX, the whole step jitted, its buffers donated."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_cpu_enable_async_dispatch", False)  # type: ignore[no-untyped-call]  # one thread, and faster
    activate = jax.nn.relu if case.activation == "relu" else jnp.tanh

    def loss_of(layers: Any, x: Any, y: Any) -> Any:
        for weight, bias in layers[:-1]:
            x = activate(x @ weight + bias)
        weight, bias = layers[-1]
        out = x @ weight + bias
        if case.loss == "mse":
            return jnp.mean((out - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1))

    def step(layers: Any, x: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(layers, x, y)
        return jax.tree.map(lambda weight, gradient: weight - RATE * gradient, layers, gradients), loss

    jitted = jax.jit(step, donate_argnums=0)
    layers = [tuple(jnp.array(array) for array in layer) for layer in case.layers()]
    x, y = (jnp.array(array) for array in case.data())

    def run(steps: int) -> float:
        nonlocal layers
        for _ in range(steps):
            layers, loss = jitted(layers, x, y)
        return float(loss)

    return run


def autograd(case: Case) -> Run:
    """HIPS autograd."""
    import autograd.numpy as anp  # type: ignore[import-untyped]
    import numpy as np
    from autograd import value_and_grad

    x, y = case.data()
    aims = np.eye(case.sizes[-1], dtype=np.float32)[y] if case.loss == "cross_entropy" else y  # indexing is slower

    def loss_of(layers: Any) -> Any:
        out = x
        for weight, bias in layers[:-1]:
            out = anp.dot(out, weight) + bias
            out = out * (out > 0) if case.activation == "relu" else anp.tanh(out)  # faster than maximum
        weight, bias = layers[-1]
        out = anp.dot(out, weight) + bias
        if case.loss == "mse":
            return anp.mean((out - aims) ** 2)
        out = out - anp.max(out, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(out), axis=1)) - anp.sum(out * aims, axis=1))

    layers = list(case.layers())
    gradient_of = value_and_grad(loss_of)

    def run(steps: int) -> float:
        for _ in range(steps):
            loss, gradients = gradient_of(layers)
            for layer, slopes in zip(layers, gradients, strict=True):
                for array, slope in zip(layer, slopes, strict=True):
                    array -= RATE * slope
        return float(loss)

    return run


def sklearn(case: Case) -> Run:
    """scikit-learn's MLPClassifier, whole epochs of a table of many batches."""
    import numpy as np
    from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]

    x, y = case.data(sklearn_batches(case))
    model = MLPClassifier(
        case.sizes[1:-1], solver="sgd", learning_rate_init=RATE, momentum=0, alpha=0, batch_size=case.batch,
        random_state=0,
    )  # fmt: skip
    classes = np.arange(case.sizes[-1])

    def run(epochs: int) -> float:
        for _ in range(epochs):
            model.partial_fit(x, y, classes=classes)
        return float(model.loss_)

    return run


def sklearn_batches(case: Case) -> int:
    """Batches in scikit-learn's table: an epoch is long enough for what it does once, and short enough for a turn."""
    return {"S": 300, "M": 30}.get(case.name, 4)


@dataclass(frozen=True)
class Contestant:
    """One of the names in the table."""

    build: Callable[[Case], Run]
    needs: str  # the module to import
    package: str  # and what to install for it
    cases: str = "TSML"
    checked: bool = True  # its first losses are those of handwritten.losses
    activation: str | None = None  # of the hidden layers, if not the case's
    steps: Callable[[Case], int] = lambda case: 1  # steps in one `run(1)`


CONTESTANTS = {
    "karp": Contestant(karp, "karp", "karp"),
    "numpy": Contestant(handwritten.step, "numpy", "numpy"),
    "matmul": Contestant(handwritten.products, "numpy", "numpy", checked=False),
    "jax": Contestant(jax, "jax", "jax"),
    "torch": Contestant(torch, "torch", "torch"),
    "torch-compile": Contestant(torch_compile, "torch", "torch"),
    "sklearn": Contestant(sklearn, "sklearn", "scikit-learn", cases="SML", checked=False, steps=sklearn_batches),
    "autograd": Contestant(autograd, "autograd", "autograd"),
    "karp-scalar": Contestant(scalars.karp, "karp", "karp", cases="T", activation="relu"),
    "micrograd": Contestant(scalars.micrograd, "micrograd", "micrograd", cases="T", activation="relu"),
}
