"""What an argument may be."""

import numpy as np
import pytest

from karp import Trainer, data, nn, optim
from karp.checks import integer, number
from karp.errors import SettingError
from karp.limits import RANGES


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), np.arange(4)[3]], ids=repr)
def test_a_whole_number_of_any_type_becomes_python_s(value: object) -> None:
    found = integer(value)
    assert (3, int) == (found, type(found))


@pytest.mark.parametrize("value", [True, np.True_, np.array(True), 3.0, np.float64(3), np.array([3]), "3", None])
def test_what_is_no_whole_number_is_none(value: object) -> None:
    assert integer(value) is None


SETTINGS = ["batch_size", "epochs", "shards", "seed", "staleness", "local_steps", "threads"]


def trainer(**arguments: object) -> Trainer:
    given = {"batch_size": 4} | arguments
    return Trainer(nn.Linear(2, 1), optim.SGD(lr=0.1), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_trainer_takes_whole_numbers_of_any_type(name: str) -> None:
    found = getattr(trainer(**{name: np.int64(2)}), name)
    assert (2, int) == (found, type(found))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_trainer_refuses_what_is_none_by_its_name(name: str) -> None:
    _, most = RANGES.get(name, (0, 1 << 40))
    for value in (2.0, np.float32(2), True, np.bool_(True), "2", [2], -1, np.int64(-1), most + 1, 1 << 100, 1e300):
        with pytest.raises(SettingError, match=rf"^{name} must be a whole number from .*, not "):
            trainer(**{name: value})


def test_numbers_out_of_a_table_of_trials_train_the_same_bits() -> None:
    found = []
    for kind in (int, np.int64, np.array):
        model = nn.Linear(2, 1, seed=0)
        plan = data.Plan(kind(8), kind(4), kind(2), kind(5))  # type: ignore[arg-type]
        found.append((model.parameters.sha256(), plan.rows(0, kind(1)).tolist()))  # type: ignore[arg-type]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("value", [0.5, np.float16(0.5), np.float64(0.5), np.array(0.5), np.array(0.5, np.float32)])
def test_a_number_of_any_type_becomes_python_s(value: object) -> None:
    found = number("lr", value, 0, 1)
    assert (0.5, float) == (found, type(found))


@pytest.mark.parametrize(
    "value", [True, np.True_, np.array(True), np.array([0.5]), np.array("0.5"), np.array(1j), np.array(np.nan), "0.5"]
)
def test_what_is_no_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(SettingError, match="lr must be a number from 0 to 1, not "):
        number("lr", value, 0, 1)
