"""The passes over a table: its rows are typed, converted, sorted, scaled and written.

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError, SettingError
from karp.tabular.columns.cells import Cells
from karp.tabular.columns.column_types import Schema
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

SORTER_PART = 10  # a sorter collects this part of the memory, and needs up to four times that; there are two

NO_OTHERS: Mapping[str, int] = {}
Progress = Callable[[str, int, int | None], None]
T = TypeVar("T")


class Options(NamedTuple):
    """The arguments of `karp.prepare` on which the rows depend, and the memory, on which they do not.

    `share` is that of the validation rows; 0 if they are a table of their own.
    """

    target: str
    weight: str | None
    class_weight: str | None
    task: Task | None
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    drop: tuple[str, ...]
    share: float
    seed: int
    memory: int


def prepare_table(
    source: Any,
    validation: Any,
    options: Options,
    directory: str | os.PathLike[str] | None,
    progress: Progress | None = None,
    request: str = "",
) -> Prepared:
    """Prepare a table, and the one for validation where the share of its own rows is 0; see `karp.prepare`.

    `request` is a digest for the manifest, by which another process knows the table again (`sharing.py`).
    """
    report = _Reporter(progress)
    with ExitStack() as stack:
        cells = stack.enter_context(open_cells(source))
        other = None if options.share else stack.enter_context(open_cells(validation))
        learnt = _learn(cells, options, report)
        labels, weighted = learnt.labels, options.weight is not None
        dtype, most = record_dtype(learnt.schema, labels.target, weighted), options.memory // SORTER_PART
        file_bytes = labels.used * dtype.itemsize
        table_bytes = labels.used * row_bytes(learnt.schema, weighted)
        store = make_store(directory, table_bytes, file_bytes if file_bytes > most else 0, options.memory)
        stack.push(lambda kind, error, trace: store.remove() if kind else None)
        train = stack.enter_context(closing(Sorter(dtype, labels.used, most, store)))
        held_out = stack.enter_context(closing(Sorter(dtype, int(options.share * labels.used), most, store)))
        notes = [*learnt.notes, *_convert(learnt, options.seed, train, held_out, report)]
        if other is not None:
            notes += _convert_other(other, learnt, options, held_out, report)

        statistics = Statistics(learnt.schema, labels.target, options.class_weight == "balanced")
        chunks = report("learning the scales of numbers", train.chunks(), train.rows)
        statistics.learn(chunks, train.rows, cells.name)
        counts = {
            "read": labels.rows,
            "without_target": labels.without_target,
            "without_weight": labels.without_weight,
            "train": train.rows,
            "validation": held_out.rows,
        }
        parts = {
            part: report("writing the rows", rows.chunks(), rows.rows)
            for part, rows in (("train", train), ("validation", held_out))
        }
        others = {"counts": counts, "notes": notes, "request": request}
        return write_table(store, dtype, parts, statistics, others, cells.name)


class _LearntTable(NamedTuple):
    """What is learnt before rows are converted; `others` counts the training cells that are not of their columns."""

    labels: LabelReader
    split: Split
    schema: Schema
    others: dict[str, int]
    notes: list[str]


def _learn(cells: Cells, options: Options, report: _Reporter) -> _LearntTable:
    """Learn from a table what its target is, which of its rows are for validation, and the types of its columns."""
    target_learner = TargetLearner(cells, options.target, options.task)
    learner = Learner(  # the options are checked before anything is read
        cells,
        beside=(options.target,) if options.weight is None else (options.target, options.weight),
        numeric=options.numeric,
        categorical=options.categorical,
        drop=options.drop,
    )
    for batch in report("reading the target", cells.batches((options.target,)), cells.rows):
        target_learner.add(batch)
    target, _, target_notes = target_learner.finish()
    if options.class_weight and not target.classes:
        raise SettingError(
            f"class_weight is {options.class_weight!r}, but the target {target.name!r} has no classes: leave it out"
        )
    labels = LabelReader(cells, target, options.weight)
    split = _split(labels, options, report)
    for batch, rows in report("finding the types of columns", labels.batches(learner.read), labels.rows):
        learner.add(batch, rows.used & ~_for_validation(split, rows, options.seed))
    schema, type_notes = learner.finish()
    notes = [*cells.notes, *target_notes, *labels.weight_notes(), *type_notes]
    return _LearntTable(labels, split, schema, learner.others, notes)


def _split(labels: LabelReader, options: Options, report: _Reporter) -> Split:
    """Return the split of a table; raise DataError if a class, or the table, has too few rows that count."""
    classes = labels.target.classes
    split = Split(max(len(classes), 1), options.share)
    for _, rows in report("drawing the validation rows", labels.batches(), labels.cells.rows):
        split.add(rows.classes, row_keys(options.seed, PART, rows.first, len(rows.used))[rows.used])
    least = 2 if options.share else 1
    few = np.flatnonzero(split.counts < least).tolist()
    if few:
        which = f"the class {classes[few[0]]!r:.60}" if classes else "the table"
        some = "one row" if split.counts[few[0]] else "no row"
        others = "1 more class has" if len(few) == 2 else f"{len(few) - 1:,} more classes have"
        more = f", and {others} so few" if len(few) > 1 else ""
        use = ", one to train on and one to validate" if least == 2 else " to train on"
        raise DataError(f"{labels.cells.name}, column {labels.target.name!r}: {which} has {some} with a weight above "
                        f"0{more}: it takes {'two' if least == 2 else 'one'}{use}")  # fmt: skip
    split.finish()
    return split


def _convert(learnt: _LearntTable, seed: int, train: Sorter, held_out: Sorter, report: _Reporter) -> Iterator[str]:
    """Convert the rows of a table and give each to the sorter of its part; yield what a user is told."""
    labels = learnt.labels
    converter = Converter(learnt.schema, labels.cells.name, labels.cells.names)
    for batch, rows in report("converting the rows", labels.batches(converter.read), labels.rows):
        records = _records(train.dtype, converter.convert(batch), rows, seed)
        chosen = _for_validation(learnt.split, rows, seed)
        train.add(records[rows.used & ~chosen])
        held_out.add(records[rows.used & chosen])
    yield from _validation_notes(converter, labels.cells, learnt.others)


def _convert_other(
    other: Cells, learnt: _LearntTable, options: Options, held_out: Sorter, report: _Reporter
) -> Iterator[str]:
    """Convert the rows of the table to validate on and give them to its sorter; yield what a user is told.

    Raises DataError if no row counts, or the columns are not those of the training table.
    """
    labels = LabelReader(other, learnt.labels.target, options.weight)
    for _ in report("reading the validation rows", labels.batches(), other.rows):
        pass
    if not labels.used:
        raise DataError(f"{other.name}: no row has a target and a weight above 0, so there is nothing to validate on")
    held_out.expect(labels.used)
    converter = Converter(learnt.schema, other.name, other.names)
    for batch, rows in report("converting the validation rows", labels.batches(converter.read), labels.rows):
        held_out.add(_records(held_out.dtype, converter.convert(batch), rows, options.seed)[rows.used])
    converter.finish()
    yield from (*other.notes, *labels.target_notes(), *labels.weight_notes(), *_validation_notes(converter, other))


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


def _validation_notes(converter: Converter, cells: Cells, others: Mapping[str, int] = NO_OTHERS) -> Iterator[str]:
    """Yield what a user is told of validation cells; `others` counts what training had and the types have told of."""
    for name, column in converter.reports.items():
        where = f"{cells.name}, column {name!r}, validation rows"
        if column.unknown:
            has = "cell has a level" if column.unknown == 1 else "cells have levels"
            yield f"{where}: {column.unknown:,} {has} that no training row has ({', '.join(column.first)})"
        if more := column.others - others.get(name, 0):
            are = "cell is not what the column holds and counts"
            if more > 1:
                are = "cells are not what the column holds and count"
            yield f"{where}: {more:,} {are} as missing"


class _Reporter:
    """Tells of batches and chunks as they are read."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def __call__(self, what: str, batches: Iterable[T], rows: int | None) -> Iterator[T]:
        """Yield the batches, and tell after each how many rows are done."""
        done = 0
        for item in batches:
            yield item
            rows_of: Any = item[0] if isinstance(item, tuple) else item
            done += len(rows_of) if isinstance(rows_of, np.ndarray) else rows_of.rows
            if self._progress is not None:
                self._progress(what, done, rows)
