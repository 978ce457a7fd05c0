"""The classifier: scikit-learn's MLPClassifier, trained by karp."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.callback import with_callbacks
from sklearn.utils import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d

from karp.errors import SettingError
from karp.estimator.base import Array, BaseMLP, Classes
from karp.estimator.scores import labels_of


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multi-layer perceptron that predicts classes, with the parameters of `sklearn.neural_network.MLPClassifier`.

    Besides these there are:

    Args:
        class_weight: weights of the classes, which multiply those of the samples: a dict, "balanced", or None for 1.
        scoring: what validation rows are scored by, as scikit-learn names it; None is accuracy.
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
    >>> model = MLPClassifier((8,), learning_rate_init=0.05, random_state=0).fit(x, np.where(x[:, 0] > 0, "up", "down"))
    >>> model.predict([[-0.7], [0.8]]).tolist()
    ['down', 'up']
    """

    def __init__(
        self, hidden_layer_sizes: Any = (100,), activation: str = "relu", *, solver: str = "adam", alpha: float = 1e-4,
        batch_size: Any = "auto", learning_rate: str = "constant", learning_rate_init: float = 0.001,
        power_t: float = 0.5, max_iter: int = 200, shuffle: bool = True, random_state: Any = None, tol: float = 1e-4,
        verbose: bool = False, warm_start: bool = False, momentum: float = 0.9, nesterovs_momentum: bool = True,
        early_stopping: bool = False, validation_fraction: float = 0.1, beta_1: float = 0.9, beta_2: float = 0.999,
        epsilon: float = 1e-8, n_iter_no_change: float = 10, max_fun: int = 15000, class_weight: Any = None,
        scoring: Any = None, n_jobs: int | None = None, recipe: str | None = None,
    ) -> None:  # fmt: skip
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
        self.class_weight = class_weight
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.recipe = recipe

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None,
            sample_weight_val: Any = None) -> Self:  # fmt: skip
        """Fit to rows (n, features), dense or sparse, and classes (n,) or labels of 0 and 1 (n, labels).

        Early stopping scores the validation rows, or where none are given a part of the others. Raises ValueError for
        what cannot be used.
        """
        return self._fit(X, plain_labels(y), sample_weight, (X_val, plain_labels(y_val), sample_weight_val))

    @available_if(lambda self: self.solver in ("adam", "sgd") and self.recipe is None)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch more on these rows; the first call needs all classes."""
        y = plain_labels(y)
        if not hasattr(self, "classes_"):
            if classes is None:
                raise SettingError("classes must be passed on the first call to partial_fit: all that will ever be")
            self._set_classes(y if type_of_target(y).startswith("multilabel") else plain_labels(classes))
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(plain_labels(classes))):
            raise SettingError(f"classes is {classes!r:.200}, but on the first call it was {self.classes_!r:.200}")
        return self._fit(X, y, sample_weight, incremental=True)

    def _set_classes(self, y: Any) -> None:
        """Set the classes, and what the last layer computes, from targets."""
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind.endswith("multioutput"):
            raise SettingError(f"y is a {kind} target: several labels for each row are columns of 0 and 1")
        self.classes_ = unique_labels(y)
        self._multilabel = kind == "multilabel-indicator"
        several = len(self.classes_) > 2 or self.recipe is not None
        if self.recipe is not None and len(self.classes_) < 2:
            raise SettingError(f"y has one class, {self.classes_[0]!r:.60}: recipe='karp' needs two")
        self.out_activation_ = "softmax" if several and not self._multilabel else "logistic"

    def _encode(self, y: Any, dtype: Any, classes: Classes) -> Array:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if classes is Classes.ANY:
            self._set_classes(y)
        else:
            self._check_classes(y, classes)
        if self._multilabel:
            return np.asarray(y.toarray() if hasattr(y, "toarray") else y).astype(dtype)
        if self.out_activation_ == "softmax":
            indices: Array = np.searchsorted(self.classes_, y)
            return indices
        encoded: Array = (y == self.classes_[-1] if len(self.classes_) > 1 else np.zeros(len(y))).astype(dtype)
        return encoded.reshape(-1, 1)

    def _check_classes(self, y: Any, classes: Classes) -> None:
        """Raise SettingError for targets of another kind, and for classes that the model has not."""
        check_classification_targets(y)
        if type_of_target(y).startswith("multilabel") != self._multilabel:
            raise SettingError("y has one label for each row, or several, and earlier it was otherwise")
        given = unique_labels(y)
        unknown = np.setdiff1d(given, self.classes_)
        if len(unknown):
            known = f"{self.classes_!r:.200}"
            raise SettingError(f"`y` has classes not in `self.classes_`: {unknown!r:.200} are none of {known}")
        if classes is Classes.SAME and len(given) < len(self.classes_):
            missing = np.setdiff1d(self.classes_, given)
            raise SettingError(f"warm_start goes on with the same classes, and y has no {missing!r:.200}")

    def _decode(self, y: Array) -> Array:
        if self._multilabel:
            return y.astype(np.int64)
        labels: Array = self.classes_[np.minimum(y.ravel().astype(np.int64), len(self.classes_) - 1)]
        return labels

    def _weights_of(self, X: Any, y: Array, sample_weight: Any) -> Array | None:
        weights = super()._weights_of(X, y, sample_weight)
        if self.class_weight is None:
            return weights
        of_classes: Array = compute_sample_weight(self.class_weight, y).astype(X.dtype)
        return of_classes if weights is None else of_classes * weights

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each row (n,), or its labels of 0 and 1 (n, labels)."""
        predictions = self._predictions(X)
        return self._decode(labels_of(predictions, self.out_activation_))

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities of the classes, in the order of `classes_`, or of the labels: (n, classes)."""
        predictions = self._predictions(X)
        if self.n_outputs_ > 1:
            return predictions
        return np.hstack([1 - predictions, predictions])

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return np.log(probabilities, out=probabilities)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self.recipe is None
        return tags


def plain_labels(y: Any) -> Any:
    """Return labels of whole numbers or booleans, of a nullable dtype of pandas, as an array of NumPy's; others as is.

    scikit-learn would make floats of them. Labels that are missing are left, too, for its error.
    """
    kind = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    if isinstance(kind, np.dtype) and kind.kind in "iub" and not y.isna().any():
        return y.to_numpy(dtype=kind)
    return y
