"""Local steps in one process: a hand-written DiLoCo, whole epochs, what a loop that is left leaves behind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import summary

import karp
from karp import data, nn, optim
from karp.errors import SettingError
from karp.protocol.steps import Rounds

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
INNER = optim.SGD(lr=0.1, momentum=0.5)


def train(directory: Path, leave_at: tuple[int, int] | None = None, **changes: Any) -> tuple[nn.Module, list[Any]]:
    """A whole run; also the (step, shard, rows, a number of trainer.rng) of every batch."""
    net, seen = nn.MLP(3, [8], 2, seed=1), []
    arguments = {"batch_size": 16, "epochs": 3, "local_steps": 3, "run_dir": directory, "show": False} | changes
    with karp.Trainer(net, INNER, **arguments) as trainer:
        for x, y in trainer.batches(X, Y):
            trainer.backward(nn.cross_entropy(net(x), y))
            seen.append((trainer.step, trainer.shard, len(x), float(trainer.rng.random())))
            if leave_at == (trainer.step, len(seen)):
                break
    return net, seen


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_it_is_what_diloco_is(tmp_path: Path, shards: int) -> None:
    trained, seen = train(tmp_path / "run", shards=shards)
    plan = data.Plan(50, 16, shards, 0)  # 4 batches an epoch, the last of 2 rows: rounds of 3 and 1
    net = nn.MLP(3, [8], 2, seed=1)
    outer = optim.Updater(optim.SGD(lr=0.7, momentum=0.9, nesterov=True), net.parameters.data.copy())
    rounds = [span for first in (0, 4, 8) for span in (range(first, first + 3), range(first + 3, first + 4))]
    for batches in rounds:
        samples = sum(plan.samples_of(batch) for batch in batches)
        total = np.zeros_like(outer.weights)
        for shard in range(plan.shards_of(batches[0])):
            net.parameters.data[:] = outer.weights
            inner, used = optim.Updater(INNER, net.parameters), 0
            for batch in batches:
                rows = plan.rows(batch, shard)
                net.zero_grad()
                nn.cross_entropy(net(X[rows]), Y[rows]).backward()
                inner.update(net.parameters.grad)
                used += len(rows)
            total += (outer.weights - net.parameters.data) * np.float32(used / samples)
        outer.update(total)
    np.testing.assert_allclose(outer.weights, trained.parameters.data, atol=1e-6)
    assert 150 == summary(tmp_path / "run")["samples"] == sum(rows for _, _, rows, _ in seen)
    assert (6, 3.0) == (summary(tmp_path / "run")["steps"], summary(tmp_path / "run")["epochs"])
    assert len(seen) == len({number for *_, number in seen})  # chance of each batch's own


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 6), st.integers(1, 9))
def test_rounds_hold_every_sample_once(samples: int, batch_size: int, shards: int, local_steps: int) -> None:
    plan = data.Plan(samples, batch_size, shards, 0)
    rounds = Rounds(plan, local_steps)
    places = [
        (batch, shard)
        for step in range(2 * rounds.steps_per_epoch)
        for shard in range(rounds.shards_of(step))
        for batch in rounds.batches(step, shard)
    ]
    expected = [(batch, shard) for batch in range(2 * plan.steps_per_epoch) for shard in range(plan.shards_of(batch))]
    assert expected == sorted(places)
    for step in range(rounds.steps_per_epoch):
        there = range(rounds.shards_of(step))
        assert rounds.samples_of(step) == sum(rounds.samples_in(step, shard) for shard in there)
        assert abs(1 - sum(rounds.share(step, shard) for shard in there)) < 1e-12
        assert all(1 <= len(rounds.batches(step, shard)) <= local_steps for shard in there)


def test_a_loop_that_is_left_within_a_round_leaves_the_weights_of_the_step(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", epochs=1)
    before, seen = train(tmp_path / "left", leave_at=(2, 6))  # two rounds of epoch 0, and two batches of the next
    assert [(0, 3), (1, 1), (2, 2)] == [(step, sum(one[0] == step for one in seen)) for step in range(3)]
    assert whole.parameters.sha256() == before.parameters.sha256() == summary(tmp_path / "left")["weights_sha256"]


def test_one_local_step_is_none_and_rate_one_is_averaging(tmp_path: Path) -> None:
    plain, _ = train(tmp_path / "a", local_steps=1)
    left_out, _ = train(tmp_path / "b", local_steps=None)
    assert plain.parameters.sha256() == left_out.parameters.sha256()
    averaged, _ = train(tmp_path / "c", shards=1, local_steps=2, outer=optim.SGD(lr=1.0))
    net = nn.MLP(3, [8], 2, seed=1)
    plan = data.Plan(50, 16, 1, 0)
    for batch in range(12):
        if batch % 2 == 0:
            inner = optim.Updater(INNER, net.parameters)
        net.zero_grad()
        nn.cross_entropy(net(X[plan.rows(batch, 0)]), Y[plan.rows(batch, 0)]).backward()
        inner.update(net.parameters.grad)
    np.testing.assert_allclose(net.parameters.data, averaged.parameters.data, atol=1e-6)


def test_arguments_that_do_not_go_together_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="it goes with more than one local step, and only then"):
        train(tmp_path / "a", local_steps=1, outer=optim.SGD(lr=1.0))
    for wrong in (0, -1):
        with pytest.raises(SettingError, match=rf"local_steps must be a whole number from 1 to .*, not {wrong}"):
            train(tmp_path / "b", local_steps=wrong)
    monkeypatch.setenv("KARP_LOCAL_STEPS", "4")
    with pytest.raises(SettingError, match=r"local_steps is 3 in the program, but KARP_LOCAL_STEPS .* says 4"):
        train(tmp_path / "c")
