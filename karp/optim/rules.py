"""The optimisers: frozen dataclasses of numbers with a rule that updates a vector.

An update has two parts. ``prepare(gradient, step)`` reads the whole gradient once and returns *factors*: every number
that the rule needs, as a Python float (this step's rate, the clipping factor, bias corrections, constants).
``apply(source, gradient, factors, scratch, target)`` is the rule itself, on whole vectors or on matching slices:

- It works elementwise, so the bits are the same however the vectors are cut.
- It reads weights and state of ``source`` and writes those of ``target``, which may be the same; the gradient it only
  reads. Intermediate results go to ``scratch``, two arrays of the slices' length, so no memory is allocated.
- The factors are Python floats or 0-d arrays of the vectors' dtype. The bits are the same and float32 stays float32;
  for arrays, which `Updater` passes, NumPy takes 0.3 us less per call.
- A zero weight with zero gradients and zero state stays +0.0, so the layout's gaps stay zero.

The rules, their defaults (SGD's rate has none) and the position of every eps are those of `torch.optim`, under torch's
argument names; `clip_norm` is that of `torch.nn.utils.clip_grad_norm_`. Two rewritings save passes over memory and
differ only by roundings: Adam's second bias correction is multiplied into the rate and eps, and clipping is done
within `apply`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy import add, divide, multiply, sqrt, subtract, zeros_like

from karp.errors import SettingError
from karp.optim import checks
from karp.optim.norm import clip_factor
from karp.optim.schedules import Schedule, highest, rate_at

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    State = Mapping[str, Array]
    Factors = Sequence[Any]  # float or 0-d array
    Scratch = tuple[Array, Array]


class Vectors(NamedTuple):
    """Weights and an optimiser's state, or the same slice of each of them."""

    weights: Array
    state: State


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent; `torch.optim.SGD` without dampening.

    Args:
        lr: rate per step, a number from 0 or a schedule.
        momentum: the factor of the last direction, from 0 to 1.
        nesterov: whether to look ahead along the momentum.
        velocity: whether the momentum sums steps, each with the rate of its time, as Keras and scikit-learn do, not
            gradients, which the newest rate multiplies. The same but for roundings while the rate is constant.
        weight_decay: added to the gradient as ``weight_decay * weights``.
        clip_norm: longest gradient allowed; a longer one is scaled down to it.

    Raises:
        SettingError: a number is of another type or out of range, as in every optimiser and schedule.

    State: ``momentum``, if there is one.

    >>> SGD(lr=0.1, momentum=0.9)
    SGD(lr=0.1, momentum=0.9, nesterov=False, velocity=False, weight_decay=0.0, clip_norm=None)
    >>> import numpy as np
    >>> sorted(SGD(lr=0.1, momentum=0.9).state(np.zeros(3)))
    ['momentum']
    """

    lr: float | Schedule
    momentum: float = 0.0
    _: KW_ONLY
    nesterov: bool = False
    velocity: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _check_common(self)
        checks.number(self, "momentum", 0, 1)
        for name in ("nesterov", "velocity"):
            checks.switch(self, name)
            if getattr(self, name) and not self.momentum:
                raise SettingError(f"SGD: {name}=True needs a momentum above 0")

    def state(self, weights: Array) -> dict[str, Array]:
        """Return a new state for a vector of weights: name -> zeros like it."""
        return {"momentum": zeros_like(weights)} if self.momentum else {}

    def prepare(self, gradient: Array, step: int, age: int | None = None) -> tuple[float, ...]:
        """Return the factors of update number ``step``, from 0: rate, clip, decay, momentum. ``age`` is not used.

        Raises NotFiniteError if ``clip_norm`` is set and the gradient is not finite.
        """
        return rate_at(self.lr, step), _clipping(self, gradient), self.weight_decay, self.momentum

    def apply(
        self, source: Vectors, gradient: Array, factors: Factors, scratch: Scratch, target: Vectors
    ) -> None:
        """Write to `target` what `source` is after an update by `gradient`; overwrite `scratch`."""
        rate, clip, decay, momentum_factor = factors
        scratch1 = scratch[0]
        if self.clip_norm is not None:
            gradient = _clipped(gradient, clip, scratch)
        if self.weight_decay:
            gradient = _decayed(source.weights, gradient, decay, scratch)
        if not self.momentum:
            multiply(gradient, rate, scratch1)
            subtract(source.weights, scratch1, target.weights)
            return
        momentum = target.state["momentum"]
        multiply(source.state["momentum"], momentum_factor, momentum)
        if self.velocity:
            gradient = multiply(gradient, rate, scratch1)
        add(momentum, gradient, momentum)
        if self.nesterov:
            ahead = multiply(momentum, momentum_factor, scratch[self.velocity])
            step = add(ahead, gradient, ahead)
        else:
            step = momentum
        if not self.velocity:
            step = multiply(step, rate, scratch1)
        subtract(source.weights, step, target.weights)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015); `torch.optim.Adam`, weight decay added to the gradient.

    Args:
        lr: rate per step, a number from 0 or a schedule.
        betas: the decay of the running means of the gradient and of its square, from 0 to below 1.
        eps: added to the root of the mean square.
        eps_hat: whether eps is added before the root's bias is corrected, as Keras and scikit-learn do: the epsilon
            hat of the paper's section 2.
        weight_decay: added to the gradient as ``weight_decay * weights``.
        clip_norm: longest gradient allowed; a longer one is scaled down to it.

    State: ``mean`` and ``square``.

    The first step moves every weight whose gradient is not 0 by ``lr``, however large the gradient is:

    >>> import numpy as np
    >>> from karp.optim import Updater
    >>> updater = Updater(Adam(lr=0.25), np.zeros(3))
    >>> updater.update(np.array([1000.0, -0.5, 0.0]))
    >>> updater.weights.round(6)
    array([-0.25,  0.25,  0.  ])
    """

    lr: float | Schedule = 0.001
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_hat: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _check_common(self)
        checks.number(self, "eps", checks.SMALLEST_EPS, 1)
        checks.switch(self, "eps_hat")
        if not isinstance(self.betas, list | tuple) or len(self.betas) != 2:
            raise checks.refusal(self, "betas", self.betas, "two numbers")
        betas = tuple(checks.as_number(self, "betas", beta, 0, 1, below=True) for beta in self.betas)
        checks.set_field(self, "betas", betas)

    def state(self, weights: Array) -> dict[str, Array]:
        """Return a new state for a vector of weights: name -> zeros like it."""
        return {"mean": zeros_like(weights), "square": zeros_like(weights)}

    def prepare(self, gradient: Array, step: int, age: int | None = None) -> tuple[float, ...]:
        """Return the factors of update number ``step``: rate, clip, decay, eps, 1 - beta1, beta2, 1 - beta2.

        ``age`` is the number of updates that the state has seen, where that is not ``step``. Raises NotFiniteError if
        ``clip_norm`` is set and the gradient is not finite.
        """
        age = (step if age is None else age) + 1
        beta1, beta2 = self.betas
        lr = rate_at(self.lr, step)
        root = math.sqrt(1 - beta2**age)
        rate = lr * root / (1 - beta1**age)
        eps = self.eps if self.eps_hat else self.eps * root
        return rate, _clipping(self, gradient), self._decay(lr), eps, 1 - beta1, beta2, 1 - beta2

    def _decay(self, lr: float) -> float:
        return self.weight_decay

    def apply(
        self, source: Vectors, gradient: Array, factors: Factors, scratch: Scratch, target: Vectors
    ) -> None:
        """Write to `target` what `source` is after an update by `gradient`; overwrite `scratch`."""
        if self.clip_norm is not None:
            gradient = _clipped(gradient, factors[1], scratch)
        if self.weight_decay:
            gradient = _decayed(source.weights, gradient, factors[2], scratch)
        _adam(source, gradient, factors, scratch[0], target)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); `torch.optim.AdamW`.

    Args, state: those of `Adam`, but every step first multiplies the weights by ``1 - lr * weight_decay``.

    Raises:
        SettingError: besides what `Adam` refuses, ``lr * weight_decay`` above 1: weights would change sign.

    >>> import numpy as np
    >>> from karp.optim import Updater
    >>> updater = Updater(AdamW(lr=0.5, weight_decay=0.5), np.ones(1))
    >>> updater.update(np.zeros(1))
    >>> updater.weights
    array([0.75])
    """

    _: KW_ONLY
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if highest(self.lr) * self.weight_decay > 1:
            raise checks.refusal(self, "weight_decay", self.weight_decay, "at most 1 / lr")

    def _decay(self, lr: float) -> float:
        return 1 - lr * self.weight_decay

    def apply(
        self, source: Vectors, gradient: Array, factors: Factors, scratch: Scratch, target: Vectors
    ) -> None:
        """Write to `target` what `source` is after an update by `gradient`; overwrite `scratch`."""
        if self.clip_norm is not None:
            gradient = _clipped(gradient, factors[1], scratch)
        if self.weight_decay:
            multiply(source.weights, factors[2], target.weights)
            source = Vectors(target.weights, source.state)
        _adam(source, gradient, factors, scratch[0], target)


@dataclass(frozen=True)
class RMSprop:
    """RMSprop (Tieleman and Hinton, 2012); `torch.optim.RMSprop`, not centred.

    Args:
        lr: rate per step, a number from 0 or a schedule.
        alpha: the decay of the running mean of the squared gradient, from 0 to below 1.
        eps: added to the root of the mean square.
        momentum: the factor of the last direction, from 0 to below 1.
        weight_decay: added to the gradient as ``weight_decay * weights``.
        clip_norm: longest gradient allowed; a longer one is scaled down to it.

    State: ``square``, and ``momentum`` if there is one.

    >>> import numpy as np
    >>> from karp.optim import Updater
    >>> updater = Updater(RMSprop(lr=0.25, alpha=0.75), np.zeros(2))
    >>> updater.update(np.array([1000.0, -0.5]))
    >>> updater.weights.round(6)
    array([-0.5,  0.5])
    """

    lr: float | Schedule = 0.01
    _: KW_ONLY
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _check_common(self)
        checks.number(self, "alpha", 0, 1, below=True)
        checks.number(self, "eps", checks.SMALLEST_EPS, 1)
        checks.number(self, "momentum", 0, 1, below=True)

    def state(self, weights: Array) -> dict[str, Array]:
        """Return a new state for a vector of weights: name -> zeros like it."""
        names = ("square", "momentum") if self.momentum else ("square",)
        return {name: zeros_like(weights) for name in names}

    def prepare(self, gradient: Array, step: int, age: int | None = None) -> tuple[float, ...]:
        """Return the factors of update number ``step``: rate, clip, decay, eps, alpha, 1 - alpha, momentum.

        ``age`` is not used. Raises NotFiniteError if ``clip_norm`` is set and the gradient is not finite.
        """
        rate, clip = rate_at(self.lr, step), _clipping(self, gradient)
        return rate, clip, self.weight_decay, self.eps, self.alpha, 1 - self.alpha, self.momentum

    def apply(
        self, source: Vectors, gradient: Array, factors: Factors, scratch: Scratch, target: Vectors
    ) -> None:
        """Write to `target` what `source` is after an update by `gradient`; overwrite `scratch`."""
        rate, clip, decay, eps, alpha, one_minus_alpha, momentum_factor = factors
        scratch1, square = scratch[0], target.state["square"]
        if self.clip_norm is not None:
            gradient = _clipped(gradient, clip, scratch)
        if self.weight_decay:
            gradient = _decayed(source.weights, gradient, decay, scratch)
        _update_mean_square(source.state["square"], gradient, alpha, one_minus_alpha, scratch1, square)
        sqrt(square, scratch1)
        add(scratch1, eps, scratch1)
        direction = divide(gradient, scratch1, scratch1)
        if self.momentum:
            direction = target.state["momentum"]
            multiply(source.state["momentum"], momentum_factor, direction)
            add(direction, scratch1, direction)
        multiply(direction, rate, scratch1)
        subtract(source.weights, scratch1, target.weights)


Optimizer = SGD | Adam | AdamW | RMSprop


def _check_common(optimizer: Optimizer) -> None:
    if not isinstance(optimizer.lr, Schedule):
        checks.number(optimizer, "lr", 0, checks.LARGEST_RATE)
    checks.number(optimizer, "weight_decay", 0, checks.LARGEST_RATE)
    if optimizer.clip_norm is not None:
        checks.number(optimizer, "clip_norm", 1e-12, 1e30)


def _clipping(optimizer: Optimizer, gradient: Array) -> float:
    return 1.0 if optimizer.clip_norm is None else clip_factor(gradient, optimizer.clip_norm)


def _clipped(gradient: Array, clip: Any, scratch: Scratch) -> Array:
    """Return the gradient times ``clip``, in the second scratch array; for 1 the gradient itself."""
    if float(clip) == 1.0:  # a product with 1.0 would be the same bits
        return gradient
    clipped: Array = multiply(gradient, clip, scratch[1])
    return clipped


def _decayed(weights: Array, gradient: Array, decay: Any, scratch: Scratch) -> Array:
    """Return the gradient plus ``decay * weights``, in the second scratch array; overwrite the first, too."""
    scratch1, scratch2 = scratch
    multiply(weights, decay, scratch1)
    return add(gradient, scratch1, scratch2)


def _adam(source: Vectors, gradient: Array, factors: Factors, scratch: Array, target: Vectors) -> None:
    """Apply Adam's rule, after clipping and weight decay."""
    rate, _, _, eps, one_minus_beta1, beta2, one_minus_beta2 = factors
    old_mean, mean, square = source.state["mean"], target.state["mean"], target.state["square"]
    subtract(gradient, old_mean, scratch)
    multiply(scratch, one_minus_beta1, scratch)
    add(old_mean, scratch, mean)
    _update_mean_square(source.state["square"], gradient, beta2, one_minus_beta2, scratch, square)
    sqrt(square, scratch)
    add(scratch, eps, scratch)
    divide(mean, scratch, scratch)
    multiply(scratch, rate, scratch)
    subtract(source.weights, scratch, target.weights)


def _update_mean_square(
    square: Array, gradient: Array, beta: Any, one_minus_beta: Any, scratch: Array, target: Array
) -> None:
    """Update a running mean of squares: target = beta * square + (1 - beta) * gradient ** 2."""
    multiply(square, beta, target)
    multiply(gradient, gradient, scratch)
    multiply(scratch, one_minus_beta, scratch)
    add(target, scratch, target)
