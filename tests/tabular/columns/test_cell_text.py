"""What one cell says, by its text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.data import MISSING
from karp.tabular.columns.cell_text import (
    COMMON_MISSING,
    MISSING_WORDS,
    Kind,
    cell,
    clock_level,
    date_level,
    number_level,
)
from karp.tabular.columns.cells import level_of

INFINITE = {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "1.#INF", "-1.#INF"}


MISSING_CELLS = ["", " ", "\t", "-", "--", ".", "NA", "n/a", "N.A.", "NaN", "nan", "-nan", "null", "NULL", "None",
                 "none", "?", "<NA>", "NaT", "#N/A", " NA ", "#DIV/0!", "\\N", "\xa0"]  # fmt: skip
TEXTS = ["0x1F", "1_000", "1,5", "1.0f", "1d3", "$3", "5 %", "1 000", "\u0663", "\u0661\u0662", "1e", "oops", "nan(1)",
         "infinit", "yes", "t", "31.05.2024", "05/31/2024", "2024-13-01", "2024-02-30", "2024-01-01 25:00",
         "2024-01-01 10", "24:00", "12:60", "2024-05", "2024-1-1T00:00:60", "0000-01-01", "1 2024-01-01",
         "2024-01/01"]  # fmt: skip


@pytest.mark.parametrize("text", MISSING_CELLS)
def test_missing(text: str) -> None:
    assert Kind.MISSING is cell(text).kind
    assert math.isnan(cell(text).value)


@pytest.mark.parametrize(
    ("text", "value", "level"),
    [
        ("7", 7, "7"), (" 7", 7, "7"), ("7\t", 7, "7"), ("+5", 5, "5"), ("-0", 0, "0"), ("1.", 1, "1"),
        (".5", 0.5, "0.5"), ("1e3", 1000, "1000"), ("1E-3", 0.001, "0.001"), ("00012", 12, "12"), ("1.50", 1.5, "1.5"),
        ("3.0", 3, "3"),
        ("9007199254740993", 2**53, "9007199254740993"),
        ("9007199254740992", 2**53, "9007199254740992"),
        ("18446744073709551616", 2**64, "18446744073709551616"),
        ("1e16", 1e16, "10000000000000000"), ("1e-400", 0, "0"),
    ],
)  # fmt: skip
def test_numbers(text: str, value: float, level: str) -> None:
    assert (Kind.NUMBER, value, level) == cell(text)


@pytest.mark.parametrize("text", [*sorted(INFINITE), "1e400", "-1e400", "9" * 400, "Inf", "-Infinity"])
def test_infinite(text: str) -> None:
    assert (Kind.INFINITE, "-inf" if text[0] == "-" else "inf") == (cell(text).kind, cell(text).level)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_text(text: str) -> None:
    assert (Kind.TEXT, text) == (cell(text).kind, cell(text).level)


@pytest.mark.parametrize(
    ("text", "level"), [("true", "true"), ("True", "true"), ("FALSE", "false"), (" false ", "false")]
)
def test_truth(text: str, level: str) -> None:
    assert (Kind.TRUTH, float(level == "true"), level) == cell(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0), ("1970-1-2", 86_400), ("1970/01/02", 86_400), ("1969-12-31", -86_400),
        ("1970-01-01 00:01", 60), ("1970-01-01T00:00:01", 1), ("1970-01-01 00:00:01.25", 1.25),
        ("1970-01-01t0:00:01,5", 1.5),
        ("1970-01-01 01:00+01:00", 0), ("1970-01-01T00:00:00Z", 0), ("1970-01-01T00:00:00 -0130", 5400),
        ("1969-12-31 23:59:59.75", -0.25), ("2024-02-29", 1_709_164_800), ("2013-01-01T05:00:00Z", 1_357_016_400),
        ("9999-12-31", 253_402_214_400), ("0001-01-01", -62_135_596_800),
    ],
)  # fmt: skip
def test_dates(text: str, seconds: float) -> None:
    assert (Kind.DATE, seconds, text) == cell(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:00", 0), ("7:30", 27_000), ("23:59:59", 86_399), ("03:04:05.25", 11_045.25)]
)
def test_clocks(text: str, seconds: float) -> None:
    assert (Kind.CLOCK, seconds, text) == cell(text)


def test_the_words_of_missing_cells_are_those_of_the_other_reader_without_infinity() -> None:
    assert {word.casefold() for word in MISSING} - {word.casefold() for word in INFINITE} <= MISSING_WORDS
    assert {Kind.MISSING} == {cell(word).kind for word in COMMON_MISSING}
    assert {"", "NA", "N/A", "NaN", "nan", "null", "None", "?", "-"} <= set(COMMON_MISSING)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_it_was_written(number: float) -> None:
    assert number == cell(repr(number)).value
    assert number == float(number_level(number))
    assert cell(repr(number)).level == number_level(number)


@given(st.integers(-(10**30), 10**30))
def test_the_level_of_a_whole_number_has_all_its_digits(number: int) -> None:
    assert str(number) == cell(str(number)).level


@given(st.datetimes())
def test_a_date_is_read_as_it_was_written(when: object) -> None:
    text = str(when)
    seconds = cell(text).value
    assert Kind.DATE is cell(text).kind
    assert seconds == cell(text.replace(" ", "T") + "Z").value
    assert date_level(seconds)[:10] == text[:10]


@given(st.text())
def test_every_text_is_something_and_its_level_stays(text: str) -> None:
    kind, _, level = cell(text)
    if kind in (Kind.NUMBER, Kind.TRUTH, Kind.TEXT, Kind.INFINITE):
        assert (kind, level) == (cell(level).kind, cell(level).level)


def test_levels_of_typed_values() -> None:
    assert "2024-05-31" == level_of(Kind.DATE, cell("2024-05-31").value)
    assert "2024-05-31 17:30:00.25" == level_of(Kind.DATE, cell("2024-05-31 17:30:00.25").value)
    assert "17:30:00" == level_of(Kind.CLOCK, cell("17:30").value) == clock_level(63_000)
    assert ("true", "false") == (level_of(Kind.TRUTH, 1.0), level_of(Kind.TRUTH, 0.0))
    assert ("inf", "-inf") == (level_of(Kind.NUMBER, math.inf), level_of(Kind.NUMBER, -math.inf))
    assert "day -1000000" == date_level(-1_000_000 * 86_400.0)
