"""One row is converted to the arrays of a table of that row, or left to that."""

import datetime
from typing import Any

import numpy as np
import pytest

from karp.tabular.columns.column_types import Category, Clock, Date, LeftOut, Number, Schema
from karp.tabular.columns.converting import Converted, Converter
from karp.tabular.columns.one_row import RowConverter
from karp.tabular.columns.sources import open_cells

SCHEMA = Schema((
    LeftOut("id", "it is to be dropped"),
    Number("age", gaps=True),
    Category("city", gaps=True, levels=("Bern", "Wil", "true"), rare=False),
    Date("born", gaps=True, parts=("month", "hour")),
    Category("size", gaps=False, levels=("1", "2.5", "nine"), rare=True),
    Clock("rises", gaps=False),
    Category("ill", gaps=False, levels=("false", "true"), rare=False),
))  # fmt: skip
ROW: dict[str, Any] = {"age": 31, "city": "Bern", "born": "2001-02-03 04:30", "size": 1, "rises": "7:30", "ill": True}


def as_table(row: dict[str, Any]) -> Converted:
    with open_cells({name: [cell] for name, cell in row.items()}) as cells:
        converter = Converter(SCHEMA, cells.name, cells.names)
        (batch,) = cells.batches(converter.read)
        return converter.convert(batch)


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"age": 1.5},
        {"age": " 1.50 "},
        {"age": None},
        {"age": "NA"},
        {"age": float("nan")},
        {"age": np.float32(0.1)},
        {"age": np.int64(-7)},
        {"age": 10**15},
        {"city": " Wil "},
        {"city": ""},
        {"city": None},
        {"city": float("nan")},
        {"city": True},
        {"born": None},
        {"born": "?"},
        {"born": float("nan")},
        {"born": "2001-02-03T04:30:00+02:00"},
        {"size": "1.0"},
        {"size": 2.5},
        {"size": np.float64(1)},
        {"size": np.int8(1)},
        {"size": "nine"},
        {"rises": "23:59:59.5"},
        {"ill": "FALSE"},
        {"ill": False, "id": "x", "more": [1]},
    ],
)
def test_a_row_of_usual_cells_is_what_its_table_is(other: dict[str, Any]) -> None:
    row = ROW | other
    found = RowConverter(SCHEMA).convert(row)
    assert found is not None
    row.pop("more", None)
    for expected, actual in zip(as_table(row), found, strict=True):
        assert (expected.dtype, expected.shape) == (actual.dtype, actual.shape)
        np.testing.assert_array_equal(expected, actual)


@pytest.mark.parametrize(
    "other",
    [
        {"age": "old"},
        {"age": True},
        {"age": float("inf")},
        {"age": "inf"},
        {"age": 1 << 60},
        {"age": [1]},
        {"city": "Chur"},
        {"city": 3},
        {"city": 1 << 60},
        {"born": datetime.date(2001, 2, 3)},
        {"born": 7},
        {"born": "7:30"},
        {"size": 3},
        {"size": "ten"},
        {"rises": "2001-02-03"},
        {"ill": "yes"},
        {"ill": 1},
        {"ill": b"true"},
    ],
)
def test_any_other_row_is_left_to_its_table(other: dict[str, Any]) -> None:
    assert RowConverter(SCHEMA).convert(ROW | other) is None


def test_a_missing_column_is_left_to_its_table() -> None:
    for name in ROW:
        assert RowConverter(SCHEMA).convert({other: cell for other, cell in ROW.items() if other != name}) is None
