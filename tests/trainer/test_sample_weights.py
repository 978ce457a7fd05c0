"""Sample weights: a sample of weight 2 counts as if it were there twice, whoever computes what."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import completed, karp, metrics, program, summary

import karp as library
from karp import nn, optim
from karp.data import Table
from karp.errors import SettingError
from karp.serve.in_process import LocalLink
from karp.trainer.dataset import Dataset

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
W = RNG.uniform(0.1, 5.0, size=40)
MODES: list[dict[str, Any]] = [
    {},
    {"shards": 3},
    {"local_steps": 2, "shards": 2},
    {"codec": "int8", "shards": 3},
    {"staleness": None, "shards": 2},
    {"staleness": 1, "shards": 3},
]


def train(x: Any, y: Any, w: Any, lr: float = 0.2, **changes: Any) -> nn.MLP:
    net = nn.MLP(3, [5], 2, seed=1)
    arguments = {"batch_size": 16, "epochs": 3, "show": False} | ({} if "run_dir" in changes else {"record": False})
    with library.Trainer(net, optim.SGD(lr=lr), **(arguments | changes)) as trainer:
        for xs, ys, *ws in trainer.batches(x, y, sample_weights=w):
            trainer.backward(nn.cross_entropy(net(xs), ys, sample_weights=ws[0] if ws else None))
    return net


def vector(net: nn.Module) -> np.ndarray:
    return net.parameters.data


@given(st.lists(st.integers(0, 4), min_size=40, max_size=40).filter(any), st.integers(1, 5))
def test_whole_weights_are_repeated_rows(weights: list[int], shards: int) -> None:
    """In batches of all rows: how rows share smaller ones is drawn, and repeated ones are drawn one by one."""
    rows = np.repeat(np.arange(40), weights)
    repeated = train(X[rows], Y[rows], None, batch_size=len(rows), shards=1)
    weighted = train(X, Y, weights, batch_size=40, shards=shards)
    np.testing.assert_allclose(vector(repeated), vector(weighted), atol=2e-6)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_equal_weights_are_none_and_only_their_ratio_counts(mode: dict[str, Any]) -> None:
    plain = vector(train(X, Y, None, **mode))
    atol = 1e-2 if "codec" in mode else 1e-6  # a rounding more or less there is one of 8 bits
    for weights in (np.full(40, 0.7), np.full(40, 2**70, np.float32)):
        np.testing.assert_allclose(plain, vector(train(X, Y, weights, **mode)), atol=atol)
    assert train(X, Y, W, **mode).parameters.sha256() == train(X, Y, 4.0 * W, **mode).parameters.sha256()


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_rows_of_weight_0_are_not_there(mode: dict[str, Any]) -> None:
    weights = W.copy()
    weights[::3] = 0.0
    kept = np.flatnonzero(weights)
    without = train(X[kept], Y[kept], weights[kept], **mode)
    assert without.parameters.sha256() == train(X, Y, weights, **mode).parameters.sha256()
    x = X.copy()
    x[::3] = np.nan
    assert without.parameters.sha256() == train(x, Y, weights, **mode).parameters.sha256()


def test_shards_equal_the_whole_batch_up_to_rounding() -> None:
    whole = vector(train(X, Y, W))
    for shards in (2, 3, 16):
        np.testing.assert_allclose(whole, vector(train(X, Y, W, shards=shards)), atol=2e-6)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_reported_losses_are_weighted_means(tmp_path: Path, mode: dict[str, Any]) -> None:
    """Nothing moves, so the loss of an epoch is that of the data."""
    outer = {"outer": optim.SGD(lr=1.0)} if "local_steps" in mode else {}
    net = train(X, Y, W, lr=0.0, run_dir=tmp_path / "run", **mode, **outer)
    expected = nn.cross_entropy(net(X), Y, sample_weights=W).item()
    found = summary(tmp_path / "run")
    assert (pytest.approx(expected, rel=1e-5), 120) == (found["epoch_loss"], found["samples"])
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["weighted"]


def test_steps_that_are_taken_at_once_are_those_that_go_by_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    fast = train(X, Y, W, batch_size=4, run_dir=tmp_path / "a")
    monkeypatch.setattr(LocalLink, "try_apply", lambda *_: False)
    slow = train(X, Y, W, batch_size=4, run_dir=tmp_path / "b")
    assert fast.parameters.sha256() == slow.parameters.sha256()
    assert metrics(tmp_path / "a")[1:] == metrics(tmp_path / "b")[1:]
    assert summary(tmp_path / "a")["epoch_loss"] == summary(tmp_path / "b")["epoch_loss"]


def test_what_is_left_out_is_said_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    weights = W.copy()
    weights[[0, 5, 39]] = 0.0
    train(X, Y, weights, run_dir=tmp_path / "run")
    texts = [line["text"] for line in metrics(tmp_path / "run") if line["report"] == "notice"]
    assert ["3 of 40 rows have the sample weight 0 and are left out"] == texts
    x = X.copy()
    x[7, 2] = np.nan
    assert "in row 7, column 2 of array 0 is nan" == Dataset(x, Y, sample_weights=weights).not_finite(np.arange(37))


def test_a_batch_has_the_weights_last_and_data_with_weights_are_other_data() -> None:
    x, y, w = Dataset(Table(X, Y), sample_weights=W.astype(np.float32)).take(np.array([3, 1]))
    assert (X[[3, 1]].tolist(), Y[[3, 1]].tolist()) == (x.tolist(), y.tolist())
    assert (W.astype(np.float32)[[3, 1]].tolist(), np.float32) == (w.tolist(), w.dtype)
    less = W * (np.arange(40) > 0)
    prints = {
        Dataset(X, Y).fingerprint(), Dataset(X, Y, W).fingerprint(), Dataset(X, Y, sample_weights=W).fingerprint(),
        Dataset(X, Y, sample_weights=less).fingerprint(), Dataset(X, Y, sample_weights=less[::-1]).fingerprint(),
    }  # fmt: skip
    assert 5 == len(prints)
    with pytest.raises(SettingError, match="pass one weight for each row"):
        Dataset(X, Y, sample_weights=W[:7])


PROGRAM = """
import numpy as np
import karp
from karp import nn, optim
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)
weights = rng.uniform(0.1, 5.0, 64) * (rng.random(64) > 0.3)
model = nn.MLP(3, [8], 2)
with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=16, epochs=3, shards=6) as trainer:
    for xs, ys, ws in trainer.batches(x, y, sample_weights=weights):
        trainer.backward(nn.cross_entropy(model(xs), ys, sample_weights=ws))
"""


def test_the_bits_show_no_workers(tmp_path: Path) -> None:
    path = program(tmp_path, PROGRAM)
    done = completed([sys.executable, str(path)], tmp_path, KARP_RUN_DIR=str(tmp_path / "alone"))
    assert 0 == done.returncode, done.stderr
    expected = summary(tmp_path / "alone")
    for workers, options in ((1, []), (2, []), (3, ["--exchange", "zeromq"])):
        run = tmp_path / str(workers)
        done = karp("launch", "-n", workers, *options, "--run-dir", run, path, cwd=tmp_path)
        assert 0 == done.returncode, done.stderr
        found = summary(run)
        assert expected["weights_sha256"] == found["weights_sha256"]
        assert pytest.approx(expected["epoch_loss"], rel=1e-12) == found["epoch_loss"]


@pytest.mark.parametrize("staleness", ["0", "1", "none"])
def test_a_run_is_repeated_with_what_timing_has_chosen_and_what_was_left_out(tmp_path: Path, staleness: str) -> None:
    spoilt = PROGRAM.replace("model = ", "x[np.argmax(weights), 1] = np.nan\nmodel = ")
    path, run = program(tmp_path, spoilt), tmp_path / "run"
    options = ["--staleness", staleness, "--on-nonfinite", "skip", "--run-dir", run]
    done = karp("launch", "-n", 2, *options, path, cwd=tmp_path, PYTHONWARNINGS="")
    assert 0 == done.returncode, done.stderr
    assert 3 == done.stderr.count("the shard is left out")
    done = karp("replay", run, cwd=tmp_path, PYTHONWARNINGS="")
    assert 0 == done.returncode, done.stderr
    assert json.loads((run / "replay.json").read_text())["equal"]
