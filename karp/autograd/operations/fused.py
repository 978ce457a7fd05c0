"""Losses and normalisation as one operation each: numerically stable, and with one or two saved arrays, not five.

Each forward returns (result, saved), where `saved` is what its gradient needs, computed while the data is in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from karp.autograd.operation import Operation
from karp.autograd.operations.constants import ONE, ONES, SCALES, SHARES, select
from karp.errors import SettingError, ShapeError

_add, _divide, _exp, _log, _multiply, _subtract = np.add, np.divide, np.exp, np.log, np.multiply, np.subtract
_highest = np.maximum.reduce
_int64, _uint64 = np.dtype(np.int64), np.dtype(np.uint64)

# --- cross entropy --------------------------------------------------------------------------------------------------
# For logits z (n, classes), p = softmax(z), targets t and class weights w:
#   loss of a sample = -sum_c t_c w_c log p_c,     its gradient = p sum_c(t_c w_c) - t w.
# The loss is their mean, weighted by samples. The gradient is computed at forward and saved for backward.


def _cross_entropy(logits: Any, target: Any, smoothing: float, class_weights: Any, sample_weights: Any) -> Any:
    """Return the mean loss, and its gradient by the logits (samples, classes), which is saved for backward.

    Raises ValueError or ShapeError for shapes that do not fit, SettingError for a target or weights that are refused.
    """
    by_index = target.dtype.kind in "iu"
    if target.shape != (logits.shape[:-1] if by_index else logits.shape) or not logits.size:
        raise ValueError  # the shape rule says what is wrong
    if class_weights is not None or sample_weights is not None or logits.shape[-1] == 1:
        _cross_entropy_shape(logits, target, smoothing, class_weights, sample_weights)
    shifted = logits
    if logits.ndim != 2:
        shifted = logits.reshape(-1, logits.shape[-1])
        if by_index:
            target = target.reshape(-1)
    if by_index and class_weights is None and sample_weights is None:
        return _smoothed_by_index(shifted, target, smoothing) if smoothing else _by_index(shifted, target)
    rows, classes = shifted.shape
    shifted = shifted - _highest(shifted, axis=1, keepdims=True)
    powers = _exp(shifted)
    totals = powers.dot(ONES[classes, shifted.dtype]).reshape(rows, 1)
    logs = shifted - _log(totals)
    targets, norm = _weighted_targets(
        target, by_index, rows, classes, smoothing, class_weights, sample_weights, logits.dtype
    )
    gradient = powers * (np.add.reduce(targets, axis=1, keepdims=True) / totals) - targets
    gradient *= 1.0 / norm
    # A class with target 0 counts for nothing, also where its logit is -inf.
    return -np.add.reduce(targets * select(logs, targets != 0), axis=None) / norm, gradient


def _by_index(logits: Any, target: Any) -> Any:
    """Return the mean loss and its gradient for logits (rows, classes) and class indices (rows,).

    Both are computed in one array, (classes, rows), in which a maximum over classes runs along memory: over a last axis
    of 10 a maximum takes five times as long. Where all logits are so small that their powers can be summed as they are,
    there is no need for a maximum, and the loss is the logarithm of a probability: a small batch takes a fifth less
    time. Raises SettingError for an index of no class.
    """
    rows, classes = logits.shape
    dtype = logits.dtype
    shares = SHARES[rows, dtype]
    powers = logits.T.copy()
    flat = powers.ravel()
    flat_index = _flat_index(target, rows, classes)
    limit = _SMALL_LOGIT[dtype]
    small_logits = -limit < flat.item(flat.argmin()) and flat.item(flat.argmax()) < limit  # false for a NaN, too
    if not small_logits:
        _subtract(powers, _highest(powers, 0), powers)
        losses = flat[flat_index]
    _exp(powers, powers)
    totals = ONES[classes, dtype].dot(powers)
    if not small_logits:
        _subtract(_log(totals), losses, losses)
    _divide(shares, totals, totals)
    _multiply(powers, totals, powers)
    probabilities = flat[flat_index]  # each is a probability times the sample's share of the batch
    if small_logits:
        losses = _divide(shares, probabilities)
        _log(losses, losses)
    flat[flat_index] = _subtract(probabilities, shares, probabilities)
    loss = np.empty((), dtype)
    losses.dot(shares, loss)
    if small_logits and loss.item() < 0.0:  # a probability near 1 was rounded up
        loss.fill(0.0)
    return loss, powers.T


def _smoothed_by_index(logits: Any, target: Any, smoothing: float) -> Any:
    """Return what `_by_index` does for smoothed targets: of C classes s / C each, and 1 - s more for the sample's own.

    The loss of a sample is log(sum exp(z)) - (1 - s) z[class] - s mean(z).
    """
    rows, classes = logits.shape
    dtype = logits.dtype
    shares, ones = SHARES[rows, dtype], ONES[classes, dtype]
    shifted = logits.T.copy()  # (classes, rows)
    _subtract(shifted, _highest(shifted, 0), shifted)
    flat_index = _flat_index(target, rows, classes)
    powers = _exp(shifted)
    totals = ones.dot(powers)
    losses = _log(totals)
    _subtract(losses, _multiply(shifted.ravel()[flat_index], 1.0 - smoothing), losses)
    _subtract(losses, _multiply(ones.dot(shifted), smoothing / classes), losses)
    _divide(shares, totals, totals)
    _multiply(powers, totals, powers)
    _subtract(powers, smoothing / classes / rows, powers)
    powers.ravel()[flat_index] -= (1.0 - smoothing) / rows
    loss = np.empty((), dtype)
    losses.dot(shares, loss)
    return loss, powers.T


# For logits within these limits neither powers nor probabilities are 0 or infinite, and a probability times a sample's
# share of the batch has enough bits for its logarithm.
_SMALL_LOGIT = {np.dtype(np.float32): 40.0, np.dtype(np.float64): 300.0}

_row_indices: dict[int, Any] = {}  # number of rows -> their indices, and the number as an array


def _flat_index(target: Any, rows: int, classes: int) -> Any:
    """Return the index of each sample's class in a flattened array (classes, rows).

    Raises SettingError for an index of no class.
    """
    cached = _row_indices.get(rows)
    if cached is None:
        if len(_row_indices) >= 32:
            _row_indices.clear()
        cached = _row_indices[rows] = np.arange(rows), np.array(rows)
    indices, width = cached
    if target.dtype is not _int64:
        target = target.astype(_int64)
    # Read as unsigned, a negative index is a huge one, so the largest index shows a violation of either bound.
    unsigned = target.view(_uint64)
    if unsigned.item(unsigned.argmax()) >= classes:
        wrong = target[(target < 0) | (target >= classes)][0]
        raise SettingError(f"cross_entropy: class index {wrong} is none of the {classes} classes 0 to {classes - 1}")
    flat_index = _multiply(target, width)
    return _add(flat_index, indices, flat_index)


def _weighted_targets(
    target: Any, by_index: bool, rows: int, classes: int, smoothing: float, class_weights: Any, sample_weights: Any,
    dtype: Any,
) -> tuple[Any, Any]:
    """Return the factor of -log p of each sample and class (rows, classes), and the sum of weights to divide by.

    Raises SettingError for a class index, probabilities or weights that are refused.
    """
    if by_index:
        targets = np.zeros((classes, rows), dtype)
        targets.ravel()[_flat_index(target, rows, classes)] = 1.0
        targets = targets.T
    else:
        targets = target.reshape(rows, classes).astype(dtype, copy=False)
        _check_probabilities(targets)
    _check_weights("class_weights", class_weights)
    _check_weights("sample_weights", sample_weights)
    weights = np.ones(rows, dtype)
    if class_weights is not None and by_index:
        weights = np.dot(targets, class_weights)  # the weight of each sample's class
    norm_weights = weights
    if sample_weights is not None:
        norm_weights = weights * sample_weights.reshape(-1)
    if smoothing:
        targets = targets * (1.0 - smoothing) + smoothing / classes
    if class_weights is not None:
        targets = targets * class_weights
    if sample_weights is not None:
        targets = targets * sample_weights.reshape(-1, 1)
    norm = np.add.reduce(norm_weights)
    if not norm > 0:
        raise SettingError(f"cross_entropy: the weights of a batch must have a sum above 0, not {norm}")
    return targets, norm


_SUM_TOLERANCE = 0.02  # how far the sum of a row of probabilities may be from 1, as they may be rounded (0.33)


def _check_probabilities(rows: Any) -> None:
    """Raise SettingError unless every row of a target (rows, classes) is a probability distribution."""
    lowest = rows.item(rows.argmin())  # argmin and argmax return a NaN, if there is one
    deviations = np.abs(rows.dot(ONES[rows.shape[1], rows.dtype]) - ONE[rows.dtype])
    worst = deviations.argmax()
    if lowest >= 0.0 and deviations.item(worst) <= _SUM_TOLERANCE:
        return
    row = worst if lowest >= 0.0 else rows.argmin() // rows.shape[1]
    raise SettingError(
        f"cross_entropy: a target of the logits' shape holds probabilities, from 0 and with a sum of 1 in each row, but"
        f" row {row} is {np.array2string(rows[row], threshold=8, precision=4)}. Where several classes may hold at once"
        " binary_cross_entropy is the loss"
    )


def _check_weights(name: str, weights: Any) -> None:
    """Raise SettingError if a weight is negative or not finite."""
    if weights is not None and weights.size:
        for extreme in (weights.item(weights.argmin()), weights.item(weights.argmax())):
            if not 0.0 <= extreme < np.inf:
                raise SettingError(f"cross_entropy: {name} are finite numbers from 0, and {extreme} is among them")


def _cross_entropy_shape(
    logits: Any, target: Any, smoothing: float, class_weights: Any, sample_weights: Any
) -> tuple[int, ...]:
    shape, target_shape = np.shape(logits), np.shape(target)
    if not shape:
        raise ShapeError("logits need an axis of classes")
    if 0 in shape:
        raise ShapeError("there is no mean over zero samples")
    if shape[-1] == 1:
        raise ShapeError("one class is always right; for a number there is mse, for yes or no binary_cross_entropy")
    indices = target.dtype.kind in "iu"
    if target_shape == shape[:-1] and not indices:
        advice = ": pass target.astype(int)" if target.dtype.kind in "fb" else ""
        raise ShapeError(f"class indices must be integers, not {target.dtype}{advice}")
    if indices and target_shape == shape:
        raise ShapeError("rows of 0 and 1 must be floats: pass target.astype(float), or indices, target.argmax(-1)")
    if indices and target_shape != shape[:-1]:
        raise ShapeError(f"class indices must have the shape {shape[:-1]} of the logits without their last axis")
    if not indices and target_shape != shape:
        raise ShapeError(f"the target must be class indices of shape {shape[:-1]} or probabilities of shape {shape}")
    if class_weights is not None and np.shape(class_weights) != shape[-1:]:
        raise ShapeError(f"class_weights must have shape {shape[-1:]}, not {np.shape(class_weights)}")
    if sample_weights is not None and np.shape(sample_weights) != shape[:-1]:
        raise ShapeError(f"sample_weights must have shape {shape[:-1]}, not {np.shape(sample_weights)}")
    return ()


def _cross_entropy_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    logits = node.inputs[0]
    if logits.__class__ is not node.__class__:
        return
    gradient = node.saved
    if gradient.ndim != logits.data.ndim:
        gradient = gradient.reshape(logits.data.shape)
    borrowed = g is ONE[gradient.dtype]  # the saved gradient itself, which another backward may need
    if not borrowed:
        gradient = _multiply(gradient, g)
    if logits.operation is not None and logits.grad is None:
        logits.grad = gradient  # as accumulate_grad does, but 0.2 us faster
        logits.owned = not borrowed
    else:
        accumulate_grad(logits, gradient, borrowed)


CROSS_ENTROPY = Operation("cross_entropy", _cross_entropy, _cross_entropy_shape, backward=_cross_entropy_backward,
                          reads=(), saves=True, operands=("logits", "target"))

# --- mean squared error ---------------------------------------------------------------------------------------------


def _mse(prediction: Any, target: Any) -> Any:
    if prediction.shape != target.shape or not prediction.size:
        raise ValueError  # broadcasting (n, 1) against (n,) is the classic silent mistake
    residual = _subtract(prediction, target)
    flat, dtype = residual.ravel(), residual.dtype
    return _multiply(flat.dot(flat), SCALES[residual.size, dtype][0], np.empty((), dtype)), residual


def losses_shape(prediction: Any, target: Any) -> tuple[int, ...]:
    """Return the shape of a loss, (); raise ShapeError unless both operands have one shape that is not empty."""
    if np.shape(prediction) != np.shape(target):
        raise ShapeError("prediction and target must have the same shape; nothing is broadcast in a loss")
    if not np.size(prediction):
        raise ShapeError("there is no mean over zero samples")
    return ()


def _mse_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    value = node.__class__
    prediction, target = node.inputs
    residual = node.saved
    dtype = residual.dtype
    scale = SCALES[residual.size, dtype][1]
    gradient = _multiply(residual, scale if g is ONE[dtype] else scale * g)
    if target.__class__ is value:
        accumulate_grad(target, -gradient)
    if prediction.__class__ is value:
        accumulate_grad(prediction, gradient)


MSE = Operation("mse", _mse, losses_shape, backward=_mse_backward, reads=(), saves=True)

# --- layer norm -----------------------------------------------------------------------------------------------------


def _layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    """Return the output, and for backward the normalised x and the factor that normalised it."""
    _layer_norm_shape(x, weight, bias, eps)
    centred = x - np.mean(x, axis=-1, keepdims=True)
    scale = 1.0 / np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True) + eps)  # (..., 1)
    centred *= scale
    out = centred * weight if weight is not None else centred.copy()
    if bias is not None:
        out += bias
    return out, (centred, scale)


def _layer_norm_shape(x: Any, weight: Any, bias: Any, eps: float) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.shape(x)
    if not shape or not shape[-1]:
        raise ShapeError("layer norm needs a last axis with features")
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None and np.shape(array) != shape[-1:]:
            raise ShapeError(f"the {name} of shape {np.shape(array)} must have shape {shape[-1:]}")
    return shape


def _layer_norm_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    value = node.__class__
    x, weight, bias, _ = node.inputs
    normalized, scale = node.saved
    features = normalized.shape[-1]
    if bias.__class__ is value:
        accumulate_grad(bias, np.add.reduce(g.reshape(-1, features), axis=0))
    if weight.__class__ is value:
        accumulate_grad(weight, np.add.reduce((g * normalized).reshape(-1, features), axis=0))
    if x.__class__ is value:
        if weight is not None:
            g = g * node.operands[1]
        mean = np.mean(g, axis=-1, keepdims=True)
        projection = np.mean(g * normalized, axis=-1, keepdims=True)
        accumulate_grad(x, (g - mean - normalized * projection) * scale)


LAYER_NORM = Operation("layer_norm", _layer_norm, _layer_norm_shape, backward=_layer_norm_backward, reads=((1, 0),),
                       saves=True, operands=("input", "weight", "bias"))
