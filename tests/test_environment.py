"""The variables between launcher and program, and whom they are meant for."""

import json
import os
import sys
from pathlib import Path

import pytest
from running import HEAD, LOOP, alone, completed, launch, program, summary

from karp import environment
from karp.environment import FAULT, KEYS, NAMES, RUN_DIR, SERVER, TAKEN, WORKER, given_directory, own
from karp.errors import SettingError

TEACHER = """
import numpy as np, karp, sys
from karp import nn, optim
def teach():
    model = nn.MLP(3, [4], 2)
    with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=8, show=False) as trainer:
        for xs, ys in trainer.batches(np.ones((16, 3), np.float32), np.zeros(16, np.int64)):
            trainer.backward(nn.cross_entropy(model(xs), ys))
    assert (None, True, 2) == (trainer.server, trainer.main, trainer.step)
if __name__ == "__main__":
    if len(sys.argv) > 1:  # by a launcher of its own
        model = nn.MLP(3, [4], 2)
        with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=8) as trainer:
            for xs, ys in trainer.batches(np.ones((16, 3), np.float32), np.zeros(16, np.int64)):
                trainer.backward(nn.cross_entropy(model(xs), ys))
        assert trainer.server is not None
    else:
        teach()
"""


@pytest.fixture(autouse=True)
def _nothing_of_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, TAKEN):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back, however it does so
        monkeypatch.delenv(name)


def test_variables_are_the_process_s_own_until_another_has_taken_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {SERVER: "tcp://127.0.0.1:1", WORKER: "2", RUN_DIR: "/outer", FAULT: "worker: die leased"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert given == own()
    environment.take(SERVER)
    assert given == own()  # in the process that has taken them, and so after `os.exec*` too
    monkeypatch.setattr(os, "getpid", lambda: 1 << 30)
    assert {} == own()  # in whatever it has started
    assert ("", -1) == (environment.read(SERVER), environment.worker())
    assert given_directory(None) is None
    monkeypatch.setenv(RUN_DIR, "/inner")
    assert {RUN_DIR: "/inner"} == own()  # but not what was set for that
    assert Path("/inner") == given_directory(None)


def test_variables_are_taken_by_who_takes_part_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR, "/mine")
    environment.take(SERVER)
    assert TAKEN not in os.environ
    environment.take(RUN_DIR)
    assert {"process": os.getpid(), RUN_DIR: "/mine"} == json.loads(os.environ[TAKEN])


@pytest.mark.parametrize("text", ["", "x", "3", "[1]", '"text"', "{}"])
def test_a_mark_that_karp_has_not_made_means_nothing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(RUN_DIR, "/mine")
    monkeypatch.setenv(TAKEN, text)
    assert {RUN_DIR: "/mine"} == own()


def test_a_child_gets_what_it_is_given_and_of_the_rest_only_what_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, f"{name}'s")
    monkeypatch.setenv(TAKEN, "{}")
    monkeypatch.setenv("KARP_OF_A_USER", "kept")
    child = environment.of_child({SERVER: "new"}, FAULT)
    assert {SERVER: "new", FAULT: f"{FAULT}'s", "KARP_OF_A_USER": "kept"} == {
        name: value for name, value in child.items() if name.startswith("KARP_")
    }
    assert os.environ["PATH"] == child["PATH"]
    assert KEYS in os.environ


@pytest.mark.parametrize("argument", [3, b"bytes", "a\0b", Path("a\0b"), object()])
def test_a_directory_that_is_none_is_refused(argument: object) -> None:
    with pytest.raises(SettingError, match=r"run_dir is .*; it must be the path of a directory"):
        given_directory(argument)  # type: ignore[arg-type]


WAYS = """
import multiprocessing, subprocess
from teacher import teach
here = os.path.join(os.environ["KARP_RUN_DIR"], "teachers")
teacher = os.path.join(os.path.dirname(__file__), "teacher.py")
def spawned():
    process = multiprocessing.get_context("spawn").Process(target=teach)
    process.start()
    process.join()
    return process.exitcode
def forked():
    child = os.fork()
    if child == 0:
        teach()
        sys.exit()
    return os.waitpid(child, 0)[1]
def teach_all():
    os.makedirs(here)
    os.chdir(here)
    named = dict(os.environ, KARP_RUN_DIR=os.path.join(here, "named"))
    yield subprocess.run([sys.executable, teacher]).returncode
    yield subprocess.run([sys.executable, teacher], env=named).returncode
    yield subprocess.run([sys.executable, "-m", "karp.cli", "launch", "-n", "1", teacher, "launched"]).returncode
    yield spawned()
    yield forked()
if __name__ == "__main__":
    if worker == 0: assert [0] * 5 == list(teach_all())
"""


def test_a_program_that_a_launched_one_starts_trains_alone(tmp_path: Path) -> None:
    (tmp_path / "teacher.py").write_text(TEACHER)
    loop = "\n".join("    " + line for line in LOOP.format(body="pass").splitlines())
    text = HEAD + WAYS + loop + "\n    if worker == 0: assert 0 == forked()\n"
    done = launch(tmp_path, 2, program(tmp_path, text))
    assert 0 == done.returncode, done.stderr
    assert "refused" not in done.stderr
    assert 8 == summary(tmp_path / "run")["steps"]
    teachers = tmp_path / "run" / "teachers"
    found = [summary(path) for path in (teachers / "named", *(teachers / "runs").iterdir())]
    assert [(2, 1)] * 6 == [(teacher["steps"], teacher["workers"]) for teacher in found]


def test_a_program_may_begin_anew_as_the_worker_that_it_is(tmp_path: Path) -> None:
    again = "os.environ['AGAIN'] = ''\n    os.execv(sys.executable, [sys.executable, *sys.argv])"
    head, after = HEAD + f"if 'AGAIN' not in os.environ:\n    {again}", "print(worker, trainer.server is not None)"
    path = program(tmp_path, head + LOOP.format(body="pass") + after)
    done = launch(tmp_path, 2, path)
    assert (0, "0 True\n") == (done.returncode, done.stdout), done.stderr


def test_a_directory_named_by_a_variable_is_that_of_one_run(tmp_path: Path) -> None:
    (tmp_path / "teacher.py").write_text(TEACHER)
    after = "import subprocess; subprocess.run([sys.executable, 'teacher.py'], check=True)"
    found, _ = alone(program(tmp_path, HEAD + LOOP.format(body="pass") + after), directory=tmp_path / "run")
    assert 8 == found["steps"]
    assert [2] == [summary(path)["steps"] for path in (tmp_path / "runs").iterdir()]
    again = completed([sys.executable, "program.py"], tmp_path, KARP_RUN_DIR=str(tmp_path / "run"))
    assert (1, True) == (again.returncode, "holds a run already" in again.stderr)


def test_a_worker_that_another_launcher_has_started_leaves_the_run_to_itself_alone(tmp_path: Path) -> None:
    """Slurm, Kubernetes and the like start `python program.py` with the variables."""
    code = "import karp, os, subprocess, sys; print(os.getpid(), os.environ['KARP_TAKEN'])"
    done = completed([sys.executable, "-c", code], tmp_path, KARP_SERVER="tcp://127.0.0.1:9")
    number, taken = done.stdout.split(maxsplit=1)
    assert {"process": int(number), SERVER: "tcp://127.0.0.1:9"} == json.loads(taken)
