"""The check of an estimator's parameters, at the beginning of a fit; each that cannot be used is a SettingError."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from karp import checks
from karp.checks import refusal
from karp.errors import SettingError
from karp.estimator.network import ACTIVATIONS

SOLVERS = ("adam", "sgd")
CHOICES = {
    "activation": tuple(ACTIVATIONS),
    "solver": SOLVERS,
    "learning_rate": ("constant", "invscaling", "adaptive"),
    "loss": ("squared_error", "poisson"),
    "recipe": (None, "karp"),
}
RANGES = {  # name -> the least and the largest, and whether these two may not be taken
    "alpha": (0.0, math.inf, False, True),
    "learning_rate_init": (0.0, 1e6, True, False),
    "power_t": (0.0, 10.0, False, False),
    "tol": (0.0, math.inf, False, True),
    "momentum": (0.0, 1.0, False, False),
    "validation_fraction": (0.0, 1.0, False, True),
    "beta_1": (0.0, 1.0, False, True),
    "beta_2": (0.0, 1.0, False, True),
    "epsilon": (1e-20, 1.0, False, False),
}
SWITCHES = ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping")


def check(parameters: Mapping[str, Any]) -> None:
    """Raise SettingError, naming the parameter, for the first that cannot be used."""
    for name, choices in CHOICES.items():
        if name in parameters and parameters[name] not in choices:
            hint = " (lbfgs is scikit-learn's: sklearn.neural_network has it)" if parameters[name] == "lbfgs" else ""
            raise refusal(name, parameters[name], f"one of {', '.join(map(str, choices))}{hint}")
    for name, (low, high, above, below) in RANGES.items():
        number = checks.number(name, parameters[name], low, high, below=below)
        if above and number == low:
            raise refusal(name, parameters[name], f"a number above {low:g}")
    for name in SWITCHES:
        checks.switch(name, parameters[name])
    checks.whole("max_iter", parameters["max_iter"], 1)
    if parameters["n_iter_no_change"] != math.inf:
        checks.whole("n_iter_no_change", parameters["n_iter_no_change"], 1, besides=", or infinity")
    if parameters["batch_size"] != "auto":
        checks.whole("batch_size", parameters["batch_size"], 1, besides=", or 'auto'")
    jobs = parameters["n_jobs"]
    if jobs is not None and jobs != -1:
        checks.whole("n_jobs", jobs, 1, besides=", -1 for all cores, or None for 1")
    weight = parameters.get("class_weight")
    if not (weight is None or weight == "balanced" or isinstance(weight, Mapping)):
        raise refusal("class_weight", weight, "None, 'balanced', or a dict of classes and weights")
    hidden_sizes(parameters["hidden_layer_sizes"])


def hidden_sizes(given: Any) -> list[int]:
    """Return the sizes of the hidden layers; raise SettingError unless each is a whole number from 1."""
    sizes = list(given) if np.iterable(given) and not isinstance(given, str | bytes) else [given]
    try:
        return [checks.whole("hidden_layer_sizes", size, 1) for size in sizes]
    except SettingError:
        raise refusal("hidden_layer_sizes", given, "the sizes of the hidden layers, whole numbers > 0") from None
