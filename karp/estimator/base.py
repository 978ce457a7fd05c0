"""What the estimators share: scikit-learn's attributes and methods, around a `Training`."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from enum import Enum
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from karp import environment
from karp.errors import ProgramError, RunError, SettingError
from karp.estimator import parameters
from karp.estimator.jobs import workers_of
from karp.estimator.network import BaseNetwork, Network, forward
from karp.estimator.recipe import RecipeNetwork, predictions_of, recipe_of, rules_of
from karp.estimator.rows import Rows, Shuffled, in_order
from karp.estimator.samples import Samples, validator
from karp.estimator.training import Numbers, Rules, Trained, Training, Validate, shards_of
from karp.optim import OptimizerState
from karp.tabular.network.recipe import Recipe

Array = NDArray[Any]
PARAMETERS = (  # that are fields of the rules
    "solver", "alpha", "learning_rate", "learning_rate_init", "power_t", "momentum", "nesterovs_momentum", "beta_1",
    "beta_2", "epsilon", "tol", "n_iter_no_change",
)  # fmt: skip
WEIGHTS = ("coefs_", "intercepts_", "model_")  # the attributes that have them: layers, or a recipe's model
NOT_FINITE = "the training has made numbers that are not finite: scale the inputs, or lower the rate"
INITIAL = {"logistic": 2.0}  # activation -> the numerator of the initial weights' variance; 6 for the others


class Classes(Enum):
    """Which classes targets may have."""

    ANY = 0  # the model's will be those
    SAME = 1  # all of the model's, and no other
    KNOWN = 2  # some of the model's


class BaseMLP(CallbackSupportMixin, BaseEstimator):
    """The base class of `MLPClassifier` and `MLPRegressor`, which encode targets and read predictions."""

    def _encode(self, y: Array, dtype: Any, classes: Classes) -> Array:
        """Return targets as the network takes them, and set `out_activation_`; raises ValueError for wrong ones."""
        raise NotImplementedError

    def _decode(self, y: Array) -> Array:
        """Return targets that were encoded as they were."""
        raise NotImplementedError

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, validation: tuple[Any, Any, Any] = (None, None, None),
        *, incremental: bool = False,
    ) -> Self:  # fmt: skip
        """Train on rows, and stop by the training loss or by the score on validation rows.

        With `incremental`, train for one epoch more, with the optimiser as it was.
        """
        parameters.check(self.get_params(deep=False))
        if self.recipe is not None:
            self._recipe(1)  # refuses parameters that it cannot have, before the rows are read
        if environment.read(environment.SERVER):
            raise ProgramError("an estimator starts workers of its own: run this program with python, not karp launch")
        if incremental and self.early_stopping:
            raise SettingError("partial_fit does not support early_stopping=True: an epoch is not split")
        first = not hasattr(self, "n_outputs_") or not (self.warm_start or incremental)
        samples = self._samples(
            X, y, sample_weight, first, Classes.KNOWN if incremental else Classes.ANY if first else Classes.SAME
        )
        self._random_state = check_random_state(self.random_state)
        if first:
            self._begin(samples)
        held_out = self._held_out(validation)
        if self.early_stopping and held_out is None:
            samples, held_out = self._split(samples)
        context = self._init_callback_context(max_subtasks=1 if incremental else self.max_iter)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._train(samples, held_out, incremental, context)
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=self._fitted)
        return self

    def _samples(self, X: Any, y: Any, sample_weight: Any, first: bool, classes: Classes) -> Samples:
        """Return checked rows, without those of weight 0; with `first`, set the number and names of the features."""
        X, y = validate_data(
            self, X, y, multi_output=True, dtype=(np.float64, np.float32), order="C", reset=first,
            y_numeric=not is_classifier(self), **self._accepted("csr"),
        )  # fmt: skip
        weights = self._weights_of(X, y, sample_weight)
        y = self._encode(y, X.dtype, classes)
        if weights is None or weights.all():
            return Samples(X, y, weights)
        kept = np.flatnonzero(weights)
        return Samples(X[kept], y[kept], weights[kept])

    def _weights_of(self, X: Any, y: Array, sample_weight: Any) -> Array | None:
        """Return the weights of rows, or None; raises ValueError for wrong ones."""
        if sample_weight is None:
            return None
        weights: Array = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        return weights

    def _accepted(self, *sparse: str) -> dict[str, Any]:
        """Return which rows are accepted, as arguments of `validate_data`."""
        if self.recipe is None:
            return {"accept_sparse": sparse}
        return {"accept_sparse": False, "ensure_all_finite": "allow-nan"}

    def _begin(self, samples: Samples) -> None:
        """Draw the initial weights, and forget what earlier trainings have left."""
        for name in (*WEIGHTS, "validation_loss_curve_", "_optimizer_state"):
            self.__dict__.pop(name, None)
        outputs = len(self.classes_) if self.out_activation_ == "softmax" else samples.y.shape[1]
        if self.recipe is None:
            hidden = parameters.hidden_sizes(self.hidden_layer_sizes)
            self._draw_weights([samples.x.shape[1], *hidden, outputs], samples.x.dtype)
        else:
            if self.out_activation_ != "softmax" and outputs > 1:
                raise SettingError(f"recipe='karp' predicts one label or number for each row, and y has {outputs}")
            self._seed = int(self._random_state.randint(1 << 31))
            hidden = [*self._recipe(len(samples.y)).layers]
        self.n_layers_, self.n_outputs_ = len(hidden) + 2, outputs
        self.n_iter_ = self.t_ = self._failures = 0
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: float | None = -math.inf if self.early_stopping else None
        self.best_loss_: float | None = None if self.early_stopping else math.inf

    def _draw_weights(self, sizes: list[int], dtype: Any) -> None:
        """Draw the initial weights of layers of these sizes, as scikit-learn does."""
        self.coefs_: list[Array] = []
        self.intercepts_: list[Array] = []
        for inputs, size in pairwise(sizes):
            bound = math.sqrt(INITIAL.get(self.activation, 6.0) / (inputs + size))
            for layers, shape in ((self.coefs_, (inputs, size)), (self.intercepts_, (size,))):
                layers.append(self._random_state.uniform(-bound, bound, shape).astype(dtype, copy=False))

    def _recipe(self, rows: int) -> Recipe:
        """Return the recipe for a number of training rows; raises SettingError for a parameter that it has not."""
        given, seed = self.get_params(deep=False), getattr(self, "_seed", 0)
        return recipe_of(given, self._defaults(), classes=is_classifier(self), rows=rows, seed=seed)

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = type(self)().get_params(deep=False)
        return defaults

    def _held_out(self, validation: tuple[Any, Any, Any]) -> Samples | None:
        """Return the validation rows that were given, or None."""
        X, y, sample_weight = validation
        if (X is None) != (y is None):
            raise SettingError("X_val and y_val go together: pass both, or neither")
        return None if X is None else self._samples(X, y, sample_weight, False, Classes.KNOWN)

    def _split(self, samples: Samples) -> tuple[Samples, Samples]:
        """Return the samples to train on and those to validate on, as scikit-learn splits them."""
        arrays = [array for array in samples if array is not None]
        stratified = is_classifier(self) and (self.n_outputs_ == 1 or self.recipe is not None)
        parts = train_test_split(
            *arrays, random_state=self._random_state, test_size=self.validation_fraction,
            stratify=samples.y if stratified else None,
        )  # fmt: skip
        weights = (None, None) if samples.weights is None else parts[4:]
        if parts[1].shape[0] < 2:
            raise SettingError(
                f"validation_fraction={self.validation_fraction} of {samples.x.shape[0]} rows leaves fewer than two to"
                " validate on: raise it, or pass X_val and y_val"
            )
        return Samples(parts[0], parts[2], weights[0]), Samples(parts[1], parts[3], weights[1])

    def _train(self, samples: Samples, held_out: Samples | None, incremental: bool, context: Any) -> None:
        """Train the network on samples, and set the attributes that tell of it."""
        network = self._network(samples)
        goes_on = incremental and hasattr(self, "_optimizer_state")
        rules = self._rules(samples, incremental, self._rate if goes_on else self.learning_rate_init)
        weights = network.parameters.data
        if not goes_on:
            self._optimizer_state = OptimizerState(rules.optimizer(rules.rate, len(samples.y)).state(weights))
        before = weights.copy() if self.early_stopping else None

        def watch(epoch: int, numbers: Numbers) -> bool:
            if self.verbose:
                print(f"Iteration {epoch + 1}, loss = {numbers['loss']:.8f}")
                if held_out is not None:
                    print(f"Validation score: {numbers['score']:f}")
            return self._call_back(context, lambda: self._weights(network, samples))

        try:
            if workers := self._workers(rules, incremental):
                from karp.estimator import job

                random = self._random_state if self.shuffle else None
                trained, self._optimizer_state = job.run(workers, network, samples, rules, held_out, random)
                for epoch, numbers in enumerate(trained.epochs):
                    watch(epoch, numbers)
            else:
                rows = len(samples.y)
                orders = Shuffled(self._random_state, rows) if self.shuffle else in_order(rows)
                validate = None if held_out is None else self._validator(network, samples, held_out)
                training = Training(network, Rows(*samples, orders), rules, validate, self._optimizer_state, watch)
                with environment.hidden(environment.RUN_DIR):
                    trained = training.run()
                self._optimizer_state = training.state
        except RunError as error:
            if "not finite" not in str(error):
                raise
            why = f"{NOT_FINITE} ({error})"
            raise ValueError(why) from error
        if before is not None:
            weights = network.parameters.data
            weights[:] = before if trained.best_weights is None else trained.best_weights
        self.__dict__.update(self._weights(network, samples))
        if not np.isfinite(network.parameters.data).all():
            raise ValueError(NOT_FINITE)
        self._tell(trained, len(samples.y), incremental)

    def _network(self, samples: Samples) -> BaseNetwork:
        """Return the network that is to be trained on samples, with its weights as they are before."""
        if self.recipe is None:
            dtype = samples.x.dtype
            layers = [[array.astype(dtype) for array in arrays] for arrays in (self.coefs_, self.intercepts_)]
            return Network(layers[0], layers[1], self.activation, self.out_activation_)
        names = [*map(str, getattr(self, "feature_names_in_", (f"x{place}" for place in range(self.n_features_in_))))]
        recipe = self._recipe(len(samples.y))
        return RecipeNetwork.learn(samples.x, names, samples.y, samples.weights, self.n_outputs_, recipe)

    def _weights(self, network: BaseNetwork, samples: Samples) -> dict[str, Any]:
        """Return the attributes that have a network's weights as they are now."""
        if isinstance(network, RecipeNetwork):
            classes = self.classes_.tolist() if is_classifier(self) else []
            return {"model_": network.model(classes, samples)}
        assert isinstance(network, Network)
        return dict(zip(WEIGHTS, network.layers(), strict=False))

    def _rules(self, samples: Samples, incremental: bool, rate: float) -> Rules:
        rows = len(samples.y)
        given = {name: getattr(self, name) for name in PARAMETERS}
        if self.recipe is not None:
            recipe = self._recipe(rows)
            return Rules(
                **given | rules_of(given, self._defaults()), batch_size=min(recipe.batch_size, rows),
                epochs=recipe.epochs, scored=self.early_stopping, rate=rate, seen=0,
                best=-math.inf if self.early_stopping else math.inf, failures=0, shards=min(recipe.shards, rows),
                recipe=recipe,
            )  # fmt: skip
        if self.batch_size != "auto" and self.batch_size > rows:
            warnings.warn(f"batch_size is {self.batch_size}, but there are {rows} rows, which is taken", stacklevel=5)
        batch_size = min(200 if self.batch_size == "auto" else self.batch_size, rows)
        best = self.best_validation_score_ if self.early_stopping else self.best_loss_
        return Rules(
            **given, batch_size=batch_size,
            epochs=1 if incremental else self.max_iter, scored=self.early_stopping, rate=rate, seen=self.t_,
            best=(-math.inf if self.early_stopping else math.inf) if best is None else best, failures=self._failures,
            constant_rate=incremental, shards=shards_of(batch_size, self.coefs_),
        )  # fmt: skip

    def _workers(self, rules: Rules, incremental: bool) -> int:
        """Return the workers that train together; 0 for a training in this process, with the same result."""
        alone = {
            "partial_fit": incremental,
            "scoring": self.scoring is not None and self.early_stopping,
            "learning_rate='adaptive'": rules.solver == "sgd" and rules.learning_rate == "adaptive",
            "callbacks": hasattr(self, "_skl_callbacks"),
        }
        return workers_of(self.n_jobs, rules.shards, [name for name, given in alone.items() if given])

    def _validator(self, network: BaseNetwork, samples: Samples, held_out: Samples) -> Validate:
        """Return a function that returns the numbers of the network on validation rows."""
        validate = validator(network, held_out)
        if self.scoring is None:
            return validate
        from sklearn.metrics import check_scoring

        scorer, given = check_scoring(self, self.scoring), {}
        if held_out.weights is not None:
            given["sample_weight"] = held_out.weights

        def score() -> dict[str, float]:
            fitted = copy.copy(self)
            fitted.__dict__.update(self._weights(network, samples))
            fitted.__dict__.pop("feature_names_in_", None)  # as the rows have none
            return validate() | {"score": float(scorer(fitted, held_out.x, self._decode(held_out.y), **given))}

        return score

    def _call_back(self, context: Any, weights: Callable[[], dict[str, Any]]) -> bool:
        """Call scikit-learn's callbacks at an epoch's end; return whether one asks to stop."""
        if not hasattr(self, "_skl_callbacks"):
            return False

        def fitted() -> dict[str, Any]:
            return self._fitted() | weights()

        epoch = context.subcontext(task_name="epoch")
        epoch.call_on_fit_task_begin(estimator=self)
        return bool(epoch.call_on_fit_task_end(estimator=self, reconstruction_attributes=fitted))

    def _fitted(self) -> dict[str, Any]:
        """Return the attributes with which a copy of this estimator can predict."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("_")}

    def _tell(self, trained: Trained, rows: int, incremental: bool) -> None:
        """Set the attributes that tell of a training over so many rows, and warn where it did not converge."""
        epochs = trained.epochs
        self.n_iter_ = len(epochs)
        self.t_ += rows * len(epochs)
        self._rate = trained.rate
        if epochs:
            self._tell_epochs(epochs)
        if trained.interrupted:
            where = f"in epoch {len(epochs) + 1}"
            warnings.warn(f"the training was interrupted {where}: the weights are those of its last step", stacklevel=5)
        elif not trained.stopped and not incremental and self.recipe is None:
            many = f"{self.max_iter} epoch{'s' * (self.max_iter > 1)}"
            warnings.warn(f"max_iter is reached: after {many} the training has not converged", ConvergenceWarning, 5)

    def _tell_epochs(self, epochs: list[dict[str, float]]) -> None:
        """Set the attributes that tell of the epochs of a training."""
        self.loss_ = epochs[-1]["loss"]
        self.loss_curve_ += [numbers["loss"] for numbers in epochs]
        self._failures = int(epochs[-1]["failures"])
        if self.early_stopping:
            self.best_validation_score_ = epochs[-1]["best"]
        else:
            self.best_loss_ = epochs[-1]["best"]
        if "score" in epochs[0]:
            self.validation_scores_ = [*(self.validation_scores_ or ()), *(numbers["score"] for numbers in epochs)]
            losses = [numbers["validation_loss"] for numbers in epochs]
            self.validation_loss_curve_ = [*getattr(self, "validation_loss_curve_", ()), *losses]

    def _predictions(self, X: Any) -> Array:
        """Return the network's predictions (n, outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **self._accepted("csr", "csc"))
        if self.recipe is not None:
            return predictions_of(self.model_, X)
        return forward(X, self.coefs_, self.intercepts_, self.activation, self.out_activation_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.recipe is None
        tags.input_tags.allow_nan = self.recipe is not None
        return tags
