"""The data that batches are taken from, and checks of its numbers.

Both checks are cheap: at the beginning of a sample of the rows, and later of a batch whose gradient was not finite.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from karp.data import Plan, fingerprint
from karp.data.sample_weights import ShardWeights, checked_weights
from karp.data.source import Array, Part, source_of
from karp.errors import SettingError, ShapeError
from karp.protocol.settings import Settings
from karp.protocol.steps import Rounds, Steps

SAMPLE = 1 << 16  # the most numbers of an array that are checked
LARGE = 100.0  # a larger root mean square is not scaled; standardised columns have 1, pixels of digits up to 12
PIXEL = 255.0  # the same limit for whole numbers: images are stored so, and a program that reads them scales them
MOST_REMARKS = 50  # of the source's own that are shown
NAMED = 3  # columns that a message names; of others it says how many there are


class Dataset:
    """The argument of `trainer.batches`: a Table or another source of rows, or arrays of equal length.

    With weights, given or the source's own, a batch has those of its samples as its last part, and rows of weight 0 are
    left out.
    """

    def __init__(self, *data: Any, sample_weights: Any = None) -> None:
        """Convert the data to a source; raises SettingError for data that are no source, no rows, or wrong weights."""
        self.source = source_of(*data)
        self.parts = list(self.source.parts)
        self.samples = len(self.source)
        self.order: Callable[[int], Array] | None = getattr(self.source, "order", None)
        self.take: Callable[[Array], list[Array]] = self.source.take
        self.weights: Array | None = None  # the samples' weights, each above 0; None: they have none
        self.weighted_rows: Array | None = None  # the rows of the source that are trained on; None: all
        if not self.samples:
            raise SettingError("trainer.batches: there are no rows to train on, so look at what has selected them")
        self._own_weights = sample_weights is None and getattr(self.source, "weights", None) is not None
        if self._own_weights:
            self._weigh(_checked_own(self.source.weights, self.samples))  # type: ignore[attr-defined]
        elif sample_weights is not None:
            self._weigh(checked_weights(sample_weights, self.samples))

    def _weigh(self, weights: Array) -> None:
        """Give the samples these weights, and leave out the rows of weight 0 from now on."""
        if not weights.all():
            self.weighted_rows = np.flatnonzero(weights)
            weights = weights[self.weighted_rows]
        self.samples, self.weights = len(weights), weights
        self.take = self._take_weighted

    def _take_weighted(self, rows: Array) -> list[Array]:
        assert self.weights is not None
        return [*self.source.take(self._in_source(rows)), self.weights.take(rows)]

    def _in_source(self, rows: Array) -> Array:
        """Return the numbers of these rows in the source, whose numbers count the rows of weight 0, too."""
        return rows if self.weighted_rows is None else self.weighted_rows[rows]

    def fingerprint(self) -> str:
        """Return a digest of all rows and their weights."""
        digest = self.source.fingerprint()
        if self.weights is None or self._own_weights:
            return digest
        rows = [] if self.weighted_rows is None else [self.weighted_rows]
        return f"{digest} weighted {fingerprint([self.weights, *rows])}"

    def settings(self) -> dict[str, Any]:
        """Return the data's fields of a run's settings."""
        return {
            "samples": self.samples,
            "data_sha256": self.fingerprint(),
            "weighted": self.weights is not None,
            "block": getattr(self.source, "block", 0),
        }

    def plan(self, settings: Settings, shards: int) -> Plan:
        """Return the plan of a run with these settings over the samples."""
        return Plan(self.samples, settings.batch_size, shards, settings.seed, settings.block, self.order)

    def remarks(self) -> list[str]:
        """Return warnings about the data, to be shown before the first step."""
        given = list(getattr(self.source, "remarks", ()))
        if len(given) > MOST_REMARKS:
            given[MOST_REMARKS:] = [f"and {len(given) - MOST_REMARKS:,} more remarks on the data"]
        left_out = len(self.source) - self.samples
        weightless = f"{left_out:,} of {len(self.source):,} rows have the sample weight 0 and are left out"
        speaks_for_itself = hasattr(self.source, "remarks")
        return [*given, *([weightless] if left_out else []), *([] if speaks_for_itself else self.unscaled())]

    def unscaled(self) -> list[str]:
        """Return a text for each part that has columns of numbers so large that training may diverge; it names them.

        Only a sample of the rows is looked at.
        """
        sizes = [self._size_limit(index, part) for index, part in enumerate(self.parts)]
        wide = (int(np.prod(part.shape)) for part, size in zip(self.parts, sizes, strict=True) if np.isfinite(size))
        widest = max(wide, default=0)
        if not widest:
            return []
        every = max(1, len(self.source) * widest // SAMPLE)
        samples = self.source.take(np.arange(0, len(self.source), every))
        texts = [self._unscaled(*arguments) for arguments in zip(self.parts, samples, sizes, strict=True)]
        return [text for text in texts if text]

    def _size_limit(self, index: int, part: Part) -> float:
        """Return the limit of a column's root mean square above which it is not scaled; infinite for classes and texts.

        A part with gaps is for a model that deals with missing numbers, and with large ones, too.
        Whole numbers are features if a row has several of them and the part is not the last, which is the target.
        """
        if part.dtype.kind == "f":
            return float("inf") if part.gaps else LARGE
        return PIXEL if part.dtype.kind in "iu" and part.shape and index + 1 < len(self.parts) else float("inf")

    def _unscaled(self, part: Part, sample: Array, largest: float) -> str:
        """Return the text for a part of which this is a sample; '' if all its columns are scaled."""
        if largest == float("inf") or sample.size == 0:
            return ""
        sample = sample.reshape(len(sample), -1)
        with np.errstate(all="ignore"):
            size = np.sqrt(np.mean(np.square(sample, dtype=np.float64), axis=0))
            large = np.flatnonzero(np.isfinite(size) & (size > largest))
        if not large.size:
            return ""
        what = describe_columns(part, [int(column) for column in large])
        which = "is not scaled: its size is" if large.size == 1 else "are not scaled: their sizes are up to"
        return (
            f"{what} {which} {size[large].max():,.0f} (root mean square). Unless the program scales, training may "
            "diverge: bring each column to about 1, by subtracting its mean and dividing by its standard deviation"
        )

    def not_finite(self, rows: Array) -> str:
        """Describe the first number of these rows that is not finite, by row and column; '' if all are finite."""
        first, count = "", 0
        rows = self._in_source(rows)
        for part, batch in zip(self.parts, self.source.take(rows), strict=True):
            if part.dtype.kind not in "fc":
                continue
            batch = batch.reshape(len(rows), -1)
            bad = np.argwhere(np.isinf(batch) if part.gaps else ~np.isfinite(batch))
            count += len(bad)
            if len(bad) and not first:
                row, column = map(int, bad[0])
                first = f"in row {int(rows[row])}, {describe_columns(part, [column])} is {batch[row, column]}"
        return f"{first}, and {count - 1:,} more of its batch are not finite" if count > 1 else first

    def explain(self, error: Exception, rows: Array) -> None:
        """Add a note to an error that a program raised at these rows, if their data may be the reason."""
        if reason := self.not_finite(rows):
            error.add_note(f"karp: {reason}")
        if isinstance(error, ShapeError) and (0,) in [part.shape for part in self.parts]:
            error.add_note("karp: the table has no target: data.read(…, target=NAME) says which column to predict")


def _checked_own(weights: Array, rows: int) -> Array:
    """Return the weights of a source, which are not copied; raise SettingError unless all are finite and above 0."""
    if weights.shape != (rows,) or not (weights.min() > 0 and weights.max() < np.inf):
        raise SettingError(f"the source's weights have the shape {weights.shape}, or are not all finite and above 0: "
                           f"they are one for each row, ({rows},)")  # fmt: skip
    return weights


class Weighting(NamedTuple):
    """How the shards and batches of a run are weighted: by their samples, or by the sums of the samples' weights."""

    share: Callable[[int, int], float]  # the part of (step, shard) in its step, where backward starts
    in_batch: Callable[[int, int], float]  # the samples of (batch, shard), or the sum of their weights
    weigh: Callable[[int, int, int], float] | None  # the weights of (step, start, stop); None: samples have none


def weighting_of(weights: Array | None, plan: Plan, steps: Steps) -> Weighting:
    """Return how the shards of a plan are weighted, given the weights of its samples, if any."""
    if weights is None:
        return Weighting(steps.share, plan.samples_in, None)
    sums = ShardWeights(weights, plan, steps if isinstance(steps, Rounds) else None)
    return Weighting(sums.share, sums.in_batch, sums)


def describe_columns(part: Part, columns: list[int]) -> str:
    """Describe these columns of a part for a message, the first few of them by name."""
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
