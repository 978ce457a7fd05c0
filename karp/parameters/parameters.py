"""The values of a model, bound to views of one data vector and one gradient vector."""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping
from operator import is_
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.errors import SettingError, ShapeError
from karp.parameters.layout import Layout

if TYPE_CHECKING:
    from karp.autograd import Value
    from karp.parameters.layout import Array

    Bindings = tuple[tuple[Value, Array], ...]


class Parameters:
    """The values of one model, moved into one data vector and one gradient vector.

    Each value is bound to its views: ``value.data`` becomes a view of the data vector, and ``value.grad_buffer`` the
    view of the gradient vector that backward writes its gradient to. A gradient that the value has is kept. Values
    that already lie like this in the vectors of a larger model stay there, and these vectors are slices of those. A
    value with two names (tied weights) has one view, under the first name. Names and values are read as those of a
    dict: `len(parameters)`, `name in parameters`, `parameters[name]`, `for name, value in parameters.items()`.

    Args:
        values: name -> value whose data is a float32 or float64 array, all of one dtype.

    Attributes:
        layout: the values' names, shapes and offsets in the vectors.
        data: the weights, ``(layout.size,)``.
        values: the values, each once, in the order of `names`.

    Raises:
        SettingError: a value is not float32 or float64, two have different dtypes, one is no leaf, or there
            is none.
        ShapeError: a gradient that a value has is of another shape.

    >>> from karp.autograd import Value
    >>> weight = Value(np.ones((2, 3), np.float32))
    >>> parameters = Parameters({"weight": weight})
    >>> parameters.data[:8]
    array([1., 1., 1., 1., 1., 1., 0., 0.], dtype=float32)
    >>> parameters.data[0] = 5
    >>> float(weight.data[0, 0])
    5.0
    >>> for name, value in parameters.items():
    ...     print(name, value.shape)
    weight (2, 3)
    """

    layout: Layout
    data: Array
    values: tuple[Value, ...]

    def __init__(self, values: Mapping[str, Value]) -> None:
        from karp.autograd import Value, mark_modified  # a server uses layouts without importing the engine

        self._mark_modified, self._value = mark_modified, Value
        self._gradient: Array
        self._prepared: list[tuple[Array, dict[str, Array], Bindings]] = []  # vectors that are used again and again
        distinct, self._tied = _distinct(values)
        arrays = {name: np.asarray(value.data) for name, value in distinct.items()}
        self.layout = Layout({name: array.shape for name, array in arrays.items()}, _common_dtype(arrays))
        self._named = distinct
        self.values = tuple(distinct.values())
        if not self._share(list(arrays.values())):
            self._move(arrays)

    def _share(self, arrays: list[Array]) -> bool:
        """Use slices of the vectors in which the values lie already; return False if they lie in none.

        So the parameters of one layer of a model can be made without moving values out of the model's vectors.
        """
        grad_buffers = [value.grad_buffer for value in self.values]
        if any(grad_buffer is None for grad_buffer in grad_buffers):
            return False
        data, gradient = self.layout.find_slice(arrays), self.layout.find_slice(grad_buffers)
        if data is None or gradient is None:
            return False
        self.data, self._gradient = data, gradient
        self._views = dict(zip(self._named, arrays, strict=True))
        self._bindings = tuple(zip(self.values, arrays, strict=True))
        self._grad_buffers = tuple(zip(self.values, grad_buffers, strict=True))
        return True

    def _move(self, arrays: dict[str, Array]) -> None:
        """Move the values, and gradients that they have, into new vectors."""
        self.data = self.layout.zeros()
        self._views = self.layout.views(self.data)
        for name, array in arrays.items():
            self._views[name][...] = array
        for value, view in zip(self.values, self._views.values(), strict=True):
            value.data = view
        self._bindings = tuple(zip(self.values, self._views.values(), strict=True))
        gradients = [value.grad for value in self.values]
        self.keep_gradients_in(self.layout.zeros())
        for (value, grad_buffer), gradient in zip(self._grad_buffers, gradients, strict=True):
            if gradient is not None:
                value.grad = gradient
                self._sync_grad(value, grad_buffer)

    def __repr__(self) -> str:
        total = sum(view.size for view in self._views.values())
        return f"Parameters({len(self.values)} values, {total} numbers, {self.layout.dtype})"

    def __len__(self) -> int:
        return len(self._named)

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __contains__(self, name: object) -> bool:
        return name in self._named

    def __getitem__(self, name: str) -> Value:
        if name not in self._named:
            raise KeyError(f"no parameter {name!r:.80}; there are {short(self.names)}")
        return self._named[name]

    def keys(self) -> KeysView[str]:
        """Return the names, in order."""
        return self._named.keys()

    def items(self) -> ItemsView[str, Value]:
        """Return the name and value of each parameter, in order."""
        return self._named.items()

    @property
    def names(self) -> tuple[str, ...]:
        """The values' names, in order."""
        return self.layout.names

    def keep_gradients_in(self, vector: Array) -> None:
        """Have backward write gradients into this vector, ``(layout.size,)``, from now on.

        The gradients that the values have are forgotten. The vector may lie in memory that is shared with another
        process. Raises ShapeError or SettingError for a vector that the layout refuses.
        """
        grad_buffers = self.layout.views(vector)
        self._gradient = vector
        self._grad_buffers = tuple(zip(self.values, grad_buffers.values(), strict=True))
        for value, grad_buffer in self._grad_buffers:
            value.grad_buffer, value.grad = grad_buffer, None

    def keep_weights_in(self, vector: Array) -> None:
        """Have the values read their weights from this vector, ``(layout.size,)``, from now on.

        The vector may lie in memory that another process writes to, and be read-only. Graphs made before can no longer
        go backward, as they belong to the weights before. Raises ShapeError or SettingError for a vector that the
        layout refuses.
        """
        self._views, self._bindings = self._bind(vector)
        self.data = vector
        for value, view in self._bindings:
            value.data = view
        self.mark_modified()

    def prepare_bindings(self, vectors: Iterable[Array]) -> None:
        """Make the views of these vectors once, so that `keep_weights_in` is cheap for them; forget those before.

        Raises ShapeError or SettingError for a vector that the layout refuses.
        """
        self._prepared = [(vector, *self._bind(vector)) for vector in vectors]

    def _bind(self, vector: Array) -> tuple[dict[str, Array], Bindings]:
        """Return the views of a vector by name, and each value with its view."""
        for prepared, views, bindings in self._prepared:
            if prepared is vector:
                return views, bindings
        views = self.layout.views(vector)
        return views, tuple(zip(self.values, views.values(), strict=True))

    def zero_grad(self) -> None:
        """Forget the gradients: every ``value.grad`` becomes None, and the next backward starts afresh."""
        for value in self.values:
            value.grad = None

    @property
    def grad(self) -> Array:
        """The complete gradient vector, ``(layout.size,)``: zero where backward wrote nothing.

        A gradient that the program has replaced by an array of its own is copied into the vector. The same vector is
        returned every time, and the next backward overwrites it.

        Raises:
            ShapeError: a replaced gradient has another shape than its value.
        """
        for value, grad_buffer in self._grad_buffers:
            if value.grad is not grad_buffer:
                self._sync_grad(value, grad_buffer)
        return self._gradient

    def _sync_grad(self, value: Value, grad_buffer: Array) -> None:
        """Copy a value's gradient into its view of the gradient vector, zeros where it has none.

        The view becomes the value's `grad`. Raises ShapeError for a gradient of another shape.
        """
        if value.grad is None:
            grad_buffer[...] = 0
            return
        if np.shape(value.grad) != grad_buffer.shape:
            name = next(name for name, other in zip(self.names, self.values, strict=True) if other is value)
            raise ShapeError(f"the gradient of {name!r} has shape {np.shape(value.grad)}, not {grad_buffer.shape}")
        grad_buffer[...] = value.grad
        value.grad = grad_buffer

    def mark_modified(self) -> None:
        """Mark the weights as written to: a graph made before can no longer go backward, and raises.

        `load` and an `Updater` of these parameters call it. Other code that writes into `data` has to call it too.
        """
        self._mark_modified(self.values)

    def holds(self, named: Mapping[str, Value]) -> bool:
        """Return whether these are the names and values that the parameters were made of, and none has been moved."""
        return list(named) == list(self._named) and all(map(is_, named.values(), self.values)) and self.is_current()

    def is_current(self) -> bool:
        """Return whether every ``value.data`` is still its view of the data vector, and none has been replaced."""
        for value, view in self._bindings:  # noqa: SIM110  (a generator takes four times as long)
            if value.data is not view:
                return False
        return True

    def sha256(self) -> str:
        """Return the hex SHA-256 of the weights' bytes, in the order of the names, without the gaps."""
        return self.layout.sha256(self.data)

    def load(self, arrays: Mapping[str, Any] | str | os.PathLike[str]) -> None:
        """Copy ``arrays`` (name -> array, list or value of the value's shape) into the weights, all or nothing.

        Numbers of another dtype are converted; a fraction may be rounded, a whole number must not. A path is that of a
        safetensors file in karp's layout, such as a run's (`weights_file.py`).

        Raises:
            DataError: a file cannot be read.
            SettingError: a name is missing or unexpected; an array does not hold real numbers, or one that is not
                finite, or not in the dtype of the weights; or they are read-only.
                A file has torch's layout, or names none and has a square matrix.
            ShapeError: an array has another shape than its value, or masked elements, or no array can be made.
        """
        if isinstance(arrays, str | os.PathLike):
            from karp.parameters.weights_file import read_karp

            arrays = read_karp(arrays)
        if not isinstance(arrays, Mapping | Parameters):
            raise SettingError(f"load takes a dict of names and arrays, or a path, not {type(arrays).__name__}")
        self._check_names(arrays)
        converted = {name: self._converted(name, arrays[name]) for name in self.names}
        if not self.data.flags.writeable:
            raise SettingError("the weights are read-only: load them before or after the loop over trainer.batches")
        self.mark_modified()
        for name, array in converted.items():
            self._views[name][...] = array

    def _converted(self, name: str, given: Any) -> Array:
        """Return the array given for `name` in the dtype of the weights; no memory is shared with the weights.

        Raises what `load` raises: a whole number that the dtype cannot hold, or a number that is not finite, is a
        SettingError.
        """
        from karp.autograd.convert import plain_array  # imported here, as a server does without the engine

        dtype = self.data.dtype
        if isinstance(given, self._value):
            given = given.data
        try:
            array: Array = plain_array(given)
        except ValueError as error:
            raise ShapeError(f"{name!r}: no array can be made of this: {error}") from None
        # NumPy has no bfloat16 of its own; JAX and safetensors use the one of ml_dtypes.
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise SettingError(f"{name!r} must hold real numbers, not {array.dtype}")
        if array.shape != self._views[name].shape:
            turned = array.ndim == 2 and array.shape[::-1] == self._views[name].shape
            way = ": it is to be transposed, as torch has (outputs, inputs)" if turned else ""
            raise ShapeError(f"{name!r} has shape {self._views[name].shape}, not {array.shape}{way}")
        if array.dtype.kind in "iu":
            limit = 2 << np.finfo(dtype).nmant
            if array.max(initial=0) > limit or array.min(initial=0) < -limit:
                raise SettingError(f"{name!r} holds whole numbers beyond {limit:,}, which {dtype} rounds to others")
        with np.errstate(over="ignore"):
            converted = array.astype(dtype, copy=False)
        if not np.isfinite(converted).all():
            wrong = array[~np.isfinite(converted)].astype(np.float64)
            beyond = f", which is beyond {dtype}" if np.isfinite(wrong[0]) else ""
            count = f"{wrong.size} of {array.size} numbers are not finite"
            raise SettingError(f"{name!r} holds {wrong[0]}{beyond}: {count}")
        return converted.copy() if np.may_share_memory(converted, self.data) else converted

    def _check_names(self, arrays: Mapping[str, Array]) -> None:
        for name in arrays:
            if name in self._tied:
                raise SettingError(f"{name!r} is tied to {self._tied[name]!r}: give only the latter")
        missing = [name for name in self.names if name not in arrays]
        unexpected = [name for name in arrays if name not in self._views]
        if missing or unexpected:
            lists = f"missing={short(missing)}, unexpected={short(unexpected)}"
            raise SettingError(f"these are not the weights of this model: {lists}")


def _distinct(values: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, str]]:
    """Return each value once, under its first name, and a dict of further names -> first names.

    Raises SettingError for a value that is no leaf.
    """
    first: dict[int, str] = {}
    tied = {}
    for name, value in values.items():
        if value.operation is not None:
            raise SettingError(f"{name!r} is no leaf but the result of {value.operation.name}")
        if first.setdefault(id(value), name) != name:
            tied[name] = first[id(value)]
    return {name: value for name, value in values.items() if name not in tied}, tied


def _common_dtype(arrays: Mapping[str, Array]) -> np.dtype[Any]:
    """Return the dtype that all arrays have; raise SettingError where they differ or there are none."""
    if not arrays:
        raise SettingError("a model without a single value to train")
    (first, model), *others = arrays.items()
    for name, array in others:
        if array.dtype != model.dtype:
            raise SettingError(
                f"all parameters must have one dtype: {first!r} is {model.dtype}, {name!r} is {array.dtype}"
            )
    return model.dtype
