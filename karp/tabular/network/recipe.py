"""The recipe: every choice of network, optimiser and schedule that `karp fit` makes, as plain data.

The defaults are those of RealMLP-TD-S (Holzmüller, Grinsztajn and Steinwart, 2024, arXiv 2407.04491) with a
piecewise-linear encoding of numbers, but for three. A training has 32 epochs, or 16 on few rows, not 256: on eight sets
of 6,400 rows 32 gave 0.95 times the errors of 16 (0.76 to 1.02), on five of 940 to 3,200 rows 1.02 times; 64 were no
better. The rate is 0.02, not 0.04 (numbers: 0.07): six splits of each gave errors 1.5 % lower (standard error 1 %), 3 %
in the last epoch; 0.01 was 4 % worse. Members do better with 0.03. The batch grows with the rows, as in RealMLP-TD.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from karp import checks, optim
from karp.errors import DataError, SettingError
from karp.limits import setting
from karp.tabular.network.preprocessing import BINS

Task = Literal["classification", "regression"]
ACTIVATIONS = ("selu", "mish", "relu", "elu", "tanh")
SCHEDULES = ("coslog4", "cosine", "constant")
LARGEST_BATCH = 1 << 20
LEAST_WORK = 1 << 22  # products of a row's number and a weight between hidden layers, in a shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a network of a table is, and how it is trained; `Recipe.default` makes one for a task.

    Attributes:
        task: what is predicted, classes or a number.
        layers: the sizes of the hidden layers; () is a linear model, which has one member.
        activation: behind each of them.
        bins: of the piecewise-linear encoding of a number, at most; 0: none.
        members: networks that share their weights but for the scales of their inputs and their last layer, and whose
            predictions are averaged (TabM-mini, arXiv 2410.24210); 1: one network.
        epochs, batch_size, shards: as a Trainer takes them.
        rate: the highest learning rate of weights.
        schedule: coslog4, cosine or constant.
        betas: of Adam.
        smoothing: the label smoothing.
        dropout: behind each hidden layer, in steps of 1/256.
        weight_decay: decoupled, as AdamW has it.
        scale_factor, bias_factor: the rates of input scales and of biases, in terms of `rate`.
        seed: of the initial weights and of the order of rows.
    """

    task: Task
    layers: tuple[int, ...] = (256, 256, 256)
    activation: str = "selu"
    bins: int = BINS
    members: int = 1
    epochs: int = 32
    batch_size: int = 256
    shards: int = 1
    rate: float = 0.02
    schedule: str = "coslog4"
    betas: tuple[float, float] = (0.9, 0.95)
    smoothing: float = 0.0
    dropout: float = 0.0
    weight_decay: float = 0.0
    scale_factor: float = 6.0
    bias_factor: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, checked in _checked(self).items():
            object.__setattr__(self, name, checked)

    @classmethod
    def default(cls, task: Task, *, rows: int, score: str = "", **overrides: Any) -> Recipe:
        """Return the recipe for a task, a number of training rows and the score that counts.

        `overrides` are fields of the recipe; None stands for the default. Raises SettingError for one that is none, or
        has a value that cannot be used.

        >>> Recipe.default("classification", rows=344, score="accuracy").smoothing
        0.1
        """
        classes = task == "classification"
        given = {name: value for name, value in overrides.items() if value is not None}
        if unknown := given.keys() - {field.name for field in fields(cls)}:
            raise SettingError(f"the recipe has no {sorted(unknown)[0]!r:.60}; it has {_names()}")
        batch_size = setting("batch_size", given.get("batch_size", batch_size_for(rows, task)))
        alone = given.get("members", 1) == 1
        chosen: dict[str, Any] = {
            "layers": (256,) * 3 if alone else (128,) * 3,
            "rate": 0.02 if alone else 0.03,
            "activation": "selu" if classes else "mish",
            "batch_size": batch_size,
            "epochs": epochs_for(rows, batch_size),
            "smoothing": 0.1 if score == "accuracy" else 0.0,
        }
        recipe = cls(task=task, **{**chosen, **given})
        return recipe if "shards" in given else replace(recipe, shards=shards_for(recipe))

    def steps(self, rows: int) -> int:
        """Return the number of steps of a training on so many rows."""
        return self.epochs * math.ceil(rows / self.batch_size)

    def optimizer(self, rows: int) -> optim.Optimizer:
        """Return the optimiser for a training on so many rows, with its schedule."""
        steps = self.steps(rows)
        rate: float | optim.Schedule = self.rate
        if self.schedule == "coslog4":
            rate = optim.CosLog(self.rate, steps)
        elif self.schedule == "cosine":
            rate = optim.Cosine(self.rate, steps)
        if self.weight_decay:
            return optim.AdamW(rate, betas=self.betas, weight_decay=self.weight_decay)
        return optim.Adam(rate, betas=self.betas)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: object) -> Recipe:
        """Return the recipe from plain data; raise DataError for what `to_dict` does not write."""
        names = [field.name for field in fields(cls)]
        if not isinstance(plain, dict) or set(plain) != set(names):
            raise DataError(f"{plain!r:.80} is no recipe: it has {_names()}")
        try:
            return cls(**plain)
        except SettingError as error:
            raise DataError(str(error)) from None


def batch_size_for(rows: int, task: Task) -> int:
    """Return the batch size for a number of training rows: RealMLP's, but for classes of more than 30,000 rows 1,024.

    That takes 0.86 times the time of its 512 there. On two sets with three seeds each it gave 0.993 times the errors
    (standard error 0.003); on two sets of numbers 1.007 times, so these keep 512.
    """
    for most, size in ((1024, 64), (8192, 128), (30_000, 256), (100_000, 512 if task == "regression" else 1024)):
        if rows <= most:
            return size
    return 1024


def epochs_for(rows: int, batch_size: int) -> int:
    """Return the number of epochs: 32, or 16 on at most 4,096 rows; but at least as many as make 200 steps."""
    return max(16 if rows <= 4096 else 32, math.ceil(200 / math.ceil(rows / batch_size)))


def shards_for(recipe: Recipe) -> int:
    """Return the number of shards of a batch, from its size and the network alone: 1, 2, 4 or 8.

    In one process each costs a pass through the graph, so a shard has at least 128 rows, of eight 256, and work worth
    it. Measured on three layers of 256, in times of one shard: batches of 256 in two 1.07 to 1.16 (20 numbers 1.10), of
    512 in four 1.09 to 1.17, of 1,024 in four 1.09 to 1.13, in eight up to 1.34 (flights). On two layers of 128 and few
    numbers: 256 in two 1.22, 512 in four 1.35.
    """
    pairs = sum(size * following for size, following in itertools.pairwise(recipe.layers)) * recipe.members
    shards = 1
    for count, least in ((2, 128), (4, 128), (8, 256)):
        rows = recipe.batch_size // count
        if rows >= least and rows * pairs >= LEAST_WORK:
            shards = count
    return shards


def _names() -> str:
    return ", ".join(field.name for field in fields(Recipe))


def _checked(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe as Python's own types; raise SettingError for one that cannot be used."""

    def choice(name: str, among: tuple[str, ...]) -> str:
        value: object = getattr(recipe, name)
        if not isinstance(value, str) or value not in among:
            raise checks.refusal(f"recipe: {name}", value, f"one of {', '.join(among)}")
        return value

    def whole(name: str, low: int, high: int) -> int:
        return checks.whole(f"recipe: {name}", getattr(recipe, name), low, high)

    def number(name: str, low: float, high: float, below: bool = False) -> float:
        return checks.number(f"recipe: {name}", getattr(recipe, name), low, high, below=below)

    def several(name: str) -> tuple[Any, ...]:
        value: object = getattr(recipe, name)
        if not isinstance(value, tuple | list):
            raise checks.refusal(f"recipe: {name}", value, "a list of numbers")
        return tuple(value)

    betas = several("betas")
    if len(betas) != 2:
        raise checks.refusal("recipe: betas", betas, "two numbers")
    return {
        "task": choice("task", ("classification", "regression")),
        "layers": tuple(checks.whole("recipe: layers", size, 1, 1 << 16) for size in several("layers")),
        "activation": choice("activation", ACTIVATIONS),
        "bins": whole("bins", 0, BINS),
        "members": whole("members", 1, 1024 if recipe.layers else 1),
        "epochs": setting("epochs", recipe.epochs),
        "batch_size": whole("batch_size", 1, LARGEST_BATCH),
        "shards": whole("shards", 1, recipe.batch_size),
        "rate": number("rate", 0, 1e3),
        "schedule": choice("schedule", SCHEDULES),
        "betas": tuple(checks.number("recipe: betas", beta, 0, 1, below=True) for beta in betas),
        "smoothing": number("smoothing", 0, 1, below=True),
        "dropout": number("dropout", 0, 0.99),
        "weight_decay": number("weight_decay", 0, 1),
        "scale_factor": number("scale_factor", 1e-6, 1e6),
        "bias_factor": number("bias_factor", 1e-6, 1e6),
        "seed": setting("seed", recipe.seed),
    }
