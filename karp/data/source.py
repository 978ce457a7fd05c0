"""Sources of rows: the data of a run, in memory or elsewhere.

A run needs four things of its data: the number of rows, the parts of a row (such as features and target), a fingerprint
of all rows, and the rows of a batch. Arrays in memory are a source, and so is a `Table`. As the rest of karp uses
nothing else, rows can as well come from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from karp.autograd.convert import plain_array
from karp.errors import DataError, SettingError

Array = NDArray[Any]


class Part(NamedTuple):
    """A part of each row, such as its features: the name in messages, dtype, shape of one row, column names.

    `gaps` says that a NaN is a missing number, with which the model can deal.
    """

    title: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    gaps: bool = False


@runtime_checkable
class Source(Protocol):
    """The protocol of data to train on; `len(source)` is the number of rows.

    A source may also have `weights`, an array (rows,) of finite numbers above 0 that its fingerprint includes: they are
    the sample weights, unless the program passes others. If its rows are in a random order it may have `block`, a
    number of rows: an epoch then permutes blocks of so many rows, and the rows within each, rather than all rows.
    Or it has `order`, a function of an epoch that returns the order of its rows then; the fingerprint includes that,
    too.
    `remarks`, lines of text on the data, are shown to the run's user, in the place of columns that are not scaled.
    """

    @property
    def parts(self) -> Sequence[Part]:
        """The parts of a row, in the order in which a batch has them."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """Return a digest of all rows, in their order."""

    def take(self, rows: NDArray[np.int64]) -> list[Array]:
        """Return these rows, in this order: for each part an array (len(rows), *shape) of its dtype."""


class Arrays:
    """A source made of arrays of equal length in memory, which are not copied.

    >>> source = Arrays(np.zeros((4, 2), np.float32), [0, 1, 1, 0])
    >>> len(source), [part.shape for part in source.parts], source.take(np.array([1, 2]))[1]
    (4, [(2,), ()], array([1, 1]))
    """

    def __init__(self, *data: ArrayLike) -> None:
        """Convert the data to arrays; raises SettingError unless they have one length and no masked elements."""
        try:
            self.arrays: list[Array] = [plain_array(array) for array in data]
        except ValueError as error:
            raise SettingError(f"trainer.batches takes a Table, or arrays as in batches(x, y): {error}") from None
        lengths = {len(array) if array.ndim else -1 for array in self.arrays}
        if len(lengths) != 1 or -1 in lengths:
            shapes = ", ".join(str(array.shape) for array in self.arrays)
            raise SettingError(f"trainer.batches takes a Table or arrays of equal length; these have shapes {shapes}")
        self.parts = [Part(f"array {place}", array.dtype, array.shape[1:]) for place, array in enumerate(self.arrays)]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def fingerprint(self) -> str:
        """Return `fingerprint` of the arrays."""
        return fingerprint(self.arrays)

    def take(self, rows: NDArray[np.int64]) -> list[Array]:
        """Return these rows of each array."""
        return [array.take(rows, axis=0) for array in self.arrays]


def source_of(*data: Any) -> Source:
    """Return the data of a program as a source: a Table or another source as it is, arrays as `Arrays`.

    Raises SettingError for data of which no arrays of one length can be made.
    """
    if len(data) == 1 and isinstance(data[0], Source):
        return data[0]
    return Arrays(*data)


def fingerprint(arrays: Iterable[ArrayLike]) -> str:
    """Return a digest of arrays, their dtypes, shapes and elements in row order, as 32 hexadecimal digits.

    The digest is part of a run's settings: a worker whose data differ by a bit, the order of rows or the dtype is
    refused, because its contributions would be those of another run. Strides and memory order do not count.
    The algorithm is BLAKE2b, about 1 s for each GB. Raises DataError for an array of Python objects, which has
    no bytes of its own, SettingError for what is no list of arrays.

    >>> x = np.zeros((3, 2), np.float32)
    >>> fingerprint([x]) == fingerprint([x.copy()]), fingerprint([x]) == fingerprint([x.astype(np.float64)])
    (True, False)
    """
    from hashlib import blake2b

    digest = blake2b(digest_size=16)
    if isinstance(arrays, str | bytes) or not isinstance(arrays, Iterable):
        raise SettingError(f"arrays is {arrays!r:.80}: pass a list of arrays")
    for index, given in enumerate(arrays):
        array = as_array(f"array {index}", given)
        if array.dtype.hasobject:
            raise DataError(f"array {index} holds Python objects: make it an array of numbers")
        # The head determines how many bytes follow it, so no two lists of arrays give the same bytes.
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def as_array(name: str, given: object) -> NDArray[Any]:
    """Return an argument as an array; raise DataError, naming `name`, if none can be made of it or it is masked."""
    try:
        array: NDArray[Any] = plain_array(given)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except ValueError as error:
        raise DataError(f"{name} is no array ({error}): pass an array of numbers") from None
    return array
