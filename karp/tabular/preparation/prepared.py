"""The prepared table as a program has it: two sources of rows, and what was learnt from the table.

It is a folder with arrays and `manifest.json`, which is written last. Each part, training and validation, has

    numbers      (rows, numbers) float32: scaled by the preprocessing, NaN where missing
    categories   (rows, categories) int32: as `columns/converting.py` numbers them
    target       (rows,) int64, the number of a class; or float32, the standardised number
    weights      (rows,) float32, above 0, where rows have weights
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp.data.source import Array, Part
from karp.errors import DataError
from karp.record import files
from karp.record.prepared_tables import digest
from karp.tabular.columns.column_types import Schema
from karp.tabular.columns.target import Target
from karp.tabular.network.preprocessing import Preprocessing
from karp.tabular.preparation.arrays import Store

FORMAT = 1
DTYPES = {"numbers": ("<f4",), "categories": ("<i4",), "target": ("<i8", "<f4"), "weights": ("<f4",)}
BLOCK_ROWS, BLOCK_BYTES = 1 << 16, 1 << 25


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows were read of the table to train on, and left out of it; and how many each part has.

    With a validation file the parts are not parts of one table.
    """

    read: int
    without_target: int
    without_weight: int
    train: int
    validation: int


class PreparedRows:
    """A part of a prepared table: a `data.Source` whose rows are in a random order.

    `numbers`, `categories`, `target` and `weights` are its arrays, mapped and read-only; `weights` is None if rows
    have none. An epoch permutes blocks of `block` rows and the rows within each.
    """

    def __init__(self, arrays: Mapping[str, Array], schema: Schema, target: Target, fingerprint: str) -> None:
        """Make a source of arrays of one length."""
        self.numbers, self.categories, self.target = arrays["numbers"], arrays["categories"], arrays["target"]
        self.weights = arrays.get("weights")
        self.parts = [
            Part("numbers", self.numbers.dtype, self.numbers.shape[1:], schema.numbers, gaps=True),
            Part("categories", self.categories.dtype, self.categories.shape[1:], schema.categories),
            Part(f"target {target.name!r}", self.target.dtype, ()),
        ]
        row_bytes = sum(array.nbytes // max(len(array), 1) for array in arrays.values())
        self.block = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(row_bytes, 1)))
        self.remarks: tuple[str, ...] = ()  # what a run's user is told of the table, if the program has prepared it
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.target)

    def fingerprint(self) -> str:
        """Return the table's digest, that was made while it was written, of weights and the other part, too."""
        return self._fingerprint

    def take(self, rows: NDArray[np.int64]) -> list[Array]:
        """Return these rows of numbers, categories and target."""
        return [self.numbers.take(rows, axis=0), self.categories.take(rows, axis=0), self.target.take(rows)]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A prepared table.

    Attributes:
        schema, target, preprocessing: what was learnt of columns, target and numbers.
        notes: what a user is told, a line each.
        fingerprint: the digest of all of its rows, and of what was learnt.
        counts: of the table's rows.
        target_mean, target_std: with which the numbers to predict were standardised; 0 and 1 for classes.
        train, validation: the rows.
        manifest: the path of the manifest; None if the table's files have no names, and so are gone with this.
        store: where its arrays are.
    """

    schema: Schema
    target: Target
    preprocessing: Preprocessing
    notes: tuple[str, ...]
    fingerprint: str
    counts: Counts
    target_mean: float
    target_std: float
    train: PreparedRows
    validation: PreparedRows
    manifest: Path | None
    store: Store = field(repr=False)


def open_prepared(manifest: str | Path) -> Prepared:
    """Map a prepared table; raise DataError if its manifest has changed, or an array has another size."""
    path = Path(manifest)
    try:
        plain = files.read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({files.reason(error)}): prepare the table again") from None
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        version = plain.get("format") if isinstance(plain, dict) else None
        raise DataError(f"{path} is no prepared table of format {FORMAT}, but of {version!r:.20}: prepare it again "
                        "with this version of karp")  # fmt: skip
    if plain.pop("sha256", "") != digest(plain):
        raise DataError(f"{path} has changed since it was written: prepare the table again")
    return from_manifest(plain, Store(path.parent), path)


def from_manifest(plain: Mapping[str, Any], store: Store, path: Path | None) -> Prepared:
    """Return the prepared table of a manifest whose arrays are in `store`; raise DataError for a damaged one."""
    try:
        schema, target = Schema.from_list(plain["schema"]), Target.from_dict(plain["target"])
        fingerprint = str(plain["fingerprint"])
        parts = {
            name: _rows(plain["parts"][name], name, store, schema, target, fingerprint)
            for name in ("train", "validation")
        }
        return Prepared(
            schema, target, Preprocessing.from_dict(plain["preprocessing"]), tuple(map(str, plain["notes"])),
            fingerprint, Counts(**plain["counts"]), float(plain["target_mean"]),
            float(plain["target_std"]), **parts, manifest=path, store=store,
        )  # fmt: skip
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: it is damaged ({error!r:.80}): prepare the table again") from None


def _rows(
    plain: Mapping[str, Any], part: str, store: Store, schema: Schema, target: Target, fingerprint: str
) -> PreparedRows:
    """Return the rows of a part; raise DataError or ValueError unless its arrays are as they must be."""
    rows = plain["rows"]
    shapes = {"numbers": (rows, len(schema.numbers)), "categories": (rows, len(schema.categories))}
    arrays = {}
    for name, described in plain["arrays"].items():
        shape = shapes.get(name, (rows,))
        if type(rows) is not int or rows < 1 or described["dtype"] not in DTYPES[name]:
            raise ValueError(name)
        arrays[name] = store.mapped(f"{part}.{name}", np.dtype(described["dtype"]), shape)
    return PreparedRows(arrays, schema, target, f"{fingerprint} {part}")
