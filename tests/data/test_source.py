"""Sources of rows: arrays and tables are some, and a run takes any other."""

from pathlib import Path

import numpy as np
import pytest

from karp import Trainer, nn, optim
from karp.data import Source, Table, fingerprint
from karp.data.source import Array, Arrays, Part, source_of
from karp.errors import DataError, SettingError

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class File:
    """Rows in a file that is mapped."""

    def __init__(self, folder: Path) -> None:
        np.save(folder / "x.npy", X)
        self.x = np.load(folder / "x.npy", mmap_mode="r")
        self.parts = [Part("x", self.x.dtype, (3,), ("a", "b", "c")), Part("y", Y.dtype, ())]
        self.taken = 0

    def __len__(self) -> int:
        return len(self.x)

    def fingerprint(self) -> str:
        return "of the file's writer"

    def take(self, rows: Array) -> list[Array]:
        self.taken += len(rows)
        return [np.asarray(self.x[rows]), Y[rows]]


def train(*data: object) -> nn.MLP:
    model = nn.MLP(3, [4], 2)
    with Trainer(model, optim.SGD(lr=0.1), batch_size=16, epochs=2, record=False, show=False) as trainer:
        for x, y in trainer.batches(*data):
            trainer.backward(nn.cross_entropy(model(x), y))
    return model


def test_rows_of_any_source_train_to_the_same_bits(tmp_path: Path) -> None:
    file = File(tmp_path)
    expected = train(X, Y).parameters.sha256()
    assert [expected] * 2 == [train(file).parameters.sha256(), train(Table(X, Y)).parameters.sha256()]
    assert 2 * len(file) + len(file) == file.taken  # two epochs, and a look at all rows of so few


def test_arrays_and_tables_say_the_same_of_their_rows() -> None:
    arrays, table = source_of(X, Y), source_of(Table(X, Y, ("a", "b", "c"), "price"))
    for source in (arrays, table):
        assert isinstance(source, Source)
        assert (50, fingerprint([X, Y])) == (len(source), source.fingerprint())
        assert [(np.float32, (3,)), (np.int64, ())] == [(part.dtype, part.shape) for part in source.parts]
        x, y = source.take(np.array([7, 0, 7]))
        np.testing.assert_array_equal(X[[7, 0, 7]], x)
        np.testing.assert_array_equal(Y[[7, 0, 7]], y)
    assert ["array 0", "array 1"] == [part.title for part in arrays.parts]
    assert [("x", ("a", "b", "c")), ("target 'price'", ())] == [(part.title, part.columns) for part in table.parts]


def test_a_source_is_taken_as_it_is_and_alone(tmp_path: Path) -> None:
    file = File(tmp_path)
    assert file is source_of(file)
    for data in ((file, Y), (), (X, Y[:3]), (np.float32(1),)):
        with pytest.raises(SettingError, match=r"trainer.batches takes a Table,? or arrays"):
            source_of(*data)
    with pytest.raises(SettingError, match="1 of 3 elements are masked"):
        Arrays(np.ma.masked_equal([1, 2, 3], 2))


def test_masked_arrays_are_refused_wherever_data_come_in() -> None:
    masked = np.ma.masked_equal([[1.0], [2.0], [3.0]], 2.0)
    x = np.zeros((3, 1))
    for make in (lambda: fingerprint([masked]), lambda: Table(masked, np.zeros(3)), lambda: Table(x, masked)):
        with pytest.raises(DataError, match=r"(array 0|x|y): 1 of 3 elements are masked"):
            make()
