"""The target and the weights of rows: what is to be predicted, and how much each row counts.

What a target becomes, where the task is not given; of its cells in all rows, missing ones left out:

| the target's cells                                                     | task           | what is predicted      |
|------------------------------------------------------------------------|----------------|------------------------|
| numbers, at least 99 %, of two values                                  | classification | two classes            |
| numbers, at least 99 %, that are class numbers: 0, 1, …, k-1 or        | classification | k classes              |
| 1, 2, …, k without a gap, k at most 30, ten rows a class on average    |                |                        |
| any other numbers, at least 99 %                                       | regression     | a number               |
| dates or times of day, at least 99 %                                   | regression     | Unix seconds, seconds  |
| true and false, or any other text                                      | classification | a class for each level |

A row whose target is missing, or is no number where numbers are predicted, is left out and counted. A class has two
rows at least, one to train on and one to validate, and there are two classes at least, or two values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.errors import DataError, SettingError
from karp.tabular.columns.cell_text import Kind
from karp.tabular.columns.cells import Batch, Cells, Floats, Texts, Typed
from karp.tabular.columns.column_types import listing
from karp.tabular.columns.counts import MOST_TEXTS, ColumnCounts, cell_text
from karp.tabular.columns.learning import others_note

Task = Literal["classification", "regression"]

_MOST_CLASS_NUMBERS, _ROWS_A_CLASS = 30, 10


@dataclass(frozen=True, slots=True)
class Target:
    """A target: its column, the kind of its cells, and the names of its classes; none for regression."""

    name: str
    kind: Literal["level", "number", "date", "clock"]
    classes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """Classification or regression."""
        return "classification" if self.kind == "level" else "regression"

    def to_dict(self) -> dict[str, Any]:
        """Return the target as plain data for JSON."""
        return {"name": self.name, "kind": self.kind, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, plain: object) -> Target:
        """Return the target from plain data; raise DataError for what `to_dict` does not write.

        >>> Target.from_dict(Target("species", "level", ("a", "b")).to_dict()).task
        'classification'
        """
        if isinstance(plain, dict) and plain.keys() == {"name", "kind", "classes"}:
            name, kind, classes = plain["name"], plain["kind"], plain["classes"]
            texts = isinstance(classes, list) and all(isinstance(text, str) for text in classes)
            several = texts and len(set(classes)) == len(classes) > 1
            sound = several if kind == "level" else kind in ("number", "date", "clock") and classes == []
            if isinstance(name, str) and sound:
                return cls(name, kind, tuple(classes))
        raise DataError(f"{plain!r:.80} is no target")


_KINDS = {"level": Kind.TEXT, "number": Kind.NUMBER, "date": Kind.DATE, "clock": Kind.CLOCK}
_TIMES = {Kind.NUMBER: "number", Kind.DATE: "date", Kind.CLOCK: "clock"}


class LearntTarget(NamedTuple):
    """A target, the number of rows that have one, and what a user is told, a line each."""

    target: Target
    rows: int
    notes: tuple[str, ...]


def learn_target(cells: Cells, name: str, task: Task | None = None) -> LearntTarget:
    """Learn the type of the column `name`, the target, from all rows; without `task` find out whether it has classes.

    Raises DataError if there is no such column, or nothing can be learnt from its cells, SettingError for a wrong task.

    >>> from karp.tabular.columns.sources import open_cells
    >>> with open_cells({"size": [1, 2, 3, 4], "kind": ["a", "b", "b", "a"]}) as cells:
    ...     learn_target(cells, "kind").target.classes
    ('a', 'b')
    """
    learner = TargetLearner(cells, name, task)
    for batch in cells.batches((name,)):
        learner.add(batch)
    return learner.finish()


class TargetLearner:
    """Counts the cells of the target, a batch at a time; arguments and errors are those of `learn_target`."""

    def __init__(self, cells: Cells, name: str, task: Task | None = None) -> None:
        if task not in (None, "classification", "regression"):
            raise SettingError(f"task is {task!r:.60}: pass classification or regression")
        if name not in cells.names:
            among = listing(cells.names, 10)
            said = "".join(f" ({note})" for note in cells.notes)
            raise DataError(
                f"{cells.name}: there is no column {name!r:.60} to predict among {among}: pass one of these{said}"
            )
        self._cells, self._name, self._task = cells, name, task
        self._counts = ColumnCounts(category=True)
        self._rows = 0

    def add(self, batch: Batch) -> None:
        """Count the cells of a batch, which has the target's column."""
        self._counts.add(batch.column(self._name), None, batch)
        self._rows += batch.rows

    def finish(self) -> LearntTarget:
        """Decide what the target is; a class with one row is looked up by reading the column again."""
        cells, name, counts, rows = self._cells, self._name, self._counts, self._rows
        where = f"{cells.name}, column {name!r}"
        if not rows:
            raise DataError(f"{cells.name}: there are no rows")
        if not counts.present:
            raise DataError(f"{where}: every cell is missing, so there is nothing to learn")
        notes = []
        if missing := int(counts.kinds[Kind.MISSING]):
            notes.append(f"{missing:,} of {rows:,} rows have no target in {name!r} and are left out")
        kind = next((kind for kind in _TIMES if 100 * counts.fitting(kind) >= 99 * counts.present), None)
        task = self._task
        if task is None:
            task = "classification" if kind is None or _are_classes(kind, counts) else "regression"
            if task == "classification" and kind is not None:
                count = len(counts.levels() or ())
                notes.append(f"target {name!r}: its {count} numbers are classes; pass regression as the task if they "
                             "are values")  # fmt: skip
        if task == "classification":
            return _classes(cells, name, counts, rows - missing, notes, kind)
        return _values(where, name, kind, counts, rows, notes)


def _values(
    where: str, name: str, kind: Kind | None, counts: ColumnCounts, rows: int, notes: list[str]
) -> LearntTarget:
    """Return a target of numbers, or of times as `kind` says; add to `notes` if other cells are left out.

    Raises DataError for a column that has no cells of this kind (`kind` is None), or only one value.
    """
    if kind is None or not counts.kinds[kind]:
        first = listing(counts.first[Kind.NUMBER])
        raise DataError(f"{where}: it is no column of numbers ({first}): repair it, or pass classification as the task")
    levels = counts.levels()
    fitting = int(counts.kinds[kind])
    if levels is not None and len(levels) == 1:
        raise DataError(f"{where}: every cell is {next(iter(levels))}, so there is nothing to learn")
    if others := counts.present - fitting:
        note = others_note(kind, others, rows, counts.first[kind])
        notes.append(f"target {name!r}: {note}; these rows are left out")
    return LearntTarget(Target(name, _TIMES[kind]), fitting, tuple(notes))  # type: ignore[arg-type]


def _classes(
    cells: Cells, name: str, counts: ColumnCounts, rows: int, notes: list[str], kind: Kind | None
) -> LearntTarget:
    """Return a target of classes, in order of their numbers, if all are numbers, else of their texts."""
    levels = counts.levels()
    where = f"{cells.name}, column {name!r}"
    if levels is None:
        raise DataError(f"{where}: {counts.exceeded()}, and there can be {MOST_TEXTS:,} classes: if it holds numbers "
                        "to predict, pass regression as the task")  # fmt: skip
    if len(levels) == 1:
        raise DataError(f"{where}: every row is of the class {next(iter(levels))!r:.60}: there is nothing to learn")
    if single := tuple(level for level, count in levels.items() if count == 1):
        named = listing(_places(cells, Target(name, "level", single)))
        way = "remove these rows, or give them another class"
        if kind is not None:
            way += ", or pass regression as the task if they are numbers to predict"
        raise DataError(f"{where}: a class has one row ({named}), and it takes two, one to train on and one to "
                        f"validate: {way}")  # fmt: skip
    classes = sorted(levels)
    if counts.kinds[Kind.NUMBER] == counts.present:
        classes.sort(key=float)
    return LearntTarget(Target(name, "level", tuple(classes)), rows, tuple(notes))


def _places(cells: Cells, target: Target) -> Iterator[str]:
    """Yield a text for each row whose class is one of the target's: where it stands, and its class."""
    for batch in cells.batches((target.name,)):
        numbers = target_classes(target, batch)
        for row in np.flatnonzero(numbers >= 0).tolist():
            yield f"{batch.place(row)}: {target.classes[numbers[row]]!r:.60}"


def _are_classes(kind: Kind, counts: ColumnCounts) -> bool:
    """Return whether numbers are classes rather than values."""
    distinct = counts.numbers.distinct
    levels = counts.levels()
    if kind is not Kind.NUMBER or distinct is None or levels is None:
        return False
    if len(levels) != len(distinct):  # there are cells that are no number
        return False
    count = len(distinct)
    if count == 2:
        return True
    if count > _MOST_CLASS_NUMBERS or count * _ROWS_A_CLASS > counts.present:
        return False
    return any(np.array_equal(distinct, np.arange(first, first + count)) for first in (0, 1))


def target_values(target: Target, batch: Batch) -> Floats:
    """Return the numbers to predict, (rows,) float64; NaN in rows that have none."""
    kind = _KINDS[target.kind]
    cells = batch.column(target.name)
    if isinstance(cells, Typed):
        if cells.kind is not kind and not np.isnan(cells.values).all():
            raise DataError(f"column {target.name!r}: it holds {cells.kind.name.lower()}s, and the target was "
                            f"{target.kind}s: pass the column that the model was trained on")  # fmt: skip
        return np.where(np.isinf(cells.values), np.nan, cells.values)
    codes, kinds, values, _ = cells.recognised()
    chosen: Floats = np.where(kinds == kind, values, np.nan)[codes]
    return chosen


def target_classes(target: Target, batch: Batch) -> NDArray[np.int32]:
    """Return the class numbers of rows, (rows,); -1 in rows without a target, -2 where training had no such class."""
    known = {level: place for place, level in enumerate(target.classes)}
    cells = batch.column(target.name)
    if isinstance(cells, Typed):
        codes, levels = cells.levels()
        return np.array([*(known.get(level, -2) for level in levels), -1], np.int32)[codes]
    places, kinds, _, levels = cells.recognised()
    table = [-1 if kind == Kind.MISSING else known.get(level, -2) for kind, level in zip(kinds, levels, strict=True)]
    return np.array(table, np.int32)[places]


def weights(cells: Cells, name: str, batch: Batch) -> Floats:
    """Return the weights of rows, (rows,) float64; raise DataError for a cell that is no finite number from 0."""
    column = batch.column(name)
    if isinstance(column, Texts):
        codes, kinds, distinct, _ = column.recognised()
        values = np.where(kinds == Kind.NUMBER, distinct, np.nan)[codes]
    else:
        values = column.values if column.kind is Kind.NUMBER else np.full(batch.rows, np.nan)
    wrong = np.flatnonzero(~((values >= 0) & (values < np.inf)))
    if wrong.size:
        text = cell_text(column, int(wrong[0]))
        raise DataError(f"{cells.name}, {batch.place(int(wrong[0]))}, column {name!r}: the weight is {text!r:.60}: a "
                        "weight is a finite number from 0; 0 leaves the row out")  # fmt: skip
    return values
