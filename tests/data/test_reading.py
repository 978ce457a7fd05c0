"""Reading tables: what comes out, and an error with file, line, column and what to do for all that cannot."""

import contextlib
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from karp import data
from karp.data import reading
from karp.errors import DataError, KarpError, SettingError

IRIS = """\
# Two flowers
length,width,species
5.1,3.5,setosa
# and two more
6.2,2.9,virginica
4.9,3.0,setosa
"""

INK = 561718
DIGITS = "c699df1aa2c93f8b12f448bc108bfcf0"
TRAIN = "c16f297304c3046b3d8c9d1af00fa41e"
TEST = "04acf3d0a39d5608b02adb9424897b43"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def read(file: Path, text: str | bytes, target: str | None = None, **settings: object) -> data.Table:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return data.read(file, target, **settings)  # type: ignore[arg-type]


# What comes out


def test_features_and_names(file: Path) -> None:
    table = read(file, IRIS, "species")
    assert table.x.tolist() == np.array([[5.1, 3.5], [6.2, 2.9], [4.9, 3.0]], np.float32).tolist()
    assert (table.x.dtype, table.x.flags.c_contiguous) == (np.float32, True)
    assert (table.y.dtype, table.y.tolist()) == (np.int64, [0, 1, 0])
    assert (table.columns, table.target) == (("length", "width"), "species")
    assert table.classes == ("setosa", "virginica")


@pytest.mark.parametrize("target", ["a", "b", "c"])
def test_the_target_may_be_any_column(file: Path, target: str) -> None:
    table = read(file, "a,b,c\n0,1,2\n1,2,0\n2,0,1\n", target)
    every = {"a": [0, 1, 2], "b": [1, 2, 0], "c": [2, 0, 1]}
    assert table.y.tolist() == every.pop(target)
    assert table.columns == tuple(every)
    assert table.x.T.tolist() == list(every.values())


def test_without_a_target_every_column_is_a_feature(file: Path) -> None:
    table = read(file, "a,b\n1,2\n3,4\n5,6\n")
    assert table.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert (table.y.shape, table.target, table.classes) == ((3, 0), None, ())


def test_float64_keeps_what_float32_rounds(file: Path) -> None:
    text = "a,t\n16777217,0.1\n1e300,0.2\n"
    table = read(file, text, "t", dtype=np.float64)
    assert table.x.tolist() == [[16777217.0], [1e300]]
    assert table.y.tolist() == [[0.1], [0.2]]


@pytest.mark.parametrize(
    ("cells", "target_as", "y", "classes"),
    [
        ("0 2 1 2", None, [0, 2, 1, 2], "012"),
        ("+1 -0 " + "0" * 5000 + " 1", None, [1, 0, 0, 1], "01"),
        ("1.5 2 -3 1e2", None, [[1.5], [2], [-3], [100]], ""),
        ("0.0 1.0 1.0 0.0", None, [[0], [1], [1], [0]], ""),
        ("no yes no no", None, [0, 1, 0, 0], ("no", "yes")),
        ("True False True 1_0", None, [2, 1, 2, 0], ("1_0", "False", "True")),
        ("C# C C++ C#", None, [1, 0, 2, 1], ("C", "C#", "C++")),
        ("0 2 1 2", "numbers", [[0], [2], [1], [2]], ""),
        ("-1 250000 3 4", "numbers", [[-1], [250000], [3], [4]], ""),
        ("-1 1 1 -1", "names", [0, 1, 1, 0], ("-1", "1")),
        ("nan 1 x 1", "names", [1, 0, 2, 0], ("1", "nan", "x")),
        ("0.0 1.0 1.0 7", "classes", [0, 1, 1, 7], "01234567"),
    ],
)
def test_targets(
    file: Path, cells: str, target_as: str | None, y: list[object], classes: str | tuple[str, ...]
) -> None:
    text = "a,t\n" + "".join(f"0,{cell}\n" for cell in cells.split())
    table = read(file, text, "t", target_as=target_as)
    assert table.y.tolist() == y
    assert table.classes == tuple(classes)
    assert table.y.dtype == (np.float32 if table.y.ndim == 2 else np.int64)


@pytest.mark.parametrize(
    "text",
    [
        "a,t\n1,0\n2,1\n",
        "a,t\r\n1,0\r\n2,1\r\n",
        "a,t\r1,0\r2,1",
        "\ufeffa,t\n1,0\n2,1",
        "\n  \n# head\na,t\n\n1,0\n#,,,\n   \n2,1\n\n",
        ' a , "t"\n 1 ,0\n2, 1 \n'.replace(' "t"', "t"),
        '"a","t"\n"1","0"\n"2",1\n',
    ],
)
def test_ways_to_write_one_table(file: Path, text: str) -> None:
    table = read(file, text, "t")
    assert (table.x.tolist(), table.y.tolist(), table.columns) == ([[1], [2]], [0, 1], ("a",))


@pytest.mark.parametrize("delimiter", [";", "\t", "|", " "])
def test_other_delimiters(file: Path, delimiter: str) -> None:
    text = "a,b,t\n1,2,x y\n3,4,z\n".replace("x y", "x").replace(",", delimiter)
    assert read(file, text, "t", delimiter=delimiter).x.tolist() == [[1, 2], [3, 4]]


def test_a_delimiter_in_quotes_is_text(file: Path) -> None:
    assert read(file, 'a,t\n1,"x, y"\n2,"say ""z"""\n', "t").classes == ('say "z"', "x, y")


def test_a_comment_begins_its_line(file: Path) -> None:
    """A '#' elsewhere is text; a first cell that begins with one can be had in quotes."""
    assert read(file, 't,a\n#x,1\n"#y",2\nz#,3\n', "t").classes == ("#y", "z#")


def test_names_beyond_ascii(file: Path) -> None:
    table = read(file, "größe,art\n1,Löwe\n2,ζῷον\n", "art")
    assert (table.columns, table.classes) == (("größe",), ("Löwe", "ζῷον"))


def test_pandas_names_of_nameless_columns(file: Path) -> None:
    assert read(file, "0,1,2\n5,6,0\n7,8,1\n", "2").columns == ("0", "1")


def test_compressed_by_content_whatever_its_name(file: Path) -> None:
    packed = gzip.compress(IRIS.encode())
    plain = read(file, IRIS, "species").fingerprint()
    for name, content in [("a.csv.gz", packed), ("a.csv", packed), ("b.csv.gz", IRIS.encode())]:
        assert read(file.with_name(name), content, "species").fingerprint() == plain


def test_a_path_may_be_text(file: Path) -> None:
    assert read(file, IRIS, "species").x.tolist() == data.read(str(file), "species").x.tolist()


@example([3.4028235e38, -3.4028235e38, 1e-45, -0.0])
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_float32_survives_a_file(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    file = tmp_path_factory.mktemp("read") / "t.csv"
    array = np.array(values, np.float32)
    table = read(file, "a\n" + "".join(f"{value!r}\n" for value in array.tolist()))
    assert table.x[:, 0].tobytes() == array.tobytes()


# Errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # the header
        ("", ": the file is empty: its first line must name the columns"),
        ("\n# only this\n", ": the file is empty"),
        ("a,t\n", ": there is no row below the names"),
        ("a,t\n\n# 1,2\n", ": there is no row below the names"),
        ("# c\na,b,a,t\n1,2,3,4\n", ", line 2: two columns are named 'a': rename one"),
        (",a,t\n0,1,2\n", r", line 1: column 1 of 3 has no name: .*to_csv\(index=False\)"),
        ("a,t,\n1,2,\n", ", line 1: column 3 of 3 has no name"),
        ("5.1,3.5,1\n4,3,0\n", ", line 1: the first line holds only numbers"),
        ('"a,t\n1,2\n', ", line 1: quotes do not match"),
        ("a,b\n1,2\n", ": there is no column 't' among a, b: pass target="),
        ("a;t\n1;2\n", ": there is no column 't' among a;t: pass delimiter=';'"),
        ("a\tt\n1\t2\n", r": there is no column 't' among a\tt: pass delimiter='\\t'"),
        (",".join(f"c{i}" for i in range(20)) + "\n", r": .* c8, c9, \.\.\. \(20 columns\)"),
        ("t\n1\n", ": 't' is the only column"),
        # the rows
        ("a,t\n1,2\n# c\n3\n", ", line 4: 1 fields, and the header names 2 columns"),
        ("a,t\n1,2,\n3,4,\n", ", line 2: 3 fields, and the header names 2 columns"),
        ("a,t\n1\n2\n", ", line 2: 1 fields"),
        ("a,t\n1,2\n\t\n", ", line 3: 1 fields"),
        ("a,t\n1,0\nx,1\n", ", line 3, column 'a': 'x' is not a finite number: repair it"),
        ("a,t\n1,0\n,1\n", ", line 3, column 'a': the cell is empty: fill it"),
        ("a,t\n1,0\n  ,1\n", ", line 3, column 'a': the cell is empty"),
        ("a,t\n1,0\n2,\n", ", line 3, column 't': the cell is empty"),
        ("a,t\n1,x\n2, \n", ", line 3, column 't': the cell is empty"),
        ("a,t\n1,0\nnan,1\n", ", line 3, column 'a': 'nan' is not a finite number"),
        ("a,t\n1,0\n-inf,1\n", ", line 3, column 'a': '-inf' is not a finite number"),
        ("a,t\n1,0\n1e39,1\n", ", line 3, column 'a': 1e39 is too large for float32: pass np.float64"),
        ("a,t\n1,0\n3.4028236e38,1\n", ", line 3, column 'a': 3.4028236e38 is too large for float32"),
        ("a,t\n1,0\n1e999,1\n", ", line 3, column 'a': '1e999' is not a finite number"),
        ("a,t\n1,0\n1_000,1\n", ", line 3, column 'a': '1_000' is not"),
        ("a,t\n1,0\n١,1\n", ", line 3, column 'a': '١' is not"),
        ("a,t\n1,0\n1 # one,1\n", ", line 3, column 'a': '1 # one' is not"),
        ('a,t\n1,0\n"2,1\n', ", line 3: quotes do not match"),
        ('a,t\n1,2\n3,"\n4\n', ", line 3: quotes do not match"),
        ('a,t\n1,"two\nlines"\n', ", line 2: quotes do not match"),
        # the target
        ("a,t\n# c\n1,0.5\n2,1\n3,x\n", ", line 5, column 't': 'x' among numbers is not a finite number"),
        ("a,t\n1,0.5\n2,nan\n", ", line 3, column 't': 'nan' among numbers"),
        ("a,t\n1,0\n2,-1\n", ", line 3, column 't': -1 is no class number in a table of 2 rows"),
        ("a,t\n1,0\n2,2\n", ", line 3, column 't': 2 is no class number in a table of 2 rows"),
        # bytes
        ("a,t\n1,x\n2,caf\xe9\n".encode("latin-1"), ", line 3: byte 0xe9 is not UTF-8: save the file"),
        ("# caf\xe9\n\xe9,t\n1,2\n".encode("latin-1"), ", line 2: byte 0xe9 is not UTF-8"),
        (IRIS.encode("utf-16"), ", line 1: byte 0xff is not UTF-8"),
        (b"PK\x03\x04\xff\xfe\n", ", line 1: byte 0xff is not UTF-8"),
    ],
)
def test_files_that_cannot_be_read(file: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match="^" + str(file) + message):
        read(file, text, "t")


@pytest.mark.parametrize(
    ("cells", "target_as", "message"),
    [
        ("0 -1", "classes", "line 3, column 't': '-1' is no class number"),
        ("0 1.5", "classes", "line 3, column 't': '1.5' is no class number"),
        ("0 x", "classes", "line 3, column 't': 'x' is no class number"),
        ("0 99999999999999999999", "classes", "is no class number from 0 to 1048575"),
        ("0 inf", "classes", "line 3, column 't': 'inf' is no class number"),
        ("0 x", "numbers", "line 3, column 't': 'x' is no finite float32"),
        ("0 nan", "numbers", "line 3, column 't': 'nan' is no finite float32"),
        ("0 1e39", "numbers", "line 3, column 't': '1e39' is no finite float32"),
        ("0.5 1e39", None, "line 3, column 't': '1e39' is no finite float32"),
    ],
)
def test_targets_that_are_not_what_was_said(file: Path, cells: str, target_as: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(file, "a,t\n" + "".join(f"0,{cell}\n" for cell in cells.split()), "t", target_as=target_as)


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"none.csv: there is no such file in {tmp_path}"):
        data.read("none.csv")
    with pytest.raises(DataError, match=r"none.csv: there is no such file$"):
        data.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        data.read(tmp_path)


@pytest.mark.parametrize("kept", [3, 15, 60, -200, -9, -1])
def test_a_compressed_file_cut_short(file: Path, kept: int) -> None:
    rows = "".join(f"{i},{i * i % 97}\n" for i in range(3000))
    packed = gzip.compress(("a,t\n" + rows).encode())
    with pytest.raises(DataError, match=r"csv: compressed data cut short or damaged after line \d+ .*: fetch"):
        read(file, packed[:kept], "t")


def test_a_compressed_file_with_a_wrong_bit(file: Path) -> None:
    packed = bytearray(gzip.compress(IRIS.encode()))
    packed[-8] ^= 1  # of the checksum
    with pytest.raises(DataError, match="compressed data cut short or damaged"):
        read(file, bytes(packed), "species")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": np.int32}, "dtype is .*int32.*: pass np.float32 or np.float64"),
        ({"dtype": "nonsense"}, "dtype is 'nonsense'"),
        ({"dtype": None}, "dtype is None"),
        ({"dtype": ">f4"}, "dtype is '>f4'"),
        ({"target": 3}, "target is 3: pass the name of a column"),
        ({"target_as": "class"}, "target_as is 'class'"),
        ({"delimiter": ""}, "delimiter is ''"),
        ({"delimiter": "::"}, "delimiter is '::'"),
        ({"delimiter": "1"}, "delimiter is '1'"),
        ({"delimiter": "."}, r"delimiter is '\.'"),
        ({"delimiter": None}, "delimiter is None"),
    ],
)
def test_arguments_that_cannot_be_used(file: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read(file, IRIS, **({"target": "species"} | settings))  # type: ignore[arg-type]


def test_no_file_stays_open(file: Path) -> None:
    """An open file would warn, and a warning is an error; the count says so of those that do not."""
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for text in (IRIS, IRIS + "x\n", IRIS.replace("setosa", "1"), "length,width\n"):
        for content in (text.encode(), gzip.compress(text.encode())):
            with contextlib.suppress(DataError):
                read(file, content, "species")
    assert before in (0, len(os.listdir("/proc/self/fd")) if before else 0)


# The two passes


CELLS = st.sampled_from(
    ["1", "-2.5", " 3", "4 ", "1e2", "", "x", "nan", '"5"', '"', "#", "#6", "a b", "é", "7\r", "\x00", "\x0b"]
)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=5), st.sampled_from(["a", "b", None]))
@example([["1", "2"], ["\t", "3"]], "b")
@example([['"1', '2"'], ["3", "4"]], "b")
@example([["1", '"'], ["1"]], None)
@example([["1", '"', "1"]], "b")
def test_both_passes_agree(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], target: str | None
) -> None:
    """What NumPy's parser takes, the careful pass reads the same; what it refuses, an error names."""
    file = tmp_path_factory.mktemp("read") / "t.csv"
    text = "a,b\n" + "".join(",".join(row) + "\n" for row in rows)
    place = None if target is None else ["a", "b"].index(target)
    settings = (["a", "b"], place, np.dtype(np.float32), ",")
    file.write_bytes(text.encode())
    try:
        x, cells = reading._careful(str(file), *settings)
    except ValueError:
        with pytest.raises(KarpError):
            data.read(file, target, target_as="names")
        return
    table = data.read(file, target, target_as="names")
    assert table.x.tolist() == np.delete(x, [] if place is None else place, axis=1).tolist()
    if target is not None:
        assert [table.classes[place] for place in table.y] == cells


@given(st.binary(max_size=200), st.booleans())
@example(b"a\n1", True)
@example(b"a,b\n1,\x002\n", False)
def test_any_bytes_are_a_table_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, packed: bool
) -> None:
    file = tmp_path_factory.mktemp("read") / "t.csv"
    with contextlib.suppress(DataError):
        table = read(file, gzip.compress(content) if packed else content)
        assert np.isfinite(table.x).all()


# The digits


def test_digits() -> None:
    """The numbers of the UCI test set: 1,797 digits, how many of each, and the sum of all ink."""
    file = Path(__file__).parents[2] / "workers" / "digits.csv.gz"
    table = data.read(file, target="digit")
    assert file.stat().st_size <= 100_000
    assert (table.x.shape, table.x.dtype, table.y.shape) == ((1797, 64), np.float32, (1797,))
    assert np.bincount(table.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert table.classes == tuple("0123456789")
    assert (table.columns[0], table.columns[9], table.columns[-1]) == ("pixel_0_0", "pixel_1_1", "pixel_7_7")
    assert (table.x.min(), table.x.max(), table.x.sum(dtype=np.int64)) == (0, 16, INK)
    assert table.fingerprint() == DIGITS
    train, test = table.split(test=0.2, seed=0)
    assert (len(train), len(test)) == (1438, 359)
    assert (train.fingerprint(), test.fingerprint()) == (TRAIN, TEST)
    with gzip.open(file, "rt") as lines:
        head = "".join(line for line in lines if line.startswith("#"))
    assert [word for word in ("Alpaydin", "Kaynak", "CC BY 4.0", "10.24432/C50P49") if word in head] == [
        "Alpaydin",
        "Kaynak",
        "CC BY 4.0",
        "10.24432/C50P49",
    ]
