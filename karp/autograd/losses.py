"""Losses: each a mean over samples, so that the losses of a batch's shards can be averaged by their sizes.

`mse` and `cross_entropy` are one operation each, the others short compositions. `karp.nn` exports all of them. Each
takes `sample_weights` (samples,), finite numbers from 0 with a sum above 0. The mean is then weighted, as if a sample
of weight 2 were there twice and one of weight 0 not at all. Each raises ShapeError for shapes that do not fit and for
zero samples, and SettingError for such weights as are not allowed; `mse`, `mae` and `huber` raise SettingError for a
constant target with a number that is not finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from karp.autograd.convert import constant, floating, plain_array, refuse_value, setting
from karp.autograd.functions import abs, clip, mean, multiply, relu, softplus, subtract, sum
from karp.autograd.layers import constant_like
from karp.autograd.operation import shapes_in_words
from karp.autograd.operations import fused
from karp.autograd.value import Value, apply, run
from karp.errors import SettingError, ShapeError


def mse(prediction: Any, target: Any, *, sample_weights: Any = None) -> Value:
    """Return the mean squared error, the mean of (prediction - target)^2; both of one shape, nothing is broadcast.

    >>> mse(Value([1.0, 2.0]), [1.0, 4.0])
    Value(2.0)
    >>> mse(Value([1.0, 2.0]), [1.0, 4.0], sample_weights=[3, 1])
    Value(1.0)
    """
    if sample_weights is not None:
        residual = _residual("mse", prediction, target)
        return _check_target("mse", _weighted_mean("mse", multiply(residual, residual), sample_weights), target)
    if prediction.__class__ is not Value:
        prediction = Value(prediction)
    if target.__class__ is not Value:
        target = constant_like(target, prediction)
        if target.__class__ is prediction.data.__class__:
            loss = run(fused.MSE, (prediction, target), (prediction.data, target))
            return loss if loss.data.item() < np.inf else _check_target("mse", loss, target)
    if prediction.data.__class__ is float or (target.__class__ is Value and target.data.__class__ is float):
        _check_loss("mse", prediction, target)
        residual = prediction - (target if target.__class__ is Value else float(target))
        return _check_target("mse", residual * residual, target)
    return _check_target("mse", apply(fused.MSE, prediction, target), target)


def cross_entropy(
    logits: Any, target: Any, *, label_smoothing: float = 0.0, class_weights: Any = None, sample_weights: Any = None
) -> Value:
    """Return the cross entropy, the mean over samples of -log softmax(logits)[class]; stable for any logits.

    `logits` (..., classes). `target` holds class indices, integers of shape (...), or probabilities, floats of
    the shape of the logits, whose rows sum to 1. `label_smoothing` mixes that share of the uniform distribution into
    the target. `class_weights` (classes,) multiplies each class, `sample_weights` (...) each sample; the mean is then
    weighted: with class indices it divides by the sum of the weights of the samples' classes, as torch does. Shards of
    a batch have other sums, so in a Trainer's loop class weights are given as `sample_weights=weights[y]` to `batches`.

    Raises ShapeError for shapes that do not fit or zero samples, GraphError for a target or weights that are Values,
    SettingError for a class that does not exist, rows that are no probabilities, a `label_smoothing` that is not from
    0 to below 1, and weights that are negative, not finite or all 0.

    >>> cross_entropy(Value([[0.0, 0.0]]), np.array([1]))
    Value(0.6931471805599453)
    """
    if target.__class__ is not np.ndarray:
        refuse_value("target", target)
        try:
            target = plain_array(target)
        except ValueError as error:
            raise ShapeError(f"cross_entropy: no array can be made of the target: {error}") from None
    if logits.__class__ is not Value:
        logits = floating(logits)
    if label_smoothing.__class__ is not float or not 0.0 <= label_smoothing < 1.0:
        label_smoothing = setting("label_smoothing", label_smoothing)
        if not 0.0 <= label_smoothing < 1.0:
            raise SettingError(f"cross_entropy: label_smoothing={label_smoothing} must be at least 0 and below 1")
    if class_weights is not None:
        refuse_value("class_weights", class_weights)
        class_weights = constant_like(class_weights, logits)
    if sample_weights is not None:
        refuse_value("sample_weights", sample_weights)
        sample_weights = constant_like(sample_weights, logits)
    settings = target, label_smoothing, class_weights, sample_weights
    data = logits.data if logits.__class__ is Value else logits
    return run(fused.CROSS_ENTROPY, (logits, *settings), (data, *settings))


def _weighted_mean(name: str, losses: Value, sample_weights: Any) -> Value:
    """Return the mean of the losses (samples, ...), weighted by sample if there are weights (samples,).

    Raises ShapeError for weights of another shape, SettingError for weights below 0, not finite or all 0.
    """
    if sample_weights is None:
        return mean(losses)
    refuse_value("sample_weights", sample_weights)
    weights = constant_like(sample_weights, losses)
    if not losses.ndim or weights.shape != losses.shape[:1]:
        raise ShapeError(
            f"{name}: sample_weights of shape {weights.shape} must have one weight for each sample: {losses.shape[:1]}"
        )
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        raise SettingError(f"{name}: sample_weights are finite numbers from 0, and {weights[wrong][0]} is among them")
    total = np.add.reduce(weights)
    if not 0 < total < np.inf:
        raise SettingError(f"{name}: sample_weights must have a sum above 0 and finite, not {total}")
    shares = weights / (total * (losses.size // len(weights)))
    return sum(multiply(losses, shares.reshape(-1, *[1] * (losses.ndim - 1))))


def _residual(name: str, prediction: Any, target: Any) -> Value:
    """Return prediction - target in the dtype of the prediction; raise ShapeError unless both have one shape."""
    prediction = prediction if isinstance(prediction, Value) else Value(prediction)
    if not isinstance(target, Value):
        target = float(target) if isinstance(target, (int, float)) else np.asarray(constant(target), prediction.dtype)
    _check_loss(name, prediction, target)
    return subtract(prediction, target)


def _check_loss(name: str, prediction: Value, target: Any) -> None:
    shape = np.shape(target.data if isinstance(target, Value) else target)
    if prediction.shape != shape:
        raise ShapeError(
            f"{name} of {shapes_in_words(prediction.shape, shape)}: prediction and target must have the same"
            " shape; nothing is broadcast in a loss"
        )
    if not prediction.size:
        raise ShapeError(f"{name} of shape {prediction.shape}: there is no mean over zero samples")


def _check_target(name: str, loss: Value, target: Any) -> Value:
    """Return the loss; raise SettingError if it is not finite and an element of a constant target is not either."""
    number = loss.data if loss.data.__class__ is float else loss.data.item()
    if not -np.inf < number < np.inf and target.__class__ is not Value:
        with np.errstate(over="ignore"):
            target = np.asarray(target, loss.dtype)
        _check_elements(name, target, np.isfinite(target), "must be a finite number")
    return loss


def _check_elements(name: str, target: Any, valid: Any, wanted: str) -> None:
    """Raise SettingError for the first element of a target that is not valid, if there is one."""
    if not np.all(valid):
        index = tuple(np.argwhere(~np.asarray(valid))[0].tolist())
        where = f"target{list(index)}" if index else "the target"
        raise SettingError(f"{name}: {where} is {np.asarray(target)[index]} and {wanted}")


def mae(prediction: Any, target: Any, *, sample_weights: Any = None) -> Value:
    """Return the mean absolute error, the mean of |prediction - target|; both of one shape.

    >>> mae(Value([1.0, 2.0]), [1.0, 4.0])
    Value(1.0)
    """
    losses = abs(_residual("mae", prediction, target))
    return _check_target("mae", _weighted_mean("mae", losses, sample_weights), target)


def huber(prediction: Any, target: Any, delta: float = 1.0, *, sample_weights: Any = None) -> Value:
    """Return the Huber loss, the mean of r^2 / 2 where |r| <= delta and of delta (|r| - delta / 2) elsewhere.

    r is prediction - target. Huber, 1964. Raises SettingError unless `delta` is above 0.

    >>> huber(Value([0.5, 3.0]), [0.0, 0.0])
    Value(1.3125)
    """
    delta = setting("delta", delta)
    if not delta > 0:
        raise SettingError(f"huber: delta={delta} must be above 0")
    size = abs(_residual("huber", prediction, target))
    clipped = clip(size, None, delta)
    return _check_target("huber", _weighted_mean("huber", clipped * (size - 0.5 * clipped), sample_weights), target)


def hinge(scores: Any, target: Any, *, sample_weights: Any = None) -> Value:
    """Return the hinge loss, the mean of max(0, 1 - target * score); both of one shape.

    The target's elements are -1 and 1, or 0 and 1. Raises SettingError for any other, and for a mix of -1 and 0,
    GraphError for a target that is a Value.

    >>> hinge(Value([0.5, -2.0]), [1.0, 1.0]), hinge(Value([0.5, -2.0]), [1, 0])
    (Value(1.75), Value(0.25))
    """
    scores = scores if isinstance(scores, Value) else Value(scores)
    refuse_value("target", target)
    target = np.asarray(constant(target), scores.dtype)
    _check_loss("hinge", scores, target)
    squares = target * target
    if not squares.item(squares.argmin()) == 1.0 == squares.item(squares.argmax()):
        if not ((target == 0) | (target == 1)).all():
            wanted = "the labels must be -1 and 1, or 0 and 1; of two others make them as (labels == second)"
            known = (squares == 1.0) | (target == 0)
            _check_elements("hinge", target, squares == 1.0 if known.all() else known, wanted)
        target = target + target - 1
    return _weighted_mean("hinge", relu(1.0 - multiply(scores, target)), sample_weights)


def binary_cross_entropy(logits: Any, target: Any, *, sample_weights: Any = None) -> Value:
    """Return the binary cross entropy, the mean of -log of the probability that the logits give to the target.

    Both have one shape; the target is from 0 to 1. No exponential overflows, whatever the logits. Raises SettingError
    for a target that is no probability, GraphError for one that is a Value.

    >>> binary_cross_entropy(Value([0.0]), [1.0])
    Value(0.6931471805599453)
    """
    logits = logits if isinstance(logits, Value) else Value(logits)
    refuse_value("target", target)
    target = np.asarray(constant(target), logits.dtype)
    _check_loss("binary_cross_entropy", logits, target)
    if not (target.item(target.argmin()) >= 0.0 and target.item(target.argmax()) <= 1.0):  # true for a NaN, too
        wanted = "must be 0 or 1, or a probability between; of two other labels make them as (labels == second)"
        _check_elements("binary_cross_entropy", target, (target >= 0) & (target <= 1), wanted)
    # softplus(z) - z t is the same number, but loses a small loss in the difference of two large numbers.
    losses = multiply(softplus(-logits), target) + multiply(softplus(logits), 1.0 - target)
    return _weighted_mean("binary_cross_entropy", losses, sample_weights)
