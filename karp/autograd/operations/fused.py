"""Losses and normalisation as one operation each: stable in one go, and one array kept instead of five.

Each forward returns (result, saved): what its gradient needs, computed while the numbers are in the cache.
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
# The loss is the mean of these, weighted by samples; the gradient is saved at forward, so backward hands it on.


def _cross_entropy(logits: Any, target: Any, smoothing: float, class_weights: Any, sample_weights: Any) -> Any:
    by_index = target.dtype.kind in "iu"
    if target.shape != (logits.shape[:-1] if by_index else logits.shape) or not logits.size:
        raise ValueError  # the shape rule says what is wrong
    if class_weights is not None or sample_weights is not None or logits.shape[-1] == 1:
        _cross_entropy_shape(logits, target, smoothing, class_weights, sample_weights)
    low = logits
    if logits.ndim != 2:
        low = logits.reshape(-1, logits.shape[-1])
        if by_index:
            target = target.reshape(-1)
    if by_index and not smoothing and class_weights is None and sample_weights is None:
        return _by_index(low, target)
    rows, classes = low.shape
    low = low - _highest(low, axis=1, keepdims=True)
    powers = _exp(low)
    totals = powers.dot(ONES[classes, low.dtype]).reshape(rows, 1)
    logs = low - _log(totals)
    aims, norm = _aims(target, by_index, rows, classes, smoothing, class_weights, sample_weights, logits.dtype)
    gradient = powers * (np.add.reduce(aims, axis=1, keepdims=True) / totals) - aims
    gradient *= 1.0 / norm
    # A class that is not aimed at counts for nothing, also where its logit is -inf.
    return -np.add.reduce(aims * select(logs, aims != 0), axis=None) / norm, gradient


def _by_index(logits: Any, target: Any) -> Any:
    """The mean loss and its gradient for logits (rows, classes) and class indices (rows,).

    It computes in one array, (classes, rows), in which a maximum over classes runs along memory: over the last axis of
    10 it takes five times as long. Where all logits are so near to 0 that their powers can be divided as they are,
    there is no maximum to be looked for, and a loss is read off its probability: a fifth of the time of a small batch.
    """
    rows, classes = logits.shape
    dtype = logits.dtype
    shares = SHARES[rows, dtype]
    powers = logits.T.copy()
    flat = powers.ravel()
    picks = _picks(target, rows, classes)
    limit = _NEAR[dtype]
    near = -limit < flat.item(flat.argmin()) and flat.item(flat.argmax()) < limit  # and no NaN among them
    if not near:
        _subtract(powers, _highest(powers, 0), powers)
        losses = flat[picks]
    _exp(powers, powers)
    totals = ONES[classes, dtype].dot(powers)
    if not near:
        _subtract(_log(totals), losses, losses)
    _divide(shares, totals, totals)
    _multiply(powers, totals, powers)
    picked = flat[picks]
    if near:
        losses = _divide(shares, picked)
        _log(losses, losses)
    flat[picks] = _subtract(picked, shares, picked)
    loss = np.empty((), dtype)
    losses.dot(shares, loss)
    if near and loss.item() < 0.0:  # by a rounding of probabilities of almost 1
        loss.fill(0.0)
    return loss, powers.T


# Of logits within these limits neither the powers nor the probabilities are 0 or infinite, and a sample's share of a
# batch in a probability keeps enough bits for its logarithm.
_NEAR = {np.dtype(np.float32): 40.0, np.dtype(np.float64): 300.0}

_grids: dict[int, Any] = {}  # rows -> their places, and their number as an array


def _picks(target: Any, rows: int, classes: int) -> Any:
    """Where each sample's class stands in an array (classes, rows), flattened."""
    grid = _grids.get(rows)
    if grid is None:
        if len(_grids) >= 32:
            _grids.clear()
        grid = _grids[rows] = np.arange(rows), np.array(rows)
    places, width = grid
    if target.dtype is not _int64:
        target = target.astype(_int64)
    # Read as unsigned, a negative index is a huge one: the largest tells of both bounds (argmax finds it quickly).
    unsigned = target.view(_uint64)
    if unsigned.item(unsigned.argmax()) >= classes:
        wrong = target[(target < 0) | (target >= classes)][0]
        raise SettingError(f"cross_entropy: class index {wrong} is none of the {classes} classes 0 to {classes - 1}")
    picks = _multiply(target, width)
    return _add(picks, places, picks)


def _aims(
    target: Any, by_index: bool, rows: int, classes: int, smoothing: float, class_weights: Any, sample_weights: Any,
    dtype: Any,
) -> tuple[Any, Any]:
    """What multiplies -log p of each sample and class (rows, classes), and the sum of weights to divide by."""
    if by_index:
        aims = np.zeros((classes, rows), dtype)
        aims.ravel()[_picks(target, rows, classes)] = 1.0
        aims = aims.T
    else:
        aims = target.reshape(rows, classes).astype(dtype, copy=False)
        _check_probabilities(aims)
    _check_weights("class_weights", class_weights)
    _check_weights("sample_weights", sample_weights)
    weights = np.ones(rows, dtype)
    if class_weights is not None and by_index:
        weights = np.dot(aims, class_weights)  # of each sample's class
    norm_weights = weights
    if sample_weights is not None:
        norm_weights = weights * sample_weights.reshape(-1)
    if smoothing:
        aims = aims * (1.0 - smoothing) + smoothing / classes
    if class_weights is not None:
        aims = aims * class_weights
    if sample_weights is not None:
        aims = aims * sample_weights.reshape(-1, 1)
    norm = np.add.reduce(norm_weights)
    if not norm > 0:
        raise SettingError(f"cross_entropy: the weights of a batch must have a sum above 0, not {norm}")
    return aims, norm


_NEAR_ONE = 0.02  # how far a row of probabilities may sum from 1: those of a half are rounded, as 0.33 for a third is


def _check_probabilities(rows: Any) -> None:
    """Refuse a target (rows, classes) that holds no probability distributions."""
    lowest = rows.item(rows.argmin())  # a NaN counts as the lowest, and as the highest
    off = np.abs(rows.dot(ONES[rows.shape[1], rows.dtype]) - ONE[rows.dtype])
    worst = off.argmax()
    if lowest >= 0.0 and off.item(worst) <= _NEAR_ONE:
        return
    row = worst if lowest >= 0.0 else rows.argmin() // rows.shape[1]
    raise SettingError(
        f"cross_entropy: a target of the logits' shape holds probabilities, from 0 and with a sum of 1 in each row, but"
        f" row {row} is {np.array2string(rows[row], threshold=8, precision=4)}. Where several classes may hold at once"
        " binary_cross_entropy is the loss"
    )


def _check_weights(name: str, weights: Any) -> None:
    """Refuse weights that are negative or not finite."""
    if weights is not None and weights.size:
        for extreme in (weights.item(weights.argmin()), weights.item(weights.argmax())):
            if not 0.0 <= extreme < np.inf:
                raise SettingError(f"cross_entropy: {name} are finite numbers from 0, and {extreme} is among them")


def _cross_entropy_shape(
    logits: Any, target: Any, smoothing: float, class_weights: Any, sample_weights: Any
) -> tuple[int, ...]:
    shape, aim = np.shape(logits), np.shape(target)
    if not shape:
        raise ShapeError("logits need an axis of classes")
    if 0 in shape:
        raise ShapeError("there is no mean over zero samples")
    if shape[-1] == 1:
        raise ShapeError("one class is always right; for a number there is mse, for yes or no binary_cross_entropy")
    indices = target.dtype.kind in "iu"
    if aim == shape[:-1] and not indices:
        cure = ": pass target.astype(int)" if target.dtype.kind in "fb" else ""
        raise ShapeError(f"class indices must be integers, not {target.dtype}{cure}")
    if indices and aim == shape:
        raise ShapeError("rows of 0 and 1 must be floats: pass target.astype(float), or indices, target.argmax(-1)")
    if indices and aim != shape[:-1]:
        raise ShapeError(f"class indices must have the shape {shape[:-1]} of the logits without their last axis")
    if not indices and aim != shape:
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
    lent = g is ONE[gradient.dtype]  # kept for another backward
    if not lent:
        gradient = _multiply(gradient, g)
    if logits.operation is not None and logits.grad is None:
        logits.grad = gradient  # what accumulate_grad would do 0.2 us later
        logits.owned = not lent
    else:
        accumulate_grad(logits, gradient, lent)


CROSS_ENTROPY = Operation("cross_entropy", _cross_entropy, _cross_entropy_shape, backward=_cross_entropy_backward,
                          reads=(), saves=True, operands=("logits", "target"))

# --- mean squared error ---------------------------------------------------------------------------------------------


def _mse(prediction: Any, target: Any) -> Any:
    if prediction.shape != target.shape or not prediction.size:
        raise ValueError  # broadcasting (n, 1) against (n,) is the classic silent mistake
    off = _subtract(prediction, target)
    flat, dtype = off.ravel(), off.dtype
    return _multiply(flat.dot(flat), SCALES[off.size, dtype][0], np.empty((), dtype)), off


def losses_shape(prediction: Any, target: Any) -> tuple[int, ...]:
    """Prediction and target of one shape, not empty."""
    if np.shape(prediction) != np.shape(target):
        raise ShapeError("prediction and target must have the same shape; nothing is broadcast in a loss")
    if not np.size(prediction):
        raise ShapeError("there is no mean over zero samples")
    return ()


def _mse_backward(node: Any, g: Any, accumulate_grad: Any) -> None:
    value = node.__class__
    prediction, target = node.inputs
    off = node.saved
    dtype = off.dtype
    scale = SCALES[off.size, dtype][1]
    gradient = _multiply(off, scale if g is ONE[dtype] else scale * g)
    if target.__class__ is value:
        accumulate_grad(target, -gradient)
    if prediction.__class__ is value:
        accumulate_grad(prediction, gradient)


MSE = Operation("mse", _mse, losses_shape, backward=_mse_backward, reads=(), saves=True)

# --- layer norm -----------------------------------------------------------------------------------------------------


def _layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
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
    normal, scale = node.saved
    features = normal.shape[-1]
    if bias.__class__ is value:
        accumulate_grad(bias, np.add.reduce(g.reshape(-1, features), axis=0))
    if weight.__class__ is value:
        accumulate_grad(weight, np.add.reduce((g * normal).reshape(-1, features), axis=0))
    if x.__class__ is value:
        if weight is not None:
            g = g * node.operands[1]
        mean = np.mean(g, axis=-1, keepdims=True)
        along = np.mean(g * normal, axis=-1, keepdims=True)
        accumulate_grad(x, (g - mean - normal * along) * scale)


LAYER_NORM = Operation("layer_norm", _layer_norm, _layer_norm_shape, backward=_layer_norm_backward, reads=((1, 0),),
                       saves=True, operands=("input", "weight", "bias"))
