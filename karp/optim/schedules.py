"""Learning-rate schedules: frozen dataclasses of numbers that return the rate of a step when they are called.

Steps count the updates already applied, so the first update asks for step 0. Every schedule's first field is
``lr``, the highest rate that it returns, or for a `WarmUp` a schedule that starts with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from karp.optim import checks


@dataclass(frozen=True)
class Constant:
    """The same rate at every step, like a plain float.

    >>> Constant(0.1)(1000)
    0.1
    """

    lr: float

    def __post_init__(self) -> None:
        checks.number(self, "lr", 0, checks.LARGEST_RATE)

    def __call__(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class StepDecay:
    """``lr * gamma ** (step // step_size)``; `torch.optim.lr_scheduler.StepLR`.

    >>> [StepDecay(1.0, step_size=10, gamma=0.5)(step) for step in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        checks.number(self, "lr", 0, checks.LARGEST_RATE)
        checks.steps(self, "step_size")
        checks.number(self, "gamma", 0, 1)

    def __call__(self, step: int) -> float:
        return self.lr * self.gamma ** (step // self.step_size)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from ``lr`` at step 0 down to ``min_lr`` at ``steps``, and ``min_lr`` from there on.

    Source: Loshchilov and Hutter, SGDR, 2017, equation 5 without restarts.

    >>> [round(Cosine(1.0, steps=4)(step), 4) for step in (0, 1, 2, 3, 4, 5)]
    [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    lr: float
    steps: int
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        checks.number(self, "lr", 0, checks.LARGEST_RATE)
        checks.steps(self, "steps")
        checks.number(self, "min_lr", 0, self.lr)

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.min_lr
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass(frozen=True)
class CosLog:
    """Cosine waves from 0 up to ``lr`` and back to 0, each twice as long as the last; 0 from ``steps`` on.

    The rate is ``lr * (1 - cos(2 pi log2(1 + (2 ** waves - 1) * step / steps))) / 2``. With four waves this is the
    schedule "coslog4" of RealMLP: Holzmüller, Grinsztajn and Steinwart, 2024, arXiv 2407.04491.

    >>> [round(CosLog(1.0, steps=30)(step), 4) for step in (0, 1, 2, 4, 14, 30, 31)]
    [0.0, 0.9304, 0.0, 0.9304, 0.0, 0.0, 0.0]
    """

    lr: float
    steps: int
    waves: int = 4

    def __post_init__(self) -> None:
        checks.number(self, "lr", 0, checks.LARGEST_RATE)
        checks.steps(self, "steps")
        checks.steps(self, "waves", 30)

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return 0.0
        return self.lr * (1 - math.cos(2 * math.pi * math.log2(1 + (2**self.waves - 1) * step / self.steps))) / 2


@dataclass(frozen=True)
class InverseScaling:
    """``lr / (count + 1) ** power_t``, where every ``steps`` steps add ``samples`` to the count.

    With the defaults the count is the step: the schedule of scikit-learn's `SGDClassifier` and `SGDRegressor` with
    ``learning_rate="invscaling"``, whose steps are single samples. Its `MLPClassifier` and `MLPRegressor` count samples
    and change the rate once an epoch: ``steps`` is then the number of an epoch's steps, ``samples`` of its samples, and
    ``before`` what other trainings of the model have counted, which is added after the first epoch.

    >>> [InverseScaling(1.0)(step) for step in (0, 3, 99)]
    [1.0, 0.5, 0.1]
    >>> [InverseScaling(1.0, steps=2, samples=15)(step) for step in (0, 1, 2, 3)]
    [1.0, 1.0, 0.25, 0.25]
    """

    lr: float
    power_t: float = 0.5
    steps: int = 1
    samples: int = 1
    before: int = 0

    def __post_init__(self) -> None:
        checks.number(self, "lr", 0, checks.LARGEST_RATE)
        checks.number(self, "power_t", 0, 10)
        checks.steps(self, "steps")
        checks.steps(self, "samples")
        checks.steps(self, "before", lowest=0)

    def __call__(self, step: int) -> float:
        epoch = step // self.steps
        count = epoch * self.samples + self.before if epoch else 0
        return self.lr / math.pow(count + 1, self.power_t)


@dataclass(frozen=True)
class WarmUp:
    """A linear rise to ``lr`` during ``steps`` steps, then ``lr`` itself, a rate or a schedule that starts there.

    The first rate is ``lr / (steps + 1)``, not zero, so that no update is wasted.

    >>> [WarmUp(1.0, steps=3)(step) for step in (0, 1, 2, 3, 4)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    >>> [WarmUp(StepDecay(1.0, step_size=1, gamma=0.5), steps=1)(step) for step in (0, 1, 2, 3)]
    [0.5, 1.0, 0.5, 0.25]
    """

    lr: float | Constant | StepDecay | Cosine | InverseScaling
    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.lr, Constant | StepDecay | Cosine | InverseScaling):
            checks.number(self, "lr", 0, checks.LARGEST_RATE)
        checks.steps(self, "steps")

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return rate_at(self.lr, 0) * (step + 1) / (self.steps + 1)
        return rate_at(self.lr, step - self.steps)


Schedule = Constant | StepDecay | Cosine | CosLog | InverseScaling | WarmUp


def rate_at(lr: float | Schedule, step: int) -> float:
    """Return the rate at ``step``, of a number or a schedule."""
    return lr if isinstance(lr, float) else lr(step)


def highest(lr: float | Schedule) -> float:
    """Return the highest rate of a number or a schedule at any step."""
    while not isinstance(lr, float):
        lr = lr.lr
    return lr
