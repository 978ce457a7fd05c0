"""A Trainer is for one run: every other order of its calls is a ProgramError that says what to do."""

import contextlib
import copy
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import karp
from karp import nn, optim
from karp.errors import ProgramError, SettingError
from karp.trainer import blas_threads

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Training:
    """A Trainer with its model, and the parts of a program in any order."""

    def __init__(self, path: Path) -> None:
        self.model = nn.MLP(3, [4], 2)
        self.trainer = karp.Trainer(self.model, optim.SGD(lr=0.1), batch_size=16, run_dir=path / "run", show=False)
        self.batches: Iterator[Any] = iter(())

    def start(self) -> None:
        self.batches = self.trainer.batches(X, Y)

    def loop(self, most: int = 1_000_000) -> None:
        for x, y in self.batches:
            self.backward(x, y)
            most -= 1
            if not most:
                break

    def backward(self, x: Any = X, y: Any = Y) -> None:
        self.trainer.backward(nn.cross_entropy(self.model(x), y))

    def train(self) -> None:
        with self.trainer:
            self.start()
            self.loop()

    def fail(self) -> None:
        with contextlib.suppress(ZeroDivisionError), self.trainer:
            self.start()
            raise ZeroDivisionError


def other(model: nn.Module | None = None, threads: int = 1) -> karp.Trainer:
    return karp.Trainer(model or nn.MLP(3, [4], 2), optim.SGD(lr=0.1), batch_size=16, threads=threads, show=False)


def twice(training: Training) -> None:
    training.train()
    training.train()


def twice_after_a_failure(training: Training) -> None:
    training.fail()
    training.train()


def nested(training: Training) -> None:
    with training.trainer:
        training.start()
        training.train()


def batches_before(training: Training) -> None:
    training.start()


def batches_after(training: Training) -> None:
    training.train()
    training.start()


def batches_twice(training: Training) -> None:
    with training.trainer:
        training.start()
        training.loop()
        training.start()


def batches_twice_after_break(training: Training) -> None:
    with training.trainer:
        training.start()
        training.loop(most=2)
        training.start()


def batches_never_iterated(training: Training) -> None:
    with training.trainer:
        training.start()


def iterated_after(training: Training) -> None:
    training.fail()
    training.loop()


def resumed_after(training: Training) -> None:
    with training.trainer:
        training.start()
        training.loop(most=2)
    training.loop()


def backward_before(training: Training) -> None:
    with training.trainer:
        training.backward()


def backward_after_the_loop(training: Training) -> None:
    with training.trainer:
        training.start()
        training.loop()
        training.backward()


def backward_after(training: Training) -> None:
    training.train()
    training.backward()


def log_before(training: Training) -> None:
    with training.trainer:
        training.trainer.log(a=1.0)


def log_after(training: Training) -> None:
    training.train()
    training.trainer.log(a=1.0)


def main_before(training: Training) -> None:
    with training.trainer:
        assert training.trainer.main


def main_after_a_failure(training: Training) -> None:
    training.fail()
    assert training.trainer.main


def step_before(training: Training) -> None:
    assert training.trainer.step


def epoch_before(training: Training) -> None:
    with training.trainer:
        training.start()
        assert training.trainer.epoch


def copied(training: Training) -> None:
    copy.deepcopy(training.trainer)


def pickled(training: Training) -> None:
    pickle.dumps({"trainer": training.trainer})


def a_model_in_two_loops(training: Training) -> None:
    with training.trainer:
        training.start()
        next(training.batches)
        with other(training.model) as inner:
            inner.batches(X, Y)


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (twice, r"`with` was used twice for one Trainer: a Trainer is for one run, so make a new one"),
        (twice_after_a_failure, "`with` was used twice for one Trainer: a Trainer is for one run"),
        (nested, "`with` was used twice for one Trainer, the second time inside of the first"),
        (batches_before, "called outside of `with`: call it inside of `with karp.Trainer"),
        (batches_after, "called outside of `with`, which has been left: a Trainer is for one run"),
        (batches_twice, "called twice: epochs is an argument of Trainer"),
        (batches_twice_after_break, "called twice: epochs is an argument of Trainer"),
        (batches_never_iterated, "called, but not iterated over: for x, y in trainer.batches"),
        (iterated_after, "asked for after its `with` block: iterate over trainer.batches inside"),
        (resumed_after, "asked for after its `with` block: iterate over trainer.batches inside"),
        (backward_before, "backward was called outside of the loop over trainer.batches"),
        (backward_after_the_loop, "backward was called outside of the loop over trainer.batches"),
        (backward_after, "backward was called outside of the loop over trainer.batches"),
        (log_before, "log was called before trainer.batches"),
        (log_after, "log was called after the `with` block: the record is closed, so log inside"),
        (main_before, "read it after the loop"),
        (main_after_a_failure, "read it after the loop"),
        (step_before, "known in the loop"),
        (epoch_before, "known in the loop"),
        (copied, "cannot be copied or pickled; make one where it trains"),
        (pickled, "cannot be copied or pickled; make one where it trains"),
        (a_model_in_two_loops, "another Trainer is training this model"),
    ],
)
def test_a_wrong_order_is_named(tmp_path: Path, order: Callable[[Training], None], reason: str) -> None:
    with pytest.raises(ProgramError, match=reason):
        order(Training(tmp_path))
    assert 0 == blas_threads.LIMIT.holders
    Training(tmp_path / "again").train()


def test_a_loop_that_is_left_may_be_entered_again_and_goes_on(tmp_path: Path) -> None:
    training = Training(tmp_path)
    with training.trainer:
        training.start()
        training.loop(most=2)
        training.loop()
    assert 4 == training.trainer.step


def test_a_trainer_that_could_not_be_entered_can_be_later(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.trainer.threads = 2
    with other(), pytest.raises(SettingError, match="threads is 2"):
        training.train()
    training.train()
    assert 4 == training.trainer.step


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_that_leaves_the_block_leaves_the_run_alone(tmp_path: Path) -> None:
    training = Training(tmp_path)
    with training.trainer:
        training.start()
        for x, y in training.batches:
            training.backward(x, y)
            if training.trainer.step == 1:
                child = os.fork()
                if not child:
                    training.trainer.__exit__(SystemExit, SystemExit(0), None)
                    os._exit((tmp_path / "run" / "summary.json").exists())
                assert 0 == os.waitpid(child, 0)[1]
    assert (4, True) == (training.trainer.step, training.trainer.main)
