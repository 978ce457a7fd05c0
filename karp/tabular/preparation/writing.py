"""From sorted rows to arrays: what scaling, standardising and class weights need is learnt, then rows are written.

Medians and quantiles are those of the first rows of the prepared order, a random sample: of all rows in smaller tables,
and of fewer where there are many columns. Sums run over chunks of the prepared order, whose size depends on the columns
alone (`sorting.py`), so neither memory nor the format of the file shows in a bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from math import isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError
from karp.record import files
from karp.record.prepared_tables import MANIFEST, digest
from karp.tabular.columns.cells import Floats
from karp.tabular.columns.column_types import Schema
from karp.tabular.columns.target import Target
from karp.tabular.network.preprocessing import Preprocessing
from karp.tabular.preparation.arrays import MODE, Store
from karp.tabular.preparation.prepared import FORMAT, Prepared, from_manifest
from karp.tabular.preparation.sorting import Records

SAMPLE_ROWS, SAMPLE_NUMBERS, LEAST_SAMPLE = 1 << 17, 1 << 22, 1 << 11  # what quantiles are learnt from


def record_dtype(schema: Schema, target: Target, weighted: bool) -> np.dtype[Any]:
    """Return the dtype of a row between converting and scaling: numbers are float64 still."""
    fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = [
        ("key", "<u8"),
        ("target", "<i8" if target.task == "classification" else "<f8"),
        *([("weights", "<f8")] if weighted else []),
        ("numbers", "<f8", (len(schema.numbers),)),
        ("categories", "<i4", (len(schema.categories),)),
    ]
    return np.dtype(fields, align=True)


def row_bytes(schema: Schema, weighted: bool) -> int:
    """Return about how many bytes a row takes in the arrays."""
    return 8 + 4 * (len(schema.numbers) + len(schema.categories) + weighted)


class Statistics:
    """What is learnt from training rows: the preprocessing, mean and deviation of the target, weights of classes."""

    def __init__(self, schema: Schema, target: Target, balanced: bool) -> None:
        """Begin without rows."""
        self.schema, self.target, self._balanced = schema, target, balanced
        self.preprocessing = Preprocessing((), (), (), ())
        self.mean, self.std = 0.0, 1.0
        self.class_weights: Floats | None = None
        self._sums: Floats = np.zeros(len(target.classes))
        self._weight = self._mean = self._squares = 0.0

    def learn(self, chunks: Iterable[Records], rows: int, name: str) -> None:
        """Learn from all training rows, so many; raise DataError if their targets are equal, or too large."""
        columns = len(self.schema.numbers)
        most = max(LEAST_SAMPLE, min(SAMPLE_ROWS, SAMPLE_NUMBERS // max(columns, 1)))
        sample, count = np.empty((min(most, rows), columns)), 0
        for chunk in chunks:
            taken = chunk["numbers"][: len(sample) - count]
            sample[count : count + len(taken)] = taken
            count += len(taken)
            self._add(chunk["target"], chunk["weights"] if "weights" in (chunk.dtype.names or ()) else None)
        self.preprocessing = Preprocessing.learn(sample, self.schema.numbers)
        if self.target.task == "regression":
            self.mean, self.std = self._mean, sqrt(self._squares / self._weight)
            if not self.std:
                raise DataError(f"{name}, column {self.target.name!r}: every training row has the value {self.mean:g}, "
                                "or one too near to it, so there is nothing to learn: more rows are needed, or all "
                                "values divided by a small number")  # fmt: skip
            if not isfinite(self.std) or not isfinite(self.mean):
                raise DataError(f"{name}, column {self.target.name!r}: its values are too large to be squared: divide "
                                "them by a large number")  # fmt: skip
        elif self._balanced:
            self.class_weights = self._sums.sum() / (len(self._sums) * self._sums)

    def standardised(self, target: NDArray[Any], name: str) -> NDArray[Any]:
        """Return numbers to predict as they are stored, and classes as they are."""
        if target.dtype.kind != "f":
            return target
        with np.errstate(over="ignore"):
            result: NDArray[np.float32] = ((target - self.mean) / self.std).astype(np.float32)
        if not np.isfinite(result).all():
            raise DataError(f"{name}, column {self.target.name!r}: a value is too far from those of the training rows")
        return result

    def _add(self, target: NDArray[Any], weights: Floats | None) -> None:
        """Add the targets of a chunk to the sums; mean and squares by Chan, Golub and LeVeque's formula."""
        if self.target.task == "classification":
            self._sums += np.bincount(target, weights, len(self._sums))
            return
        with np.errstate(over="ignore", invalid="ignore"):
            weight = float(len(target) if weights is None else weights.sum())
            mean = float(target.mean() if weights is None else (weights * target).sum() / weight)
            squared = np.square(target - mean)
            squares = float((squared if weights is None else weights * squared).sum())
        total = self._weight + weight
        difference = mean - self._mean
        self._squares += squares + difference * difference * (self._weight * weight / total)
        self._mean += difference * (weight / total)
        self._weight = total


def _write_part(
    store: Store, part: str, dtype: np.dtype[Any], chunks: Iterable[Records], learnt: Statistics, name: str
) -> dict[str, Any]:
    """Scale rows, records of this dtype, and write them as the arrays of a part; return its entry of the manifest.

    Class weights apply to the part "train" alone.
    """
    class_weights = learnt.class_weights if part == "train" else None
    weighted = class_weights is not None or "weights" in (dtype.names or ())
    names = ["numbers", "categories", "target", *(["weights"] if weighted else [])]
    with ExitStack() as stack:
        writers = {array: stack.enter_context(store.writing(f"{part}.{array}")) for array in names}
        for chunk in chunks:
            writers["numbers"].append(learnt.preprocessing.scale(chunk["numbers"]))
            writers["categories"].append(chunk["categories"])
            writers["target"].append(learnt.standardised(chunk["target"], name))
            if weighted:
                writers["weights"].append(_weights(chunk, class_weights, name))
    arrays = {
        array: {"dtype": writer.dtype, "shape": [writer.rows, *writer.shape], "sha256": writer.sha256()}
        for array, writer in writers.items()
    }
    return {"rows": writers["target"].rows, "arrays": arrays}


def _weights(chunk: Records, class_weights: Floats | None, name: str) -> NDArray[np.float32]:
    """Return the weights of rows: their own, times those of their classes."""
    weights = chunk["weights"] if "weights" in (chunk.dtype.names or ()) else np.ones(len(chunk))
    with np.errstate(over="ignore"):
        if class_weights is not None:
            weights = weights * class_weights[chunk["target"]]
        single: NDArray[np.float32] = weights.astype(np.float32)
    if not single.all() or not np.isfinite(single).all():
        raise DataError(f"{name}: with the weights of classes a row's weight is beyond float32: multiply all "
                        "weights by one number")  # fmt: skip
    return single


def write_table(
    store: Store,
    dtype: np.dtype[Any],
    parts: Mapping[str, Iterable[Records]],
    learnt: Statistics,
    others: Mapping[str, Any],
    name: str,
) -> Prepared:
    """Write the sorted rows of the parts, records of this dtype, then the manifest, and return the table.

    `others` has what else the manifest holds: "counts", "notes" and "request" (`sharing.py`). Raises DataError, naming
    the table, for a target or weight beyond float32; RecordError if writing fails.
    """
    path = None if store.folder is None else store.folder / MANIFEST
    with store.errors():
        if path is not None:
            path.unlink(missing_ok=True)  # the arrays that it lists will be overwritten
        written = {part: _write_part(store, part, dtype, chunks, learnt, name) for part, chunks in parts.items()}
        manifest = {
            "format": FORMAT,
            "schema": learnt.schema.to_list(),
            "target": learnt.target.to_dict(),
            "target_mean": learnt.mean,
            "target_std": learnt.std,
            "preprocessing": learnt.preprocessing.to_dict(),
            "parts": written,
        }
        used = Schema(learnt.schema.used).to_list()  # why others are left out names lines or rows
        manifest["fingerprint"] = digest(manifest | {"schema": used})
        manifest |= others
        if path is not None:
            with files.replacing(path, MODE) as file:
                file.write(json.dumps(manifest | {"sha256": digest(manifest)}, allow_nan=False).encode())
    return from_manifest(manifest, store, path)
