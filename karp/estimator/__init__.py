"""scikit-learn's multi-layer perceptrons, trained by karp: `MLPClassifier` and `MLPRegressor` (extra `karp[sklearn]`).

A fitted estimator is read through scikit-learn's attributes: `coefs_` (inputs, outputs) and `intercepts_` (outputs,) of
each layer, `activation` between them, `out_activation_` after the last, and for classes `classes_`.

The estimators are imported when they are first used, so that their workers do without scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from karp.lazy import lazy_attributes

if TYPE_CHECKING:
    from karp.estimator.classifier import MLPClassifier
    from karp.estimator.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]

_attribute, __dir__ = lazy_attributes(__name__, {"MLPClassifier": "classifier", "MLPRegressor": "regressor"})


def __getattr__(name: str) -> Any:
    if name in __all__:
        try:
            import sklearn.callback  # noqa: F401  # scikit-learn has it since 1.9
        except ImportError:
            from karp.errors import MissingError

            raise MissingError("karp.estimator needs scikit-learn, from 1.9 on: pip install 'karp[sklearn]'") from None
    return _attribute(name)
