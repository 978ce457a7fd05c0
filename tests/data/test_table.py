"""Tables: splitting, scaling and fingerprints."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.data import Table, fingerprint
from karp.errors import DataError, SettingError, ShapeError

GOLDEN = [0, 5, 6, 11, 15]
GOLDEN_FINGERPRINT = "671303de75d35cf372647e7df16f276b"


def table(samples: int) -> Table:
    """Row i holds i, so a row is known by its value wherever it goes."""
    x = np.arange(samples, dtype=np.float32).reshape(samples, 1)
    return Table(x, np.arange(samples, dtype=np.int64) % 3, ("row",), "class", ("a", "b", "c"))


def rows(part: Table) -> list[int]:
    return part.x[:, 0].astype(int).tolist()


# Tables


def test_a_table_has_a_length_and_says_what_it_is() -> None:
    assert len(table(5)) == 5
    assert repr(table(5)) == "Table(5 rows, 1 columns of float32, target 'class', 3 classes)"
    assert repr(Table(np.zeros((2, 3)), np.zeros((2, 0)))) == "Table(2 rows, 3 columns of float64)"


def test_features_become_c_ordered() -> None:
    x = np.asfortranarray(np.arange(6, dtype=np.float64).reshape(3, 2))
    made = Table(x, np.zeros((3, 1)))
    assert made.x.flags.c_contiguous
    assert made.x.tolist() == x.tolist()


def test_a_table_does_not_change() -> None:
    made = table(5)
    with pytest.raises(AttributeError):
        made.y = np.zeros(5)  # type: ignore[misc]
    before = made.x.tolist(), made.y.tolist()
    with pytest.raises(ValueError, match="read-only"):
        made.x -= made.x.mean(axis=0)
    with pytest.raises(ValueError, match="read-only"):
        made.y[0] = 1
    assert before == (made.x.tolist(), made.y.tolist())
    mine = np.zeros((2, 2))
    Table(mine, np.zeros(2))
    mine += 1  # an array of the program's own stays one


@pytest.mark.parametrize(
    ("x", "y", "columns", "error", "message"),
    [
        (np.zeros((3, 2)), np.zeros(4), (), ShapeError, r"x \(3, 2\) and y \(4,\) are no table"),
        (np.zeros(3), np.zeros(3), (), ShapeError, r"x \(3,\) and y \(3,\) are no table"),
        (np.zeros((3, 2)), np.zeros((3, 1, 1)), (), ShapeError, "are no table"),
        (np.zeros((0, 2)), np.zeros(0), (), DataError, r"x \(0, 2\) has no rows: look at what has selected them"),
        (np.zeros((3, 0)), np.zeros(3), (), DataError, r"x \(3, 0\) has no columns"),
        (np.zeros((3, 2), int), np.zeros(3), (), DataError, "dtype int64: pass float32 or float64"),
        (np.zeros((3, 2)), np.zeros(3), ("one",), ShapeError, "1 names for the 2 columns"),
        (np.zeros((3, 2)), np.zeros(3), ("a", "a"), ShapeError, "1 names for the 2 columns of x: name each once"),
        (np.zeros((3, 2)), np.zeros(3), "ab", SettingError, "columns is 'ab': pass a tuple of names"),
        (np.zeros((3, 2)), np.zeros(3), (1, 2), SettingError, r"columns is \(1, 2\): pass a tuple of names"),
        (np.zeros((3, 2)), np.zeros(3), 2, SettingError, "columns is 2: pass a tuple of names"),
        (None, np.zeros(3), (), ShapeError, r"x \(\) and y \(3,\) are no table"),
        (np.zeros((3, 2)), None, (), ShapeError, r"x \(3, 2\) and y \(\) are no table"),
        ([[1.0], [1.0, 2.0]], [0, 1], (), DataError, r"x is no array \(.*inhomogeneous.*\): pass an array of numbers"),
        ([["a"], ["b"]], [0, 1], (), DataError, "x has the dtype <U1: pass float32 or float64"),
        ([[1.0], [2.0]], ["a", "b"], (), DataError, "y has the dtype <U1: pass class numbers, or numbers to predict"),
        ([[1.0], [2.0]], [None, 1], (), DataError, "y has the dtype object"),
        ([[1.0], [2.0]], [1j, 1], (), DataError, "y has the dtype complex128"),
    ],
)
def test_arrays_that_are_no_table(
    x: np.ndarray, y: np.ndarray, columns: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Table(x, y, columns)


def test_classes_are_named() -> None:
    x = np.zeros((3, 1))
    assert ("a", "b") == Table(x, np.array([0, 1, 1]), classes=["a", "b"]).classes  # type: ignore[arg-type]
    for y in ([0, 1, 2], [-1, 0, 1]):
        with pytest.raises(ShapeError, match=f"class numbers from {y[0]} to {y[2]} for 2 classes: name each once"):
            Table(x, np.array(y), classes=("a", "b"))
    for classes in ("ab", b"ab", 2, (0, 1)):
        with pytest.raises(SettingError, match=r"classes is .*: pass a tuple of names"):
            Table(x, np.array([0, 1, 1]), classes=classes)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="target is 3: pass the name of a column"):
        Table(x, np.array([0, 1, 1]), target=3)  # type: ignore[arg-type]


# Splitting


@given(st.integers(2, 200), st.floats(0.01, 0.99), st.integers(0, 2**63 - 1), st.booleans())
def test_a_split_uses_every_row_once_in_order(samples: int, part: float, seed: int, stratify: bool) -> None:
    count = int(samples * part + 0.5)
    if not 0 < count < samples:
        with pytest.raises(SettingError):
            table(samples).split(part, seed, stratify=stratify)
        return
    train, test = table(samples).split(part, seed, stratify=stratify)
    assert len(test) == count
    assert sorted(rows(train) + rows(test)) == list(range(samples))
    assert rows(train) == sorted(rows(train))
    assert rows(test) == sorted(rows(test))
    assert (train.y == np.array(rows(train)) % 3).all()
    assert (train.columns, train.target, train.classes) == (("row",), "class", ("a", "b", "c"))


@given(st.integers(10, 300), st.integers(0, 100))
def test_stratified_classes_have_their_part(samples: int, seed: int) -> None:
    whole = table(samples)
    _, test = whole.split(0.3, seed, stratify=True)
    wanted = np.bincount(whole.y, minlength=3) * len(test) / samples
    assert (np.abs(np.bincount(test.y, minlength=3) - wanted) < 1).all()


def test_a_stratified_split_leaves_chance_within_a_class() -> None:
    parts = {tuple(rows(table(60).split(0.5, seed, stratify=True)[1])) for seed in range(20)}
    assert len(parts) == 20


def test_a_split_is_fixed_by_its_seed() -> None:
    """A change of these numbers is a change of every run there is: same program, same seed, other weights."""
    assert rows(table(20).split(0.25, seed=0)[1]) == GOLDEN
    assert rows(table(20).split(5)[1]) == GOLDEN
    assert len({tuple(rows(table(100).split(0.5, seed)[1])) for seed in range(20)}) == 20


def test_no_rows_for_one_side() -> None:
    of_other_types = (True, np.bool_(True), None, "0.2", [5])
    for test in (0, 10, 11, -1, 10**400, 0.0, 1.0, 1.5, -0.5, 0.04, 0.96, float("nan"), *of_other_types):
        with pytest.raises(SettingError, match=r"test is .* of 10 rows: pass a part between 0 and 1"):
            table(10).split(test)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    for test in (np.int64(3), np.uint8(3), np.array(3), np.float32(0.3), np.float64(0.3), np.float16(0.3)):
        assert 3 == len(table(10).split(test, np.int32(0))[1])
    for factor in (np.float32(2), np.float64(2), np.int64(2), np.array(2), Fraction(2)):
        assert [0, 2, 4] == rows(table(3).scaled(factor))


def test_splits_that_cannot_be() -> None:
    for stratify in (None, 1, "no"):
        with pytest.raises(SettingError, match="stratify must be True or False"):
            table(10).split(stratify=stratify)  # type: ignore[arg-type]
    for seed in (None, True, np.bool_(True), 1.0, "1", float("nan"), 2**63):
        with pytest.raises(SettingError, match="seed must be a whole number"):
            table(10).split(seed=seed)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"seed must be .*, not -1"):
        table(10).split(seed=-1)
    with pytest.raises(SettingError, match="stratify needs class numbers"):
        Table(np.zeros((4, 1)), np.zeros((4, 1))).split(2, stratify=True)


# Scaling


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_keeps_the_dtype_and_makes_a_new_table(dtype: type) -> None:
    before = Table(np.array([[0, 4], [8, 16]], dtype), np.array([1, 0]), classes=("no", "yes"))
    after = before.scaled(1 / 16)
    assert after.x.tolist() == [[0, 0.25], [0.5, 1]]
    assert after.x.dtype == dtype
    assert (after.y.tolist(), after.classes) == ([1, 0], ("no", "yes"))
    assert before.x.max() == 16


@pytest.mark.parametrize(
    "factor",
    [0, float("nan"), float("inf"), np.float32("nan"), 1e39, 1e-60, 10**400, None, "2", b"2", True, np.bool_(True),
     [2.0], 2j, np.array([2.0]), np.array([1.0, 2.0])],
)  # fmt: skip
def test_factors_that_cannot_be_used(factor: float) -> None:
    with pytest.raises(SettingError, match="factor is"):
        table(3).scaled(factor)


# Fingerprints


def test_a_fingerprint_is_the_same_wherever_the_elements_lie() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    wide = np.zeros((3, 8), np.float32)
    wide[:, ::2] = x
    assert len({fingerprint([each]) for each in (x, x.copy(), np.asfortranarray(x), wide[:, ::2])}) == 1


def test_a_fingerprint_is_golden() -> None:
    """Runs record it: a change of these digits refuses to resume every run there is."""
    x = np.arange(6, dtype=np.dtype("<f4")).reshape(3, 2)
    y = np.array([0, 1, 2], np.dtype("<i8"))
    assert Table(x, y).fingerprint() == GOLDEN_FINGERPRINT
    assert fingerprint([x, y]) == GOLDEN_FINGERPRINT


def test_whatever_trains_otherwise_has_another_fingerprint() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    y = np.array([0, 1, 2])
    bit = x.copy()
    bit.view(np.uint32)[2, 3] ^= 1
    minus = x.copy()
    minus[0, 0] = -0.0
    variants = [
        [x, y],
        [y, x],
        [x],
        [],
        [bit, y],
        [minus, y],
        [x[::-1], y],
        [x, y[::-1]],
        [x.reshape(4, 3), y],
        [x.reshape(-1), y],
        [x.astype(np.float64), y],
        [x, y.astype(np.int32)],
        [x.view(np.int32), y],
        [x, y, np.zeros((0, 3))],
        [x, y, np.zeros((3, 0))],
        [np.concatenate([x.reshape(-1), x.reshape(-1)])],
        [x.reshape(-1), x.reshape(-1)],
    ]
    assert len({fingerprint(arrays) for arrays in variants}) == len(variants)


def test_fingerprints_of_lists_and_numbers() -> None:
    assert fingerprint([[1, 2], 3.0]) == fingerprint([np.array([1, 2]), np.array(3.0)])
    assert fingerprint([3.0]) != fingerprint([[3.0]])


def test_python_objects_have_no_fingerprint() -> None:
    with pytest.raises(DataError, match="array 1 holds Python objects"):
        fingerprint([np.zeros(3), np.array([None, "a"], object)])


def test_what_has_no_fingerprint() -> None:
    for arrays in (None, 3, "abc", b"abc", 0.5):
        with pytest.raises(SettingError, match=r"arrays is .*: pass a list of arrays"):
            fingerprint(arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="array 1 is no array"):
        fingerprint([[1], [[1], [1, 2]]])


def test_names_do_not_count() -> None:
    x, y = np.zeros((2, 1)), np.array([0, 1])
    assert Table(x, y, ("a",), "b", ("c", "d")).fingerprint() == Table(x, y).fingerprint()
