"""The target's task and classes, rows without a target, and weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import text_cells

from karp.errors import DataError, SettingError
from karp.tabular.columns.cells import Cells
from karp.tabular.columns.sources import open_cells
from karp.tabular.columns.target import Target, Task, learn_target, target_classes, target_values, weights

Column = list[str | None]


def cells_of(column: Column, size: int = 1000) -> Cells:
    return text_cells({"y": column}, size)


@pytest.mark.parametrize(
    ("column", "task", "expected", "rows"),
    [
        (["a", "b"] * 3, None, Target("y", "level", ("a", "b")), 6),
        (["b", " a", "", "NA"] * 2, None, Target("y", "level", ("a", "b")), 4),
        (["True", "false"] * 2, None, Target("y", "level", ("false", "true")), 4),
        (["0", "1"] * 2, None, Target("y", "level", ("0", "1")), 4),
        (["-1", "1.0"] * 2, None, Target("y", "level", ("-1", "1")), 4),
        (["0", "1", "2"] * 10, None, Target("y", "level", ("0", "1", "2")), 30),
        ([str(place % 11 + 1) for place in range(110)], None,
         Target("y", "level", tuple(str(place) for place in range(1, 12))), 110),
        (["0", "1", "2"] * 9, None, Target("y", "number"), 27),  # fewer than ten rows a class
        (["0", "1", "3"] * 10, None, Target("y", "number"), 30),  # a gap
        (["2", "3", "4"] * 10, None, Target("y", "number"), 30),
        ([str(place % 31) for place in range(400)], None, Target("y", "number"), 400),
        (["0", "1", "2"] * 10, "regression", Target("y", "number"), 30),
        (["0", "1.5", "10"] * 2, "classification", Target("y", "level", ("0", "1.5", "10")), 6),
        (["1.5", "2", "", "7"], None, Target("y", "number"), 3),
        (["1.5", "2.5"] * 99 + ["oops"], None, Target("y", "number"), 198),
        (["2024-01-01", "2024-01-02"], None, Target("y", "date"), 2),
        (["7:30", "8:30"], None, Target("y", "clock"), 2),
        (["2024-01-01", "2024-01-02"] * 2, "classification", Target("y", "level", ("2024-01-01", "2024-01-02")), 4),
        (["1"] * 97 + ["x"] * 3, None, Target("y", "level", ("1", "x")), 100),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_a_target_becomes(column: Column, task: Task | None, expected: Target, rows: int, size: int) -> None:
    learnt = learn_target(cells_of(column, size), "y", task)
    assert (expected, rows) == (learnt.target, learnt.rows)
    assert expected == Target.from_dict(json.loads(json.dumps(learnt.target.to_dict())))
    assert ("regression" if expected.kind != "level" else "classification") == learnt.target.task


@pytest.mark.parametrize(
    ("column", "task", "notes"),
    [
        (["a", "b"] * 2, None, ()),
        (["a", "b", "", None] * 2, None, ("4 of 8 rows have no target in 'y' and are left out",)),
        (["0", "1"] * 2, None,
         ("target 'y': its 2 numbers are classes; pass regression as the task if they are values",)),
        (["1.5", "2.5"] * 99 + ["oops"], None, ("target 'y': 1 of 199 cells is no finite number and counts as missing "
         "(row 198: 'oops'); these rows are left out",)),
    ],
)  # fmt: skip
def test_what_is_said(column: Column, task: Task | None, notes: tuple[str, ...]) -> None:
    assert notes == learn_target(cells_of(column), "y", task).notes


@pytest.mark.parametrize(
    ("column", "task", "message"),
    [
        ([], None, "t: there are no rows"),
        (["", "NA"], None, "t, column 'y': every cell is missing, so there is nothing to learn"),
        (["a", "a"], None, "t, column 'y': every row is of the class 'a': there is nothing to learn"),
        (["2", "2"], None, "t, column 'y': every cell is 2, so there is nothing to learn"),
        (["a", "b", "a"], None, r"t, column 'y': a class has one row \(row 1: 'b'\), and it takes two"),
        (list("abcdefg"), None, r"one row \(row 0: 'a', row 1: 'b', row 2: 'c', row 3: 'd', row 4: 'e' and 2 more\)"),
        (["1.5", "2", "2"], "classification", r"\(row 0: '1.5'\).* or pass regression as the task if they are numbers"),
        (["a", "b"] * 2, "regression", r"t, column 'y': it is no column of numbers \(row 0: 'a', .*\): repair it"),
    ],
)  # fmt: skip
def test_what_cannot_be_predicted(column: Column, task: Task | None, message: str) -> None:
    for size in (1, 1000):
        with pytest.raises(DataError, match=message):
            learn_target(cells_of(column, size), "y", task)


def test_arguments() -> None:
    with pytest.raises(DataError, match=r"t: there is no column 'z' to predict among y: pass one of these$"):
        learn_target(cells_of(["a"]), "z")
    with pytest.raises(SettingError, match="task is 'classify': pass classification or regression"):
        learn_target(cells_of(["a"]), "y", "classify")  # type: ignore[arg-type]


CELLS = st.sampled_from(["a", " b", "c", "1", "1.0", "2", "", "NA", None, "true", "7:30", "2024-01-01", "oops", "inf"])


@given(st.lists(CELLS, min_size=1, max_size=12), st.integers(1, 12))
def test_each_row_is_converted_by_itself(column: Column, size: int) -> None:
    classes = Target("y", "level", ("1", "a", "b", "true"))
    for target, convert in ((classes, target_classes), (Target("y", "number"), target_values)):
        at_once = [convert(target, batch) for batch in cells_of(column).batches(None)]
        parts = [convert(target, batch) for batch in cells_of(column, size).batches(None)]
        np.testing.assert_array_equal(np.concatenate(at_once), np.concatenate(parts))


@given(st.lists(st.one_of(CELLS, st.sampled_from(["9007199254740993", "9007199254740992"])), min_size=2, max_size=9))
def test_neither_batches_nor_the_order_of_rows_show(column: Column) -> None:
    outcomes = []
    for given_, size in ((column * 2, 99), (column * 2, 1), (column[::-1] * 2, 4)):
        try:
            learnt = learn_target(cells_of(given_, size), "y", "classification")
            outcomes.append((learnt.target, learnt.rows))
        except DataError as error:
            outcomes.append((type(error), 0))  # type: ignore[arg-type]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_class_numbers_and_values() -> None:
    (batch,) = cells_of(["a", " b", "NA", "new", "1.0", None]).batches(None)
    assert [1, 2, -1, -2, 0, -1] == target_classes(Target("y", "level", ("1", "a", "b")), batch).tolist()
    (batch,) = cells_of(["1.5", "x", "", "inf", "2024-01-01"]).batches(None)
    np.testing.assert_array_equal([1.5] + [np.nan] * 4, target_values(Target("y", "number"), batch))
    np.testing.assert_array_equal([np.nan] * 4 + [1_704_067_200], target_values(Target("y", "date"), batch))
    with open_cells({"y": np.array([1.0, np.nan, 3.0, np.inf])}) as cells:
        (batch,) = cells.batches(None)
        assert [0, -1, -2, -2] == target_classes(Target("y", "level", ("1", "2")), batch).tolist()
        np.testing.assert_array_equal([1, np.nan, 3, np.nan], target_values(Target("y", "number"), batch))
        with pytest.raises(DataError, match="column 'y': it holds numbers, and the target was dates"):
            target_values(Target("y", "date"), batch)


@pytest.mark.parametrize(
    "plain",
    [
        None, {}, {"name": "y", "kind": "level", "classes": ["a"]},
        {"name": "y", "kind": "level", "classes": ["a", "a"]},
        {"name": "y", "kind": "number", "classes": ["a", "b"]}, {"name": "y", "kind": "x", "classes": []},
        {"name": 1, "kind": "number", "classes": []}, {"name": "y", "kind": [], "classes": []},
        {"name": "y", "kind": "level", "classes": "ab"}, {"name": "y", "kind": "level", "classes": [1, 2]},
    ],
)  # fmt: skip
def test_what_is_no_target(plain: object) -> None:
    with pytest.raises(DataError, match="is no target"):
        Target.from_dict(plain)


def test_weights(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.csv"
    for cell, message in (
        ("-1", "'-1'"), ("", "''"), ("NA", "'NA'"), ("inf", "'inf'"), ("x", "'x'"), ("true", "'true'"),
    ):  # fmt: skip
        path.write_text(f'w,y\n1,"two\nlines"\n0,b\n{cell},c\n')
        with open_cells(path) as cells:
            (batch,) = cells.batches(None)
            with pytest.raises(
                DataError, match=rf"t\.csv, line 5, column 'w': the weight is {message}: a weight is a finite"
            ):
                weights(cells, "w", batch)
    path.write_text("w,y\n1,a\n0,b\n 2.5,c\n")
    with open_cells(path) as cells:
        assert [1, 0, 2.5] == weights(cells, "w", next(cells.batches(None))).tolist()
    good: dict[str, Any] = {"w": [1.0, 0.0]}
    bad: dict[str, Any] = {"w": [1.0, np.nan]}
    with open_cells(good) as cells:
        assert [1, 0] == weights(cells, "w", next(cells.batches(None))).tolist()
    for source in (bad, {"w": [True, False]}):
        with (
            open_cells(source) as cells,
            pytest.raises(DataError, match=r"the table, row .*, column 'w': the weight is"),
        ):
            weights(cells, "w", next(cells.batches(None)))
