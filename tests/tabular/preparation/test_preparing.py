"""Preparing a table: a pure function of cells, options and seed, and every row that counts is in it once."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import karp
from karp import Trainer, nn, optim
from karp.data.source import Arrays
from karp.errors import DataError, RecordError, SettingError
from karp.tabular.preparation.prepared import Counts, Prepared, PreparedRows, open_prepared
from karp.tabular.preparation.preparing import prepare

ROWS = 3000


def table(rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "number": np.round(rng.normal(50, 20, rows), 3),
        "id": np.arange(rows),
        "gap": np.where(rng.random(rows) < 0.1, np.nan, np.round(rng.exponential(1, rows), 4)),
        "city": rng.choice(["Bern", "Wil", "Chur"], rows).tolist(),
        "kind": rng.choice(["a", "b", "c"], rows, p=[0.7, 0.2, 0.1]).tolist(),
        "weight": rng.integers(0, 4, rows).astype(float),
    }


def write_csv(path: Path, columns: dict[str, Any]) -> Path:
    lines = [",".join(columns)]
    for cells in zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True):
        lines.append(",".join("" if cell != cell else str(cell) for cell in cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def arrays(prepared: Prepared) -> list[Any]:
    parts = (prepared.train, prepared.validation)
    return [array for part in parts for array in (part.numbers, part.categories, part.target, part.weights)]


def ids(prepared: Prepared, part: str) -> list[int]:
    """Return the numbers of a part's rows in the table, from the column that counts them."""
    place = prepared.schema.numbers.index("id")
    learnt = prepared.preprocessing
    scaled = getattr(prepared, part).numbers[:, place].astype(np.float64)
    return np.rint(scaled * learnt.scales[place] + learnt.medians[place]).astype(int).tolist()


def test_every_row_is_in_one_part_once_with_its_cells() -> None:
    columns = table()
    prepared = prepare(columns, target="kind", drop=["weight"])
    train, validation = ids(prepared, "train"), ids(prepared, "validation")
    assert list(range(ROWS)) == sorted(train + validation)
    assert Counts(ROWS, 0, 0, len(train), len(validation)) == prepared.counts
    for part, rows in ((prepared.train, train), (prepared.validation, validation)):
        assert ["abc".index(columns["kind"][row]) for row in rows] == part.target.tolist()
        cities = ["Bern", "Chur", "Wil"]
        assert [cities.index(columns["city"][row]) + 3 for row in rows] == part.categories[:, 0].tolist()
        np.testing.assert_array_equal(np.isnan(columns["gap"][rows]), np.isnan(part.numbers[:, 2]))
        raw = np.stack([columns[name][rows] for name in ("number", "id", "gap")], 1).astype(np.float64)
        np.testing.assert_array_equal(prepared.preprocessing.scale(raw), part.numbers)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=12, max_size=60),
    st.integers(0, 2**63 - 1), st.floats(0.01, 0.9), st.booleans(),
)  # fmt: skip
def test_any_rows_that_count_are_in_one_part_and_each_class_in_both(
    kinds: list[str | None], seed: int, share: float, weighted: bool
) -> None:
    rows = len(kinds) + 8
    kinds = [*"aabbaabb", *kinds]
    weight = np.where(np.arange(rows) % 5 == 4, 0.0, 1.0) if weighted else np.ones(rows)
    counted = [row for row in range(rows) if kinds[row] is not None and weight[row]]
    classes = sorted({str(kinds[row]) for row in counted})
    assume(all(sum(kinds[row] == name for row in counted) > 1 for name in "abc" if name in kinds))
    columns = {"id": np.arange(rows) * 1.0, "kind": kinds, "weight": weight}
    prepared = prepare(columns, target="kind", weight="weight", seed=seed, validation=share)
    assert counted == sorted(ids(prepared, "train") + ids(prepared, "validation"))
    for part in (prepared.train, prepared.validation):
        assert list(range(len(classes))) == np.unique(part.target).tolist()


def test_a_class_has_its_share_in_validation_to_the_row() -> None:
    columns = table()
    prepared = prepare(columns, target="kind", validation=0.3)
    for number, name in enumerate("abc"):
        assert round(0.3 * columns["kind"].count(name)) == np.count_nonzero(prepared.validation.target == number)


@pytest.mark.parametrize("target", ["kind", "number"])
def test_format_and_memory_do_not_show(tmp_path: Path, target: str) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.feather
    import pyarrow.parquet

    columns = table()
    columns["flag"] = np.arange(ROWS) % 3 == 0
    columns["when"] = np.datetime64("2024-01-01T00:00:00") + np.arange(ROWS) * np.timedelta64(7919, "s")
    columns["large"] = np.arange(ROWS) * 3 + 2**50
    csv = write_csv(tmp_path / "t.csv", columns)
    frame = pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})
    pyarrow.parquet.write_table(frame, tmp_path / "t.parquet", row_group_size=700)
    pyarrow.feather.write_feather(frame, str(tmp_path / "t.feather"), chunksize=100)
    first = prepare(csv, target=target, weight="weight")
    for source in (tmp_path / "t.parquet", tmp_path / "t.feather", frame, columns):
        other = prepare(source, target=target, weight="weight", memory=1 << 20)
        assert first.fingerprint == other.fingerprint
        for left, right in zip(arrays(first), arrays(other), strict=True):
            np.testing.assert_array_equal(left, right)


def test_the_order_is_of_the_seed_and_not_of_the_rows() -> None:
    columns = table()
    first, second = (ids(prepare(columns, target="kind", seed=seed), "train") for seed in (0, 1))
    assert first != second
    assert first == ids(prepare(columns, target="kind"), "train")
    half = len(first) // 2
    assert abs(np.mean(first[:half]) - ROWS / 2) < 4 * ROWS / np.sqrt(12 * half)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / np.sqrt(len(first))


def test_rows_without_target_or_weight_are_left_out_and_counted() -> None:
    columns = table()
    columns["kind"][5] = columns["kind"][17] = None
    columns["weight"][17] = columns["weight"][18] = 0.0
    columns["weight"][5] = 1.0
    prepared = prepare(columns, target="kind", weight="weight")
    left_out = {5, 17, *np.flatnonzero(columns["weight"] == 0).tolist()}
    train, validation = ids(prepared, "train"), ids(prepared, "validation")
    assert sorted(set(range(ROWS)) - left_out) == sorted(train + validation)
    assert Counts(ROWS, 2, len(left_out) - 2, len(train), len(validation)) == prepared.counts
    assert prepared.train.weights is not None
    assert columns["weight"][train].tolist() == prepared.train.weights.tolist()
    assert "2 of 3,000 rows have no target in 'kind' and are left out" in prepared.notes
    assert f"the table: {len(left_out) - 2} of 3,000 rows have the weight 0 and are left out" in prepared.notes


def test_balanced_classes_have_equal_sums_of_weights() -> None:
    prepared = prepare(table(), target="kind", weight="weight", class_weight="balanced")
    weights, plain = prepared.train.weights, prepare(table(), target="kind", weight="weight").train.weights
    assert weights is not None
    assert plain is not None
    sums = np.bincount(prepared.train.target, weights)
    np.testing.assert_allclose(sums, sums.mean(), rtol=1e-6)
    assert plain.sum() == pytest.approx(weights.sum(), rel=1e-6)
    assert set(np.arange(1, 4)) == set(np.unique(prepared.validation.weights))
    assert prepare(table(), target="kind", drop=["weight"], class_weight="balanced").validation.weights is None


def test_numbers_to_predict_are_standardised_by_the_training_rows_and_their_weights() -> None:
    columns = table()
    prepared = prepare(columns, target="number", weight="weight")
    rows = ids(prepared, "train")
    repeated = np.repeat(columns["number"][rows], columns["weight"][rows].astype(int))
    assert (repeated.mean(), repeated.std()) == pytest.approx((prepared.target_mean, prepared.target_std), rel=1e-12)
    expected = (columns["number"][rows] - prepared.target_mean) / prepared.target_std
    assert expected.astype(np.float32).tolist() == prepared.train.target.tolist()


def test_a_validation_file_is_converted_by_what_training_rows_taught() -> None:
    columns, other = table(), table(500, seed=1)
    other["city"][3] = "Thun"
    prepared = prepare(columns, target="kind", validation=other)
    assert (ROWS, 500) == (len(prepared.train), len(prepared.validation))
    assert (ROWS, ROWS, 500) == (prepared.counts.read, prepared.counts.train, prepared.counts.validation)
    assert 1 == np.count_nonzero(prepared.validation.categories == 2)
    where = "the table, column 'city', validation rows"
    assert f"{where}: 1 cell has a level that no training row has (row 3: 'Thun')" in prepared.notes
    rows = ids(prepared, "validation")
    assert ["abc".index(other["kind"][row]) for row in rows] == prepared.validation.target.tolist()


def test_cells_that_count_as_missing_are_told_of_both_parts() -> None:
    columns = {"x": [str(place) if place % 125 else "oops" for place in range(2000)], "y": ["a", "b"] * 1000}
    prepared = prepare(columns, target="y")
    training, validation = prepared.notes
    assert " of 1,600 cells are no finite numbers and count as missing (row " in training
    told = re.search(r"'x', validation rows: (\d) cells? (?:is|are) not what the column holds and count", validation)
    assert told is not None
    assert int(told[1]) == np.isnan(prepared.validation.numbers).sum()
    assert 16 == np.isnan(prepared.train.numbers).sum() + int(told[1])


def test_a_folder_of_arrays_is_opened_to_the_same_table(tmp_path: Path) -> None:
    prepared = prepare(table(), target="number", weight="weight", directory=tmp_path / "p")
    assert {0o600} == {file.stat().st_mode & 0o777 for file in (tmp_path / "p").iterdir()}
    assert prepared.manifest is not None
    opened = open_prepared(prepared.manifest)
    for name in ("schema", "target", "notes", "fingerprint", "counts", "target_mean", "target_std", "manifest"):
        assert getattr(prepared, name) == getattr(opened, name)
    assert prepared.preprocessing.to_dict() == opened.preprocessing.to_dict()
    assert prepared.train.fingerprint() == opened.train.fingerprint()
    for left, right in zip(arrays(prepared), arrays(opened), strict=True):
        np.testing.assert_array_equal(left, right)
        assert type(right) is np.ndarray
        assert not right.flags.writeable


@pytest.mark.parametrize("change", ["cut", "absent", "format", "damaged", "nothing"])
def test_a_damaged_folder_is_an_error_that_names_the_file(tmp_path: Path, change: str) -> None:
    manifest = prepare(table(), target="kind", directory=tmp_path).manifest
    assert manifest is not None
    file = tmp_path / "train.numbers"
    if change == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif change == "absent":
        file.unlink()
    elif change == "format":
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    elif change == "damaged":
        manifest.write_text(manifest.read_text().replace('"rows"', '"row"'))
    else:
        manifest.unlink()
    named = "train.numbers" if change in ("cut", "absent") else "manifest.json"
    with pytest.raises(DataError, match=rf"{named}.* prepare"):
        open_prepared(manifest)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation": 0.0}, SettingError, "validation is 0"),
        ({"validation": 1.0}, SettingError, "validation must be a number from 0 to below 1"),
        ({"class_weight": "even"}, SettingError, "class_weight is 'even'"),
        ({"target": "number", "class_weight": "balanced"}, SettingError, "'number' has no classes"),
        ({"weight": "kind"}, SettingError, "cannot be both target and weight"),
        ({"target": None}, SettingError, "target is None: pass the name of a column"),
        ({"weight": 3}, SettingError, "weight is 3: pass the name of a column"),
        ({"weight": "city"}, DataError, "row 0, column 'city': the weight is '.*': a weight is a finite number"),
        ({"memory": 5}, SettingError, "memory must be a whole number from 1000000"),
        ({"directory": 5}, SettingError, "directory is 5: pass the path"),
        ({"drop": "gap"}, SettingError, "drop is 'gap': pass a list"),
        ({"drop": None}, SettingError, "drop is None: pass a list"),
        ({"seed": -1}, SettingError, "seed must be a whole number"),
        ({"target": "small"}, DataError, "every training row has the value .*, or one too near to it, so"),
        ({"target": "sort"}, DataError, "no column 'sort' to predict"),
        ({"validation": table(3) | {"kind": ["a", "a", "z"]}}, DataError, "row 2, column .kind.: it is a class that"),
        ({"validation": {"number": [1.0]}}, DataError, "there is no column 'kind' among number"),
        ({"validation": table(2) | {"kind": [None, None]}}, DataError, "no row has a target"),
    ],
)
def test_what_cannot_be_prepared(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prepare(table() | {"small": np.arange(ROWS) * 1e-300}, **({"target": "kind"} | options))


def test_free_space_is_asked_for_only_where_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"Not a directory: pass another directory|File exists: pass another"):
        prepare(table(), target="kind", directory=tmp_path / "file" / "prepared")
    if Path("/dev/full").exists():
        monkeypatch.setattr("karp.record.files.os.fsync", lambda _: Path("/dev/full").write_text("x"))
        with pytest.raises(RecordError, match=r"No space left on device: it takes about 0\.\d MB: free space, or pass"):
            prepare(table(), target="kind", directory=tmp_path)


def test_weights_can_leave_too_few_rows_of_a_class() -> None:
    columns = {"x": [1, 2, 3, 4, 5, 6], "y": ["a", "a", "a", "b", "b", "b"], "w": [1, 1, 1, 1, 0, 0]}
    with pytest.raises(DataError, match="the class 'b' has one row with a weight above 0: it takes two, one to"):
        prepare(columns, target="y", weight="w")
    assert 4 == len(prepare(columns, target="y", weight="w", validation=columns).train)


class InBlocks(Arrays):
    """Arrays in memory as a source with weights and blocks of its own."""

    def __init__(self, rows: PreparedRows) -> None:
        super().__init__(rows.numbers.copy(), rows.categories.copy(), rows.target.copy())
        self.weights, self.block = rows.weights, rows.block


@pytest.mark.parametrize("weighted", [False, True])
def test_a_trainer_takes_prepared_rows(weighted: bool) -> None:
    prepared = karp.prepare(table(600), target="kind", weight="weight" if weighted else None, drop=["gap"])
    prepared.train.block = 100
    hashes = []
    for data in (prepared.train, InBlocks(prepared.train)):
        model, used = nn.MLP(3 - weighted, [4], 3), 0
        with Trainer(model, optim.SGD(lr=0.1), batch_size=32, epochs=2, record=False, show=False) as trainer:
            for x, _, y, *weights in trainer.batches(data):
                trainer.backward(nn.cross_entropy(model(x), y, sample_weights=weights[0] if weighted else None))
                used += len(y)
        assert 2 * len(prepared.train) == used
        hashes.append(model.parameters.sha256())
    assert hashes[0] == hashes[1]
