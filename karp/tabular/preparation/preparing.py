"""`karp.prepare`: from a table to a prepared table, here or, under a launcher, once for all workers of a host."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any, Literal

import numpy as np

from karp import checks
from karp.errors import SettingError
from karp.limits import setting
from karp.tabular.columns.target import Task
from karp.tabular.preparation.passes import Options, Progress
from karp.tabular.preparation.prepared import Prepared
from karp.tabular.preparation.sharing import prepare_once

MEMORY = 1 << 30
LEAST_MEMORY = 10**6


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
            else in temporary files; in either case they are gone with the result, however the process ends.
        progress: called after each batch as (what is done, rows done, rows in all or None if that is not known).

    Raises DataError for a table that cannot be used, SettingError for an option, RecordError if writing fails.

    >>> prepared = prepare({"size": list(range(20)), "kind": ["a", "b"] * 10}, target="kind")
    >>> len(prepared.train), len(prepared.validation), prepared.train.numbers.shape
    (16, 4, (16, 1))
    """
    if class_weight not in (None, "balanced"):
        raise SettingError(f"class_weight is {class_weight!r:.60}: pass 'balanced', or leave it out")
    for option, name in (("target", target), ("weight", weight)):
        if not isinstance(name, str) and (name is not None or option == "target"):
            raise SettingError(f"{option} is {name!r:.60}: pass the name of a column, a text")
    if weight == target:
        raise SettingError(f"the column {target!r:.60} cannot be both target and weight")
    if directory is not None and not isinstance(directory, str | os.PathLike):
        raise SettingError(f"directory is {directory!r:.60}: pass the path of a directory")
    share = _share(validation)
    options = Options(
        target, weight, class_weight, task, _names("numeric", numeric), _names("categorical", categorical),
        _names("drop", drop), share, setting("seed", seed), checks.whole("memory", memory, LEAST_MEMORY),
    )  # fmt: skip
    other = None if share else validation
    prepared = prepare_once(source, other, options, directory, progress)
    prepared.train.remarks = prepared.notes
    return prepared


def _names(option: str, names: Collection[str]) -> tuple[str, ...]:
    """Return names of columns; raise SettingError for what is no list, as a text, whose letters would be names."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise SettingError(f"{option} is {names!r:.60}: pass a list of names of columns")
    return tuple(names)


def _share(validation: Any) -> float:
    """Return the share of the rows to validate on; 0 if `validation` is a table."""
    if not isinstance(validation, bool | int | float | np.number):
        return 0.0
    share = checks.number("validation", validation, 0.0, 1.0, below=True)
    if not share:
        raise SettingError("validation is 0, and without validation rows no epoch is the best: pass a share such as "
                           "0.2, or a file")  # fmt: skip
    return share
