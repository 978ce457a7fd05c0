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
from karp.data import header, reading
from karp.data.dialect import Dialect
from karp.data.text_file import opened
from karp.errors import DataError, KarpError, SettingError

IRIS = """\
# Two flowers
length,width,species
5.1,3.5,setosa
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
    "text",
    [
        "a,t\n1,0\n2,1\n",
        "a,t\r\n1,0\r\n2,1\r\n",
        "a,t\r1,0\r2,1",
        "\ufeffa,t\n1,0\n2,1",
        "\n  \n# head\na,t\n\n1,0\n   \n2,1\n\n",
        ' a , "t"\n 1 ,0\n2, 1 \n',
        ' "a" ,"t" \n "1" ,0\n2\t,\t"1"\xa0\n',
        '"a","t"\n"\n1\n",0\n2,"1\n\n"\n',
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


def test_names_are_not_compared_each_with_all_the_others() -> None:
    """Time is in proportion to the columns: gene expression has 20,000."""
    columns = [Counted(f"gene_{i}") for i in range(20_000)]
    Counted.compared = 0
    assert header._name_fault(Dialect(","), [*columns, columns[0]]).startswith("two columns are named 'gene_0'")
    assert 2 * len(columns) > Counted.compared


class Counted(str):
    """A text that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)


# Whole numbers


WHOLE = "is a whole number that float32 cannot hold"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("1700000000 1700000060", rf"line 3, column 'a': 1700000060 {WHOLE} \(it would become 1700000000\): pass d"),
        ("16777217 5", rf"line 2, column 'a': 16777217 {WHOLE} \(it would become 16777216\)"),
        ("-16777217 5", rf"line 2, column 'a': -16777217 {WHOLE} \(it would become -16777216\)"),
        ("+0016777217 5", rf"line 2, column 'a': \+0016777217 {WHOLE}"),
        ("1700000000.0 1700000060.0", "line 3, .* 1700000060.0 and 1700000000.0 are two whole numbers, .* in float32"),
        ("1.7e9 1.70000006e9", "line 3, column 'a': 1700000060.0 and 1700000000.0 are two whole numbers"),
        ("1700000000.25 1700000060.5", "line 3, column 'a': 1700000060.5 and 1700000000.25 are two whole"),
        ("-1700000000.25 -1700000060.5", "line 3, column 'a': -1700000060.5 and"),
    ],
)
def test_whole_numbers_that_float32_would_make_one(file: Path, cells: str, message: str) -> None:
    """As a feature and as a target, and float64 holds them."""
    first, second = cells.split()
    values = [[float(first)], [float(second)]]
    with pytest.raises(DataError, match=message):
        read(file, f"a,t\n{first},x\n{second},y\n", "t")
    assert read(file, f"a,t\n{first},x\n{second},y\n", "t", dtype=np.float64).x.tolist() == values
    with pytest.raises(DataError, match=message):
        read(file, f"a,b\n{first},1\n{second},2\n", "a", target_as="numbers")
    assert read(file, f"a,b\n{first},1\n{second},2\n", "a", dtype=np.float64, target_as="numbers").y.tolist() == values


@pytest.mark.parametrize("cells", ["16777216 33554436", "20000000 0.1", "1700000000 1700000128", "123456790.0 1",
                                   "0.1234567891 0.1234567892", "1.234567890123e20 1.234567890124e20"])  # fmt: skip
def test_numbers_that_float32_holds_or_rounds(file: Path, cells: str) -> None:
    first, second = cells.split()
    table = read(file, f"a,t\n{first},x\n{second},y\n", "t")
    assert table.x.tolist() == np.array([[float(first)], [float(second)]], np.float32).tolist()


def test_the_first_of_two_numbers_that_would_be_one_is_told_apart(file: Path) -> None:
    """Among many rows, and with others like them further down."""
    rows = [f"{1700000000 + 128 * i}.5" for i in range(1000)]
    rows[900], rows[500] = "1700000383.9", "-1700000000.5"
    message = "line 902, column 'a': 1700000383.9 and 1700000384.5 are two whole numbers, and would be one in float32"
    with pytest.raises(DataError, match=message):
        read(file, "a\n" + "\n".join(rows))
    rows[900] = "1700000384.25"
    assert 1000 == len(read(file, "a\n" + "\n".join(rows)))


def test_identifiers_that_float64_does_not_hold(file: Path) -> None:
    text = "a,t\n1,9007199254740992\n2,9007199254740993\n"
    lost = "9007199254740993 is a whole number that float64 cannot hold \\(it would become 9007199254740992\\)"
    with pytest.raises(DataError, match=f"line 3, column 't': {lost}: leave out a column of row names"):
        read(file, text, "a", dtype=np.float64)
    with pytest.raises(DataError, match=f"line 3, column 't': {lost}: pass target_as=\"names\""):
        read(file, text, "t", dtype=np.float64, target_as="numbers")
    assert read(file, text, "t", target_as="names").classes == ("9007199254740992", "9007199254740993")


# Errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # the header
        ("", ": the file is empty: its first line must name the columns"),
        ("\n# only this\n", ": the file is empty"),
        ("a,t\n", ": there is no row below the names"),
        ("a,t\n\n \n", ": there is no row below the names"),
        ("# c\na,b,a,t\n1,2,3,4\n", ", line 2: two columns are named 'a': rename one"),
        (",a,t\n0,1,2\n", r", line 1: column 1 of 3 has no name: .*to_csv\(index=False\)"),
        ("a,t,\n1,2,\n", ", line 1: column 3 of 3 has no name"),
        ('"a,t\n1,2\n', ", line 1: quotes do not match"),
        ("a,b\n1,2\n", ": there is no column 't' among a, b: pass target="),
        (",".join(f"c{i}" for i in range(20)) + "\n", r": .* c8, c9, \.\.\. \(20 columns\)"),
        ("t\n1\n", ": 't' is the only column"),
        # the rows
        ("a,t\n1,2\n\n3\n", ", line 4: 1 fields, and the header names 2 columns"),
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
        ("a,t\n1,0\nNA,1\n", ", line 3, column 'a': 'NA' is not a finite number: it stands for a missing value: fill"),
        ("a,t\n1,0\n?,1\n", ", line 3, column 'a': '\\?' is not a finite number: it stands for a missing value"),
        ('a,t\n1,0\n"1,5",1\n', ", line 3, column 'a': '1,5' is .*: write it with a decimal point"),
        ('a,t\n1,0\n"1,234.5",1\n', ", line 3, column 'a': '1,234.5' is .* nothing between the thousands"),
        ("a,t\n1,0\n1 234,1\n", ", line 3, column 'a': '1 234' is .* nothing between the thousands"),
        ("a,t\n1,0\n12%,1\n", ", line 3, column 'a': '12%' is .*: write the number alone"),
        ("a,t\n1,0\n$1.5,1\n", ", line 3, column 'a': '\\$1.5' is .*: write the number alone"),
        ("a,t\n1,0\n1.5 €,1\n", ", line 3, column 'a': '1.5 €' is .*: write the number alone"),
        ("a,t\n1,0\n−5,1\n", ", line 3, column 'a': '−5' is .*: write a minus as '-'"),
        ("a,t\n1,0\nTrue,1\n", ", line 3, column 'a': 'True' is .*: write 1 and 0"),
        ("a,t\n1,0\n2024-01-02,1\n", ", line 3, column 'a': '2024-01-02' is .*: turn dates and times into numbers"),
        ("a,t\n1,0\n1/2/24 03:04,1\n", ", line 3, column 'a': '1/2/24 03:04' is .*: turn dates and times"),
        ("a,t\n1,0\n03:04:05.5,1\n", ", line 3, column 'a': '03:04:05.5' is .*: turn dates and times"),
        ("a,t\n1,0\n1.5D+03,1\n", ", line 3, column 'a': '1.5D\\+03' is .*: write the exponent with e"),
        ("a,t\n1,0\n0x1F,1\n", ", line 3, column 'a': '0x1F' is .*: write it in plain decimal digits"),
        (f"a,t\n1,0\n{'long ' * 99},1\n", ", line 3, column 'a': 'long long .{,60} is not"),
        # the target
        ("a,t\n\n1,0.5\n2,1\n3,x\n", ", line 5, column 't': 'x' among numbers is not a finite number"),
        ("a,t\n1,0.5\n2,nan\n", ", line 3, column 't': 'nan' stands for a missing value"),
        ("a,t\n1,0\n2,-1\n", ", line 3, column 't': -1 is no class number in a table of 2 rows"),
        ("a,t\n1,0\n2,2\n", ", line 3, column 't': 2 is no class number in a table of 2 rows"),
        # bytes
        ("a,t\n1,x\n2,caf\xe9\n".encode("latin-1"), ", line 3: byte 0xe9 is not UTF-8: save the file"),
        ("# caf\xe9\n\xe9,t\n1,2\n".encode("latin-1"), ", line 2: byte 0xe9 is not UTF-8"),
    ],
)
def test_files_that_cannot_be_read(file: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match="^" + str(file) + message):
        read(file, text, "t")


def test_a_target_that_was_forgotten_is_advised(file: Path) -> None:
    advice = "turn a column of text into numbers first; if it is to be predicted, pass target='t'"
    with pytest.raises(DataError, match=f"'x' is not a finite number: .*{advice}$"):
        read(file, "a,t\n1,x\n2,y\n", None)
    with pytest.raises(DataError, match=r"missing value: fill it, or remove the row$"):
        read(file, "a,t\n1,NA\n2,y\n", None)


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
        ({"delimiter": "\0"}, r"delimiter is '\\x00'"),
        ({"target_as": np.array(["names", "classes"])}, "target_as is array"),
        ({"dtype": "f4,"}, "dtype is 'f4,'"),
        ({"comments": ""}, "comments is '': pass what comments begin with"),
        ({"comments": "#\n"}, "comments is"),
        ({"comments": True}, "comments is True"),
        ({"missing": "NA"}, "missing is 'NA': pass a tuple of texts"),
        ({"missing": None}, "missing is None"),
        ({"missing": ("NA", 1)}, r"missing is \('NA', 1\)"),
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
    ["1", "-2.5", " 3", "4 ", "1e2", "", "x", "nan", '"5"', '"', "#", "#6", "a b", "é", "7\r", "\x00", "\x0b", ' "8"',
     '"9" ', '\t"x" ', '"a\nb"', '"\n# c\n\n"', '""', '"a""b"', 'a"b', '"a"b', "16777217", "1700000000.5"]
)  # fmt: skip


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=5), st.sampled_from(["a", "b", None]))
@example([["1", "2"], ["\t", "3"]], "b")
@example([['"1', '2"'], ["3", "4"]], "b")
@example([["1", '"'], ["1"]], None)
@example([["1", '"', "1"]], "b")
@example([["1", '"a'], ['" '], ["2", '"\na"']], "b")
def test_both_passes_agree(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], target: str | None) -> None:
    """What NumPy's parser takes, the careful pass reads the same; what it refuses, an error names."""
    file = tmp_path_factory.mktemp("read") / "t.csv"
    text = "a,b\n" + "".join(",".join(row) + "\n" for row in rows)
    place = None if target is None else ["a", "b"].index(target)
    file.write_bytes(text.encode())
    try:
        with opened(file) as source:
            x, cells = reading._careful(source, Dialect(","), ["a", "b"], place, np.dtype(np.float64))
    except ValueError:
        with pytest.raises(KarpError):
            data.read(file, target, target_as="names", missing=())
        return
    table = data.read(file, target, np.float64, target_as="names", missing=())
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
