"""scikit-learn's multi-layer perceptrons, trained by karp: `MLPClassifier` and `MLPRegressor` (extra `karp[sklearn]`).

A fitted estimator is read through scikit-learn's attributes: `coefs_` (inputs, outputs) and `intercepts_` (outputs,) of
each layer, `activation` between them, `out_activation_` after the last, and for classes `classes_`.
"""

from __future__ import annotations

try:
    import sklearn.callback  # noqa: F401  # scikit-learn has it since 1.9
except ImportError:
    from karp.errors import MissingError

    raise MissingError("karp.estimator needs scikit-learn, from 1.9 on: pip install 'karp[sklearn]'") from None

from karp.estimator.classifier import MLPClassifier
from karp.estimator.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
