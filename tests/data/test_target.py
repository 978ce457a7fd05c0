"""What a target becomes, and an error with line, column and what to do for cells that it cannot become."""

from pathlib import Path

import numpy as np
import pytest

from karp import data
from karp.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def read(file: Path, cells: str, target_as: str | None = None, **settings: object) -> data.Table:
    file.write_text("a,t\n" + "".join(f"0,{cell}\n" for cell in cells.split()))
    return data.read(file, "t", target_as=target_as, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cells", "target_as", "y", "classes"),
    [
        ("0 2 1 2", None, [0, 2, 1, 2], "012"),
        ("+1 " + "0" * 5000 + " +1", None, [1, 0, 1], "01"),
        ("01 02 00 01", None, [1, 2, 0, 1], "012"),
        ("1.5 2 -3 1e2", None, [[1.5], [2], [-3], [100]], ""),
        ("0.0 1.0 1.0 0.0", None, [[0], [1], [1], [0]], ""),
        ("no yes no no", None, [0, 1, 0, 0], ("no", "yes")),
        ("True False True 1_0", None, [2, 1, 2, 0], ("1_0", "False", "True")),
        ("C# C C++ C#", None, [1, 0, 2, 1], ("C", "C#", "C++")),
        ("0 2 1 2", "numbers", [[0], [2], [1], [2]], ""),
        ("-1 250000 3 4", "numbers", [[-1], [250000], [3], [4]], ""),
        ("-1 1 1 -1", "names", [0, 1, 1, 0], ("-1", "1")),
        ("nano 1 x 1", "names", [1, 0, 2, 0], ("1", "nano", "x")),
        ("- + - +", None, [1, 0, 1, 0], ("+", "-")),
        (">50 <=50 >50", None, [1, 0, 1], ("<=50", ">50")),
        ("2024-01-02 2023-01-02", None, [1, 0], ("2023-01-02", "2024-01-02")),
        ("0.0 1.0 1.0 7", "classes", [0, 1, 1, 7], "01234567"),
    ],
)
def test_targets(
    file: Path, cells: str, target_as: str | None, y: list[object], classes: str | tuple[str, ...]
) -> None:
    table = read(file, cells, target_as)
    assert table.y.tolist() == y
    assert table.classes == tuple(classes)
    assert table.y.dtype == (np.float32 if table.y.ndim == 2 else np.int64)


MISSING = ["NA", "na", "N/A", "n/a", "nan", "NaN", "NAN", "-nan", "None", "none", "null", "NULL", "<NA>", "NaT", "#N/A",
           "?", "inf", "-inf", "+Inf", "Infinity", "-infinity", "1.#QNAN", "#DIV/0!", "(null)", "\\N"]  # fmt: skip


@pytest.mark.parametrize("target_as", [None, "names", "classes", "numbers"])
@pytest.mark.parametrize("text", MISSING)
def test_a_missing_value_is_no_class(file: Path, text: str, target_as: str | None) -> None:
    for cells in (f"0 {text} 1", f"x {text} y", f"0.5 {text} 1.5"):
        with pytest.raises(DataError) as caught:
            read(file, cells, target_as)
        if target_as not in ("classes", "numbers") or cells[0] == "0":
            assert f"line 3, column 't': {text!r} stands for a missing value: fill it, or" in str(caught.value)
    assert tuple(sorted((text, "x", "y"))) == read(file, f"x {text} y", missing=()).classes


def test_which_values_are_missing_can_be_said(file: Path) -> None:
    for missing in (["-999"], {"-999"}, (*data.MISSING, "-999")):
        with pytest.raises(DataError, match="line 3, column 't': '-999' stands for a missing value"):
            read(file, "1 -999", "numbers", missing=missing)
    assert ("NA", "x") == read(file, "x NA", missing=["-999"]).classes


@pytest.mark.parametrize("target_as", [None, "classes"])
@pytest.mark.parametrize("cells", ["1 01", "001 1", "0 1 +1", "0 -0", "0 00", "1.0 1", "1 1e0", "1.0 1.00", "01 1.0"])
def test_two_spellings_of_one_class_number(file: Path, cells: str, target_as: str | None) -> None:
    if target_as is None and set(cells) & set(".e"):
        assert () == read(file, cells).classes  # numbers to predict
        return
    *_, other, last = cells.split()
    line = len(cells.split()) + 1
    with pytest.raises(DataError) as caught:
        read(file, cells, target_as)
    assert f"line {line}, column 't': {last!r} and {other!r} would be one class: write them alike" in str(caught.value)
    assert tuple(sorted(cells.split())) == read(file, cells, "names").classes


@pytest.mark.parametrize(
    ("cells", "target_as", "message"),
    [
        ("0 -1", "classes", "line 3, column 't': '-1' is no class number"),
        ("0 1.5", "classes", "line 3, column 't': '1.5' is no class number"),
        ("0 x", "classes", "line 3, column 't': 'x' is no class number"),
        ("0 99999999999999999999", "classes", "is no class number from 0 to 1048575"),
        ("0 x", "numbers", "line 3, column 't': 'x' is no finite float32"),
        ("0 1e39", "numbers", "line 3, column 't': '1e39' is no finite float32: pass dtype=np.float64"),
        ("0.5 1e39", None, "line 3, column 't': '1e39' is no finite float32: pass dtype=np.float64"),
        ("0.5 1;5", None, "line 3, column 't': '1;5' among numbers is not a finite number: repair it, or pass t"),
        ("$3 $1.200", None, "line 2, column 't': '\\$3' looks like a number: write the number alone"),
        ("5% 12%", None, "line 2, column 't': '5%' looks like a number"),
        ("0 5%", None, "line 3, column 't': '5%' among numbers is not a finite number: write the number alone"),
        ("0 5%", "numbers", "line 3, column 't': '5%' is no finite float32: write the number alone"),
    ],
)
def test_targets_that_are_not_what_was_said(file: Path, cells: str, target_as: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(file, cells, target_as)


def test_decimal_commas(file: Path) -> None:
    """A column of them is numbers, not classes."""
    file.write_text("a;t\n1;1,5\n2;2,5\n")
    with pytest.raises(DataError, match="line 2, column 't': '1,5' looks like a number: write it with a decimal point"):
        data.read(file, "t", delimiter=";")
    assert ("1,5", "2,5") == data.read(file, "t", delimiter=";", target_as="names").classes


def test_a_zero_byte_is_no_class(file: Path) -> None:
    """Far into the file, where a crash may have left a block of them."""
    with pytest.raises(DataError, match=r"line 40002, column 't': .* holds a zero byte: the file is damaged"):
        read(file, "x " * 40_000 + "y\0\0")
