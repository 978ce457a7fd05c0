"""What a Trainer takes as a loss and as a number, and what it refuses that would be wrong in silence."""

import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import karp
from karp import nn, optim
from karp.autograd import Value, dropout
from karp.errors import ProgramError
from karp.trainer.inputs import scores

X = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
Y = X[:, :1] * 2

Loss = Callable[[Any, Any, Any], Value]  # of trainer, x and y


def train(run_dir: Path, model: nn.Module, loss: Loss, **settings: Any) -> bytes:
    """The weights after four steps, or more."""
    arguments = {"batch_size": 8, "run_dir": run_dir, "show": False} | settings
    with karp.Trainer(model, optim.SGD(lr=0.1), **arguments) as trainer:
        for x, y in trainer.batches(X, Y):
            trainer.backward(loss(trainer, x, y))
    return model.parameters.data.tobytes()


# --- one number, of whatever shape ----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"local_steps": 2}, {"shards": 2, "codec": "int8"}], ids=str)
def test_a_loss_of_one_element_trains_as_a_number_does(tmp_path: Path, settings: dict[str, Any]) -> None:
    def weights(name: str, shape: Callable[[Value], Value]) -> bytes:
        model = nn.MLP(3, [4], 1)
        return train(tmp_path / name, model, lambda _, x, y: shape(nn.mse(model(x), y)), **settings)

    expected = weights("number", lambda loss: loss)
    assert expected == weights("vector", lambda loss: loss.reshape(1))
    assert expected == weights("matrix", lambda loss: loss.reshape(1, 1))


def test_a_loss_of_several_elements_is_refused(tmp_path: Path) -> None:
    model = nn.MLP(3, [4], 1)
    with pytest.raises(ProgramError, match=r"takes the mean over the batch, not a loss of shape \(8, 1\)"):
        train(tmp_path, model, lambda _, x, y: (model(x) - y) ** 2)


ONE = [2.5, np.float32(2.5), np.array(2.5), np.array([2.5]), np.array([[2.5]], np.float16), [2.5], [[2.5]], Value(2.5),
       Value([2.5]), Value(np.array([[2.5]], np.float32)), Fraction(5, 2)]  # fmt: skip


def test_a_score_is_one_number_of_whatever_shape() -> None:
    assert {str(place): 2.5 for place in range(len(ONE))} == scores({str(place): one for place, one in enumerate(ONE)})
    assert {"score": 2.5} == scores(np.array([2.5]))  # type: ignore[arg-type]
    assert {"a": 1.0, "b": 3.0} == scores({"a": np.True_, "b": np.int64(3)})


WRONG = ["2.5", b"2.5", None, [], [1.0, 2.0], np.zeros(2), Value(np.zeros(2)), [[1], [2, 3]], 1j, {3}, 10**400, ["x"]]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_number_is_no_score(wrong: Any) -> None:
    with pytest.raises(ProgramError, match=r"loss is .*; only numbers can be logged, one under a name"):
        scores({"loss": wrong})


def test_logs_and_scores_of_one_element_reach_the_record(tmp_path: Path) -> None:
    model = nn.MLP(3, [4], 1)
    with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=32, run_dir=tmp_path / "run", show=False) as trainer:
        for x, y in trainer.batches(X, Y, evaluate=lambda: {"one": np.array([1.5]), "two": Value([[2.5]])}):
            trainer.backward(nn.mse(model(x), y))
            trainer.log(three=np.array([3.5]), four=[4.5])
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    for number in (1.5, 2.5, 3.5, 4.5):
        assert str(number) in text


# --- dropout --------------------------------------------------------------------------------------------------------


class Forgetful(nn.Module):
    """Does not hand rng on."""

    def __init__(self) -> None:
        self.inner = nn.MLP(3, [8], 1, dropout=0.5)

    def __call__(self, x: Any, rng: Any = None) -> Value:
        return self.inner(x)


class Functional(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.Linear(3, 1)

    def __call__(self, x: Any, rng: Any = None) -> Value:
        return self.layer(dropout(x, 0.5, rng))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.MLP(3, [8], 1, dropout=0.5),
    "mlp with norms": lambda: nn.MLP(3, [8], 1, dropout=0.5, layer_norm=True, activation="gelu"),
    "sequential": lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
    "first": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1)),
    "last": lambda: nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.MLP(3, [8], 1, dropout=0.5))),
    "a function": Functional,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_dropout_without_rng_is_refused_in_the_loop_and_with_it_taken(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    before = model.parameters.data.copy()
    with pytest.raises(ProgramError, match=r"a dropout that was called without rng.* call model\(x, trainer\.rng\)"):
        train(tmp_path / "without", model, lambda _, x, y: nn.mse(model(x), y))
    assert before.tobytes() == model.parameters.data.tobytes()
    assert before.tobytes() != train(tmp_path / "with", model, lambda run, x, y: nn.mse(model(x, run.rng), y))


def test_a_module_that_forgets_to_hand_rng_on_is_refused(tmp_path: Path) -> None:
    model = Forgetful()
    with pytest.raises(ProgramError, match="have each module hand rng on"):
        train(tmp_path, model, lambda run, x, y: nn.mse(model(x, run.rng), y), local_steps=2)


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.0)), nn.MLP(3, [4], 1, dropout=0.0)])
def test_where_nothing_is_to_be_dropped_no_rng_is_asked_for(tmp_path: Path, model: nn.Module) -> None:
    train(tmp_path, model, lambda _, x, y: nn.mse(model(x), y))


def test_only_what_the_loss_depends_on_counts(tmp_path: Path) -> None:
    model = nn.MLP(3, [8], 1, dropout=0.5)

    def loss(run: karp.Trainer, x: Any, y: Any) -> Value:
        with karp.no_grad():
            run.log(inside=nn.mse(model(X), Y))
        found = nn.mse(model(x, run.rng), y)
        run.log(outside=nn.mse(model(X), Y))  # it is recorded, but no part of the loss
        return found + float(nn.mse(model(X), Y).item()) + model(X).mean().detach()

    plain = nn.MLP(3, [8], 1, dropout=0.5)
    expected = train(tmp_path / "plain", plain, lambda run, x, y: nn.mse(plain(x, run.rng), y))
    assert expected == train(tmp_path / "run", model, loss)


def test_a_refusal_does_not_pass_at_the_second_try_and_a_right_loss_does(tmp_path: Path) -> None:
    model = nn.MLP(3, [8], 1, dropout=0.5)

    def loss(run: karp.Trainer, x: Any, y: Any) -> Value:
        wrong = nn.mse(model(x), y)
        for _ in range(2):
            with pytest.raises(ProgramError, match="without rng"):
                run.backward(wrong)
        return nn.mse(model(x, run.rng), y)

    train(tmp_path, model, loss)


def test_predictions_without_rng_are_what_they_are() -> None:
    for make in MODELS.values():
        model = make()
        with karp.no_grad():
            expected = model(X)
        assert expected.data.tobytes() == model(X).data.tobytes()
        model(X).sum().backward()  # a gradient of a prediction is nobody's mistake
    twin = nn.MLP(3, [8], 1)
    model = nn.MLP(3, [8], 1, dropout=0.5)
    assert twin(X).data.tobytes() == model(X).data.tobytes()
    for network in (twin, model):
        nn.mse(network(X), Y).backward()
    assert twin.parameters.grad.tobytes() == model.parameters.grad.tobytes()


def test_two_trainers_in_threads_do_not_see_each_others_dropouts(tmp_path: Path) -> None:
    failed: dict[str, BaseException] = {}

    def run(name: str, predicts: bool) -> None:
        model = nn.MLP(3, [8], 1, dropout=0.5)

        def loss(trainer: karp.Trainer, x: Any, y: Any) -> Value:
            if predicts:
                model(X)
            return nn.mse(model(x, trainer.rng), y)

        try:
            train(tmp_path / name, model, loss, epochs=10)
        except BaseException as error:
            failed[name] = error

    threads = [threading.Thread(target=run, args=(name, name == "b")) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {} == failed


# --- a model that changes -------------------------------------------------------------------------------------------


class Late(nn.Module):
    """Makes a layer when it is first called."""

    def __init__(self) -> None:
        self.body = nn.Linear(3, 4)
        self.head: nn.Linear | None = None

    def __call__(self, x: Any, rng: Any = None) -> Value:
        if self.head is None:
            self.head = nn.Linear(4, 1)
        return self.head(self.body(x))


def test_a_layer_made_after_the_trainer_is_refused(tmp_path: Path) -> None:
    model = Late()
    with pytest.raises(ProgramError, match=r"changed since the Trainer was made \(\['head.weight', 'head.bias'\]\)"):
        train(tmp_path / "late", model, lambda _, x, y: nn.mse(model(x), y))
    train(tmp_path / "again", model, lambda _, x, y: nn.mse(model(x), y))  # by now it is there


def test_a_look_at_one_layer_takes_nothing_from_the_run(tmp_path: Path) -> None:
    model, watched = nn.MLP(3, [4], 1), nn.MLP(3, [4], 1)

    def loss(_: karp.Trainer, x: Any, y: Any) -> Value:
        for layer in watched.layers:
            assert layer.parameters.data.any()
        return nn.mse(watched(x), y)

    expected = train(tmp_path / "model", model, lambda _, x, y: nn.mse(model(x), y))
    assert expected == train(tmp_path / "watched", watched, loss)


def test_an_array_put_in_place_of_a_parameters_own_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)

    def loss(_: karp.Trainer, x: Any, y: Any) -> Value:
        model.weight.data = np.zeros((3, 1), np.float32)
        return nn.mse(model(x), y)

    with pytest.raises(ProgramError, match="the arrays of some"):
        train(tmp_path, model, loss)
