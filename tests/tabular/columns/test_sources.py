"""Files and frames as cells: every format gives the same cells, and what cannot be read is said with its place."""

import gzip
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.data import dialect, text_file
from karp.errors import DataError, MissingError, SettingError
from karp.tabular.columns import cells as cells_module
from karp.tabular.columns.cell_text import Kind
from karp.tabular.columns.cells import Cells, Texts, Typed
from karp.tabular.columns.column_types import Category, Schema
from karp.tabular.columns.converting import Converter
from karp.tabular.columns.sources import open_cells
from karp.tabular.columns.target import learn_target

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")


def texts(column: Any) -> list[str]:
    assert isinstance(column, Texts)
    return [column[row] for row in range(len(column))]


def rows_of(cells: Cells) -> list[dict[str, str]]:
    """Every row as its texts, with its place."""
    rows = []
    for batch in cells.batches(None):
        columns = {name: texts(batch.column(name)) for name in batch.names}
        for row in range(batch.rows):
            rows.append({"": batch.place(row)} | {name: column[row] for name, column in columns.items()})
    return rows


def read(path: Path, content: str | bytes, **options: Any) -> list[dict[str, str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with open_cells(path, **options) as cells:
        return rows_of(cells)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


CSV = 'a,b\n1,x\n,"y, z"\nNA,""\n'
ROWS = [{"": "line 2", "a": "1", "b": "x"}, {"": "line 3", "a": "", "b": "y, z"}, {"": "line 4", "a": "NA", "b": ""}]


# CSV


def test_every_cell_arrives_as_text(file: Path) -> None:
    assert ROWS == read(file, CSV)
    assert ROWS == read(file, gzip.compress(CSV.encode()))
    assert ROWS == read(file, b"\xef\xbb\xbf" + CSV.encode())
    assert ROWS == read(file, CSV.replace("\n", "\r\n"))
    assert ROWS == read(file, CSV.replace("\n", "\r"))
    assert ROWS == read(file, CSV.rstrip("\n"))


@pytest.mark.parametrize("block", [1, 3, 10, 2**20])
def test_lines_are_named_whatever_stands_between(file: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "_BLOCK", block)
    content = '# made by hand\n\n"a", b\n1,"two\nlines\n"\n\n  \n\t2 , "x ""y"" z"\n3,5" pipe\n\n'
    expected = [("line 4", "1", "two\nlines"), ("line 9", "2", 'x "y" z'), ("line 10", "3", '5" pipe')]
    rows = read(file, content)
    assert expected == [(row[""], row["a"].strip(), row["b"].strip()) for row in rows]
    assert 3 == len(read(file, "a,b\n1,2\n3,4\n5,6"))


@given(
    st.lists(st.lists(st.text("ab,\"\n \r#é'", max_size=6), min_size=2, max_size=2), min_size=1, max_size=12), st.data()
)
def test_blocks_of_any_size_have_the_records_that_single_lines_have(rows: list[list[str]], data: st.DataObject) -> None:
    import io

    lines = ["p,q\n"]
    for row in rows:
        always = data.draw(st.booleans())  # even cells that need no quotes
        quoted = ['"' + cell.replace('"', '""') + '"' if always or set(cell) & set(',"\n\r') else cell for cell in row]
        lines.append(data.draw(st.sampled_from(["", "", "\n", " \n"])) + ",".join(quoted) + "\n")
    text = text_file.TextFile("t", io.BytesIO("".join(lines).encode()))
    comma = dialect.Dialect(",")
    expected = list(comma.records(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "_BLOCK", data.draw(st.integers(1, 40)))
        blocks = list(comma.blocks(text))
    assert expected[0] == (blocks[0][0][0], blocks[0][1])
    assert [number for number, _ in expected] == [number for numbers, _ in blocks for number in numbers]
    assert "".join(record for _, record in expected) == "".join(block for _, block in blocks)


@pytest.mark.parametrize(("mark", "shown"), [(";", "';'"), ("\t", r"'\\t'"), ("|", r"'\|'")])
def test_the_delimiter_is_detected_and_said(file: Path, mark: str, shown: str) -> None:
    file.write_text(f'"a{mark}b"{mark}c\n1,5{mark}2\n')
    with open_cells(file) as cells:
        assert [{"": "line 2", f"a{mark}b": "1,5", "c": "2"}] == rows_of(cells)
        assert [f"{file}: its cells are separated by {shown}".replace("\\\\t", "\\t").replace("\\|", "|")] == [
            *cells.notes
        ]
    file.write_text("a;b,c\n1,2\n")
    with open_cells(file) as cells:
        assert (("a;b", "c"), ()) == (cells.names, cells.notes)
    with open_cells(file, delimiter=";") as cells:
        assert (("a", "b,c"), ()) == (cells.names, cells.notes)
    file.write_text("only one\n1\n")
    with open_cells(file) as cells:
        assert ("only one",) == cells.names


def test_known_names_may_be_numbers(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("7,5\n1,2\n")
    with open_cells(file, known=["5", "7"]) as cells:
        assert ("7", "5") == cells.names
    with pytest.raises(DataError, match="the first line holds only numbers"), open_cells(file, known=["5", "8"]):
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3\n", "t.csv, line 3: 1 fields, and the header names 2 columns: repair the line"),
        ("a,b\n1,2\n\n3,4,5\n", "t.csv, line 4: 3 fields, and the header names 2 columns: repair the line"),
        ('a,b\n1,"2\n"\n3,4,\n', "t.csv, line 4: 3 fields, .*: if ',' ends the line, remove it there"),
        ("a,b\n1;2\n", "t.csv, line 2: 1 fields, and the header names 2 columns: put ',' in the place of each ';'"),
        ("a,b,a\n1,2,3\n", "t.csv, line 1: two columns are named 'a': rename one"),
        ("a,,b\n1,2,3\n", "t.csv, line 1: column 2 of 3 has no name"),
        ("1,2\n3,4\n", "t.csv, line 1: the first line holds only numbers: add a line of column names above it"),
        ("", "t.csv: the file is empty: its first line must name the columns"),
        (b"a,b\n1,2\n3,caf\xe9\n", "t.csv, line 3: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        ("a,b\n1,é\n".encode("utf-16"), "t.csv: it is text in UTF-16LE: save it as UTF-8"),
        (
            'a,b\n1,"x\n2,y\n',
            "t.csv, line 2: quotes do not match: the cell that opens with one in column 2 is not closed",
        ),
        ('a,b\n1,"x"y\n', "t.csv, line 2: quotes do not match: .* has text behind its closing quote"),
        ('a,b\n"abc,1\n"def,2\n', "t.csv, line 2: quotes do not match"),
        (gzip.compress(CSV.encode() * 99, mtime=0)[:-20], "t.csv: compressed data cut short or damaged"),
        ("<!DOCTYPE html>\n<html>", r"t.csv: it is a web page \(HTML\)"),
        ("version https://git-lfs.github.com/spec/v1\n", "t.csv: it is a pointer of Git LFS"),
        (b"PK\x03\x04" + bytes(26) + b"xl/workbook.xml", "t.csv: it is an Excel workbook"),
    ],
)
@pytest.mark.parametrize("block", [4, 2**20])
def test_what_is_no_table(
    file: Path, content: str | bytes, message: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_file, "_BLOCK", block)
    with pytest.raises(DataError, match=message):
        read(file, content)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (
            "5.1,3.5,setosa\n4.9,3.0,setosa\n",
            ", line 1: the names of the columns look like a row: add a line of column names",
        ),
        (
            "# a,b\n1.5,x\n2,y\n",
            r", line 2: the names .* look like a row: if line 1 names them \(a, b\), remove its '#'",
        ),
        (
            "a  b   t\n1  2   3\n",
            ": it has one column: if there are several, put one delimiter in the place of each run",
        ),
        ("a b t\n1 2 3\n", ": it has one column: if there are several, put ',' in the place of each ' '"),
    ],
)
def test_names_that_look_like_a_row_are_said(file: Path, content: str, note: str) -> None:
    file.write_text(content)
    with open_cells(file) as cells:
        assert re.match(re.escape(str(file)) + note, *cells.notes)
        with pytest.raises(DataError, match="there is no column 'y' to predict among .*: pass one of these .*" + note):
            learn_target(cells, "y")


def test_a_first_column_without_a_name_is_an_index(file: Path) -> None:
    file.write_text(",a,b\n0,1,x\n1,2,y\n")
    with open_cells(file) as cells:
        assert (("a", "b"), (("", "it has no name, as the names of the rows"),)) == (cells.names, cells.left_out)
        assert ["1", "2"] == [row["a"] for row in rows_of(cells)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFO")
def test_a_fifo_is_read_once_and_can_be_gone_through_twice(tmp_path: Path) -> None:
    for content in (CSV.encode(), gzip.compress(CSV.encode())):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_bytes, args=[content])
        writer.start()
        with open_cells(fifo) as cells:
            assert ROWS == rows_of(cells) == rows_of(cells)
        writer.join()
        fifo.unlink()


def test_a_file_that_is_written_to_meanwhile(file: Path) -> None:
    file.write_text(CSV)

    def change() -> None:
        with open_cells(file) as cells:
            file.write_text(CSV + "4,z\n")
            rows_of(cells)

    with pytest.raises(DataError, match="it was written to while it was read"):
        change()


def test_some_columns_alone(file: Path) -> None:
    file.write_text(CSV)
    with open_cells(file) as cells:
        assert [("b",)] == [batch.names for batch in cells.batches(["b"])]
        assert ["x", "y, z", ""] == [text for batch in cells.batches(["b"]) for text in texts(batch.column("b"))]


def test_batches_have_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells_module, "_MOST_ROWS", 700)
    monkeypatch.setattr(cells_module, "_LEAST_ROWS", 1)
    table = pa.table({"n": list(range(2100)), "t": pa.array([f"{row % 7}" for row in range(2100)]).dictionary_encode()})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=1000)
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        for start in range(0, 2100, 300):
            writer.write_table(table.slice(start, 300))
    (tmp_path / "t.csv").write_text("n,t\n" + "".join(f"{row},{row % 7}\n" for row in range(2100)))
    for source in (tmp_path / "t.parquet", tmp_path / "t.arrow", tmp_path / "t.csv", table, table.to_pydict()):
        with open_cells(source) as cells:
            batches = list(cells.batches(None))
            assert [700, 700, 700] == [batch.rows for batch in batches]
            places = [batch.place(5) for batch in batches]
            assert places in (["row 5", "row 705", "row 1405"], ["line 7", "line 707", "line 1407"])
            assert [str(row % 7) for row in range(2100)] == [
                text for batch in batches for text in texts(batch.column("t"))
            ]


def test_the_size_of_batches_follows_from_the_columns() -> None:
    assert [8192, 8192, 8192, 8128, 1024, 1024] == [
        cells_module.batch_rows(count) for count in (0, 1, 128, 129, 1024, 9999)
    ]


# Other formats and frames: the same cells, declared or not


def values(cells: Cells, name: str) -> tuple[Kind, list[float]]:
    columns = [batch.column(name) for batch in cells.batches(None)]
    assert all(isinstance(column, Typed) for column in columns)
    return columns[0].kind, np.concatenate([column.values for column in columns]).tolist()  # type: ignore[union-attr]


TYPES: list[tuple[Any, Kind, list[float]]] = [
    (pa.array([1, None, 3], pa.int8()), Kind.NUMBER, [1, np.nan, 3]),
    (pa.array([1, None, 3], pa.uint64()), Kind.NUMBER, [1, np.nan, 3]),
    (pa.array([1.5, None, np.inf]), Kind.NUMBER, [1.5, np.nan, np.inf]),
    (pa.array([np.float16(0.5), None, np.float16(np.nan)], pa.float16()), Kind.NUMBER, [0.5, np.nan, np.nan]),
    (pa.array(["1.25", None, "3"]).cast(pa.decimal128(10, 2)), Kind.NUMBER, [1.25, np.nan, 3]),
    (pa.array([2**100, None, 3], pa.decimal128(38, 0)), Kind.NUMBER, [2.0**100, np.nan, 3]),
    (pa.array([True, None, False]), Kind.TRUTH, [1, np.nan, 0]),
    (pa.array([1, None, -1], pa.date32()), Kind.DATE, [86_400, np.nan, -86_400]),
    (pa.array([86_400_000, None, 0], pa.date64()), Kind.DATE, [86_400, np.nan, 0]),
    (pa.array([1_500, None, -250], pa.timestamp("ms")), Kind.DATE, [1.5, np.nan, -0.25]),
    (pa.array([10**9, None, 0], pa.timestamp("ns", "Europe/Bern")), Kind.DATE, [1, np.nan, 0]),
    (pa.array([61, None, 0], pa.time32("s")), Kind.CLOCK, [61, np.nan, 0]),
    (pa.array([1_500_000, None, 0], pa.time64("us")), Kind.CLOCK, [1.5, np.nan, 0]),
    (pa.array([1_500_000, None, 0], pa.duration("us")), Kind.NUMBER, [1.5, np.nan, 0]),
    (pa.array([7, None, 8]).dictionary_encode(), Kind.NUMBER, [7, np.nan, 8]),
]


@pytest.mark.parametrize(("array", "kind", "expected"), TYPES, ids=lambda item: str(getattr(item, "type", "")))
def test_declared_types(array: Any, kind: Kind, expected: list[float], tmp_path: Path) -> None:
    table = pa.table({"a": array})
    parquet.write_table(table, tmp_path / "t.parquet")
    feather.write_feather(table, str(tmp_path / "t.feather"))
    with pa.ipc.new_stream(tmp_path / "t.arrows", table.schema) as writer:
        writer.write_table(table)
    for source in (table, tmp_path / "t.parquet", tmp_path / "t.feather", tmp_path / "t.arrows"):
        with open_cells(source) as cells:
            found, numbers = values(cells, "a")
            assert kind is found
            np.testing.assert_array_equal(expected, numbers)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_of_arrow(kind: Any) -> None:
    with open_cells(pa.table({"a": pa.array(["x", None, "NA"]).cast(kind)})) as cells:
        assert ["x", "", "NA"] == [row["a"] for row in rows_of(cells)]
    with open_cells(pa.table({"a": pa.nulls(2)})) as cells:
        assert ["", ""] == [row["a"] for row in rows_of(cells)]


def test_dictionaries_that_differ_from_group_to_group(tmp_path: Path) -> None:
    with parquet.ParquetWriter(
        tmp_path / "t.parquet", pa.schema({"a": pa.dictionary(pa.int32(), pa.string())})
    ) as writer:
        for part in (["a", "b", "b"], ["b", "c", "b"]):
            writer.write_table(pa.table({"a": pa.array(part).dictionary_encode()}))
    with open_cells(tmp_path / "t.parquet") as cells:
        assert ["a", "b", "b", "b", "c", "b"] == [row["a"] for row in rows_of(cells)]


def test_a_column_that_holds_no_cells_is_an_error_only_if_it_is_asked_for() -> None:
    table = pa.table({"a": ["x"], "list": [[1.0, 2.0]], "bytes": [b"\xff"]})
    with open_cells(table) as cells:
        (batch,) = cells.batches(None)
        assert ["x"] == texts(batch.column("a"))
        with pytest.raises(
            DataError, match=r"the table, column 'list': it holds list<.*double>.*: turn it into such columns"
        ):
            batch.column("list")
        with pytest.raises(DataError, match="the table, column 'bytes': it holds bytes that are no UTF-8"):
            batch.column("bytes")


def test_large_whole_numbers_keep_their_digits() -> None:
    number = 2**53 + 1
    for source in (pa.table({"a": [number, None, number + 2]}), {"a": np.array([number, number + 2])}):
        with open_cells(source) as cells:
            (batch,) = cells.batches(None)
            column = batch.column("a")
            assert isinstance(column, Typed)
            assert [str(number), str(number + 2)] == column.levels()[1]


def test_duplicate_names(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    with pytest.raises(DataError, match="the table: two columns are named 'a': rename one"), open_cells(table):
        pass


@pytest.mark.parametrize("size", [0, 60, 400])
def test_a_parquet_file_that_is_cut(tmp_path: Path, size: int) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": [str(row) for row in range(99)]}), path)
    path.write_bytes(path.read_bytes()[: size or -9])
    with pytest.raises(DataError, match=r"t\.parquet: it is damaged or cut short"), open_cells(path) as cells:
        rows_of(cells)


def test_an_index_of_pandas_is_left_out(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": ["x", "y", "z"]}, index=[5, 3, 9])
    frame.to_parquet(tmp_path / "t.parquet")
    with open_cells(tmp_path / "t.parquet") as cells:
        assert (("a",), (("__index_level_0__", "it is the index of pandas"),)) == (cells.names, cells.left_out)
        assert ["x", "y", "z"] == [row["a"] for row in rows_of(cells)]
    with open_cells(frame) as cells:
        assert (("a",), ()) == (cells.names, cells.left_out)


def test_frames_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({
        "int": [1, 2, 3],
        "nullable": pd.array([1, None, 3], "Int64"),
        "text": ["x", None, "NA"],
        "object": pd.Series([True, 2.5, pd.NA], dtype=object),
        "when": pd.to_datetime(["1970-01-02 00:00:00.0", None, "1970-01-01 00:00:00.5"]),
        "zoned": pd.to_datetime(["1970-01-01 01:00", None, "1970-01-01 02:00"]).tz_localize("Europe/Zurich"),
        "span": pd.to_timedelta(["1s", None, "2s"]),
        "category": pd.Categorical(["x", None, "y"]),
        "codes": pd.Categorical([7, None, 8]),
        "truth": pd.array([True, None, False], "boolean"),
        3: [0.5, None, 1.5],
    })  # fmt: skip
    with open_cells(frame) as cells:
        (batch,) = cells.batches(None)
        assert ("int", "nullable", "text", "object") == cells.names[:4]
        for name, kind, expected in (
            ("int", Kind.NUMBER, [1, 2, 3]),
            ("nullable", Kind.NUMBER, [1, np.nan, 3]),
            ("when", Kind.DATE, [86_400, np.nan, 0.5]),
            ("zoned", Kind.DATE, [0, np.nan, 3600]),
            ("span", Kind.NUMBER, [1, np.nan, 2]),
            ("codes", Kind.NUMBER, [7, np.nan, 8]),
            ("truth", Kind.TRUTH, [1, np.nan, 0]),
            ("3", Kind.NUMBER, [0.5, np.nan, 1.5]),
        ):
            column = batch.column(name)
            assert isinstance(column, Typed), name
            assert kind is column.kind
            np.testing.assert_array_equal(expected, column.values)
        assert ["x", "", "NA"] == texts(batch.column("text"))
        assert ["x", "", "y"] == texts(batch.column("category"))
        assert ["True", "2.5", ""] == texts(batch.column("object"))
    for columns, message in (
        ([("a", "b")], r"a column is named \('a', 'b'\)"),
        (["a", "a"], "two columns are named 'a'"),
    ):
        with pytest.raises(DataError, match=message), open_cells(pd.DataFrame([[1] * len(columns)], columns=columns)):
            pass
    with (
        open_cells(pd.DataFrame({"a": pd.interval_range(0, 2)})) as cells,
        pytest.raises(DataError, match="column 'a': it holds"),
    ):
        next(iter(cells.batches(None))).column("a")


def test_frames_of_polars() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"n": [1, None], "t": ["x", None], "l": [[1.0], [2.0]]}).with_columns(
        c=pl.col("t").cast(pl.Categorical)
    )
    with open_cells(frame) as cells:
        (batch,) = cells.batches(None)
        assert ["x", ""] == texts(batch.column("t")) == texts(batch.column("c"))
        assert Kind.NUMBER is batch.column("n").kind  # type: ignore[union-attr]
    with pytest.raises(SettingError, match=r"is no table: call its collect\(\), or pass"), open_cells(frame.lazy()):
        pass


def test_dicts_and_arrays_of_numpy() -> None:
    with open_cells(
        {"a": [1, 2], "b": ["x", 3], "c": np.array([None, 2.5]), "d": [True, False], "e": [None, None]}
    ) as cells:
        (batch,) = cells.batches(None)
        assert [1, 2] == batch.column("a").values.tolist()  # type: ignore[union-attr]
        assert [["x", "3"], ["", "2.5"], ["", ""]] == [texts(batch.column(name)) for name in "bce"]
        assert Kind.TRUTH is batch.column("d").kind  # type: ignore[union-attr]
        assert "row 1" == batch.place(1)
    with open_cells(np.arange(6.0).reshape(2, 3)) as cells:
        assert ("x0", "x1", "x2") == cells.names
        assert [1, 4] == next(iter(cells.batches(None))).column("x1").values.tolist()  # type: ignore[union-attr]
    with open_cells(np.array([["a", "1"], ["b", "2"]])) as cells:
        assert [{"": "row 0", "x0": "a", "x1": "1"}, {"": "row 1", "x0": "b", "x1": "2"}] == rows_of(cells)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({"a": [1], "b": [1, 2]}, DataError, "the table: 'a' has 1 rows and 'b' 2: all columns have one length"),
        ({"a": 1.0}, DataError, r"the table: 'a' has the shape \(\): a column is a list of cells"),
        ({"a": {1, 2}}, DataError, r"the table: 'a' has the shape \(\): a column is a list of cells"),
        ({1.5: [1]}, DataError, "the table: a column is named 1.5: give it a text as its name"),
        ({1: [1], "1": [2]}, DataError, "the table: two columns are named '1'"),
        (np.zeros(3), SettingError, r"an array of shape \(3,\) is no table"),
        ([1, 2], SettingError, r"\[1, 2\] is no table: pass the path of a file, a frame"),
        (None, SettingError, "None is no table"),
        ("", SettingError, "pass the path of a file"),
        ("none.csv", DataError, "none.csv: there is no such file"),
    ],
)
def test_what_is_no_source(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), open_cells(source):
        pass


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (np.array([object(), object()], object), "object"),
        ([[1], [1, 2]], r"list such as \[1\]"),
        ([[1, 2], [3, 4]], r"list such as \[1, 2\]"),
        (np.zeros((2, 1)), r"ndarray such as array\(\[0"),
    ],
)
def test_a_column_of_objects_that_are_no_cells_is_an_error_if_it_is_read(column: Any, what: str) -> None:
    with open_cells({"a": column, "b": [1, 2]}) as cells:
        assert 2 == sum(batch.rows for batch in cells.batches(["b"]))
        with pytest.raises(DataError, match=f"column 'a': it holds {what}.*: turn it into numbers or"):
            rows_of(cells)


def test_masked_cells_of_numpy_are_missing() -> None:
    mask = [True, False]
    columns: dict[str, Any] = {
        "number": np.ma.masked_array([1.0, 2.0], mask),
        "whole": np.ma.masked_array([2**60 + 1, 2**60 + 3], mask),
        "text": np.ma.masked_array(["a", "b"], mask),
        "date": np.ma.masked_array(["2024-01-01", "2024-01-02"], mask, dtype="datetime64[D]"),
    }
    columns["pair"] = np.ma.masked_array([[1, 2], [3, 4]], [mask, mask])[:, 0]  # all masked
    with open_cells(columns) as cells:
        levels = {name: Category(name, True, ("2", str(2**60 + 3), "b", "2024-01-02"), rare=False) for name in columns}
        converter = Converter(Schema(tuple(levels.values())), cells.name, cells.names)
        codes = converter.convert(next(iter(cells.batches(None)))).categories
    assert [[0] * 5, [3, 4, 5, 6, 0]] == codes.tolist()
    with open_cells(np.ma.masked_array([[1, 2], [3, 4]], [mask, mask])) as cells:
        assert ["", ""] == texts(next(iter(cells.batches(None))).column("x0"))


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, x=np.arange(4.0).reshape(2, 2), y=np.array(["a", "b"]))
    with open_cells(path) as cells:
        assert ("x0", "x1", "y") == cells.names
        (batch,) = cells.batches(None)
        assert [1, 3] == batch.column("x1").values.tolist()  # type: ignore[union-attr]
        assert ["a", "b"] == texts(batch.column("y"))
    for arrays, message in (
        ({"x": np.zeros((2, 2, 2))}, r"the array 'x' has the shape \(2, 2, 2\)"),
        ({"x": np.zeros((2, 2)), "x1": np.zeros(2)}, "two columns are named 'x1'"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, "'x' has 2 rows and 'y' 3"),
        ({"x": np.array([None, 1])}, r"the array 'x' cannot be read \(.*\): store numbers or texts, no objects"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=message), open_cells(path):
            pass
    np.savez(path, x=np.zeros(999))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"t\.npz: it is damaged or cut short"), open_cells(path):
        pass


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "t.csv").write_text(CSV)
    with (
        pytest.raises(MissingError, match=r"t.csv needs pyarrow: pip install 'karp\[table\]'"),
        open_cells(tmp_path / "t.csv"),
    ):
        pass
    with open_cells({"a": [1, 2], "b": ["x", "y"]}) as cells:
        assert ["x", "y"] == texts(next(iter(cells.batches(None))).column("b"))


NUMBERS = ["1", "nan(1)", "-2.5", "", "NA", "nan", "?", "1e3", " 7", "inf", "1e400", "oops", "0x1F", "True", "9" * 20,
           "None", "9007199254740993", "-0", "+5", "1_000", "2024-01-01", "1.", "-"]  # fmt: skip


@given(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=8))
def test_easy_numbers_are_what_recognised_cells_are(column: list[str]) -> None:
    arrow, plain = Texts(pa.array(column)), Texts(column)
    easy = arrow.plain_numbers()
    for given_ in (arrow, plain):
        codes, kinds, numbers, levels = given_.recognised()
        assert [text.strip() for text in column] == [text.strip() for text in texts(given_)]
        if easy is not None:
            np.testing.assert_array_equal(easy, np.where(kinds == Kind.NUMBER, numbers, np.nan)[codes])
            assert {Kind.NUMBER, Kind.MISSING} >= {Kind(kind) for kind in kinds[codes]}
        assert plain.recognised().levels[:-1] == levels[:-1]
    if all(text.strip() == text for text in column) and set(column) <= {"1", "-2.5", "", "NA", "nan", "?", "1e3"}:
        assert easy is not None
