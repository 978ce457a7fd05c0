"""From raw columns to the inputs of a network: texts to levels, dates to their parts."""

from pathlib import Path

import numpy as np
import pytest
from exported import session
from hypothesis import given
from hypothesis import strategies as st

from karp.export import columns
from karp.export.graph import ROWS, Graph
from karp.tabular.columns.calendar_parts import calendar_parts
from karp.tabular.columns.cell_text import cell
from karp.tabular.columns.column_types import FIRST_LEVEL, MISSING, PARTS, Category

pytest.importorskip("onnx")

LEVELS = st.lists(
    st.sampled_from(["a", "b c", "Ü", "1", "0", "12", "-3", "0.5", "true", "false", "inf", "7:30", "2024-05-31"])
    | st.integers(0, 99_999).map(str),
    unique=True, min_size=1, max_size=8,
)  # fmt: skip


@given(LEVELS)
def test_each_spelling_is_the_level_that_karp_sees_in_it(levels: list[str]) -> None:
    known = columns.spellings(Category("x", True, tuple(levels), rare=False))
    numbers = {level: place for place, level in enumerate(levels, FIRST_LEVEL)}
    assert {text: numbers[cell(text).level] if cell(text).kind else MISSING for text in known} == known
    assert set(levels) <= set(known)
    assert {MISSING} == {known[text] for text in ("", "nan", "None", "<NA>", "NaN", "null", "-")}


def test_numbers_among_levels_have_several_spellings() -> None:
    known = columns.spellings(Category("x", False, ("0", "3", "120"), rare=False))
    same = {"0": ["0", "0.0", "-0", "-0.0", "00", "000"], "3": ["3", "3.0", "03", "003"], "120": ["120", "120.0"]}
    found = {level: [known[text] for text in texts] for level, texts in same.items()}
    assert {"0": [3] * 6, "3": [4] * 4, "120": [5] * 2} == found


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph from Unix seconds to their calendar parts."""
    path = tmp_path_factory.mktemp("parts") / "parts.onnx"
    graph = Graph("parts")
    seconds = graph.input("seconds", np.int64, [ROWS])
    made = columns._calendar_parts(graph, seconds)
    for part in PARTS:
        graph.output(made[part], part, [ROWS])
    graph.write(path)
    return path


def test_the_parts_of_dates_are_karp_s(parts: Path) -> None:
    run = session(parts)

    @given(st.lists(st.integers(-(2**45), 2**45) | st.integers(-900, 900).map(lambda days: days * 86_400), min_size=1))
    def check(seconds: list[int]) -> None:
        given = np.array(seconds, np.int64)
        expected = calendar_parts(given.astype(np.float64))
        for part, values in zip(PARTS, run.run(None, {"seconds": given}), strict=True):
            assert expected[part].tolist() == values.tolist(), part

    check()


def test_every_day_of_four_centuries_has_its_parts(parts: Path) -> None:
    days = np.arange(-719_528, -719_528 + 147_000) * 86_400
    months, dates, weekdays, _ = session(parts).run(None, {"seconds": days})
    expected = calendar_parts(days.astype(np.float64))
    assert (expected["month"] == months).all()
    assert (expected["day"] == dates).all()
    assert (expected["weekday"] == weekdays).all()
