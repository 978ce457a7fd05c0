"""Encoding: what a row becomes, term by term."""

from typing import Any

import numpy as np
import pytest
from random_rows import SCHEMA, rows

from karp.errors import ShapeError
from karp.tabular.columns.column_types import Category, Number, Schema
from karp.tabular.network import encoding
from karp.tabular.network.encoding import MOST_DENSE, Encoding
from karp.tabular.network.preprocessing import Preprocessing

NAN = float("nan")


def encode(schema: Schema, numbers: Any, categories: Any, bins: int = 16, learn: Any = None) -> Any:
    numbers = np.array(numbers, np.float64).reshape(len(numbers), -1)
    learnt = Preprocessing.learn(numbers if learn is None else np.array(learn), schema.numbers)
    categories = np.array(categories, np.int32).reshape(len(numbers), -1)
    return Encoding(schema, learnt, bins)(learnt.scale(numbers), categories)


def test_numbers_are_pieces_and_a_clipped_self() -> None:
    dense, gathered = encode(Schema((Number("a", False),)), [[0.0], [2.0], [3.0], [10.0], [-10.0]], np.empty((5, 0)),
                             learn=[[0.0], [1.0], [2.0], [3.0], [4.0]])  # fmt: skip
    pieces = [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(pieces, dense[:, :4], atol=1e-6)
    scaled = np.array([-1.0, 0.0, 0.5, 4.0, -6.0])
    np.testing.assert_allclose(scaled / np.sqrt(1 + (scaled / 3) ** 2), dense[:, 4], rtol=1e-6)
    assert gathered is None


def test_pieces_are_linear_within_a_bin_and_may_be_fewer_or_none() -> None:
    schema = Schema((Number("a", False),))
    learn = [[float(number)] for number in range(17)]
    assert [0.5, 0.0] == encode(schema, [[4.0]], [[]], 2, learn).dense[0, :2].tolist()
    assert (1, 1) == encode(schema, [[4.0]], [[]], 0, learn).dense.shape
    assert (1, 17) == encode(schema, [[4.0]], [[]], 16, learn).dense.shape


@pytest.mark.parametrize(("numbers", "bins"), [(2, 16), (3, 10), (20, 1), (40, 0)])
def test_a_wide_table_has_fewer_bins(numbers: int, bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MOST_PIECES", 32)
    schema = Schema(tuple(Number(str(place), False) for place in range(numbers)))
    learnt = Preprocessing.learn(np.tile(np.arange(20.0)[:, None], numbers), schema.numbers)
    assert numbers * (bins + 1) == Encoding(schema, learnt, 16).dense


def test_a_missing_number_is_the_median_and_one_at_its_indicator() -> None:
    schema = Schema((Number("a", True), Number("b", False)))
    learn = [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    dense = encode(schema, [[NAN, NAN], [1.0, 1.0]], [[], []], learn=learn).dense
    np.testing.assert_array_equal(dense[1, :-1], dense[0, :-1])
    assert [1.0, 0.0] == dense[:, -1].tolist()


def test_a_category_is_one_hot_of_what_training_had() -> None:
    levels = ("x", "y", "z")
    plain, missing, rare = (
        encode(Schema((Category("c", *options),)), np.empty((6, 0)), [0, 1, 2, 3, 4, 5]).dense.tolist()
        for options in ((False, levels, False), (True, levels, False), (True, levels, True))
    )
    zeros = [0.0] * 3
    assert [zeros, zeros, zeros, *np.eye(3).tolist()] == plain
    assert [[1.0, *zeros], [0.0, *zeros], [0.0, *zeros]] == missing[:3]
    assert [[1.0, 0.0, *zeros], [0.0, 1.0, *zeros], [0.0, 0.0, *zeros]] == rare[:3]
    assert np.eye(5)[2:].tolist() == rare[3:]


def test_two_states_are_one_number() -> None:
    both = encode(Schema((Category("c", False, ("x", "y"), False),)), np.empty((5, 0)), [0, 1, 2, 3, 4]).dense
    assert [[0.0], [0.0], [0.0], [-1.0], [1.0]] == both.tolist()
    gap = encode(Schema((Category("c", True, ("x",), False),)), np.empty((4, 0)), [0, 1, 2, 3]).dense
    assert [[-1.0], [0.0], [0.0], [1.0]] == gap.tolist()


def test_many_states_are_rows_of_the_weight() -> None:
    many = tuple(map(str, range(MOST_DENSE + 1)))
    two = Category("b", False, ("x", "y"), False)
    columns = Category("a", False, many, False), two, Category("c", True, many, False)
    dense, gathered = encode(Schema(columns), np.empty((3, 0)), [[3, 3, 0], [35, 4, 3], [2, 2, 2]])
    assert [[-1.0], [1.0], [0.0]] == dense.tolist()
    beyond = 2 * len(many) + 1
    assert [[0, len(many)], [len(many) - 1, len(many) + 1], [beyond, beyond]] == gathered.tolist()


def test_rows_are_encoded_each_by_itself() -> None:
    table = rows(50)
    encoding = Encoding(SCHEMA, table.preprocessing, 16)
    together = encoding(table.numbers, table.categories)
    for row in range(50):
        part = slice(row, row + 1)
        alone = encoding(table.numbers[part], table.categories[part])
        np.testing.assert_array_equal(together.dense[part], alone.dense)
        np.testing.assert_array_equal(together.rows[part], alone.rows)  # type: ignore[index]
    assert np.isfinite(together.dense).all()
    assert encoding.dense == together.dense.shape[1]
    assert encoding.dense + encoding.gathered == len(encoding.features)
    assert [0, 1, 2, 3, 4, 5] == np.unique(encoding.features).tolist()


def test_a_preprocessing_of_other_numbers_is_refused() -> None:
    with pytest.raises(ShapeError, match="others"):
        Encoding(SCHEMA, Preprocessing.learn(np.ones((2, 1)), ("size",)), 16)
