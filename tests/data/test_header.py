"""Names of columns, comments and delimiters, and files that have none or others."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp import data
from karp.data.dialect import Dialect
from karp.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def read(file: Path, text: str, target: str | None = None, **settings: object) -> data.Table:
    file.write_text(text)
    return data.read(file, target, **settings)  # type: ignore[arg-type]


WINE = '"fixed acidity";"volatile acidity";"quality"\n7.4;0.7;1\n7.8;0.88;0\n'
IRIS = "5.1,3.5,1.4,0.2,setosa\n4.9,3.0,1.4,0.2,setosa\n6.3,3.3,6.0,2.5,virginica\n"
ADULT = "39, State-gov, 77516, Bachelors, 13, <=50K\n50, Self-emp, 83311, HS-grad, 9, >50K\n"
ADD = "add a line of column names above it"
ROW = f"the first line looks like a row: {ADD}"


@pytest.mark.parametrize("other", ",\t| ")
@pytest.mark.parametrize("mark", ";\t|,")
def test_a_quoted_header_with_another_delimiter(file: Path, mark: str, other: str) -> None:
    text = WINE.replace(";", mark)
    assert ("fixed acidity", "volatile acidity") == read(file, text, "quality", delimiter=mark).columns
    if mark != other:
        for target in ("quality", None):
            with pytest.raises(DataError, match=f"line 1: its cells are not separated by .*: pass delimiter={mark!r}"
                               .replace("|", r"\|").replace("\\t", r"\\t")):  # fmt: skip
                read(file, text, target, delimiter=other)


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        # no names: data people publish so
        (IRIS, "species", rf"there is no column 'species' among 5.1, 3.5, 1.4, 0.2, setosa: {ROW}"),
        (IRIS, "setosa", f"line 2, column 'setosa': the column's name stands in the column, .*: {ROW}"),
        ("M,0.455,0.365,15\nF,0.35,0.265,7\nM,0.3,0.2,8\n", "M", f"line 3, column 'M': the column's name .*: {ROW}"),
        ("M,0.455,0.365,15\nF,0.35,0.265,7\n", "rings", ROW),
        ("5,cat\n3,dog\n4,cat\n", "cat", f"line 3, column 'cat': the column's name stands .*: {ROW}"),
        ("1,2,3,cat\n3,4,4,dog\n4,5,5,cat\n", "cat", f"line 3, column 'cat': the column's name stands .*: {ROW}"),
        ("5,cat\n3,dog\n4,cat\n", "animal", f"among 5, cat: name one of them, or, if the first line is a row, {ADD}"),
        (ADULT, "income", ROW),
        (ADULT, "<=50K", f"line 2, column 'State-gov': 'Self-emp' is not .*if the first line is a row, {ADD}"),
        (ADULT, None, f"if the first line is a row, {ADD}"),
        ("5,1,1,1,2,1,3,1,1,2\n5,4,4,5,7,10,3,2,1,2\n", "class", f"line 1: the first line holds only numbers: {ADD}"),
        ("1,1.52,13.64,0.00,0.00,1\n2,1.51,13.89,0.00,0.00,1\n", "type", f"the first line holds only numbers: {ADD}"),
        ("1,M,2,2,3\n0,F,2,2,1\n", "sex", rf"line 1: the first line looks like a row \(1, M, 2, 2, 3\): {ADD}"),
        ("5,M,,2,3\n0,F,2,2,1\n", "sex", rf"line 1: the first line looks like a row \(5, M, , 2, 3\): {ADD}"),
        # a comment that names them
        ("# a,b\n1,0\n2,1\n", "b", r"line 2: the first line holds only numbers: if line 1 names them \(a, b\), remove "
         f"its '#'; if not, {ADD}"),
        ("#a,b\n1.5,0\n2.5,1\n", None, r"if line 1 names them \(a, b\), remove its '#'"),
        ("# by me\n#a,b\n1.5,x\n2.5,y\n", "b", r"no column 'b' among 1.5, x: if line 2 names them \(a, b\), remove"),
        ("# a,b,c\n0,1,2\n3,4,0\n", "2", r"if line 1 names them \(a, b, c\), remove"),
        ("# a,b\n1,x\n2,y\n", None, r"line 3, column 'x': 'y' is not .*if line 1 names them \(a, b\), remove"),
        ("#,Name,x,y\n1,Bulb,3,0\n", "y", r"if line 1 names them \(, Name, x, y\), put its '#' in quotes"),
        ("# a,b\n", "b", r"the file is empty but for comments, the last in line 1 \('a,b'\)"),
        ("% a,b\n% c\n1.5,x\n", "b ", r"no column 'b ' among % a, b: pass comments='%' if lines that begin so are"),
        ("// by me\na,b\n1.5,x\n", "b", "no column 'b' among // by me: pass comments='//' if lines that begin so"),
        # other delimiters, or none
        ("a;t\n1;2\n", "t", "there is no column 't' among a;t: pass delimiter=';'"),
        ("a\tt\n1\t2\n", "t", r"there is no column 't' among a\tt: pass delimiter='\\t'"),
        ("a;t\n1;2\n", None, "line 2, column 'a;t': '1;2' is not a finite number: pass delimiter=';'"),
        ("a  b   t\n4.9  3.0   2\n", "t", "put one delimiter in the place of each run of blanks"),
        ('"a" "b"\n"1" 1 2\n', "b", "line 1: its cells are not separated by ',': pass delimiter=' '"),
        ("a,t\n1;2\n", "t", "line 2: 1 fields, and the header names 2 columns: pass delimiter=';'"),
        ("a;b\n1,5;2,5\n", None, "line 2: 3 fields, and the header names 1 columns: pass delimiter=';'"),
        # Excel, R, pandas
        ("sep=;\na;b\n1;2\n", "b", "line 1: 'sep=;' is a note for Excel: remove the line and pass delimiter=';'"),
        ('"sep=,"\na,b\n1,2\n', "b", "is a note for Excel: remove the line$"),
        ("a,b,,,\n1,2,,,\n", "b", "line 1: column 3 of 5 has no name: .*',' may end each line: remove it there"),
        ("a,b\n1,2,\n3,4,\n", "b", "line 2: 3 fields, .* 2 columns: if ',' ends the line, remove it there"),
        ("a,b\n1,2,,,\n", "b", "line 2: 5 fields, .* 2 columns: if ',' ends the line, remove it there"),
        ('"a","b"\n"1",1,2\n"2",2,3\n', "b", r"line 2: 3 fields, .* 2 columns: .*row.names = FALSE"),
        (",a,t\n0,1,2\n", "t", r"line 1: column 1 of 3 has no name: .*to_csv\(index=False\)"),
        # lines that are no rows
        ("a,t\n1,x\na,t\n2,y\n", "t", "line 3, column 'a': 'a' is not a finite number: remove the line if the names"),
        ("a,t\n1,x\n<<<<<<< HEAD\n2,y\n", "t", "line 3: 1 fields, .*a merge has left a conflict: resolve it"),
        ("a,t\n1,x\n# note\n", "t", "line 3: 1 fields, .*pass comments='#' if lines that begin so are comments"),
        ("a,t\n#1,x\n", "t", "line 2, column 'a': '#1' is not a finite number: pass comments='#'"),
        # quotes
        ('a,t\n1,"x\n2,y\n', "t", "line 2: quotes do not match: the cell .* with one in column 2 is not closed"),
        ('a,t\n"1"2,y\n', "t", "line 2: quotes do not match: .* in column 1 has text behind its closing quote"),
        ('"x\n\n,t\n1,2\n', "t", "line 1: quotes do not match: .* in column 1 is not closed"),
    ],
)  # fmt: skip
def test_words_that_can_be_followed(file: Path, text: str, target: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(file, text, target)
    assert "pass target=<one of them>" not in str(caught.value)
    assert "rename" not in str(caught.value)


def test_two_columns_of_one_name(file: Path) -> None:
    """Of texts, as in UCI's mushrooms: a row or not, nobody knows."""
    message = f"line 1: two columns are named 'p': rename one; if the first line is a row, {ADD}"
    with pytest.raises(DataError, match=message):
        read(file, "p,x,s,n,p\ne,x,s,y,a\n", "class")


@pytest.mark.parametrize(
    ("text", "target", "columns", "classes"),
    [
        ("x,spam\n1,spam\n2,ham\n", "spam", ("x",), ("ham", "spam")),
        ("c,1990,1991\na,2,3\nb,4,5\n", "c", ("1990", "1991"), ("a", "b")),
        ("400.5,401.5,402,c\n1,2,3,a\n4,5,6,b\n", "c", ("400.5", "401.5", "402"), ("a", "b")),
        ("0,1,c\n1,2,a\n4,5,b\n", "c", ("0", "1"), ("a", "b")),
        ("# of, me\nx,c\n1,a\n4,b\n", "c", ("x",), ("a", "b")),
        ('"#",c\n1,a\n4,b\n', "c", ("#",), ("a", "b")),
        ('x;y,"c\n;"\n1,a\n4,b\n', "c\n;", ("x;y",), ("a", "b")),
    ],
)
def test_names_that_only_look_like_a_row(
    file: Path, text: str, target: str, columns: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    table = read(file, text, target)
    assert (table.columns, table.classes) == (columns, classes)


# Comments


def test_comments_stand_above_the_names_alone(file: Path) -> None:
    table = read(file, "# hex\n#\n\ncolor,x\n#ff0000,1\n#00ff00,2\nred,3\n", "color")
    assert (table.x.tolist(), table.classes) == ([[1], [2], [3]], ("#00ff00", "#ff0000", "red"))


@pytest.mark.parametrize("mark", ["#", "%", "//", "é"])
def test_comments_that_are_asked_for(file: Path, mark: str) -> None:
    text = f'{mark} c\n"t",a\n{mark}x,1\n"{mark}y",2\n\n {mark}z,3\nw{mark},4\n{mark}'
    table = read(file, text, "t", comments=mark)
    assert (table.x.tolist(), table.classes) == ([[2], [3], [4]], tuple(sorted((f"{mark}y", f"{mark}z", f"w{mark}"))))


def test_asked_for_they_take_the_place_of_the_default(file: Path) -> None:
    assert ("#a",) == read(file, "% x\n#a,b\n1,0\n% y\n2,1\n", "b", comments="%").columns


# Dialect over several lines, and blanks around quotes


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_cell_over_several_lines(file: Path, end: str) -> None:
    text = '# c\n"te\nmp",t\n1,"x\n\n# y"\n"2","a\nb"\n3,"x\n\n# y"\n'
    table = read(file, text.replace("\n", end), "t")
    assert (table.columns, table.classes, table.y.tolist()) == (("te\nmp",), ("a\nb", "x\n\n# y"), [1, 0, 1])
    for row, message in (
        ("z,1", r"line 12, column 'te\\nmp': 'z' is not a finite number"),
        ("1", "line 12: 1 fields, and the header names 2 columns"),
        ("1,\n", "line 12, column 't': the cell is empty"),
        ('1,"\n', "line 12: quotes do not match"),
        ("1,NA", "line 12, column 't': 'NA' stands for a missing value"),
    ):
        with pytest.raises(DataError, match=message):
            read(file, (text + row).replace("\n", end), "t")


@pytest.mark.parametrize("line", ["2,y\n", '2,a""b\n'])
def test_a_quote_that_is_never_closed_ends_somewhere(file: Path, line: str) -> None:
    """Not all of a large file is taken for one cell."""
    with pytest.raises(DataError, match=r"line 2: quotes do not match: .* in column 2 is not closed"):
        read(file, 'a,t\n1,"x\n' + line * 60_000 + '3,"z"\n', "t")


def test_a_record_of_many_cells_over_several_lines(file: Path) -> None:
    names = ",".join(f'"a{i};\n""b"" "' for i in range(9000))
    table = read(file, f"{names} ,t\n" + "1," * 9000 + "x\n", "t")
    with pytest.raises(DataError, match=r'no column \'y\' among a0;\\n"b", a1;'):
        data.read(file, "y")
    assert ('a0;\n"b"', 'a8999;\n"b"', 9000) == (table.columns[0], table.columns[-1], len(table.columns))


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_blanks_around_quotes(file: Path, delimiter: str) -> None:
    """One class is not two, wherever the blank stands and whatever blank it is."""
    blank = " " if delimiter == "\t" else "\t"
    rows = ['1,"x"', '2, "x"', '3 ,"x" ', f'{blank}"4"{blank},{blank}"x"{blank}', '5,\u00a0"x"', "6, x ", '7," x "']
    rows.append('8,"y"')
    text = ' "a" , "t" \n' + "\n".join(rows) + "\n"
    table = read(file, text.replace(",", delimiter), "t", delimiter=delimiter)
    assert (table.columns, table.classes, table.y.tolist()) == (("a",), ("x", "y"), [0] * 7 + [1])
    assert table.x[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_quote_inside_a_cell_is_text(file: Path) -> None:
    assert ('5" pipe', 'say "x"') == read(file, 'a,t\n1,5" pipe\n2,say "x"\n', "t").classes


@given(
    st.lists(st.text(st.sampled_from("ab1 \",;\t\n'#é|"), max_size=6), min_size=1, max_size=5),
    st.sampled_from(",;|\t "),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_cells_are_those_that_the_csv_module_writes(cells: list[str], delimiter: str, quoting: int) -> None:
    into = io.StringIO()
    csv.writer(into, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerow(cells)
    assert [cell.strip() for cell in cells] == Dialect(delimiter).split(into.getvalue())
