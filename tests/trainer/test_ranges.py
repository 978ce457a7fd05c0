"""Ranges in one process: nothing but the time tells their steps from those that go by message."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import karp
from karp import nn, optim
from karp.errors import RunError
from karp.parameters import Parameters
from karp.protocol.messages import Lease
from karp.protocol.server.ranges import Ranges
from karp.serve.in_process import LocalLink

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
TIMES = {"seconds", "samples_per_s", "began", "ended", "pid", "steps_in_ranges"}


def steps(trainer: karp.Trainer, net: nn.MLP, at: Callable[[karp.Trainer], None] = lambda trainer: None) -> None:
    for x, y in trainer.batches(X, Y, evaluate=lambda: float(net(X).data.sum())):
        trainer.backward(nn.cross_entropy(net(x, trainer.rng), y))
        at(trainer)


def leave(trainer: karp.Trainer, net: nn.MLP) -> None:
    for x, y in trainer.batches(X, Y):
        trainer.backward(nn.cross_entropy(net(x, trainer.rng), y))
        if trainer.step == 6:
            break


def stop_at_7(trainer: karp.Trainer) -> None:
    if trainer.step == 7:
        trainer.stop()


def fail_at_7(trainer: karp.Trainer) -> None:
    if trainer.step == 7:
        raise ZeroDivisionError


PROGRAMS: dict[str, Callable[[karp.Trainer, nn.MLP], None]] = {
    "plain": steps,
    "logs": lambda trainer, net: steps(
        trainer, net, lambda trainer: trainer.log(step=trainer.step) if trainer.step % 3 == 0 else None
    ),
    "stop": lambda trainer, net: steps(trainer, net, stop_at_7),
    "break": leave,
    "failure": lambda trainer, net: steps(trainer, net, fail_at_7),
}


def outcome(directory: Path, program: str, **changes: Any) -> tuple[Any, ...]:
    """All that a run leaves behind but the time it took."""
    net = nn.MLP(3, [8], 2, dropout=0.2, seed=1)
    arguments = {"optimizer": optim.SGD(lr=0.1), "batch_size": 4, "epochs": 2} | changes
    trainer = karp.Trainer(net, run_dir=directory, show=False, **arguments)
    error, seen = None, 0
    try:
        with trainer:
            PROGRAMS[program](trainer, net)
    except (ZeroDivisionError, RunError) as caught:
        error = type(caught)
    if error is None:
        seen = trainer.step
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((directory / "summary.json").read_text())
    kept = [{key: value for key, value in plain.items() if key not in TIMES} for plain in (*lines, summary)]
    kept = [each for each in kept if each.get("report") not in ("traceback", "workers")]
    return error, seen, net.parameters.sha256(), kept


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 16},
        {"batch_size": 50, "epochs": 9},
        {"batch_size": 25, "epochs": 5},
        {"shards": 3},
        {"optimizer": optim.Adam(lr=optim.WarmUp(0.1, steps=5), clip_norm=0.1)},
        {"optimizer": optim.SGD(lr=1e6, momentum=0.9)},
        {"local_steps": 3},
        {"codec": "int8"},
        {"staleness": None},
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_what_a_run_leaves_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # else a report is due now in one run and then in the other
    found = outcome(tmp_path / "a", program, **changes)
    monkeypatch.setattr(LocalLink, "try_apply", lambda *_: False)
    assert outcome(tmp_path / "b", program, **changes) == found


def test_most_steps_are_taken_at_once_and_none_that_has_more_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def take(ranges: Ranges, peer: bytes, lease: Lease, *arguments: Any) -> bool:
        step = lease.step
        done = original(ranges, peer, lease, *arguments)
        taken.extend([step] * done)
        return done

    original = Ranges.try_to_end
    monkeypatch.setattr(Ranges, "try_to_end", take)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # no report is due
    outcome(tmp_path, "plain", batch_size=5)  # epochs of 10 steps, each evaluated
    assert [*range(9), *range(10, 19)] == taken


def test_a_report_and_a_checkpoint_that_are_due_are_not_passed_over(tmp_path: Path) -> None:
    net = nn.MLP(3, [8], 2, seed=1)
    seconds = iter(range(1000))
    with pytest.MonkeyPatch.context() as patch, karp.Trainer(
        net, optim.SGD(lr=0.1), batch_size=1, run_dir=tmp_path, show=False
    ) as trainer:
        patch.setattr(time, "monotonic", lambda: float(next(seconds)))
        for x, y in trainer.batches(X, Y):
            trainer.backward(nn.cross_entropy(net(x), y))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    reported = [line["step"] for line in lines if line["report"] == "progress"]
    assert len(reported) > 20
    assert 50 == reported[-1]


@pytest.mark.parametrize("point", ["step", "place"])
def test_an_interrupt_that_the_program_catches_lets_no_gradient_count_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """When the lease has moved on: before the worker knows, and after."""

    def after(function: Callable[..., Any]) -> Callable[..., Any]:
        calls = iter(range(1000))

        def interrupted(*args: Any) -> Any:
            result = function(*args)
            if next(calls) == 5:
                raise KeyboardInterrupt
            return result

        return interrupted

    def train(directory: Path, last: int) -> tuple[int, str]:
        net = nn.MLP(3, [8], 2, seed=1)
        with karp.Trainer(
            net, optim.SGD(lr=0.1), batch_size=2, epochs=3, run_dir=directory, show=False
        ) as trainer:
            try:
                for x, y in trainer.batches(X, Y):
                    trainer.backward(nn.cross_entropy(net(x), y))
                    if trainer.step == last:
                        trainer.stop()
            except KeyboardInterrupt:
                pass
        return trainer.step, net.parameters.sha256()

    with monkeypatch.context() as patch:
        if point == "step":
            patch.setattr(Ranges, "try_to_end", after(Ranges.try_to_end))
        else:
            patch.setattr(Parameters, "mark_modified", after(Parameters.mark_modified))
        steps, found = train(tmp_path / "a", -1)
    assert (steps, found) == train(tmp_path / "b", steps - 1)


def test_weights_that_the_program_moves_are_put_back(tmp_path: Path) -> None:
    def train(directory: Path, at: int) -> str:
        net = nn.MLP(3, [8], 2, seed=1)
        with karp.Trainer(net, optim.SGD(lr=0.1), batch_size=5, run_dir=directory, show=False) as trainer:
            for x, y in trainer.batches(X, Y):
                trainer.backward(nn.cross_entropy(net(x), y))
                if trainer.step == at:
                    net.parameters.keep_weights_in(net.parameters.data.copy())
        return net.parameters.sha256()

    assert train(tmp_path / "a", -1) == train(tmp_path / "b", 3)
