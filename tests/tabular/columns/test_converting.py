"""Converting cells by learnt types: by each cell alone, and what is of another type is an error that names it."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import text_cells

from karp.errors import DataError
from karp.tabular.columns.cells import Cells
from karp.tabular.columns.column_types import Category, Clock, Date, LeftOut, Number, Schema
from karp.tabular.columns.converting import Converter
from karp.tabular.columns.learning import learn
from karp.tabular.columns.sources import open_cells

NAN = np.nan
SCHEMA = Schema((
    LeftOut("id", "it is text"),
    Number("n", True),
    Category("c", True, ("1", "a", "b"), rare=False),
    Date("d", True, ("month", "hour")),
    Category("r", True, ("x",), rare=True),
    Clock("t", False),
    Category("truth", False, ("false", "true"), rare=False),
))  # fmt: skip


def convert(cells: Cells, schema: Schema = SCHEMA) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Converter]:
    converter = Converter(schema, cells.name, cells.names)
    parts = [converter.convert(batch) for batch in cells.batches(converter.read)]
    converter.finish()
    return (
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.categories for part in parts]),
        converter,
    )


TABLE: dict[str, list[str | None]] = {
    "truth": ["true", "FALSE", "", "yes"],
    "n": ["1", "oops", "NA", " 2.5"],
    "c": [" a", "1.0", None, "new"],
    "extra": ["?", "?", "?", "?"],
    "d": ["1970-02-01 06:30", "1970-01-01", "-", ""],
    "r": ["x", "y", "z", ""],
    "t": ["0:01", "", "0:02", "0:03"],
}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_what_each_cell_becomes(size: int) -> None:
    numbers, categories, converter = convert(text_cells(TABLE, size))
    day = 31 * 86_400 + 6.5 * 3600
    np.testing.assert_array_equal(
        [[1, day, 2, 6.5, 60], [NAN, 0, 1, 0, NAN], [NAN, NAN, NAN, NAN, 120], [2.5, NAN, NAN, NAN, 180]], numbers
    )
    assert [[4, 3, 4], [3, 1, 3], [0, 1, 0], [2, 0, 2]] == categories.tolist()
    assert (np.float64, np.int32) == (numbers.dtype, categories.dtype)
    reports = converter.reports
    assert (3, 1, ["row 1: 'oops'"]) == (reports["n"].cells, reports["n"].others, reports["n"].first)
    assert (3, 1, ["row 3: 'new'"]) == (reports["c"].cells, reports["c"].unknown, reports["c"].first)
    assert (3, 2, 0) == (reports["r"].cells, reports["r"].rare, reports["r"].unknown)
    assert (3, 1) == (reports["truth"].cells, reports["truth"].unknown)


def test_no_rows_give_no_rows() -> None:
    converter = Converter(SCHEMA, "t", tuple(TABLE))
    assert [] == list(text_cells({name: [] for name in TABLE}).batches(converter.read))
    converter.finish()


def test_a_missing_column() -> None:
    with pytest.raises(
        DataError, match=r"new\.csv: there is no column 'c', 'd', 'r', 't', 'truth' among n, id: the model "
    ):
        Converter(SCHEMA, "new.csv", ("n", "id"))


CELLS = [
    "1",
    "-2.5",
    "oops",
    "",
    "NA",
    None,
    "a",
    " b",
    "c",
    "x",
    "true",
    "1970-02-01",
    "1970-02-01 06:30",
    "7:30",
    "inf",
]
COLUMN = st.lists(st.sampled_from(CELLS), min_size=9, max_size=9)


@given(st.fixed_dictionaries(dict.fromkeys(TABLE, COLUMN)), st.integers(1, 9))
def test_the_size_of_batches_does_not_show(table: dict[str, list[str | None]], size: int) -> None:
    outcomes = []
    for rows in (9, size, 1):
        try:
            numbers, categories, converter = convert(text_cells(table, rows))
            outcomes.append((numbers.tobytes(), categories.tobytes(), converter.reports))
        except DataError as error:
            outcomes.append(str(error))  # type: ignore[arg-type]
    assert outcomes[0] == outcomes[1] == outcomes[2]


@given(st.lists(st.sampled_from(CELLS), min_size=12, max_size=12), st.integers(1, 12))
def test_what_was_learnt_converts_its_own_rows(column: list[str | None], size: int) -> None:
    table: dict[str, list[str | None]] = {"k": [str(place) for place in range(12)], "c": column}
    schema = learn(text_cells(table)).schema
    numbers, categories, converter = convert(text_cells(table, size), schema)
    assert list(range(12)) == numbers[:, 0].tolist()
    assert not any(report.unknown for report in converter.reports.values())
    for kind in schema.used:
        if not isinstance(kind, Category):
            assert kind.gaps == np.isnan(numbers).any() or kind.name == "k"
        else:
            assert kind.gaps == (categories == 0).any()


@pytest.mark.parametrize(
    ("schema", "column", "message"),
    [
        (Number("c", False), ["x", "y", ""], r"t, column 'c': the model knows it as numbers, and most cells are none "
         r"\(row 0: 'x', row 1: 'y'\): pass the column that the model was trained on"),
        (Number("c", False), ["1", "2024-01-01", "true"], "as numbers, and most cells are none"),
        (Date("c", False, ()), ["1", "2024-01-01", "2"], "as dates, and most cells are none"),
        (Clock("c", False), ["1", "7:30", "2"], "as times of day, and most cells are none"),
    ],
)  # fmt: skip
def test_texts_of_another_type(schema: Any, column: list[str | None], message: str) -> None:
    for size in (1, 3):
        with pytest.raises(DataError, match=message):
            convert(text_cells({"c": column}, size), Schema((schema,)))
    good, bad = ("1" if isinstance(schema, Number) else "2024-01-01" if isinstance(schema, Date) else "7:30"), "x"
    numbers, _, converter = convert(text_cells({"c": [good, bad]}), Schema((schema,)))
    assert [False, True] == np.isnan(numbers[:, 0]).tolist()
    assert 1 == converter.reports["c"].others


@pytest.mark.parametrize("size", [1, 7, 600, 5000])
def test_a_long_column_of_another_type_is_refused_early(size: int) -> None:
    """The first 1,000 cells decide, or all at the end; in batches of any size alike."""
    for leading, early in ((999, False), (1000, True)):
        column: list[str | None] = ["", *["x"] * leading, *["1"] * 2000]
        batches = iter(text_cells({"c": column}, size).batches(None))
        converter = Converter(Schema((Number("c", True),)), "t", ("c",))
        refused = pytest.raises(DataError, match="most cells are none") if early else nullcontext()
        with refused:
            all(converter.convert(batch) for batch in batches)
        if not early:
            converter.finish()


DECLARED = {
    "number": np.array([1.0, 2.0]),
    "truth": np.array([True, False]),
    "date": np.array(["2024-01-01", "2024-01-02"], "datetime64[s]"),
}


@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        (Number("c", False), "number"), (Date("c", False, ()), "date"), (Clock("c", False), ""),
        (Category("c", False, ("false", "true"), False), "truth"), (Category("c", False, ("a", "b"), False), ""),
        (Category("c", False, ("1", "b"), False), "number"), (Category("c", False, ("2024-01-01", "b"), False), "date"),
    ],
)  # fmt: skip
def test_columns_that_declare_another_type(schema: Any, fits: str, declared: str) -> None:
    with open_cells({"c": DECLARED[declared]}) as cells:
        if declared == fits:
            convert(cells, Schema((schema,)))
            return
        with pytest.raises(DataError, match=r"the table, column 'c': the model knows it as .*, and it holds"):
            convert(cells, Schema((schema,)))


@pytest.mark.parametrize("schema", [Number("c", False), Clock("c", False), Category("c", False, ("a", "b"), False)])
def test_a_column_without_any_cell_fits_every_type(schema: Any) -> None:
    with open_cells({"c": np.array([NAN, NAN])}) as cells:
        numbers, categories, _ = convert(cells, Schema((schema,)))
        assert np.isnan(numbers).all()
        assert not categories.any()


def test_infinite_numbers_are_missing_and_counted() -> None:
    with open_cells({"c": np.array([1.0, np.inf, 2.0])}) as cells:
        numbers, _, converter = convert(cells, Schema((Number("c", False),)))
    np.testing.assert_array_equal([[1], [NAN], [2]], numbers)
    assert ["row 1: 'inf'"] == converter.reports["c"].first


@pytest.mark.parametrize("leading", [3, 1500])
def test_any_number_of_infinite_numbers_is_a_column_of_numbers(leading: int) -> None:
    """As in training, where they count as numbers; of other cells at most half are."""
    column: list[str | None] = ["inf"] * leading + ["1", "x"]
    with open_cells({"c": np.array([np.inf] * leading + [1.0, np.inf])}) as declared:
        for cells in (declared, text_cells({"c": column}, 1000)):
            numbers, _, converter = convert(cells, Schema((Number("c", False),)))
            assert [leading] == np.flatnonzero(~np.isnan(numbers[:, 0])).tolist()
            assert leading + 1 == converter.reports["c"].others
    with pytest.raises(DataError, match="as dates, and most cells are none"):
        convert(text_cells({"c": ["inf", "inf", "2024-01-01"]}), Schema((Date("c", False, ()),)))


CSV = """,species,when,size,colour,fresh
0,a,2024-05-31 12:00,1.5,red,true
1,b,2024-06-30 12:00,NA,"blue",false
2,a,,2.25,,true
3,b,2024-06-30 12:00,1e1,red,false
4,a,2024-07-01 12:00,-3,blue,
5,b,2024-07-01 12:00,4,red,true
"""


def test_every_format_gives_the_same_arrays(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    csv = tmp_path / "t.csv"
    csv.write_text(CSV)
    frame = pd.read_csv(csv, index_col=0)
    frame["when"] = pd.to_datetime(frame["when"])
    frame.index = [5, 1, 4, 0, 9, 7]
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_feather(tmp_path / "t.feather")
    frame.to_csv(tmp_path / "t.csv.gz")
    sources: list[Any] = [csv, tmp_path / "t.parquet", tmp_path / "t.feather", tmp_path / "t.csv.gz", frame]
    sources += [pl.from_pandas(frame), frame.to_dict("list")]
    outcomes = []
    for source in sources:
        with open_cells(source) as cells:
            schema = learn(cells, beside=["species"]).schema
            numbers, categories, _ = convert(cells, schema)
            outcomes.append((schema.used, numbers.tolist(), categories.tolist()))
    assert [repr(outcomes[0])] * len(sources) == [repr(outcome) for outcome in outcomes]
    assert ("when", "when.month", "when.day", "when.weekday", "size") == schema.numbers
