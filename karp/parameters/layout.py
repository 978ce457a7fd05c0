"""The layout of a model's tensors in a flat vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from reprlib import repr as short  # what a message held may be long; an error quotes a line of it
from typing import TYPE_CHECKING, Any

import numpy as np

from karp.errors import SettingError, ShapeError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Shape = tuple[int, ...]

ALIGNMENT = 64  # bytes
LARGEST = 1 << 34  # bytes of one vector: no message can make a process allocate more than 16 GiB
LONGEST_NAME = 256  # characters
MOST_AXES = 32


@dataclass(frozen=True, init=False, repr=False)
class Layout:
    """The names, shapes and offsets of tensors in a flat vector.

    Args:
        shapes: name -> shape, in the tensors' order in the vector.
        dtype: float32 or float64, the same for all.

    Attributes:
        shapes: ``((name, shape), ...)``.
        dtype: ``"float32"`` or ``"float64"``.
        offsets: where each tensor starts, in elements.
        size: elements of the vector, gaps included.

    Two layouts are equal when names, shapes, order and dtype are.

    Raises:
        SettingError: a name, a shape, the dtype or the total size cannot be used.
        TypeError: NumPy knows no such dtype.

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
        line = ALIGNMENT // kind.itemsize  # elements in 64 bytes
        entries, offsets, size = [], [], 0
        for name, shape in shapes.items():
            entries.append((_name(name), _shape(name, shape)))
            offsets.append(size)
            size += -(-prod(entries[-1][1]) // line) * line  # rounded up to a multiple of 64 bytes
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
        """The tensors' names, in order."""
        return tuple(name for name, _ in self.shapes)

    @property
    def nbytes(self) -> int:
        """The bytes of the vector, gaps included."""
        return self.size * np.dtype(self.dtype).itemsize

    def zeros(self) -> Array:
        """Allocate a vector of zeros, ``(size,)``, aligned to 64 bytes."""
        memory = np.zeros(self.nbytes + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + self.nbytes].view(self.dtype)

    def views(self, vector: Array) -> dict[str, Array]:
        """Return name -> view of ``vector`` with the tensor's shape; writing into one writes into the vector.

        Raises:
            ShapeError: the vector has another shape than ``(size,)``, or is not contiguous.
            SettingError: it has another dtype.
        """
        self.check(vector)
        return {
            name: vector[offset : offset + prod(shape)].reshape(shape)
            for (name, shape), offset in zip(self.shapes, self.offsets, strict=True)
        }

    def find_slice(self, arrays: Sequence[Array]) -> Array | None:
        """Return the slice of a larger vector in which these arrays lie as this layout says; None if they do not.

        The slice is read-only if the first array is.

        >>> layout = Layout({"weight": (3, 2), "bias": (2,)}, "float32")
        >>> views = layout.views(layout.zeros())
        >>> part = Layout({"bias": (2,)}).find_slice([views["bias"]])
        >>> part[:2] = 1
        >>> part.size, views["bias"]
        (16, array([1., 1.], dtype=float32))
        """
        root = _owner(arrays[0])
        start = _address(arrays[0]) - _address(root)
        lie_as_here = all(
            _owner(array) is root
            and array.flags.c_contiguous
            and _address(array) - _address(root) - start == offset * array.itemsize
            for array, offset in zip(arrays, self.offsets, strict=True)
        )
        if not lie_as_here or root.ndim != 1 or not 0 <= start <= root.nbytes - self.nbytes:
            return None
        vector = root.view(np.uint8)[start : start + self.nbytes].view(self.dtype)
        if not arrays[0].flags.writeable:
            vector.flags.writeable = False
        return vector

    def check(self, vector: Array) -> None:
        """Raise ShapeError or SettingError unless ``vector`` is contiguous and of this layout's size and dtype."""
        if vector.shape != (self.size,) or not vector.flags.c_contiguous:
            raise ShapeError(
                f"a vector of this layout is contiguous with shape ({self.size},), not "
                f"{vector.shape} with strides {vector.strides}"
            )
        if vector.dtype != self.dtype:
            raise SettingError(f"a vector of this layout is {self.dtype}, not {vector.dtype}")

    def sha256(self, vector: Array) -> str:
        """Return the hex SHA-256 of the tensors' bytes, one after the other, without the gaps.

        Raises ShapeError or SettingError for a vector that `check` refuses.

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
        """Return the layout as plain types, for a message or a file: dtype, size, and ``[name, [axis, ...]]`` in order.

        >>> Layout({"w": (3, 2)}, "float64").to_dict()
        {'dtype': 'float64', 'size': 8, 'shapes': [['w', [3, 2]]]}
        """
        shapes = [[name, list(shape)] for name, shape in self.shapes]
        return {"dtype": self.dtype, "size": self.size, "shapes": shapes}

    @classmethod
    def from_dict(cls, plain: object) -> Layout:
        """Rebuild the layout from what `to_dict` returned; nothing in ``plain`` is trusted.

        Raises:
            SettingError: it is not what `to_dict` writes; the message names the field and its value.
        """
        if not isinstance(plain, dict) or set(plain) != {"dtype", "size", "shapes"}:
            raise SettingError(f"a layout is a dict of dtype, size and shapes, not {short(plain)}")
        dtype, size, pairs = plain["dtype"], plain["size"], plain["shapes"]
        if dtype not in ("float32", "float64"):  # NumPy's parser of dtypes accepts far more than these
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


def _owner(array: Array) -> Array:
    """Return the array that an array is a view of; one that is no view is returned itself."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise SettingError(f"parameters must be float32 or float64, not {short(dtype)}") from None
    if kind not in (np.float32, np.float64):
        raise SettingError(f"parameters must be float32 or float64, not {kind}")
    return kind


def _name(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise SettingError(f"a name is a string of 1 to {LONGEST_NAME} characters, not {short(name)}")
    if name == "__metadata__" or not _is_unicode(name):  # a safetensors file with either cannot be read back
        raise SettingError(f"a name cannot be {name!a}: no file can hold it")
    return name


def _is_unicode(text: str) -> bool:
    """Return whether a text has no surrogate, which is half of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shape(name: str, shape: object) -> Shape:
    fits = isinstance(shape, list | tuple) and len(shape) <= MOST_AXES
    if not fits or not all(type(axis) is int and 0 <= axis <= LARGEST for axis in shape):  # type: ignore[attr-defined]
        raise SettingError(f"the shape of {name!r} must be whole numbers from 0, not {short(shape)}")
    return tuple(shape)  # type: ignore[arg-type]
