"""Preparing a table: its rows are typed, converted, scaled and written in a random order, once for all workers.

Theory of operation. The table is read four times, each time as a stream of batches:

    1. the target alone: its task and classes
    2. target and weights: which rows count, and how many of each class are for validation (`split.py`)
    3. all columns, training rows alone: their types
    4. the columns that have a type: converted, and sorted by the keys of rows (`row_keys.py`, `sorting.py`)

Then the sorted rows are read twice: to learn what scaling and standardising need, and to be scaled and written
(`writing.py`). A validation file is converted by what was learnt from the training file.

The result is a pure function of the table's cells, the options and the seed: neither format, memory nor the size of
batches shows in a bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from karp import checks
from karp.errors import DataError, SettingError
from karp.limits import setting
from karp.tabular.columns.cells import Cells
from karp.tabular.columns.converting import Converted, Converter
from karp.tabular.columns.learning import Learner
from karp.tabular.columns.sources import open_cells
from karp.tabular.columns.target import TargetLearner, Task
from karp.tabular.preparation.arrays import make_store
from karp.tabular.preparation.labels import LabelReader, Labels
from karp.tabular.preparation.prepared import Prepared
from karp.tabular.preparation.row_keys import ORDER, PART, row_keys
from karp.tabular.preparation.sorting import Records, Sorter
from karp.tabular.preparation.split import Split
from karp.tabular.preparation.writing import Statistics, record_dtype, row_bytes, write_table

MEMORY = 1 << 30
LEAST_MEMORY = 1 << 20
_SORTER_PART = 10  # a sorter collects this part of the memory, and needs up to four times that; there are two

Progress = Callable[[str, int, int | None], None]
T = TypeVar("T")


def prepare(
    source: Any,
    *,
    target: str,
    weight: str | None = None,
    class_weight: Literal["balanced"] | None = None,
    task: Task | None = None,
    numeric: Collection[str] = (),
    categorical: Collection[str] = (),
    drop: Collection[str] = (),
    validation: Any = 0.2,
    seed: int = 0,
    memory: int = MEMORY,
    directory: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare a table for training: type and convert its columns, split it, and write its rows in a random order.

    Args:
        source: the path of a file (CSV, also .gz, Parquet, Feather, NPZ), or a frame or arrays in memory.
        target: the column to predict.
        weight: the column that says how much a row counts, a finite number from 0; 0 leaves the row out.
        class_weight: "balanced": each training row also counts by the inverse of its class's share.
        task: "classification" or "regression"; found out if not given (`columns/target.py`).
        numeric, categorical, drop: columns whose type is not to be found out (`columns/column_types.py`).
        validation: the share of the rows to validate on, drawn in each class from `seed`; or another file or frame.
        seed: of the split and of the order of rows.
        memory: about how many bytes preparing may hold.
        directory: where the arrays are written; without it they are in memory if they take at most half of `memory`,
            else in a temporary folder that is gone with the result.
        progress: called after each batch as (what is done, rows done, rows in all or None if that is not known).

    Raises DataError for a table that cannot be used, SettingError for an option, RecordError if writing fails.

    >>> prepared = prepare({"size": list(range(20)), "kind": ["a", "b"] * 10}, target="kind")
    >>> len(prepared.train), len(prepared.validation), prepared.train.numbers.shape
    (16, 4, (16, 1))
    """
    if class_weight not in (None, "balanced"):
        raise SettingError(f"class_weight is {class_weight!r:.60}: pass 'balanced', or leave it out")
    if weight == target:
        raise SettingError(f"the column {target!r:.60} cannot be both target and weight")
    seed, memory = setting("seed", seed), checks.whole("memory", memory, LEAST_MEMORY)
    share, shown = _share(validation), _Shown(progress)
    with ExitStack() as stack:
        cells = stack.enter_context(open_cells(source))
        other = None if share else stack.enter_context(open_cells(validation))
        target_learner = TargetLearner(cells, target, task)
        beside = (target,) if weight is None else (target, weight)
        learner = Learner(cells, beside=beside, numeric=numeric, categorical=categorical, drop=drop)

        for batch in shown("reading the target", cells.batches((target,)), cells.rows):
            target_learner.add(batch)
        learnt = target_learner.finish()
        if class_weight and not learnt.target.classes:
            raise SettingError(f"class_weight is {class_weight!r}, but the target {target!r} has no classes")
        labels = LabelReader(cells, learnt.target, weight)
        split = _split(labels, share, seed, shown)
        for batch, rows in shown("finding the types of columns", labels.batches(learner.read), labels.rows):
            learner.add(batch, rows.used & ~_for_validation(split, rows, seed))
        schema, type_notes = learner.finish()
        converter = Converter(schema, cells.name, cells.names)

        dtype = record_dtype(schema, learnt.target, weight is not None)
        most = memory // _SORTER_PART
        sorted_bytes = labels.used * dtype.itemsize
        table_bytes = labels.used * row_bytes(schema, weight is not None)
        store = make_store(directory, table_bytes, sorted_bytes if sorted_bytes > most else 0, memory)
        stack.push(lambda kind, error, trace: store.remove() if kind else None)

        def sorter(rows: int) -> Sorter:
            made = Sorter(dtype, rows, most, store)
            stack.callback(made.close)
            return made

        train, kept = sorter(labels.used), sorter(int(share * labels.used))
        for batch, rows in shown("converting the rows", labels.batches(converter.read), labels.rows):
            records, chosen = _records(dtype, converter.convert(batch), rows, seed), _for_validation(split, rows, seed)
            train.add(records[rows.used & ~chosen])
            kept.add(records[rows.used & chosen])
        notes = [*cells.notes, *learnt.notes, *labels.notes(), *type_notes, *_notes(converter, cells)]
        if other is not None:
            other_labels = LabelReader(other, learnt.target, weight)
            converter = Converter(schema, other.name, other.names)
            for _ in shown("reading the validation file", other_labels.batches(), other.rows):
                pass
            if not other_labels.used:
                raise DataError(f"{other.name}: no row has a target, and a weight above 0: there is nothing to "
                                "validate on")  # fmt: skip
            kept = sorter(other_labels.used)
            rows_of_other = other_labels.batches(converter.read)
            for batch, rows in shown("converting the validation rows", rows_of_other, other_labels.rows):
                kept.add(_records(dtype, converter.convert(batch), rows, seed)[rows.used])
            converter.finish()
            notes += [*other.notes, *other_labels.notes(), *_notes(converter, other)]

        statistics = Statistics(schema, learnt.target, class_weight == "balanced")
        statistics.learn(train.chunks(), cells.name)
        counts = {
            "read": labels.rows,
            "without_target": labels.without_target,
            "without_weight": labels.without_weight,
            "train": train.rows,
            "validation": kept.rows,
        }
        return write_table(store, {"train": train, "validation": kept}, statistics, counts, notes, cells.name)


def _share(validation: Any) -> float:
    """Return the share of the rows to validate on; 0 if `validation` is a table."""
    if not isinstance(validation, bool | int | float | np.number):
        return 0.0
    share = checks.number("validation", validation, 0.0, 1.0, below=True)
    if not share:
        raise SettingError("validation is 0, and without validation rows no epoch is the best: pass a share such as "
                           "0.2, or a file")  # fmt: skip
    return share


def _split(labels: LabelReader, share: float, seed: int, shown: _Shown) -> Split:
    """Return the split of a table; raise DataError if a class, or the table, has too few rows that count."""
    classes = labels.target.classes
    split = Split(max(len(classes), 1), share)
    for _, rows in shown("drawing the validation rows", labels.batches(), labels.cells.rows):
        split.add(rows.classes, row_keys(seed, PART, rows.first, len(rows.used))[rows.used])
    least = 2 if share else 1
    few = np.flatnonzero(split.counts < least).tolist()
    if few:
        which = f"the class {classes[few[0]]!r:.60}" if classes else "the table"
        more = f", and so have {len(few) - 1:,} other classes" if len(few) > 1 else ""
        some = "no row" if not split.counts[few[0]] else "one row"
        raise DataError(f"{labels.cells.name}, column {labels.target.name!r}: {which} has {some} with a weight above "
                        f"0{more}: it takes one to train on{' and one to validate' * (least - 1)}")  # fmt: skip
    split.finish()
    return split


def _for_validation(split: Split, rows: Labels, seed: int) -> NDArray[np.bool_]:
    """Return for each row of a batch whether it is for validation; False for rows that are not used."""
    chosen = np.zeros(len(rows.used), np.bool_)
    keys = row_keys(seed, PART, rows.first, len(rows.used))
    chosen[rows.used] = split.is_validation(rows.classes, keys[rows.used])
    return chosen


def _records(dtype: np.dtype[Any], converted: Converted, rows: Labels, seed: int) -> Records:
    """Return the rows of a batch as records for the sorter."""
    records = np.zeros(len(rows.used), dtype)
    records["key"] = row_keys(seed, ORDER, rows.first, len(records))
    records["target"] = rows.target
    if rows.weights is not None:
        records["weights"] = rows.weights
    records["numbers"], records["categories"] = converted
    return records


def _notes(converter: Converter, cells: Cells) -> Iterator[str]:
    """Yield what a user is told of cells whose level no training row has."""
    for name, report in converter.reports.items():
        if report.unknown:
            yield (f"{cells.name}, column {name!r}: {report.unknown:,} cells of validation rows are of levels that no "
                   f"training row has ({', '.join(report.first)})")  # fmt: skip


class _Shown:
    """Tells of batches as they are read."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def __call__(self, what: str, batches: Iterable[T], rows: int | None) -> Iterator[T]:
        """Yield the batches, and tell after each how many rows are done."""
        done = 0
        for item in batches:
            yield item
            batch: Any = item[0] if isinstance(item, tuple) else item
            done += batch.rows
            if self._progress is not None:
                self._progress(what, done, rows)
