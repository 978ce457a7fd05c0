"""The training of an estimator's network: scikit-learn's rules for rates and for stopping, on a Trainer.

Theory of operation. An epoch ends with an evaluation, for which the next waits. It computes the score on the validation
rows, if there are any, and judges: is the epoch better than the best before, and for how many epochs was none? What it
needs of earlier epochs are the numbers of the epoch before (`trainer.evaluation`), so any worker can do it. Where the
rate is to be divided ("adaptive"), the Trainer ends, and another goes on with its optimiser's state.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp import optim
from karp.errors import ProgramError
from karp.estimator.network import BaseNetwork
from karp.estimator.rows import Rows
from karp.tabular.network.recipe import Recipe

if TYPE_CHECKING:
    from karp.trainer.trainer import Trainer

Array = NDArray[Any]
SMALLEST_RATE = 1e-6  # an adaptive rate is divided until it is not above this
DIVISOR = 5.0
SHARED_WORK = 1 << 27  # products of a batch's forward pass; with less, two shards cost one process a third more
SHARD_ROWS, MOST_SHARDS = 256, 8
Numbers = Mapping[str, float]
Validate = Callable[[], dict[str, float]]
Watch = Callable[[int, Numbers], bool]


@dataclass(frozen=True)
class Rules:
    """All that steers a training, besides weights and rows; the names are scikit-learn's.

    `rate` is that of the first epoch, `seen` the samples that other trainings of the network have seen, and `epochs`
    the most epochs. `best` and `failures` are what `judge` returned last; with `scored`, what counts is the score. A
    `recipe` has an optimiser of its own.
    """

    solver: str
    alpha: float
    batch_size: int
    learning_rate: str
    learning_rate_init: float
    power_t: float
    momentum: float
    nesterovs_momentum: bool
    beta_1: float
    beta_2: float
    epsilon: float
    tol: float
    n_iter_no_change: float
    epochs: int
    scored: bool
    shards: int
    rate: float
    seen: int
    best: float
    failures: int
    constant_rate: bool = False  # as of a single epoch, whose rate follows from others
    recipe: Recipe | None = None

    @property
    def ties(self) -> Literal["first", "last"]:
        """Which of several epochs with the best score is kept; a recipe's rate falls, so there the last is."""
        return "first" if self.recipe is None else "last"

    def optimizer(self, rate: float, samples: int) -> optim.Optimizer:
        """Return the optimiser that begins with a rate, for an epoch of so many samples."""
        if self.recipe is not None:
            return self.recipe.optimizer(samples)
        if self.solver == "adam":
            return optim.Adam(rate, betas=(self.beta_1, self.beta_2), eps=self.epsilon, eps_hat=True)
        lr: float | optim.Schedule = rate
        if self.learning_rate == "invscaling" and not self.constant_rate:
            steps = -(-samples // self.batch_size)
            lr = optim.InverseScaling(rate, self.power_t, steps=steps, samples=samples, before=self.seen)
        moving = self.momentum > 0
        return optim.SGD(lr, self.momentum, nesterov=self.nesterovs_momentum and moving, velocity=moving)

    def judge(self, loss: float, validated: Numbers, last: Numbers) -> dict[str, float]:
        """Return the numbers of an epoch: its loss, the best until now, and for how many epochs none was better.

        `validated` are those on the validation rows, `last` those of the epoch before, {} for the first. A score or
        loss must be better by `tol` to count, but any better one is the best.

        >>> rules = Rules("adam", 0, 1, "constant", 1, 1, 0, False, 0, 0, 1, 0.5, 2, 9, False, 1, 1, 0, math.inf, 0)
        >>> first = rules.judge(3.0, {}, {})
        >>> rules.judge(2.8, {}, first)
        {'loss': 2.8, 'best': 2.8, 'failures': 1}
        """
        best, failures = last.get("best", self.best), last.get("failures", self.failures)
        value = validated["score"] if self.scored else loss
        worse = value < best + self.tol if self.scored else value > best - self.tol
        better = value > best if self.scored else value < best
        return {"loss": loss, **validated, "best": value if better else best, "failures": failures + 1 if worse else 0}

    def next_rate(self, epochs: int, samples: int) -> float:
        """Return the rate that a further epoch would have, after so many of so many samples; not for "adaptive"."""
        if self.solver == "adam" or self.learning_rate != "invscaling":
            return self.rate
        return self.learning_rate_init / math.pow(self.seen + epochs * samples + 1, self.power_t)

    def plain(self) -> dict[str, Any]:
        """Return the rules as plain types, for a file: a float, which may be infinite, as a text."""
        plain = {}
        for name, value in asdict(self).items():
            value = value.item() if isinstance(value, np.generic) else value
            plain[name] = repr(value) if isinstance(value, float) else value
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Rules:
        """Return the rules that `plain` has returned."""
        names = ("solver", "learning_rate")
        values: dict[str, Any] = dict(plain)
        for name, value in plain.items():
            if isinstance(value, str) and name not in names:
                values[name] = float(value)
        if plain["recipe"] is not None:
            values["recipe"] = Recipe.from_dict(plain["recipe"])
        return cls(**values)


class Trained(NamedTuple):
    """What a training has made, besides the network's weights: the numbers of each epoch, and what goes on from it."""

    epochs: list[dict[str, float]]
    stopped: bool  # by the rules or by `Training.watch`, perhaps before the most epochs
    rate: float  # of the next epoch
    best_weights: Array | None  # of the best score, if one is better than `Rules.best`
    interrupted: bool


class Training:
    """The training of a network in this process.

    Args:
        validate: returns the numbers of the network on the validation rows, its "score" among them; None without.
        state: the optimiser's; its vectors are changed in place, and `state` then has the age.
        watch: is called with each epoch and its numbers, and returns whether the training is to stop.
    """

    def __init__(
        self, network: BaseNetwork, rows: Rows, rules: Rules, validate: Validate | None, state: optim.OptimizerState,
        watch: Watch,
    ) -> None:  # fmt: skip
        self.network = network
        self.rows = rows
        self.rules = rules
        self.validate = validate
        self.state = state
        self.watch = watch
        self.rate = rules.rate
        self.epochs: list[dict[str, float]] = []
        self.best_weights: Array | None = None
        self.asked = False  # whether `watch` has asked to stop
        self.failed = False  # whether too many epochs were not better: the rate is divided, or the training is over

    def run(self) -> Trained:
        """Train until the rules stop it, or Ctrl-C, after which the weights are those of the last step.

        Raises what `Trainer.batches` raises.
        """
        interrupted = stopped = False
        try:
            while not stopped and len(self.epochs) < self.rules.epochs:
                self._train_at_one_rate()
                stopped = self.asked or not self._divide_rate()
        except KeyboardInterrupt:
            interrupted = True
        divided = self.rate != self.rules.rate
        rate = self.rate if divided else self.rules.next_rate(len(self.epochs), len(self.rows))
        return Trained(self.epochs, stopped and (self.asked or self.failed), rate, self.best_weights, interrupted)

    def _train_at_one_rate(self) -> None:
        """Train until epochs fail to be better, or there are no more."""
        from karp.trainer.trainer import Trainer  # only a fit needs it

        rules, rows, done = self.rules, self.rows, len(self.epochs)
        rows.begin = done
        trainer = Trainer(
            self.network, rules.optimizer(self.rate, len(rows)), batch_size=rules.batch_size,
            epochs=rules.epochs - done, shards=rules.shards, optimizer_state=self.state, record=False, show=False,
        )  # fmt: skip
        carried = self.epochs[-1] if self.epochs else {}

        def evaluate() -> dict[str, float]:
            last, scores = numbers_of_epoch(trainer, rules, self.validate, carried)
            better = scores["best"] != last.get("best", rules.best)
            if rules.scored and (better or (rules.ties == "last" and scores["score"] == scores["best"])):
                self.best_weights = self.network.parameters.data.copy()
            self.epochs.append(scores)
            self.failed = scores["failures"] > rules.n_iter_no_change
            self.asked = self.watch(len(self.epochs) - 1, scores)
            if self.asked or self.failed:
                trainer.stop()
            return scores

        try:
            train(trainer, self.network, rows, rules.alpha, evaluate)
        finally:  # after Ctrl-C, too: the vectors have been changed in place
            with contextlib.suppress(ProgramError):  # it has not begun
                self.state = self.state._replace(age=self.state.age + trainer.step)

    def _divide_rate(self) -> bool:
        """Divide an adaptive rate after failures, and return whether the training goes on with it."""
        rules = self.rules
        if not self.failed or rules.solver == "adam" or rules.learning_rate != "adaptive" or self.rate <= SMALLEST_RATE:
            return False
        self.rate /= DIVISOR
        self.epochs[-1]["failures"] = 0
        self.failed = False
        return True


def numbers_of_epoch(
    trainer: Trainer, rules: Rules, validate: Validate | None, carried: Numbers
) -> tuple[Numbers, dict[str, float]]:
    """Return the numbers of the epoch before, and those of the epoch that is evaluated; `carried` are of a run before.

    Called in a Trainer's `evaluate`.
    """
    evaluation = trainer.evaluation
    assert evaluation is not None
    last = evaluation.last_scores or carried
    return last, rules.judge(evaluation.loss, {} if validate is None else validate(), last)


def train(trainer: Trainer, network: BaseNetwork, rows: Rows, alpha: float, evaluate: Callable[[], Any]) -> None:
    """Train a network on all batches that this process is given."""
    with trainer:
        for x, y, *weights in trainer.batches(rows, evaluate=evaluate, wait_for_score=True):
            trainer.backward(network.loss(x, y, weights[0] if weights else None), alpha)


def shards_of(batch_size: int, coefs: Sequence[Array]) -> int:
    """Return the shards of a batch: 1, or so many that several workers pay, which follows from the work that it is.

    >>> import numpy as np
    >>> small, large = [np.zeros((64, 128))], [np.zeros((784, 1024))]
    >>> [shards_of(200, small), shards_of(200, large), shards_of(2048, large), shards_of(1 << 20, large)]
    [1, 2, 8, 8]
    """
    work = batch_size * sum(coef.size for coef in coefs)
    return 1 if work < SHARED_WORK else max(2, min(MOST_SHARDS, 1 << max(batch_size // SHARD_ROWS, 1).bit_length() - 1))
