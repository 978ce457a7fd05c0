"""Applying an optimiser to a vector of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import add

from karp import checks
from karp.errors import SettingError, ShapeError
from karp.optim.rules import Optimizer, Vectors
from karp.parameters import Parameters

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

# The bytes of weights that are updated at a time. All that a rule reads and writes of a piece then fits an L2 cache of
# 1 MiB. On 2e5 and 2e6 float32 weights, the sum of two gradients included, pieces of 64 KiB or 1 MiB take 1.1 to 1.2
# times as long.
PIECE = 1 << 18


class OptimizerState(NamedTuple):
    """An optimiser's vectors by name, as `optimizer.state(weights)` makes them, and the updates that they have seen."""

    vectors: dict[str, Array]
    age: int = 0


class Updater:
    """Applies an optimiser to one vector of weights, in pieces that fit the cache, and counts the versions.

    Args:
        optimizer: the rule.
        weights: a vector ``(n,)`` of float32 or float64, or the `Parameters` whose vector it is; changed in
            place by every update. Parameters are marked as modified, so that older graphs can no longer go backward;
            for a vector the caller has to do that (`Parameters.mark_modified`).
        state: the optimiser's vectors to go on with, changed in place; None starts from zeros at ``version``.
        version: the number of updates that the weights have had.
        age: the number of updates that the given state has seen; `version` unless given.

    Attributes:
        optimizer, state: as above.
        weights: the vector.
        version: the number of updates that the weights have had, which is the next update's step.

    Raises:
        SettingError, ShapeError: weights or state cannot be used with this optimiser.

    >>> from karp.optim import SGD
    >>> updater = Updater(SGD(lr=0.5), np.ones(3))
    >>> updater.update(np.array([1.0, 0.0, -1.0]))
    >>> updater.weights, updater.version
    (array([0.5, 1. , 1.5]), 1)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        weights: Array | Parameters,
        state: Mapping[str, Array] | None = None,
        version: int = 0,
        age: int | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise checks.refusal("Updater: optimizer", optimizer, "one of karp.optim, such as optim.SGD(lr=0.1)")
        self._parameters = weights if isinstance(weights, Parameters) else None
        if isinstance(weights, Parameters):
            weights = weights.data
        _check_weights(weights)
        fresh = optimizer.state(weights)
        if state is not None:
            _check_state(state, fresh)
        self.optimizer = optimizer
        self.weights = weights
        self.state = fresh if state is None else dict(state)
        self.version = checks.whole("Updater: version", version)
        age = 0 if state is None else self.version if age is None else age
        self._state_version = self.version - age  # the version at which the state was zero; it may be below 0
        self._shape, self._dtype = weights.shape, weights.dtype
        self._factors: tuple[float, ...] = ()
        self._factor_arrays: tuple[Array, ...] = ()  # the factors as 0-d arrays
        self._pieces = self._make_pieces()
        longest = self._pieces[0][1].weights if self._pieces else weights
        self._sum = np.empty_like(longest)  # for a piece of a sum of gradients

    def _make_pieces(self) -> list[tuple[slice, Vectors, tuple[Array, Array]]]:
        """Return what the rule needs but the gradient, for each piece: (its slice, weights and state, scratch arrays).

        Weights and state are views; all pieces share the two scratch arrays.
        """
        size = self.weights.size
        length = min(size, PIECE // self.weights.itemsize)
        scratch1, scratch2 = np.empty((2, length), self.weights.dtype)
        pieces = []
        for start in range(0, size, max(length, 1)):
            part = slice(start, min(start + length, size))
            scratch = scratch1[: part.stop - start], scratch2[: part.stop - start]
            state = {name: vector[part] for name, vector in self.state.items()}
            pieces.append((part, Vectors(self.weights[part], state), scratch))
        return pieces

    def update(self, gradient: Array, other: Array | None = None, *, source: Updater | None = None) -> None:
        """Update the weights by ``gradient``, or the sum of two, ``(n,)`` of the weights' dtype, which are only read.

        Two gradients are added piece by piece during the update, unless the norm of their sum is needed first.

        With ``source``, an Updater of the same optimiser for other vectors, the weights and state become those of
        ``source``, updated; ``source`` is only read. So an update that is broken off can be done again.

        Raises:
            ShapeError, SettingError: it has another shape or dtype; nothing was changed.
            NotFiniteError: the optimiser clips and the gradient is not finite; nothing was changed.
        """
        apply, pieces = self.optimizer.apply, self._pieces
        sources = pieces if source is None else source._pieces
        if source is not None:
            self.version = source.version
        if other is not None and len(pieces) == 1:
            gradient, other = add(gradient, other, self._sum), None
        elif other is not None and self.optimizer.clip_norm is not None:
            gradient, other = add(gradient, other), None
        factors = self._prepare(gradient)
        if len(pieces) == 1:  # a small model's whole update takes 2 us, so it is not sliced
            _, target, scratch = pieces[0]
            apply(sources[0][1], gradient, factors, scratch, target)
        else:
            for (part, target, scratch), (_, old, _) in zip(pieces, sources, strict=True):
                piece = gradient[part]
                if other is not None:
                    piece = add(piece, other[part], self._sum[: piece.size])
                apply(old, piece, factors, scratch, target)
        self.version += 1

    def check_state(self, state: Mapping[str, Array]) -> None:
        """Raise SettingError or ShapeError unless these vectors could be the state of this optimiser."""
        _check_state(state, self.state)

    @property
    def age(self) -> int:
        """The number of updates that the state has seen."""
        return self.version - self._state_version

    def restart(self, version: int) -> None:
        """Reset the optimiser's state to zeros at ``version``, as a worker's local steps do."""
        for vector in self.state.values():
            vector[...] = 0
        self.version = self._state_version = version

    def _prepare(self, gradient: Array) -> tuple[Array, ...]:
        """Check the gradient and return this update's factors as 0-d arrays."""
        if gradient.shape != self._shape:
            raise ShapeError(f"a gradient of shape {gradient.shape} for weights of shape {self._shape}")
        if gradient.dtype != self._dtype:
            raise SettingError(f"a gradient of {gradient.dtype} for weights of {self._dtype}")
        factors = self.optimizer.prepare(gradient, self.version, self.age)
        if factors != self._factors:
            self._set_factors(factors)
        if self._parameters is not None:
            self._parameters.mark_modified()
        return self._factor_arrays

    def _set_factors(self, factors: tuple[float, ...]) -> None:
        """Write the factors that have changed into their 0-d arrays."""
        if not self._factor_arrays:
            self._factor_arrays = tuple(np.array(factor, self._dtype) for factor in factors)
        for array, old, new in zip(self._factor_arrays, self._factors, factors, strict=False):
            if new != old:
                array[()] = new
        self._factors = factors


def _check_weights(weights: object) -> None:
    if not isinstance(weights, np.ndarray):
        raise SettingError(f"an Updater takes Parameters or a vector of weights, not {type(weights).__name__}")
    if weights.ndim != 1:
        raise ShapeError(f"weights must be a flat vector, not of shape {weights.shape}")
    if weights.dtype not in (np.float32, np.float64):
        raise SettingError(f"weights must be float32 or float64, not {weights.dtype}")
    if not weights.flags.writeable:
        raise SettingError("weights must be writable: updates change them in place")


def _check_state(state: Mapping[str, Array], fresh: Mapping[str, Array]) -> None:
    if not isinstance(state, Mapping) or not all(isinstance(vector, np.ndarray) for vector in state.values()):
        raise checks.refusal("Updater: state", state, "a dict of names and vectors")
    if set(state) != set(fresh):
        raise SettingError(f"the optimiser's state is {sorted(fresh)}, not {sorted(state)}")
    for name, like in fresh.items():
        if state[name].shape != like.shape:
            raise ShapeError(f"state {name!r} must have shape {like.shape}, not {state[name].shape}")
        if state[name].dtype != like.dtype:
            raise SettingError(f"state {name!r} must be {like.dtype}, not {state[name].dtype}")
