"""What the tests of ONNX share: a runtime, and raw columns as it takes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karp.export.columns import NO_DATE, is_truth
from karp.tabular.columns.cell_text import Kind
from karp.tabular.columns.cells import level_of
from karp.tabular.columns.column_types import Category, Clock, ColumnType, Date, Schema


def session(path: Path) -> Any:
    """Return what runs an ONNX file, after its check."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    onnx.checker.check_model(str(path), full_check=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def raw(schema: Schema, table: dict[str, list[Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of a table, as karp takes them, as the inputs of an exported model.

    Dates are Unix seconds, or None.
    """
    return {column.name: _raw_column(column, table[column.name]) for column in schema.used}


def _raw_column(column: ColumnType, cells: list[Any]) -> np.ndarray[Any, Any]:
    if isinstance(column, Date):
        return np.array([NO_DATE if cell is None else cell for cell in cells], np.int64)
    if isinstance(column, Category):
        return np.array(cells, bool if is_truth(column) else object).reshape(len(cells))
    return np.array([np.nan if cell is None else cell for cell in cells], np.float64)


def for_karp(schema: Schema, table: dict[str, list[Any]]) -> dict[str, Any]:
    """Return the same columns as karp takes them: dates as NumPy has them, times of day as texts."""
    columns: dict[str, Any] = dict(table)
    for column in schema.used:
        cells = table[column.name]
        if isinstance(column, Date):
            columns[column.name] = _raw_column(column, cells).view("M8[s]")
        elif isinstance(column, Clock):
            columns[column.name] = [None if cell is None else level_of(Kind.CLOCK, cell) for cell in cells]
    return columns
