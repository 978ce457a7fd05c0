"""The rows that batches are drawn from, and what is odd about their numbers.

Both looks are cheap: at the beginning at a sample of the rows, and later at a batch whose gradient was not finite.
"""

from typing import Any

import numpy as np

from karp.data.source import Part, source_of
from karp.errors import SettingError, ShapeError

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLE = 1 << 16  # numbers of an array that are looked at
LARGE = 100.0  # root mean square of a column that is not scaled; a standardised one has 1, pixels of digits up to 12
PIXEL = 255.0  # the same for whole numbers, as images come so, and a program that reads them scales
NAMED = 3  # columns by name, then only how many


class Dataset:
    """What a program hands to `trainer.batches`: a Table or another source of rows, or arrays of equal length."""

    def __init__(self, *data: Any) -> None:
        """Raises SettingError for what is neither."""
        self.source = source_of(*data)
        self.parts = list(self.source.parts)
        if not len(self.source):
            raise SettingError("trainer.batches: there are no rows to train on, so look at what has selected them")

    def unscaled(self) -> list[str]:
        """Of each part with columns so large that steps are too: which they are, and what to do."""
        sizes = [self._largest(place, part) for place, part in enumerate(self.parts)]
        wide = (int(np.prod(part.shape)) for part, size in zip(self.parts, sizes, strict=True) if np.isfinite(size))
        widest = max(wide, default=0)
        if not widest:
            return []
        every = max(1, len(self.source) * widest // SAMPLE)
        samples = self.source.take(np.arange(0, len(self.source), every))
        texts = [self._unscaled(*each) for each in zip(self.parts, samples, sizes, strict=True)]
        return [text for text in texts if text]

    def _largest(self, place: int, part: Part) -> float:
        """Return the size up to which a column of this part counts as scaled; of what has none it is infinite.

        Whole numbers are features where a row has several, before the last part, which is the target; else classes.
        """
        if part.dtype.kind == "f":
            return LARGE
        return PIXEL if part.dtype.kind in "iu" and part.shape and place + 1 < len(self.parts) else float("inf")

    def _unscaled(self, part: Part, sample: Array, largest: float) -> str:
        if largest == float("inf") or sample.size == 0:
            return ""
        sample = sample.reshape(len(sample), -1)
        with np.errstate(all="ignore"):
            size = np.sqrt(np.mean(np.square(sample, dtype=np.float64), axis=0))
            large = np.flatnonzero(np.isfinite(size) & (size > largest))
        if not large.size:
            return ""
        what = named(part, [int(column) for column in large])
        which = "is not scaled: its size is" if large.size == 1 else "are not scaled: their sizes are up to"
        return (
            f"{what} {which} {size[large].max():,.0f} (root mean square). Unless the program scales, training may "
            "diverge: bring each column to about 1, by subtracting its mean and dividing by its standard deviation"
        )

    def not_finite(self, rows: Array) -> str:
        """The first number of these rows that is not finite, by row and column; '' if all are."""
        found, count = "", 0
        for part, batch in zip(self.parts, self.source.take(rows), strict=True):
            if part.dtype.kind not in "fc":
                continue
            batch = batch.reshape(len(rows), -1)
            bad = np.argwhere(~np.isfinite(batch))
            count += len(bad)
            if len(bad) and not found:
                row, column = map(int, bad[0])
                found = f"in row {int(rows[row])}, {named(part, [column])} is {batch[row, column]}"
        return f"{found}, and {count - 1:,} more of its batch are not finite" if count > 1 else found

    def explain(self, error: Exception, rows: Array) -> None:
        """Add to an error that a program raised at these rows what about them may be the reason."""
        if found := self.not_finite(rows):
            error.add_note(f"karp: {found}")
        if isinstance(error, ShapeError) and (0,) in [part.shape for part in self.parts]:
            error.add_note("karp: the table has no target: data.read(…, target=NAME) says which column to predict")


def named(part: Part, columns: list[int]) -> str:
    """Return what to call these columns of a part, the first few of them by name."""
    if not part.shape:
        return part.title
    names = [_column(part, column) for column in columns[:NAMED]]
    names += [f"{len(columns) - NAMED:,} more"] if len(columns) > NAMED else []
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    noun = ("column" if len(part.shape) == 1 else "element") + "s" * (len(columns) > 1)
    return f"{noun} {listed} of {part.title}"


def _column(part: Part, column: int) -> str:
    if len(part.shape) > 1:
        return str([int(axis) for axis in np.unravel_index(column, part.shape)])
    return f"{column} ({part.columns[column]!r})" if part.columns else str(column)
