"""Real processes: the launcher, the server and N workers."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "workers" / "digits.py"

HEAD = """
import os, sys
import numpy as np
import karp
from karp import nn, optim
worker = int(os.environ.get("KARP_WORKER", "0"))
x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)
model = nn.MLP(3, [8], 2)
"""
LOOP = """
with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=16, epochs=2) as trainer:
    for xs, ys in trainer.batches(x, y):
        {body}
        trainer.backward(nn.cross_entropy(model(xs), ys))
"""


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KARP_")}
    return clean | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


def karp(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "karp.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=100)


def program(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "program.py"
    path.write_text(text)
    return path


def launch(tmp_path: Path, workers: int, text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = program(tmp_path, text)
    return karp("launch", "-n", workers, "--run-dir", tmp_path / "run", path, *arguments, cwd=tmp_path)


def summary(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return found


def left_over(directory: Path) -> list[str]:
    """Processes that belong to the run in this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"KARP_RUN_DIR={directory}\0".encode() in variables:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_digits_ends_with_the_same_bits_for_any_number_of_workers(tmp_path: Path, optimizer: str) -> None:
    options = ["--shards", 8, "--epochs", 3, "--optimizer", optimizer]
    alone = subprocess.run(
        [sys.executable, str(DIGITS), *map(str, options)],
        cwd=tmp_path,
        env=environment() | {"KARP_RUN_DIR": str(tmp_path / "alone")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (0, "") == (alone.returncode, alone.stderr if alone.returncode else "")
    expected = summary(tmp_path / "alone")
    for workers in (1, 2, 3, 5, 8):
        done = karp("launch", "-n", workers, "--run-dir", tmp_path / str(workers), DIGITS, *options, cwd=tmp_path)
        assert (0, alone.stdout) == (done.returncode, done.stdout), done.stderr
        found = summary(tmp_path / str(workers))
        assert expected["weights_sha256"] == found["weights_sha256"], workers
        same = ("shards", "steps", "samples", "metrics", "loss", "exit", "dropped", "refused")
        assert {name: expected[name] for name in same} == {name: found[name] for name in same}
        assert (workers, 0) == (found["workers"], found["main"])


def test_digits_reaches_97_percent_and_says_where_its_files_are(tmp_path: Path) -> None:
    done = karp("launch", "-n", 2, "--run-dir", tmp_path / "run", DIGITS, cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    found = summary(tmp_path / "run")
    assert found["metrics"]["test_accuracy"] >= 0.97
    assert f"test accuracy {found['metrics']['test_accuracy']:.4f} on 359 digits\n" == done.stdout
    assert f"files in {tmp_path / 'run'}" in done.stderr
    assert "step 690/690" in done.stderr
    assert {"weights.safetensors", "metrics.jsonl", "summary.json", "settings.json", "logs"} == {
        path.name for path in (tmp_path / "run").iterdir()
    }


@pytest.mark.parametrize("workers", [1, 3, 6])
def test_four_points_under_workers_some_of_which_have_nothing_to_do(tmp_path: Path, workers: int) -> None:
    four_points = ROOT / "workers" / "four_points.py"
    done = karp("launch", "-n", workers, "--run-dir", tmp_path / "run", four_points, cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    values = [float(line.removeprefix("Value(").removesuffix(")")) for line in done.stdout.splitlines()]
    for expected, value in zip([1, -1, -1, 1], values, strict=True):
        assert abs(expected - value) < 0.01


def test_an_exception_in_a_worker_ends_the_run_with_its_traceback(tmp_path: Path) -> None:
    body = "if trainer.step == 5 and worker == 1: raise ZeroDivisionError('on purpose')"
    done = launch(tmp_path, 3, HEAD + LOOP.format(body=body))
    assert 1 == done.returncode
    assert 1 == done.stderr.count("Traceback (most recent call last)")
    assert "karp: worker 1 failed: ZeroDivisionError: on purpose" in done.stderr
    assert "program.py" in done.stderr
    found = summary(tmp_path / "run")
    assert (1, 5, "worker 1 failed: ZeroDivisionError: on purpose") == (found["exit"], found["steps"], found["failure"])
    assert [] == left_over(tmp_path / "run")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("before", "worker 1 ended with exit status 3"),
        ("loop", "worker 1 ended with exit status 3"),
        ("killed", "worker 1 was killed by SIGKILL"),
        ("raised before", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("after", "worker 1 ended with exit status 3"),
    ],
)
def test_a_worker_that_dies_ends_the_run(tmp_path: Path, where: str, expected: str) -> None:
    deaths = {
        "before": ("os._exit(3)", "pass", ""),
        "loop": ("pass", "os._exit(3)", ""),
        "killed": ("pass", "os.kill(os.getpid(), 9)", ""),
        "raised before": ("import no_such_module", "pass", ""),
        "after": ("pass", "pass", "os._exit(3)"),
    }
    before, inside, after = (f"if worker == 1: {death}" if death else "" for death in deaths[where])
    done = launch(tmp_path, 2, HEAD + before + LOOP.format(body=inside) + after)
    assert 1 == done.returncode, done.stderr
    assert expected in done.stderr
    assert 1 == summary(tmp_path / "run")["exit"]
    assert [] == left_over(tmp_path / "run")


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    done = launch(tmp_path, 2, HEAD + LOOP.format(body="xs[0, 0] = np.nan if (trainer.step, worker) == (3, 1) else 0"))
    assert 1 == done.returncode
    assert "the gradient of step 3, shard 1 from worker 1 is not finite" in done.stderr
    assert 3 == summary(tmp_path / "run")["steps"]


def test_programs_that_differ_are_refused_with_both_values(tmp_path: Path) -> None:
    text = HEAD + LOOP.format(body="pass").replace("batch_size=16", "batch_size=16 + worker")
    done = launch(tmp_path, 2, text)
    assert 1 == done.returncode
    assert "batch_size is 1" in done.stderr
    assert " in the program, 1" in done.stderr
    assert [] == left_over(tmp_path / "run")


def test_a_second_trainer_is_refused(tmp_path: Path) -> None:
    done = launch(tmp_path, 1, HEAD + LOOP.format(body="pass") + LOOP.format(body="pass"))
    assert 1 == done.returncode
    assert "a second Trainer" in done.stderr


def test_a_program_without_a_trainer_is_told(tmp_path: Path) -> None:
    done = launch(tmp_path, 2, "print('hello')")
    assert 1 == done.returncode
    assert "no worker trained" in done.stderr


def test_a_stop_in_one_worker_ends_the_run_for_all(tmp_path: Path) -> None:
    text = HEAD + LOOP.format(body="if (trainer.step, worker) == (2, 1): trainer.stop()")
    done = launch(tmp_path, 3, text + "\nif trainer.main: print(trainer.step, *sys.argv[1:])", "--flag", "x y")
    assert (0, "3 --flag x y\n") == (done.returncode, done.stdout), done.stderr
    assert 3 == summary(tmp_path / "run")["steps"]


def test_a_break_in_every_worker_ends_the_run(tmp_path: Path) -> None:
    text = HEAD + LOOP.format(body="pass") + "        if trainer.step == 2: break\n"
    done = launch(tmp_path, 2, text + "\nif trainer.main: print(trainer.step)")
    assert (0, "3\n") == (done.returncode, done.stdout), done.stderr


def test_every_worker_has_the_final_weights(tmp_path: Path) -> None:
    text = HEAD + LOOP.format(body="pass") + "\nprint(model.parameters.sha256())"
    done = launch(tmp_path, 3, text)
    assert 0 == done.returncode, done.stderr
    expected = summary(tmp_path / "run")["weights_sha256"] + "\n"
    assert [expected] * 3 == [(tmp_path / "run" / "logs" / f"worker-{worker}.log").read_text() for worker in range(3)]


def test_threads_are_handed_on_and_too_many_are_said_once(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass"))
    done = karp("launch", "-n", 2, "--threads", 99, "--run-dir", tmp_path / "run", path, cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    assert 1 == done.stderr.count("2 workers with 99 BLAS threads each on ")
    assert 99 == summary(tmp_path / "run")["threads_per_worker"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-n", 0, DIGITS], "0 workers"),
        (["-n", 2, "missing.py"], "there is no program 'missing.py'"),
        (["-n", 2, "--run-dir", "file/run", DIGITS], "the run directory file/run cannot be made"),
        (["-n", 2, "--run-dir", "taken", DIGITS], "taken holds a run already"),
    ],
)
def test_what_cannot_be_launched_is_said_at_once(tmp_path: Path, arguments: list[object], reason: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "metrics.jsonl").write_text("")
    done = karp("launch", *arguments, cwd=tmp_path)
    assert 2 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert f"karp: {reason}" in done.stderr


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass").replace("epochs=2", "epochs=10**9"))
    process = subprocess.Popen(
        [sys.executable, "-m", "karp.cli", "launch", "-n", "2", "--run-dir", str(tmp_path / "run"), str(path)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert 130 == process.returncode
    assert "interrupted" in error
    assert 130 == summary(tmp_path / "run")["exit"]
    assert [] == left_over(tmp_path / "run")


def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass"))
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "karp.cli", "launch", "-n", "2", "--run-dir", str(tmp_path / "run"), str(path)],
        cwd=tmp_path,
        env=environment() | {"TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's word for the end
        while chunk := os.read(mine, 4096):
            shown += chunk
    os.close(mine)
    assert 0 == process.wait(), shown.decode()
    assert "8/8" in shown.decode()
    assert "━━━" in shown.decode()
    assert "samples/s  2 workers" in shown.decode()


def test_help_reads_well() -> None:
    for arguments in ([], ["launch"]):
        done = karp(*arguments, "--help", cwd=ROOT)
        assert 0 == done.returncode
        assert "usage: karp" in done.stdout
        assert all(len(line) <= 110 for line in done.stdout.splitlines())
    assert 2 == karp("nonsense", cwd=ROOT).returncode
