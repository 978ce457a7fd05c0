"""All trainable numbers of a model as one vector, its gradient as a second one.

A model's tensors live as named views into one flat *data* vector, their gradients as views of the same
places in one flat *gradient* vector. Whatever is done to a whole model (pull, push, average, update, clip,
checkpoint, checksum, shared memory) is therefore one operation on one array, and backward writes each
weight gradient where the vector wants it: nothing is gathered afterwards.

    name       layers.0.weight            layers.0.bias        layers.1.weight   ...
    vector    |################## gap |############## gap |################ gap |...
    offset     0                       k * 64 bytes

Every view is C-ordered and starts on a multiple of 64 bytes, a cache line and the widest SIMD register. The
gaps between views are zero, stay zero under every optimiser, and are no part of the hash.

`Layout` says which tensor lies where and nothing else: it travels in messages and files. `Parameters` is a
layout with two vectors, bound to the values of one model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from reprlib import repr as short  # whatever a message held, a line of it is enough
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.errors import SettingError, ShapeError

if TYPE_CHECKING:
    import numpy.typing as npt

    from karp.autograd import Value

    Array = npt.NDArray[Any]
    Shape = tuple[int, ...]

ALIGNMENT = 64  # bytes
LARGEST = 1 << 34  # bytes of one vector: no message makes this process ask for more than 16 GiB
LONGEST_NAME = 256  # characters
MOST_AXES = 32


@dataclass(frozen=True, init=False, repr=False)
class Layout:
    """Which tensor lies where in a flat vector.

    Args:
        shapes: name -> shape, in the order in which the tensors lie.
        dtype: float32 or float64, the same for all.

    Attributes:
        shapes: ``((name, shape), ...)``.
        dtype: ``"float32"`` or ``"float64"``.
        offsets: where each tensor starts, in elements.
        size: elements of the vector, gaps included.

    Two layouts are equal when names, shapes, order and dtype are.

    Raises:
        SettingError: a name, a shape, the dtype or the total size cannot be used.

    >>> layout = Layout({"weight": (3, 2), "bias": (2,)}, "float32")
    >>> layout.offsets, layout.size, layout.nbytes
    ((0, 16), 32, 128)
    >>> vector = layout.zeros()
    >>> layout.views(vector)["bias"][:] = 1
    >>> int(vector.sum())
    2
    """

    shapes: tuple[tuple[str, Shape], ...]
    dtype: str
    offsets: tuple[int, ...]
    size: int

    def __init__(self, shapes: Mapping[str, Shape], dtype: npt.DTypeLike = "float32") -> None:
        kind = _dtype(dtype)
        line = ALIGNMENT // kind.itemsize  # elements of 64 bytes
        entries, offsets, size = [], [], 0
        for name, shape in shapes.items():
            entries.append((_name(name), _shape(name, shape)))
            offsets.append(size)
            size += -(-prod(entries[-1][1]) // line) * line  # rounded up
            if size * kind.itemsize > LARGEST:
                raise SettingError(
                    f"parameters of more than {LARGEST} bytes: {name!r} of shape {shape} passes the limit"
                )
        for field, value in (
            ("shapes", tuple(entries)),
            ("dtype", kind.name),
            ("offsets", tuple(offsets)),
            ("size", size),
        ):
            object.__setattr__(self, field, value)

    def __repr__(self) -> str:
        return f"Layout({dict(self.shapes)}, {self.dtype!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names in order."""
        return tuple(name for name, _ in self.shapes)

    @property
    def nbytes(self) -> int:
        """Bytes of the vector, gaps included."""
        return self.size * np.dtype(self.dtype).itemsize

    def zeros(self) -> Array:
        """A new vector of zeros, ``(size,)``, whose first byte lies on a multiple of 64."""
        room = np.zeros(self.nbytes + ALIGNMENT, np.uint8)
        start = -room.ctypes.data % ALIGNMENT
        return room[start : start + self.nbytes].view(self.dtype)

    def views(self, vector: Array) -> dict[str, Array]:
        """name -> view of ``vector`` with the tensor's shape; writing into one writes into the vector.

        Raises:
            ShapeError: the vector has another shape than ``(size,)``.
            SettingError: it has another dtype.
        """
        self.check(vector)
        return {
            name: vector[offset : offset + prod(shape)].reshape(shape)
            for (name, shape), offset in zip(self.shapes, self.offsets, strict=True)
        }

    def check(self, vector: Array) -> None:
        """Raise unless ``vector`` is a contiguous vector of this layout's size and dtype."""
        if vector.shape != (self.size,) or not vector.flags.c_contiguous:
            raise ShapeError(
                f"a vector of this layout is contiguous with shape ({self.size},), not "
                f"{vector.shape} with strides {vector.strides}"
            )
        if vector.dtype != self.dtype:
            raise SettingError(f"a vector of this layout is {self.dtype}, not {vector.dtype}")

    def sha256(self, vector: Array) -> str:
        """Hex SHA-256 of the tensors' bytes, one after the other, without the gaps.

        >>> import hashlib
        >>> layout = Layout({"a": (3,), "b": ()}, "float32")
        >>> layout.sha256(layout.zeros()) == hashlib.sha256(bytes(4 * 4)).hexdigest()
        True
        """
        from hashlib import sha256

        self.check(vector)
        digest = sha256()
        for (_, shape), offset in zip(self.shapes, self.offsets, strict=True):
            digest.update(vector[offset : offset + prod(shape)].data)
        return digest.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a message or a file: dtype, size, and ``[name, [axis, ...]]`` in order.

        >>> Layout({"w": (3, 2)}, "float64").to_dict()
        {'dtype': 'float64', 'size': 8, 'shapes': [['w', [3, 2]]]}
        """
        shapes = [[name, list(shape)] for name, shape in self.shapes]
        return {"dtype": self.dtype, "size": self.size, "shapes": shapes}

    @classmethod
    def from_dict(cls, plain: object) -> Layout:
        """The layout `to_dict` wrote. Nothing in ``plain`` is trusted.

        Raises:
            SettingError: it is not what `to_dict` writes; the message names the field and its value.
        """
        if not isinstance(plain, dict) or set(plain) != {"dtype", "size", "shapes"}:
            raise SettingError(f"a layout is a dict of dtype, size and shapes, not {short(plain)}")
        dtype, size, pairs = plain["dtype"], plain["size"], plain["shapes"]
        if dtype not in ("float32", "float64"):  # NumPy's own parser of dtypes takes far more than these
            raise SettingError(f"layout: dtype must be 'float32' or 'float64', not {short(dtype)}")
        if not isinstance(pairs, list | tuple):
            raise SettingError(f"layout: shapes must be a list, not {short(pairs)}")
        shapes: dict[str, Shape] = {}
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise SettingError(f"layout: each of shapes must be [name, shape], not {short(pair)}")
            name = _name(pair[0])
            if name in shapes:
                raise SettingError(f"layout: the name {name!r} appears twice")
            shapes[name] = _shape(name, pair[1])
        layout = cls(shapes, dtype)
        if type(size) is not int or size != layout.size:
            raise SettingError(f"layout: size must be {layout.size} for these shapes, not {short(size)}")
        return layout


class Parameters:
    """The values of one model, moved into one data vector and one gradient vector.

    Each value is bound to its place: ``value.data`` becomes a view of the data vector, ``value.home`` the
    view of the gradient vector where backward writes its gradient; one that it has is kept. A value that stands
    under two names (tied weights) has one place, under the first.

    Args:
        values: name -> value whose data is a float32 or float64 array, all of one dtype.

    Attributes:
        layout: which value lies where.
        data: the weights, ``(layout.size,)``.
        values: the values, each once, in the order of `names`.

    Raises:
        SettingError: a value is not float32 or float64, two have different dtypes, one is no leaf, or there
            is none.

    >>> from karp.autograd import Value
    >>> weight = Value(np.ones((2, 3), np.float32))
    >>> parameters = Parameters({"weight": weight})
    >>> parameters.data[:8]
    array([1., 1., 1., 1., 1., 1., 0., 0.], dtype=float32)
    >>> parameters.data[0] = 5
    >>> float(weight.data[0, 0])
    5.0
    """

    layout: Layout
    data: Array
    values: tuple[Value, ...]

    def __init__(self, values: Mapping[str, Value]) -> None:
        from karp.autograd import touch  # a server has layouts but no graphs, and does without the engine

        self._touch = touch
        self._gradient: Array
        distinct, self._tied = _distinct(values)
        arrays = {name: np.asarray(value.data) for name, value in distinct.items()}
        self.layout = Layout({name: array.shape for name, array in arrays.items()}, _common_dtype(arrays))
        self.data = self.layout.zeros()
        self._views = self.layout.views(self.data)
        for name, array in arrays.items():
            self._views[name][...] = array
        # Bound only when nothing can fail any more.
        for name, value in distinct.items():
            value.data = self._views[name]
        self.values = tuple(distinct.values())
        self._places = tuple(zip(self.values, self._views.values(), strict=True))
        gradients = [value.grad for value in self.values]
        self.keep_gradients_in(self.layout.zeros())
        for (value, home), gradient in zip(self._homes, gradients, strict=True):
            if gradient is not None:
                value.grad = gradient
                self._bring_home(value, home)

    def __repr__(self) -> str:
        total = sum(view.size for view in self._views.values())
        return f"Parameters({len(self.values)} values, {total} numbers, {self.layout.dtype})"

    @property
    def names(self) -> tuple[str, ...]:
        """The values' names in order."""
        return self.layout.names

    def keep_gradients_in(self, vector: Array) -> None:
        """Have backward write into this vector, ``(layout.size,)``, from now on; every gradient begins afresh.

        It may lie in memory that is shared with another process.
        """
        homes = self.layout.views(vector)
        self._gradient = vector
        self._homes = tuple(zip(self.values, homes.values(), strict=True))
        for value, home in self._homes:
            value.home, value.grad = home, None

    def keep_weights_in(self, vector: Array) -> None:
        """Have the values read their weights from this vector, ``(layout.size,)``, from now on.

        It may lie in memory that another process writes to, and be read-only. What was made of the values before
        belongs to the weights they had.
        """
        self.data = vector
        self._views = self.layout.views(vector)
        self._places = tuple(zip(self.values, self._views.values(), strict=True))
        for value, view in self._places:
            value.data = view
        self.touch()

    def zero_grad(self) -> None:
        """Forget the gradients: every ``value.grad`` becomes None, and the next backward starts afresh."""
        for value in self.values:
            value.grad = None

    @property
    def grad(self) -> Array:
        """The gradient vector, ``(layout.size,)``, complete: zero where backward wrote nothing.

        A gradient the program has replaced by an array of its own is copied into its place. The same
        vector is returned every time, and the next backward overwrites it.

        Raises:
            ShapeError: a replaced gradient has another shape than its value.
        """
        for value, home in self._homes:
            if value.grad is not home:
                self._bring_home(value, home)
        return self._gradient

    def _bring_home(self, value: Value, home: Array) -> None:
        if value.grad is None:
            home[...] = 0
            return
        if np.shape(value.grad) != home.shape:
            name = next(name for name, one in zip(self.names, self.values, strict=True) if one is value)
            raise ShapeError(f"the gradient of {name!r} has shape {np.shape(value.grad)}, not {home.shape}")
        home[...] = value.grad
        value.grad = home

    def touch(self) -> None:
        """Say that the weights were written to: a graph made before can no longer go backward, but raises.

        `load` and an `Updater` of these parameters call it; whoever else writes into `data` does it himself.
        """
        self._touch(self.values)

    def is_current(self) -> bool:
        """Whether every ``value.data`` is still the view made here, and none has been replaced."""
        for value, view in self._places:  # noqa: SIM110  (a generator takes four times as long)
            if value.data is not view:
                return False
        return True

    def sha256(self) -> str:
        """Hex SHA-256 of the weights' bytes in the order of the names, without the gaps."""
        return self.layout.sha256(self.data)

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Copy ``arrays`` (name -> array of the value's shape) into the weights, all or nothing.

        Numbers of another dtype are converted.

        Raises:
            SettingError: a name is missing or unexpected, or an array does not hold real numbers.
            ShapeError: an array has another shape than its value.
        """
        self._check_names(arrays)
        given = {name: np.asarray(arrays[name]) for name in self.names}
        for name, array in given.items():
            if array.dtype.kind not in "fiu":
                raise SettingError(f"{name!r} must hold real numbers, not {array.dtype}")
            if array.shape != self._views[name].shape:
                raise ShapeError(f"{name!r} has shape {self._views[name].shape}, not {array.shape}")
        converted = {name: array.astype(self.layout.dtype, copy=False) for name, array in given.items()}
        self.touch()
        for name, array in converted.items():
            self._views[name][...] = array

    def _check_names(self, arrays: Mapping[str, Array]) -> None:
        for name in arrays:
            if name in self._tied:
                raise SettingError(f"{name!r} is tied to {self._tied[name]!r}: give only the latter")
        missing = [name for name in self.names if name not in arrays]
        unexpected = [name for name in arrays if name not in self._views]
        if missing or unexpected:
            raise SettingError(f"these are not the weights of this model: {missing=}, {unexpected=}")


def _distinct(values: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, str]]:
    """Each value once, under its first name; and further name -> first name."""
    first: dict[int, str] = {}
    tied = {}
    for name, value in values.items():
        if value.operation is not None:
            raise SettingError(f"{name!r} is no leaf but the result of {value.operation.name}")
        if first.setdefault(id(value), name) != name:
            tied[name] = first[id(value)]
    return {name: value for name, value in values.items() if name not in tied}, tied


def _common_dtype(arrays: Mapping[str, Array]) -> np.dtype[Any]:
    """The dtype all arrays share."""
    if not arrays:
        raise SettingError("a model without a single value to train")
    (first, model), *others = arrays.items()
    for name, array in others:
        if array.dtype != model.dtype:
            raise SettingError(
                f"all parameters must have one dtype: {first!r} is {model.dtype}, {name!r} is {array.dtype}"
            )
    return model.dtype


def _dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise SettingError(f"parameters must be float32 or float64, not {kind}")
    return kind


def _name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise SettingError(f"a name is a string of 1 to {LONGEST_NAME} characters, not {short(name)}")
    return name


def _shape(name: str, shape: object) -> Shape:
    fits = isinstance(shape, list | tuple) and len(shape) <= MOST_AXES
    if not fits or not all(type(axis) is int and 0 <= axis <= LARGEST for axis in shape):  # type: ignore[attr-defined]
        raise SettingError(f"the shape of {name!r} must be whole numbers from 0, not {short(shape)}")
    return tuple(shape)  # type: ignore[arg-type]
