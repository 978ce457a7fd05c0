"""A run without a record: no file anywhere, the same weights, and the terminal as with one."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import HEAD, LOOP, launch, program

import karp as library
from karp import nn, optim
from karp.errors import SettingError
from karp.protocol.server.ranges import Ranges

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def train(**changes: Any) -> nn.Module:
    net = nn.MLP(3, [8], 2, seed=1)
    arguments = {"batch_size": 16, "epochs": 2, "record": False} | changes
    with library.Trainer(net, optim.SGD(lr=0.1), **arguments) as trainer:
        for x, y in trainer.batches(X, Y, evaluate=lambda: 0.5):
            trainer.backward(nn.cross_entropy(net(x), y))
    return net


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which this process is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"staleness": None, "shards": 3}, {"local_steps": 2}, {"codec": "int8"}])
def test_it_leaves_no_file_and_the_same_weights(folder: Path, options: dict[str, Any]) -> None:
    without = train(show=False, **options)
    assert [] == os.listdir(folder)
    recorded = train(show=False, record=True, run_dir="run", **options)
    assert recorded.parameters.sha256() == without.parameters.sha256()


def test_the_terminal_shows_what_it_shows_with_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = train().parameters.sha256()
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"karp: score 0\.5  epoch loss \S+  8 steps in \S+ s  weights {weights[:12]}", last)
    train(show=False)
    assert "" == capsys.readouterr().err


def test_a_directory_and_no_record_contradict_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="record is False, so run_dir 'here' would hold no files: leave out one"):
        train(run_dir="here")
    monkeypatch.setenv("KARP_RUN_DIR", "there")
    with pytest.raises(SettingError, match="record is False, so KARP_RUN_DIR 'there' would hold no files"):
        train()
    with pytest.raises(SettingError, match="record must be True or False, not 'no'"):
        train(record="no")
    assert [] == os.listdir(folder)


def test_what_is_broken_off_says_that_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(nn, "cross_entropy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(show=False)
    assert "" == capsys.readouterr().err  # nothing is to be shown
    with monkeypatch.context() as patch:
        patch.setattr(nn, "cross_entropy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
    why = "no launcher can go on with it, as it keeps no record"
    assert f"karp: stopped after step 0; {why}" == capsys.readouterr().err.splitlines()[-1]

    def torn(self: Ranges, *_: Any) -> bool:
        self.at_work = True
        raise RuntimeError("an alarm")

    monkeypatch.setattr(Ranges, "try_to_end", torn)
    with pytest.raises(RuntimeError, match="an alarm"):
        train(show=False)
    assert f"broken off in the middle of a step: nothing is left of it; {why}" in capsys.readouterr().err
    assert [] == os.listdir(folder)


def test_the_record_of_a_launcher_is_the_launchers(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass").replace("batch_size", "record=False, batch_size"))
    done = launch(tmp_path, 1, path)
    assert 0 == done.returncode, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["finished"]
