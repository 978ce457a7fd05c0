"""Losses that are one operation each. (The others are short compositions and live in `karp.nn`.)"""

from __future__ import annotations

from typing import Any

import numpy as np

from karp.autograd.convert import constant, data_of
from karp.autograd.layers import like
from karp.autograd.operations import fused
from karp.autograd.value import Value, apply
from karp.errors import GraphError, SettingError, ShapeError


def mse(prediction: Any, target: Any) -> Value:
    """The mean of (prediction - target)^2. Both must have one shape; nothing is broadcast.

    >>> mse(Value([1.0, 2.0]), [1.0, 4.0])
    Value(2.0)
    """
    prediction = constant(prediction)
    if target.__class__ is not Value:
        target = like(target, prediction)
    if prediction.__class__ is Value and prediction.data.__class__ is float:
        if np.shape(data_of(target)):
            raise ShapeError(f"mse of shapes () and {np.shape(data_of(target))}: both must have the same shape")
        off = prediction - (target if target.__class__ is Value else float(target))
        return off * off
    return apply(fused.MSE, prediction, target)


def cross_entropy(
    logits: Any, target: Any, *, label_smoothing: float = 0.0, class_weights: Any = None, sample_weights: Any = None
) -> Value:
    """The mean over samples of -log softmax(logits)[class], stable for any logits.

    `logits` (..., classes). `target` holds class indices, integers of shape (...), or probabilities, floats of
    the shape of the logits. `label_smoothing` mixes that share of the uniform distribution into the target.
    `class_weights` (classes,) multiplies each class, `sample_weights` (...) each sample; the mean is then weighted:
    with class indices it divides by the sum of the weights of the samples' classes, as torch does.

    Raises ShapeError for shapes that do not fit or zero samples, SettingError for a class that does not exist.

    >>> cross_entropy(Value([[0.0, 0.0]]), np.array([1]))
    Value(0.6931471805599453)
    """
    if target.__class__ is not np.ndarray:
        if target.__class__ is Value:
            raise GraphError("cross_entropy: the target is a constant; pass target.data")
        target = np.asarray(target)
    if logits.__class__ is not Value:
        logits = constant(logits)
    if label_smoothing and not 0.0 <= label_smoothing < 1.0:
        raise SettingError(f"cross_entropy: label_smoothing={label_smoothing} must be at least 0 and below 1")
    if class_weights is not None:
        class_weights = like(data_of(class_weights), logits)
    if sample_weights is not None:
        sample_weights = like(data_of(sample_weights), logits)
    return apply(fused.CROSS_ENTROPY, logits, target, label_smoothing, class_weights, sample_weights)
