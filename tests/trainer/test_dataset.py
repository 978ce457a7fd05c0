"""What is odd about the numbers that a program hands to a Trainer: columns that are not scaled, numbers not finite."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import karp, metrics, program, summary

from karp import Trainer, Value, nn, optim
from karp.data import Table, read
from karp.data.source import Arrays
from karp.errors import RunError, SettingError, ShapeError
from karp.trainer.dataset import Dataset

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)
NAMES = tuple("abcdef")
ADVICE = "Unless the program scales, training may diverge: bring each column to about 1, by subtracting its mean and"


def standard(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def sized(size: float, *columns: int) -> np.ndarray:
    x = standard(500, 6)
    x[:, list(columns)] = size
    return x


CLASSES = np.arange(500) % 3


def test_a_source_with_remarks_speaks_for_itself() -> None:
    source = Arrays(sized(4000, 1), CLASSES)
    source.remarks = ["column 'name' is left out"]  # type: ignore[attr-defined]
    assert ["column 'name' is left out"] == Dataset(source).remarks()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ((sized(4000, 1), CLASSES), "column 1 of array 0 is not scaled: its size is 4,000 (root mean square)."),
        ((sized(4000, 1, 5), CLASSES), "columns 1 and 5 of array 0 are not scaled: their sizes are up to 4,000"),
        ((sized(-1e30, 0, 1, 2, 3, 4), CLASSES), "columns 0, 1, 2 and 2 more of array 0 are not scaled"),
        ((Table(sized(101, 1), CLASSES, NAMES),), "column 1 ('b') of x is not scaled: its size is 101"),
        ((Table(sized(101, 1), CLASSES),), "column 1 of x is not scaled"),
        ((Table(standard(500, 6), sized(2e5, 0)[:, 0], target="price"),), "target 'price' is not scaled: its size is"),
        ((standard(500, 6), sized(2e5, 0, 3)), "columns 0 and 3 of array 1 are not scaled"),
        ((sized(4000, 1).reshape(500, 2, 3), CLASSES), "element [0, 1] of array 0 is not scaled"),
        ((sized(4000, 0)[:, 0], CLASSES), "array 0 is not scaled"),
        ((sized(4000, 0).astype(np.float64)[:, :1],), "column 0 of array 0 is not scaled"),
        ((sized(4000, 1).astype(np.int16), CLASSES), "column 1 of array 0 is not scaled: its size is 4,000"),
    ],
)
def test_columns_that_are_not_scaled_are_named(data: tuple[Any, ...], what: str) -> None:
    (text,) = Dataset(*data).unscaled()
    assert (what, True) == (text[: len(what)], ADVICE in text)


@pytest.mark.parametrize(
    "data",
    [
        (standard(500, 6), CLASSES),
        (standard(500, 6), CLASSES * 1000),  # classes
        (standard(500, 6), RNG.integers(0, 50_000, (500, 6))),  # the target
        (RNG.integers(0, 50_000, 500), standard(500, 6)),  # classes, too
        (np.full((500, 6), 7e5, np.int64),),
        (RNG.integers(0, 256, (500, 8, 8), np.uint8), CLASSES),  # the program scales them
        (read(ROOT / "workers" / "digits.csv.gz", target="digit"),),  # 0 … 16
        (np.full((500, 6), np.nan), CLASSES),
        (np.full((500, 6), np.inf), CLASSES),
        (np.zeros((500, 0), np.float32), CLASSES),
        (np.array(["a", "b"]), np.array([True, False])),
    ],
)
def test_what_need_not_be_scaled_is_left_alone(data: tuple[Any, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [] == Dataset(*data).unscaled()


def test_of_large_arrays_a_sample_is_looked_at() -> None:
    (text,) = Dataset(np.full((100_000, 20), 300.0, np.float32)).unscaled()
    assert text.startswith("columns 0, 1, 2 and 17 more of array 0")


def spoilt(value: float, place: tuple[int, ...], shape: tuple[int, ...] = (20, 6)) -> np.ndarray:
    array = np.zeros(shape, np.float32)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ((spoilt(np.nan, (17, 3)),), "in row 17, column 3 of array 0 is nan"),
        ((np.zeros(20, int), spoilt(-np.inf, (17, 3))), "in row 17, column 3 of array 1 is -inf"),
        ((np.zeros(20), spoilt(np.nan, (17,), (20,))), "in row 17, array 1 is nan"),
        ((spoilt(np.nan, (17, 1, 2), (20, 2, 3)),), "in row 17, element [1, 2] of array 0 is nan"),
        ((Table(spoilt(np.inf, (17, 3)), np.zeros(20, int), NAMES),), "in row 17, column 3 ('d') of x is inf"),
        (
            (Table(np.zeros((20, 6)), spoilt(np.nan, (17, 0), (20, 1)), NAMES, "price"),),
            "in row 17, column 0 of target 'price' is nan",
        ),
        (
            (spoilt(np.nan, (17,)), spoilt(np.inf, (17, 2))),
            "in row 17, column 0 of array 0 is nan, and 6 more of its batch are not finite",
        ),
        ((spoilt(np.nan, (0, 3)), np.full(20, 1 << 40)), ""),  # of another batch; whole numbers are finite
        ((np.array(["nan"] * 20),), ""),
    ],
)
def test_a_number_that_is_not_finite_is_named_by_row_and_column(data: tuple[Any, ...], expected: str) -> None:
    assert expected == Dataset(*data).not_finite(np.array([4, 17, 2]))


@pytest.mark.parametrize("data", [(), (np.zeros(3), np.zeros(4)), (np.float32(1),), ([[1], [1, 2]],)])
def test_what_is_no_data_is_refused(data: tuple[Any, ...]) -> None:
    with pytest.raises(SettingError, match=r"trainer.batches takes a Table,? or arrays"):
        Dataset(*data)


X, Y = standard(64, 6), np.arange(64) % 2


def train(folder: Path, *data: Any, loss: Any = nn.cross_entropy, lr: float = 0.05, **settings: Any) -> None:
    model = nn.MLP(6, [4], 2)
    with Trainer(model, optim.SGD(lr=lr), **({"batch_size": 16} | settings), run_dir=folder, show=False) as trainer:
        for x, y in trainer.batches(*data):
            trainer.backward(loss(model(x), y))


def notices(folder: Path) -> list[str]:
    return [line["text"] for line in metrics(folder) if line["report"] == "notice"]


MODES = [{}, {"shards": 3}, {"local_steps": 2}, {"staleness": None}, {"codec": "int8"}]


@pytest.mark.parametrize("settings", MODES, ids=[str(mode) for mode in MODES])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_failure_of_a_run_names_the_number_that_it_is_due_to(
    tmp_path: Path, settings: dict[str, Any], value: float
) -> None:
    x = X.copy()
    x[37, 3] = value
    with np.errstate(all="ignore"), pytest.raises(RunError, match="for the second time") as raised:
        train(tmp_path / "run", Table(x, Y, NAMES), **settings)
    assert f"(in row 37, column 3 ('d') of x is {value})" in str(raised.value)
    assert "learning rate" not in str(raised.value)
    assert f"(in row 37, column 3 ('d') of x is {value})" in summary(tmp_path / "run")["failure"]


def test_where_the_data_are_finite_the_learning_rate_is_named(tmp_path: Path) -> None:
    with np.errstate(all="ignore"), pytest.raises(RunError, match="its data are finite: a smaller learning rate"):
        train(tmp_path / "run", X * np.float32(1e4), Y, lr=1e6, epochs=9)


def test_an_error_in_the_loop_names_it_too(tmp_path: Path) -> None:
    """A loss refuses a target that is NaN by its place in the batch: this is its place in the data."""
    y = standard(64, 2)
    y[37, 1] = np.nan
    with pytest.raises(SettingError, match="mse: target") as raised:
        train(tmp_path / "run", X, y, loss=nn.mse)
    assert ["karp: in row 37, column 1 of array 1 is nan"] == raised.value.__notes__


def test_what_is_odd_is_said_once_before_the_first_step(tmp_path: Path) -> None:
    train(tmp_path / "run", X * np.float32(4000), Y, batch_size=100, shards=100, lr=1e-9)
    starts = ["batch_size is 100, but the data have 64 rows", "100 shards share the 64 rows", "columns 0, 1, 2"]
    assert starts == [text[: len(start)] for text, start in zip(notices(tmp_path / "run"), starts, strict=True)]
    kinds = [line["report"] for line in metrics(tmp_path / "run")]
    assert kinds.index("begin") > max(index for index, kind in enumerate(kinds) if kind == "notice")


PROGRAM = """
import numpy as np
import karp
from karp import nn, optim
x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32) * np.float32([1, 1, 1, 1, 1, 4000])
x[37, 3] = np.nan
y = np.arange(64) % 2
model = nn.MLP(6, [4], 2)
with karp.Trainer(model, optim.SGD(lr=1e-9), batch_size=80, shards=3) as trainer:
    for xs, ys in trainer.batches(x, y):
        trainer.backward(nn.cross_entropy(model(xs), ys))
"""


@pytest.mark.parametrize("exchange", ["auto", "zeromq"])
def test_several_workers_say_it_once(tmp_path: Path, exchange: str) -> None:
    options = ["--exchange", exchange, "--run-dir", "run"]
    done = karp("launch", "-n", 2, *options, program(tmp_path, PROGRAM), cwd=tmp_path, PYTHONWARNINGS="")
    assert 1 == done.returncode
    said = [line for line in done.stderr.splitlines() if line.startswith(("karp: batch_size", "karp: column"))]
    assert ["batch_size is 80, but the data have 64 r", "column 5 of array 0 is not scaled: its s"] == [
        line.removeprefix("karp: ")[:40] for line in said
    ]
    assert "(in row 37, column 3 of array 0 is nan)" in done.stderr


def test_a_table_without_a_target_is_named_where_a_loss_lacks_one(tmp_path: Path) -> None:
    dataset = Dataset(Table(standard(20, 3), np.empty((20, 0), np.float32)))
    for loss in (nn.mse, nn.cross_entropy):
        with pytest.raises(ShapeError) as raised:
            loss(Value(standard(4, 2)), dataset.source.take(np.arange(4))[1])
        dataset.explain(raised.value, np.arange(4))
        assert ["karp: the table has no target: data.read(…, target=NAME) says which column to predict"] == (
            raised.value.__notes__
        )
    other = ShapeError("x")
    Dataset(standard(20, 3), CLASSES[:20]).explain(other, np.arange(4))
    assert not hasattr(other, "__notes__")


def test_a_number_that_may_be_missing_and_of_any_size_is_no_reason() -> None:
    arrays = Arrays(np.full((20, 6), 1e6, np.float32), np.zeros(20, int))
    arrays.arrays[0][17] = np.nan
    assert Dataset(arrays).not_finite(np.arange(20)).startswith("in row 17, column 0 of array 0 is nan")
    arrays.parts[0] = arrays.parts[0]._replace(gaps=True)
    dataset = Dataset(arrays)
    assert ([], "") == (dataset.remarks(), dataset.not_finite(np.arange(20)))
    arrays.arrays[0][17, 2] = np.inf
    assert "in row 17, column 2 of array 0 is inf" == dataset.not_finite(np.arange(20))


def test_remarks_of_a_source_are_shown_the_first_of_many() -> None:
    arrays = Arrays(np.zeros((20, 6)))
    arrays.remarks = tuple(map(str, range(60)))  # type: ignore[attr-defined]
    assert [*map(str, range(50)), "and 10 more remarks on the data"] == Dataset(arrays).remarks()


@pytest.mark.parametrize("weights", [np.ones(19), np.zeros(20), np.full(20, np.nan), np.full(20, np.inf)])
def test_weights_of_a_source_are_checked(weights: np.ndarray) -> None:
    arrays = Arrays(np.zeros((20, 6)))
    arrays.weights = weights  # type: ignore[attr-defined]
    with pytest.raises(SettingError, match=r"one for each row, \(20,\)"):
        Dataset(arrays)
    given = Dataset(arrays, sample_weights=np.arange(20))
    assert (19, 1) == (given.samples, given.take(np.array([0]))[-1][0])
