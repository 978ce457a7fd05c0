"""The regressor: scikit-learn's MLPRegressor, trained by karp."""

from __future__ import annotations

from typing import Any, Self

from sklearn.base import RegressorMixin
from sklearn.callback import with_callbacks
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d

from karp.errors import SettingError
from karp.estimator.base import Array, BaseMLP, Classes


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multi-layer perceptron that predicts numbers, with the parameters of `sklearn.neural_network.MLPRegressor`.

    Besides these there are:

    Args:
        scoring: what validation rows are scored by, as scikit-learn names it; None is R².
        n_jobs: workers that train together; None is 1, -1 all cores. The result does not depend on it, bit by bit.
        recipe: "karp" trains the network of `karp fit` in its way, see below.

    `fit` takes validation rows, `X_val` and `y_val`; `validation_loss_curve_` has their loss, `validation_scores_`
    their score for each epoch. A row of weight 0 counts as if it were not there. `solver="lbfgs"` is refused.

    With `recipe="karp"` features need no scaling and may be missing (NaN). All rows are trained on; with early stopping
    the best epoch on the validation rows is kept. Sizes, activation, `learning_rate_init`, `batch_size`, betas and
    `max_iter` are the recipe's while they are at the defaults above; `alpha` is then 0, and `n_iter_no_change` stops
    nothing. All else that belongs to a solver must be at its default. The network is `model_`, a model of `karp fit`,
    which can be saved, in place of `coefs_` and `intercepts_`.

    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 60).reshape(-1, 1)
    >>> model = MLPRegressor(hidden_layer_sizes=(16,), learning_rate_init=0.05, random_state=0)
    >>> model = model.fit(x, 3 * x[:, 0])
    >>> bool(abs(model.predict([[0.5]])[0] - 1.5) < 0.2)
    True
    """

    def __init__(
        self, loss: str = "squared_error", hidden_layer_sizes: Any = (100,), activation: str = "relu", *,
        solver: str = "adam", alpha: float = 1e-4, batch_size: Any = "auto", learning_rate: str = "constant",
        learning_rate_init: float = 0.001, power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True,
        random_state: Any = None, tol: float = 1e-4, verbose: bool = False, warm_start: bool = False,
        momentum: float = 0.9, nesterovs_momentum: bool = True, early_stopping: bool = False,
        validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
        n_iter_no_change: float = 10, max_fun: int = 15000, scoring: Any = None, n_jobs: int | None = None,
        recipe: str | None = None,
    ) -> None:  # fmt: skip
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.recipe = recipe

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None,
            sample_weight_val: Any = None) -> Self:  # fmt: skip
        """Fit to rows (n, features), dense or sparse, and numbers (n,) or (n, outputs).

        Early stopping scores the validation rows, or where none are given a part of the others. Raises ValueError for
        what cannot be used.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    @available_if(lambda self: self.solver in ("adam", "sgd") and self.recipe is None)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch more on these rows."""
        return self._fit(X, y, sample_weight, incremental=True)

    def _encode(self, y: Any, dtype: Any, classes: Classes) -> Array:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson" and (y < 0).any():
            raise SettingError("loss='poisson' is for counts and the like: y has a number below 0")
        self.out_activation_ = "exp" if self.loss == "poisson" else "identity"
        encoded: Array = y.reshape(len(y), -1).astype(dtype)
        return encoded

    def _decode(self, y: Array) -> Array:
        return y.ravel() if y.shape[1] == 1 else y

    def predict(self, X: Any) -> Array:
        """Return the predicted numbers of rows: (n,), or (n, outputs)."""
        return self._decode(self._predictions(X))
