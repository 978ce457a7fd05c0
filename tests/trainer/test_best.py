"""The best epoch: a program ends with its weights, in one process and in many, whatever dies; so does a replay."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import HEAD, alone, launch, program, summary
from running import karp as karp_command
from safetensors.numpy import load_file

import karp
from karp import nn, optim
from karp.errors import ProgramError, SettingError

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
NAN = math.nan
OPTIONS: list[dict[str, Any]] = [
    {},
    {"shards": 3},
    {"shards": 2, "codec": "int8"},
    {"codec_weights": "float16"},
    {"local_steps": 2},
    {"shards": 3, "staleness": 1},
    {"shards": 2, "staleness": None},
]


def train(
    folder: Path, scores: list[Any], stop_at: int = -1, wait_for_score: bool = False, **changes: Any
) -> tuple[nn.Module, list[np.ndarray]]:
    """Train for as many epochs as there are scores; the model, and the weights of each epoch as they were scored."""
    net, weights = nn.MLP(3, [8], 2, seed=1), []
    arguments = {"batch_size": 16, "epochs": len(scores), "run_dir": folder / "run", "show": False} | changes
    with karp.Trainer(net, optim.SGD(lr=0.1, momentum=0.9), **arguments) as trainer:
        def evaluate() -> Any:
            weights.append(net.parameters.data.copy())
            if trainer.epoch == stop_at:
                trainer.stop()
            return scores[trainer.epoch]

        for x, y in trainer.batches(X, Y, evaluate=evaluate, wait_for_score=wait_for_score):
            trainer.backward(nn.cross_entropy(net(x), y))
    return net, weights


@pytest.mark.parametrize("options", OPTIONS, ids=[" ".join(options) or "plain" for options in OPTIONS])
def test_model_and_files_have_the_weights_of_the_best_epoch(tmp_path: Path, options: dict[str, Any]) -> None:
    scores = [{"loss": loss, "epochs": 0.0} for loss in (2.0, 0.5, NAN, 0.5, 0.75)]
    net, weights = train(tmp_path, scores, keep_best="loss", mode="min", **options)
    assert weights[3].tobytes() == net.parameters.data.tobytes()
    assert net.parameters.data.flags.writeable
    found = summary(tmp_path / "run")
    assert ({"epoch": 3, "loss": 0.5}, 0.75) == (found["best"], found["metrics"]["loss"])
    assert net.parameters.sha256() == found["weights_sha256"]
    for name, array in load_file(tmp_path / "run" / "weights.safetensors").items():
        assert array.tobytes() == net.parameters[name].data.tobytes()


def test_the_first_of_equal_epochs_counts_if_asked_for_and_a_number_is_named_score(tmp_path: Path) -> None:
    net, weights = train(tmp_path, [0.5, 0.9, 0.9], keep_best="score", ties="first")
    assert weights[1].tobytes() == net.parameters.data.tobytes()
    assert {"epoch": 1, "score": 0.9} == summary(tmp_path / "run")["best"]


def test_the_last_line_names_the_epoch_from_1_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, [0.5, 0.9, 0.8, 0.7], keep_best="score", stop_at=2, wait_for_score=True, show=True)
    assert "  best epoch 2 of 3: score 0.9  12 steps in " in capsys.readouterr().err.splitlines()[-1]


def test_an_early_stop_ends_with_the_best_epoch(tmp_path: Path) -> None:
    net, weights = train(tmp_path, [0.5, 0.9, 0.8, 1.0], keep_best="score", stop_at=2, wait_for_score=True)
    assert weights[1].tobytes() == net.parameters.data.tobytes()
    assert (12, 3) == (summary(tmp_path / "run")["steps"], len(weights))


def test_without_a_score_that_is_a_number_the_last_weights_are_kept_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, weights = train(tmp_path, [NAN, NAN], keep_best="score", show=True)
    assert weights[1].tobytes() == net.parameters.data.tobytes()
    error = capsys.readouterr().err
    assert "karp: no epoch has a score 'score' that is a number: the last weights are kept" in error
    assert "best epoch" not in error
    assert "best" not in summary(tmp_path / "run")


def test_a_run_that_keeps_no_best_epoch_ends_with_its_last_weights(tmp_path: Path) -> None:
    net, weights = train(tmp_path, [0.9, 0.5])
    assert weights[1].tobytes() == net.parameters.data.tobytes()
    assert "best" not in summary(tmp_path / "run")


def test_a_score_that_evaluate_does_not_return_ends_the_run_and_names_those_that_it_does(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="keep_best is 'f1', but evaluate has returned 'loss', 'accuracy': keep_"):
        train(tmp_path, [{"loss": 1.0, "accuracy": 0.5}], keep_best="f1")
    assert "evaluate has returned 'loss', 'accuracy'" in summary(tmp_path / "run")["failure"]


def test_keep_best_needs_scores_and_is_checked_at_once(tmp_path: Path) -> None:
    net = nn.MLP(3, [8], 2)
    for wrong, reason in [({"keep_best": 3}, "keep_best must be"), ({"mode": "up"}, "mode must be 'max' or 'min'")]:
        with pytest.raises(SettingError, match=reason):
            karp.Trainer(net, optim.SGD(lr=0.1), batch_size=16, **wrong)  # type: ignore[arg-type]
    training = karp.Trainer(net, optim.SGD(lr=0.1), batch_size=16, keep_best="a", run_dir=tmp_path / "run")
    with training, pytest.raises(SettingError, match="keep_best is 'a', but the run has no scores"):
        training.batches(X, Y)
    assert not (tmp_path / "run").exists()


PROGRAM = HEAD + """
SCORES = [0.5, 0.9, float("nan"), 0.9, 0.1, 0.2, 0.3, 0.3]
optimizer = optim.SGD(lr=0.1, momentum=0.9)
with karp.Trainer(model, optimizer, batch_size=16, epochs=8, shards=3, keep_best="accuracy", ties="first") as trainer:
    for xs, ys in trainer.batches(x, y, evaluate=lambda: {"accuracy": SCORES[trainer.epoch]}):
        trainer.backward(nn.cross_entropy(model(xs), ys))
print("weights", model.parameters.sha256())
"""


def check(run: Path, expected: str, workers: int) -> None:
    """The run, and the program in each of its workers, has ended with these weights."""
    found = summary(run)
    assert ({"epoch": 1, "accuracy": 0.9}, 32, 0) == (found["best"], found["steps"], found["exit"])
    assert expected == found["weights_sha256"]
    logs = [log.read_text().split() for log in sorted((run / "logs").iterdir())]
    assert [expected] * workers == [words[words.index("weights") + 1] for words in logs if "weights" in words]


def test_any_number_of_workers_ends_with_the_same_bits_and_so_does_the_replay(tmp_path: Path) -> None:
    path = program(tmp_path, PROGRAM)
    expected = alone(path, directory=tmp_path / "0")[0]["weights_sha256"]
    for workers, options in [(1, ()), (2, ()), (3, ("--exchange", "zeromq"))]:
        done = launch(tmp_path, workers, path, run=str(workers), options=options)
        assert (0, f"weights {expected}\n") == (done.returncode, done.stdout), done.stderr
        assert "  best epoch 2 of 8: accuracy 0.9  32 steps in " in done.stderr
        check(tmp_path / str(workers), expected, workers)
    done = karp_command("replay", tmp_path / "2", cwd=tmp_path)
    assert 0 == done.returncode, done.stdout + done.stderr
    done = karp_command("launch", "--resume", tmp_path / "2", "-n", 3, cwd=tmp_path)
    assert (0, f"weights {expected}\n") == (done.returncode, done.stdout), done.stderr
    assert expected == summary(tmp_path / "2")["weights_sha256"]


FAULTS = ["server: die applied step 14", "server: die replied step 32", "worker: die evaluation"]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_best_epoch_outlives_server_and_workers(tmp_path: Path, fault: str) -> None:
    path = program(tmp_path, PROGRAM)
    expected = alone(path, directory=tmp_path / "0")[0]["weights_sha256"]
    done = launch(tmp_path, 2, path, options=("--checkpoint-every", 0), KARP_FAULT=fault)
    assert (0, f"weights {expected}\n") == (done.returncode, done.stdout), done.stderr
    assert (tmp_path / "run" / "faults" / "0").exists()
    assert ({"epoch": 1, "accuracy": 0.9}, expected) == (
        summary(tmp_path / "run")["best"], summary(tmp_path / "run")["weights_sha256"]
    )  # fmt: skip


@pytest.mark.parametrize("staleness", ["1", "none"])
def test_a_run_with_staleness_is_repeated_to_its_best_epoch(tmp_path: Path, staleness: str) -> None:
    done = launch(tmp_path, 2, program(tmp_path, PROGRAM), options=("--staleness", staleness))
    assert 0 == done.returncode, done.stderr
    check(tmp_path / "run", summary(tmp_path / "run")["weights_sha256"], 2)
    done = karp_command("replay", tmp_path / "run", cwd=tmp_path)
    assert 0 == done.returncode, done.stdout + done.stderr
    path = tmp_path / "run" / "summary.json"
    for wrong, reason in [({"epoch": 99}, "epoch 99, the best of the run, never ends"), ("last", "for the best epoch")]:
        path.write_text(json.dumps(summary(tmp_path / "run") | {"best": wrong}))
        done = karp_command("replay", tmp_path / "run", cwd=tmp_path)
        assert 0 != done.returncode
        assert reason in done.stderr
