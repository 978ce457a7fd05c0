"""Losses: each a mean over samples, so that shards of a batch can be averaged by their sizes.

`mse` and `cross_entropy` are one operation each, the others short compositions. `karp.nn` has them all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from karp.autograd.convert import constant, floating, refuse_value
from karp.autograd.functions import abs, clip, mean, multiply, relu, softplus, subtract
from karp.autograd.layers import like
from karp.autograd.operations import fused
from karp.autograd.value import Value, apply, run
from karp.errors import SettingError, ShapeError


def mse(prediction: Any, target: Any) -> Value:
    """The mean of (prediction - target)^2. Both must have one shape; nothing is broadcast.

    >>> mse(Value([1.0, 2.0]), [1.0, 4.0])
    Value(2.0)
    """
    if prediction.__class__ is not Value:
        prediction = Value(prediction)
    if target.__class__ is not Value:
        target = like(target, prediction)
        if target.__class__ is prediction.data.__class__:
            return run(fused.MSE, (prediction, target), (prediction.data, target))
    if prediction.data.__class__ is float or (target.__class__ is Value and target.data.__class__ is float):
        _check_loss("mse", prediction, target)
        off: Value = prediction - (target if target.__class__ is Value else float(target))
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
        refuse_value("target", target)
        target = np.asarray(target)
    if logits.__class__ is not Value:
        logits = floating(logits)
    if label_smoothing and not 0.0 <= label_smoothing < 1.0:
        raise SettingError(f"cross_entropy: label_smoothing={label_smoothing} must be at least 0 and below 1")
    if class_weights is not None:
        refuse_value("class_weights", class_weights)
        class_weights = like(class_weights, logits)
    if sample_weights is not None:
        refuse_value("sample_weights", sample_weights)
        sample_weights = like(sample_weights, logits)
    settings = target, label_smoothing, class_weights, sample_weights
    data = logits.data if logits.__class__ is Value else logits
    return run(fused.CROSS_ENTROPY, (logits, *settings), (data, *settings))


def _residual(name: str, prediction: Any, target: Any) -> Value:
    """prediction - target, of one shape and not empty, in the dtype of the prediction."""
    prediction = prediction if isinstance(prediction, Value) else Value(prediction)
    if not isinstance(target, Value):
        target = float(target) if isinstance(target, (int, float)) else np.asarray(constant(target), prediction.dtype)
    _check_loss(name, prediction, target)
    return subtract(prediction, target)


def _check_loss(name: str, prediction: Value, target: Any) -> None:
    if prediction.shape != np.shape(target.data if isinstance(target, Value) else target):
        raise ShapeError(
            f"{name} of shapes {prediction.shape} and {np.shape(target)}: prediction and target must have the same"
            " shape; nothing is broadcast in a loss"
        )
    if not prediction.size:
        raise ShapeError(f"{name} of shape {prediction.shape}: there is no mean over zero samples")


def mae(prediction: Any, target: Any) -> Value:
    """The mean of |prediction - target|; both of one shape.

    >>> mae(Value([1.0, 2.0]), [1.0, 4.0])
    Value(1.0)
    """
    return mean(abs(_residual("mae", prediction, target)))


def huber(prediction: Any, target: Any, delta: float = 1.0) -> Value:
    """The mean of r^2 / 2 where |r| <= delta and delta (|r| - delta / 2) beyond, r = prediction - target. Huber, 1964.

    >>> huber(Value([0.5, 3.0]), [0.0, 0.0])
    Value(1.3125)
    """
    if not delta > 0:
        raise SettingError(f"huber: delta={delta} must be above 0")
    size = abs(_residual("huber", prediction, target))
    near = clip(size, None, delta)
    return mean(near * (size - 0.5 * near))


def hinge(scores: Any, target: Any) -> Value:
    """The mean of max(0, 1 - target * score), for targets -1 and 1; both of one shape.

    >>> hinge(Value([0.5, -2.0]), [1.0, 1.0])
    Value(1.75)
    """
    scores = scores if isinstance(scores, Value) else Value(scores)
    refuse_value("target", target)
    target = np.asarray(constant(target), scores.dtype)
    _check_loss("hinge", scores, target)
    return mean(relu(1.0 - multiply(scores, target)))


def binary_cross_entropy(logits: Any, target: Any) -> Value:
    """The mean of -log of the probability given to the target (0 to 1), for logits of the same shape; stable.

    >>> binary_cross_entropy(Value([0.0]), [1.0])
    Value(0.6931471805599453)
    """
    logits = logits if isinstance(logits, Value) else Value(logits)
    refuse_value("target", target)
    target = np.asarray(constant(target), logits.dtype)
    _check_loss("binary_cross_entropy", logits, target)
    # Not softplus(z) - z t: that loses a small loss in the difference of two large numbers.
    return mean(multiply(softplus(-logits), target) + multiply(softplus(logits), 1.0 - target))
