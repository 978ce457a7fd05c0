"""The arrays that batches are drawn from, and what is odd about their numbers.

Both looks are cheap: at the beginning at a sample of the rows, and later at a batch whose gradient was not finite.
"""

from typing import Any

import numpy as np

from karp.autograd.convert import plain_array
from karp.data import Table, fingerprint
from karp.errors import SettingError

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLE = 1 << 16  # numbers of an array that are looked at
LARGE = 100.0  # root mean square of a column that is not scaled; a standardised one has 1, pixels of digits up to 12
NAMED = 3  # columns by name, then only how many


class Dataset:
    """What a program hands to `trainer.batches`: a Table, or arrays of equal length."""

    def __init__(self, *data: Any) -> None:
        """Raises SettingError for what is neither."""
        self.table = data[0] if len(data) == 1 and isinstance(data[0], Table) else None
        if self.table is not None:
            self.arrays: list[Array] = [self.table.x, self.table.y]
            self.titles = ["x", "y" if self.table.target is None else f"target {self.table.target!r}"]
            return
        try:
            self.arrays = [plain_array(array) for array in data]
        except ValueError as error:
            raise SettingError(f"trainer.batches takes a Table, or arrays as in batches(x, y): {error}") from None
        self.titles = [f"array {place}" for place in range(len(self.arrays))]
        lengths = {len(array) if array.ndim else -1 for array in self.arrays}
        if len(lengths) != 1 or -1 in lengths:
            shapes = ", ".join(str(array.shape) for array in self.arrays)
            raise SettingError(f"trainer.batches takes a Table or arrays of equal length; these have shapes {shapes}")
        if 0 in lengths:
            raise SettingError("trainer.batches: there are no rows to train on, so look at what has selected them")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def fingerprint(self) -> str:
        """The digest of their content."""
        return fingerprint(self.arrays) if self.table is None else self.table.fingerprint()

    def unscaled(self) -> list[str]:
        """Of each array of floats with columns so large that steps are too: which they are, and what to do."""
        return [text for place, array in enumerate(self.arrays) if (text := self._unscaled(place, array))]

    def _unscaled(self, place: int, array: Array) -> str:
        if array.dtype.kind != "f" or array.size == 0:  # whole numbers are classes, or places in an embedding
            return ""
        columns = array[0].size
        every = max(1, array.size // SAMPLE)
        sample = array[::every].reshape(-1, columns)
        with np.errstate(all="ignore"):
            size = np.sqrt(np.mean(np.square(sample, dtype=np.float64), axis=0))
            large = np.flatnonzero(np.isfinite(size) & (size > LARGE))
        if not large.size:
            return ""
        what = self._named(place, [int(column) for column in large])
        which = "is not scaled: its size is" if large.size == 1 else "are not scaled: their sizes are up to"
        return (
            f"{what} {which} {size[large].max():,.0f} (root mean square). Unless the program scales, training may "
            "diverge: bring each column to about 1, by subtracting its mean and dividing by its standard deviation"
        )

    def not_finite(self, rows: Array) -> str:
        """The first number of these rows that is not finite, by row and column; '' if all are."""
        found, count = "", 0
        for place, array in enumerate(self.arrays):
            if array.dtype.kind not in "fc":
                continue
            batch = array[rows].reshape(len(rows), -1)
            bad = np.argwhere(~np.isfinite(batch))
            count += len(bad)
            if len(bad) and not found:
                row, column = map(int, bad[0])
                found = f"in row {int(rows[row])}, {self._named(place, [column])} is {batch[row, column]}"
        return f"{found}, and {count - 1:,} more of its batch are not finite" if count > 1 else found

    def explain(self, error: Exception, rows: Array) -> None:
        """Add to an error that a program raised at these rows which of their numbers is not finite."""
        if found := self.not_finite(rows):
            error.add_note(f"karp: {found}")

    def _named(self, place: int, columns: list[int]) -> str:
        """What to call these columns of one of the arrays, the first few of them by name."""
        shape = self.arrays[place].shape[1:]
        if not shape:
            return self.titles[place]
        names = [self._column(place, column, shape) for column in columns[:NAMED]]
        names += [f"{len(columns) - NAMED:,} more"] if len(columns) > NAMED else []
        listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
        noun = ("column" if len(shape) == 1 else "element") + "s" * (len(columns) > 1)
        return f"{noun} {listed} of {self.titles[place]}"

    def _column(self, place: int, column: int, shape: tuple[int, ...]) -> str:
        if len(shape) > 1:
            return str([int(axis) for axis in np.unravel_index(column, shape)])
        names = self.table.columns if self.table is not None and place == 0 else ()
        return f"{column} ({names[column]!r})" if names else str(column)
