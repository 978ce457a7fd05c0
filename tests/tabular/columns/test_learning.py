"""The types of columns: the rule, and the laws that they follow from the training rows alone, however these come."""

import csv
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import text_cells

from karp.data import text_file
from karp.errors import DataError, SettingError
from karp.tabular.columns import cells, counts
from karp.tabular.columns.calendar_parts import calendar_parts
from karp.tabular.columns.column_types import Category, Clock, ColumnType, Date, LeftOut, Number, Schema, listing
from karp.tabular.columns.learning import Learnt, learn
from karp.tabular.columns.sources import open_cells

Columns = dict[str, list[str | None]]
ANCHOR = [str(place) for place in range(1000)]  # a column of numbers, so that one is left


def learnt(column: list[str | None], size: int = 1000, **options: Any) -> tuple[ColumnType, tuple[str, ...]]:
    """The type of a column, and what is said of it."""
    anchor: list[str | None] = [str(place) for place in range(len(column))]
    schema, notes = learn(text_cells({"n": anchor, "c": column}, size), **options)
    return schema.columns[1], tuple(note for note in notes if "'c'" in note)


def repeated(*texts: str | None, times: int = 4) -> list[str | None]:
    return list(texts) * times


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (repeated("1", "2", "3"), Number("c", False)),
        (repeated("1", "", "3"), Number("c", True)),
        (repeated(" 1", "NA", "3e0", "?", "-", "None", "nan", None), Number("c", True)),
        (["1"] * 98 + ["2", "oops"], Number("c", True)),
        (["1"] * 98 + ["inf", "1e400"], Number("c", True)),
        (["1"] * 97 + ["2", "oops", "0x1F"], Category("c", False, ("0x1F", "1", "2", "oops"), False)),
        (["1"] * 97 + ["2", "oops", ""], Category("c", True, ("1", "2", "oops"), False)),  # 98 of 99 are not 99 %
        (repeated("01", "1", "1.0", "x"), Category("c", False, ("1", "x"), False)),
        (repeated("true", "False"), Category("c", False, ("false", "true"), False)),
        (["true", "", ""], Category("c", True, ("false", "true"), False)),
        (["true", "false", "true"], Category("c", False, ("false", "true"), False)),
        (repeated("True", "False", "maybe"), Category("c", False, ("false", "maybe", "true"), False)),
        (repeated("true", "1"), Category("c", False, ("1", "true"), False)),
        (repeated("2024-01-31", "2024-02-29", None), Date("c", True, ("month", "day", "weekday"))),
        (repeated("2024-01-01", "2024-01-08 12:00"), Date("c", False, ("day", "hour"))),
        (["2024-01-01"] * 98 + ["2024-01-02", "2024-13-01"], Date("c", True, ("day", "weekday"))),
        (repeated("7:30", "17:30:59"), Clock("c", False)),
        (repeated("a", "b"), Category("c", False, ("a", "b"), False)),
        (repeated("a", " a ", "b", "NA"), Category("c", True, ("a", "b"), False)),
        (["a", "b", "a", "b"], Category("c", False, ("a", "b"), False)),
        (["a", "a", ""], Category("c", True, ("a",), False)),
        (["a", "b", "c"] + [None] * 9, LeftOut("c", "it is text with 3 distinct values in 3 cells, more than half: "
                                               "names, ids or prose")),
        (["a", "b", "a"], LeftOut("c", "it is text with 2 distinct values in 3 cells, more than half: "
                                       "names, ids or prose")),
        (["x"] * 5, LeftOut("c", "every cell is 'x'")),
        (["1", "1.0", "01"], LeftOut("c", "every cell is '1'")),
        (["true"] * 5, LeftOut("c", "every cell is 'true'")),
        (["1", "1", ""], Number("c", True)),
        (["", "NA", None], LeftOut("c", "every cell is missing")),
        (["inf", "-inf"], LeftOut("c", "no cell is a finite number (row 0: 'inf', row 1: '-inf')")),
        (repeated("1,5", "2,5", times=9), Category("c", False, ("1,5", "2,5"), False)),
        (repeated("31.05.2024", "30.05.2024"), Category("c", False, ("30.05.2024", "31.05.2024"), False)),
    ],
)  # fmt: skip
def test_how_a_column_gets_its_type(column: list[str | None], expected: ColumnType) -> None:
    assert expected == learnt(column)[0]


@pytest.mark.parametrize(
    ("column", "note"),
    [
        (["1"] * 990 + ["oops"] * 7, "column 'c': 7 of 997 cells are no finite numbers and count as missing "
         "(row 990: 'oops', row 991: 'oops', row 992: 'oops', row 993: 'oops', row 994: 'oops', ...)"),
        (["1"] * 198 + ["2", "inf"],
         "column 'c': 1 of 200 cells is no finite number and counts as missing (row 199: 'inf')"),
        (["1:00"] * 198 + ["2:00", "7"],
         "column 'c': 1 of 200 cells is no time of day and counts as missing (row 199: '7')"),
        (["x"] * 3, "column 'c' is left out: every cell is 'x'"),
        (repeated("1,5", "2,5"), "column 'c': if '1,5' is a number, write it with a decimal point, and with nothing "
         "between the thousands"),
        ([str(number) for number in range(50)] + ["oops"], "column 'c' is left out: it is text with 51 distinct values "
         "in 51 cells, more than half: names, ids or prose; 50 of 51 cells are numbers, but not row 50: 'oops': make "
         "it numeric if such are gaps"),
        (repeated("31.05.2024", "30.05.2024"), "column 'c': if '31.05.2024' is a date, write it as 2024-05-31"),
        (repeated("31-May-2024", "30-May-2024"), "column 'c': if '31-May-2024' is a date, write it as 2024-05-31"),
        (repeated("May 31, 2024", "June 1, 2024"), "column 'c': if 'May 31, 2024' is a date, write it as 2024-05-31"),
        (repeated("Mayer 31", "Dec 7 b"), ""),
    ],
)  # fmt: skip
def test_what_is_said(column: list[str | None], note: str) -> None:
    assert ((note,) if note else ()) == learnt(column)[1]


def test_rare_levels() -> None:
    column = [f"level {place}" for place in range(300) for _ in range(2 + (place < 200))]
    kind, notes = learnt(column)
    assert isinstance(kind, Category)
    expected = {f"level {place}" for place in range(200)} | set(
        sorted(f"level {place}" for place in range(200, 300))[:55]
    )
    assert (expected, True) == (set(kind.levels), kind.rare)
    said = "column 'c': its 255 most frequent levels are kept, and 45 others, in 90 cells, are one level, rare"
    assert (said,) == notes


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_TEXTS", 6)
    monkeypatch.setattr(counts, "MOST_OTHERS", 3)
    monkeypatch.setattr(counts, "MOST_CHARACTERS", 30)
    for size in (1, 2, 1000):
        several = repeated(*"abcdefg")
        assert LeftOut("c", "it is text with more than 6 distinct values") == learnt(several, size)[0]
        with pytest.raises(
            DataError, match="t, column 'c': more than 6 distinct values: too many for a category: drop it"
        ):
            learnt(several, size, categorical=["c"])
        assert LeftOut("c", "it is text with more than 30 characters in its distinct values") == learnt(
            repeated("a" * 20, "b" * 20), size)[0]  # fmt: skip
        mixed = repeated("a", "1", "2", "3", "4")
        assert LeftOut("c", "it is text with more than 3 distinct numbers, dates or times") == learnt(mixed, size)[0]
        assert Category("c", False, ("1", "2", "3", "4", "a"), False) == learnt(mixed, size, categorical=["c"])[0]
        assert Number("c", False) == learnt(repeated(*"123456789"), size)[0]


def test_what_is_asked_for() -> None:
    assert Category("c", False, ("1", "2"), False) == learnt(repeated("1", "2.0"), categorical=["c"])[0]
    assert Category("c", False, ("a", "b", "c"), False) == learnt(["a", "b", "c"], categorical=["c"])[0]
    assert Category("c", False, ("2024-01-01", "7:30"), False) == learnt(["2024-01-01", "7:30"], categorical=["c"])[0]
    kind, notes = learnt(["1", "x", "y", ""], numeric=["c"])
    assert Number("c", True) == kind
    assert ("column 'c': 2 of 4 cells are no finite numbers and count as missing (row 1: 'x', row 2: 'y')",) == notes
    assert LeftOut("c", "it is to be dropped") == learnt(["1", "2"], drop=["c"])[0]
    with pytest.raises(
        DataError, match=r"t, column 'c': no cell is a finite number \(row 0: 'x', row 1: 'y'\): drop it"
    ):
        learnt(["x", "y"], numeric=["c"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numeric": ["x"]}, "numeric: t has no column 'x' among a, b"),
        ({"drop": ["a"], "categorical": ["a"]}, "the column 'a' cannot be both categorical and drop"),
        ({"drop": "ab"}, "drop is 'ab': pass a list of names of columns"),
        ({"beside": ["a"], "drop": ["a"]}, "the column 'a' cannot be both target or weight and drop"),
    ],
)
def test_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        learn(text_cells({"a": ["1", "2"], "b": ["1", "2"]}), **options)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match="t: there are no rows to learn from"):
        learn(text_cells({"a": []}))
    with pytest.raises(DataError, match="t: there are no rows to learn from"):
        learn(text_cells({"a": ["1", "2"]}), [np.zeros(2, bool)])
    with pytest.raises(DataError, match=r"t: no column is left to learn from \('a': every cell is 'x'\)"):
        learn(text_cells({"a": ["x", "x"]}))
    with pytest.raises(DataError, match=r"t: no column is left to learn from \(there is no other\)"):
        learn(text_cells({"a": ["1", "2"]}), beside=["a"])


# Laws

CELLS = ["1", "2.5", "-0", "0", "", "NA", None, "x", "y", " x", "true", "False", "2024-01-31", "2024-02-01 12:30",
         "7:30", "inf", "9007199254740993", "9007199254740992", "1e16", "1,5"]  # fmt: skip
POOLS = st.sampled_from([CELLS, CELLS[:6], [*CELLS[7:10], ""], CELLS[10:12], CELLS[12:14], ["7:30", "8:00", ""]])
COLUMN = POOLS.flatmap(lambda pool: st.lists(st.sampled_from(pool), min_size=12, max_size=12))


def told(call: Callable[[], Learnt]) -> object:
    """What a call returns, or the error that it raises."""
    try:
        return call()
    except DataError as error:
        return str(error)


@given(
    COLUMN,
    COLUMN,
    st.integers(1, 13),
    st.sampled_from([{}, {"categorical": ["a"]}, {"numeric": ["b"]}, {"drop": ["a"]}]),
)
def test_the_size_of_batches_does_not_show(
    a: list[str | None], b: list[str | None], size: int, options: dict[str, Any]
) -> None:
    table: Columns = {"a": a, "b": b}
    assert told(lambda: learn(text_cells(table), **options)) == told(lambda: learn(text_cells(table, size), **options))


@given(COLUMN, st.lists(st.booleans(), min_size=12, max_size=12), st.integers(1, 13), COLUMN)
def test_training_rows_alone_count(
    column: list[str | None], rows: list[bool], size: int, other: list[str | None]
) -> None:
    """Whatever stands in the other rows, the types are those of a table of the training rows."""
    chosen = [text for text, row in zip(column, rows, strict=True) if row]
    mixed = [text if row else alien for text, row, alien in zip(column, rows, other, strict=True)]
    marks = [np.array(rows[start : start + size]) for start in range(0, 12, size)]
    alone = told(lambda: learn(text_cells({"a": chosen})) if chosen else learn(text_cells({"a": []})))
    among = told(lambda: learn(text_cells({"a": mixed}, size), marks))
    if isinstance(alone, Learnt) and isinstance(among, Learnt):
        assert alone.schema.used == among.schema.used
        places = [str(place) for place, row in enumerate(rows) if row]
        for said, expected in zip(among.notes, alone.notes, strict=True):
            for place in range(len(places) - 1, -1, -1):
                expected = expected.replace(f"row {place}:", f"row <{places[place]}>:")
            assert expected.replace("<", "").replace(">", "") == said
    else:
        assert isinstance(alone, str)
        assert isinstance(among, str)


@given(COLUMN)
def test_the_order_of_rows_does_not_show(column: list[str | None]) -> None:
    forth, back = (told(lambda c=each: learn(text_cells({"a": c}))) for each in (column, column[::-1]))  # type: ignore[misc]
    if isinstance(forth, Learnt) and isinstance(back, Learnt):
        assert forth.schema.used == back.schema.used


NAMES = st.text(max_size=4)
TEXTS = st.lists(NAMES, unique=True, max_size=4).map(tuple)
PARTS = st.sets(st.sampled_from(["month", "day", "weekday", "hour"])).map(lambda parts: tuple(sorted(parts)))
TYPES = st.one_of(
    st.builds(Number, NAMES, st.booleans()),
    st.builds(Clock, NAMES, st.booleans()),
    st.builds(Date, NAMES, st.booleans(), PARTS),
    st.builds(Category, NAMES, st.booleans(), TEXTS, st.booleans()),
    st.builds(LeftOut, NAMES, NAMES),
)


@given(st.lists(TYPES, unique_by=lambda column: column.name))
def test_types_go_through_json_unchanged(columns: list[ColumnType]) -> None:
    schema = Schema(tuple(columns))
    text = json.dumps(schema.to_list(), ensure_ascii=False, allow_nan=False)
    assert schema == Schema.from_list(json.loads(text))
    assert text == json.dumps(Schema.from_list(json.loads(text)).to_list(), ensure_ascii=False)


@given(COLUMN)
def test_learnt_types_are_plain_data(column: list[str | None]) -> None:
    schema = learn(text_cells({"n": ANCHOR[:12], "a": column})).schema
    assert schema == Schema.from_list(json.loads(json.dumps(schema.to_list())))


@pytest.mark.parametrize(
    "plain",
    [
        None, [None], [{}], [{"type": "number"}], [{"type": "number", "name": "a", "gaps": 1}],
        [{"type": [], "name": "a"}],
        [{"type": "number", "name": "a", "gaps": True, "more": 1}], [{"type": "leftout", "name": "a", "reason": ""}],
        [{"type": "number", "name": "a", "gaps": True}] * 2,
        [{"type": "category", "name": "a", "gaps": True, "levels": ["x", "x"], "rare": False}],
        [{"type": "category", "name": "a", "gaps": True, "levels": [1], "rare": False}],
        [{"type": "category", "name": "a", "gaps": True, "levels": "xy", "rare": False}],
        [{"type": "date", "name": "a", "gaps": True, "parts": ["century"]}],
    ],
)  # fmt: skip
def test_what_is_no_schema(plain: object) -> None:
    with pytest.raises(DataError):
        Schema.from_list(plain)


def test_the_names_of_what_a_row_becomes() -> None:
    dates, category = Date("d", False, ("day", "hour")), Category("c", False, ("a",), True)
    schema = Schema((Number("n", True), dates, category, Clock("t", False), LeftOut("x", "no")))
    assert ("n", "d", "d.day", "d.hour", "t") == schema.numbers
    assert (("c",), 4) == (schema.categories, len(schema.used))
    assert "a, b and 2 more" == listing("abcd", 2)
    assert "a, b" == listing("ab", 2)


def test_declared_types_and_texts_are_one() -> None:
    """A table has the types that its CSV has, whatever its columns declare."""
    texts: Columns = {
        "number": repeated("1", "2", "", times=5), "truth": repeated("true", "false", None, times=5),
        "large": repeated("9007199254740993", "9007199254740995", "1", times=5),
    }  # fmt: skip
    typed = {
        "number": np.array([1, 2, np.nan] * 5), "truth": np.array([True, False, None] * 5, object),
        "large": np.array([2**53 + 1, 2**53 + 3, 1] * 5),
    }  # fmt: skip
    for options in ({}, {"categorical": ["number", "large"]}):
        with open_cells(typed) as table:
            assert learn(text_cells(texts), **options) == learn(table, **options)
    large = learn(text_cells(texts), categorical=["large"]).schema.columns[2]
    assert Category("large", False, ("1", "9007199254740993", "9007199254740995"), False) == large


def test_declared_types_and_texts_of_dates_are_one() -> None:
    texts = text_cells({"d": repeated("2024-01-31", "2024-02-29", "NaT", times=5)})
    for unit in ("D", "h", "s", "us"):
        when = np.array(["2024-01-31", "2024-02-29", "NaT"] * 5, f"datetime64[{unit}]")
        with open_cells({"d": when}) as table:
            typed = learn(table, categorical=[]), learn(table, categorical=["d"])
        assert (learn(texts), learn(texts, categorical=["d"])) == typed


def test_calendar_parts_are_those_of_the_standard_library() -> None:
    from datetime import UTC, datetime, timedelta

    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    moments = [epoch + timedelta(hours=7919.25 * place) for place in range(-900, 900)]
    parts = calendar_parts(np.array([(moment - epoch).total_seconds() for moment in moments] + [math.nan]))
    assert [moment.month for moment in moments] == parts["month"][:-1].tolist()
    assert [moment.day for moment in moments] == parts["day"][:-1].tolist()
    assert [moment.weekday() for moment in moments] == parts["weekday"][:-1].tolist()
    assert [moment.hour + moment.minute / 60 for moment in moments] == parts["hour"][:-1].tolist()
    assert all(math.isnan(values[-1]) for values in parts.values())


NASTY = ["1", " 2.5", "", "NA", 'say "hi"', "a,b", "two\nlines", "x ", "\tx", "oops", "é", "'", "1,5", "5\" pipe", "-",
         "#", "2024-01-31", "true", "inf", "1e400", "\u2028", "9007199254740993", "# 1"]  # fmt: skip
CSV_COLUMN = st.lists(st.sampled_from(NASTY), min_size=1, max_size=9)


@given(CSV_COLUMN, st.integers(1, 60), st.integers(1, 9), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_csv_file_is_the_texts_that_were_written(
    column: list[str | None], block: int, size: int, end: str, quoted: bool
) -> None:
    """The standard library writes it, and neither blocks, batches, line ends nor quotes show."""
    pytest.importorskip("pyarrow")
    numbers = [str(place) for place in range(len(column))]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "t.csv")
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
            writer.writerows([("n", "c"), *zip(numbers, column, strict=True)])
        patch.setattr(text_file, "_BLOCK", block)
        patch.setattr(cells, "_MOST_ROWS", size)
        patch.setattr(cells, "_LEAST_ROWS", 1)
        with open_cells(path) as table:
            read = [batch.column("c")[row] for batch in table.batches(None) for row in range(batch.rows)]
            found = told(lambda: learn(table, categorical=["c"]))
    assert [text.strip() for text in column if text is not None] == read
    expected = told(lambda: learn(text_cells({"n": numbers, "c": column}), categorical=["c"]))
    if isinstance(expected, Learnt) and isinstance(found, Learnt):
        assert expected.schema == found.schema
    else:
        assert isinstance(expected, str)
        assert isinstance(found, str)


PENGUINS = """species,island,bill_length_mm,body_mass_g,sex,year
Adelie,Torgersen,39.1,3750,male,2007
Adelie,Torgersen,NA,NA,NA,2007
Adelie,Dream,40.3,3250,female,2008
Gentoo,Biscoe,46.1,4500,female,2008
Gentoo,Biscoe,50.0,5700,male,2009
Chinstrap,Dream,46.5,3500,female,2009
Chinstrap,Dream,50.0,3900,,2009
"""


def test_a_table_with_text_and_gaps(tmp_path: Any) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "penguins.csv"
    path.write_text(PENGUINS)
    with open_cells(path) as table:
        schema, notes = learn(table, beside=["species"])
    assert ((
        Category("island", False, ("Biscoe", "Dream", "Torgersen"), False), Number("bill_length_mm", True),
        Number("body_mass_g", True), Category("sex", True, ("female", "male"), False), Number("year", False),
    ), ()) == (schema.columns, notes)  # fmt: skip
