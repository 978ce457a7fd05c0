"""`karp worker`: from what a run's directory says, and what is given besides, to the process of a worker."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from running import program

from karp import environment
from karp.environment import KEYS, NAMES, RUN, RUN_DIR, SERVER, TAKEN, THREADS
from karp.errors import DataError, LostError, SettingError
from karp.launch.join import join
from karp.launch.options import Options
from karp.launch.processes import WORKER_MAIN
from karp.record.server_address import publish
from karp.transport import keys


class Started(BaseException):
    """In the place of the process: the command, its variables and where it is."""

    def __init__(self, line: list[str], variables: dict[str, str]) -> None:
        ours = {name: value for name, value in variables.items() if name in NAMES}
        self.line, self.variables, self.cwd = line, ours, Path.cwd()


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(path: str, line: list[str], variables: dict[str, str]) -> None:
        raise Started(line, variables)

    for name in (*NAMES, TAKEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.chdir(tmp_path)


def started(
    run_dir: object = None, server: str | None = None, keys: str | None = None, path: str | None = None,
    arguments: tuple[str, ...] = (), wait: float = 0.0, **changes: Any,
) -> Started:  # fmt: skip
    with pytest.raises(Started) as raised:
        join(None if run_dir is None else str(run_dir), server, keys, changes, path, list(arguments), wait)
    return raised.value


def launched(folder: Path, worker_keys: str = "", **others: Any) -> Path:
    """The directory of a run that is under way, launched in this folder."""
    run = folder / "run"
    run.mkdir(parents=True)
    Options(str(program(folder)), ["a", "b"], 2, **others).write(run, str(folder))
    publish(run, "tcp://127.0.0.1:5", "1f", worker_keys)
    return run


def test_the_run_s_directory_says_all(tmp_path: Path) -> None:
    run = launched(tmp_path / "elsewhere", "keys", threads=3, staleness="2", codec="int8")
    one = started(run)
    assert [sys.executable, WORKER_MAIN, str(tmp_path / "elsewhere" / "program.py"), "a", "b"] == one.line
    options = {"KARP_STALENESS": "2", "KARP_CODEC": "int8"}
    server = {SERVER: "tcp://127.0.0.1:5", RUN: "1f", KEYS: "keys", RUN_DIR: str(run)}
    assert server | {THREADS: "3", **options} == one.variables
    assert tmp_path / "elsewhere" == one.cwd


def test_what_is_given_besides_has_precedence(tmp_path: Path) -> None:
    run = launched(tmp_path / "elsewhere", "keys", threads=3)
    made = keys.make()
    (tmp_path / "keys").mkdir()
    keys.write(made, tmp_path / "keys" / keys.FILE)
    other = program(tmp_path / "mine")
    one = started(run, "tcp://127.0.0.1:6", "keys", str(other), ("c",), threads=2, codec="float16")
    assert [str(other), "c"] == one.line[2:]
    expected = {SERVER: "tcp://127.0.0.1:6", RUN: "1f", KEYS: made.for_worker().to_text(), THREADS: "2"}
    expected |= {RUN_DIR: str(run)}
    assert (expected | {"KARP_CODEC": "float16"}, tmp_path) == (one.variables, one.cwd)


def test_a_server_is_enough_where_there_is_no_directory_to_be_seen(tmp_path: Path) -> None:
    path = str(program(tmp_path))
    one = started(None, "tcp://127.0.0.1:6", None, path, ("--flag",))
    assert ([path, "--flag"], {SERVER: "tcp://127.0.0.1:6", THREADS: "1"}) == (one.line[2:], one.variables)


@pytest.mark.parametrize("server", ["", "127.0.0.1:5", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, server: str) -> None:
    with pytest.raises(SettingError, match=r"--server is '.*'; it must be tcp://HOST:PORT"):
        join(None, server, None, {}, str(program(tmp_path)), [])


def test_what_cannot_be_joined_is_said(tmp_path: Path) -> None:
    run = launched(tmp_path / "elsewhere")
    for run_dir, server, path in ((None, None, "program.py"), (None, "tcp://127.0.0.1:5", None), (None, None, None)):
        with pytest.raises(SettingError, match="karp worker needs --run-dir DIR, or --server ADDRESS and the run's"):
            join(run_dir, server, None, {}, path, [])
    with pytest.raises(SettingError, match=r"there is no program 'missing.py'"):
        join(str(run), None, None, {}, "missing.py", [])
    with pytest.raises(SettingError, match="staleness must be a whole number"):
        join(str(run), None, None, {"staleness": "two"}, None, [])
    for run_dir in (str(run), None):
        with pytest.raises(SettingError, match="threads must be a whole number from 1 to 65535, not 0"):
            join(run_dir, "tcp://127.0.0.1:5", None, {"threads": 0}, "program.py", [])
    (tmp_path / "elsewhere" / "program.py").unlink()
    with pytest.raises(SettingError, match="there is no program"):
        join(str(run), None, None, {}, None, [])
    (run / "launch.json").unlink()
    with pytest.raises(DataError, match=r"launch.json"):
        join(str(run), None, None, {}, None, [])


def test_variables_of_the_run_that_this_process_takes_part_in_are_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.WORKER, "7")
    monkeypatch.setenv(environment.RUN, "another")
    monkeypatch.setenv(environment.FAULT, "worker: die leased")
    monkeypatch.setenv(environment.RUN_DIR, "another")
    run = launched(tmp_path / "elsewhere")
    expected = {SERVER: "tcp://127.0.0.1:5", RUN: "1f", THREADS: "1", RUN_DIR: str(run)}
    assert expected | {environment.FAULT: "worker: die leased"} == started(run).variables


def test_a_run_that_has_not_begun_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, now = tmp_path / "elsewhere" / "run", [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 10.0 and not run.exists():
            launched(tmp_path / "elsewhere")

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(DataError, match="no run is under way"):
        started(run, wait=5.0)
    assert 5.0 <= now[0] < 6.0
    assert "1f" == started(run, wait=60.0).variables[RUN]
    with pytest.raises(LostError, match="there is no such host"):
        join(None, "tcp://no.such.host.invalid:5", None, {}, "program.py", [], 1.0)
    with pytest.raises(SettingError, match="--wait is nan"):
        join(str(run), None, None, {}, None, [], float("nan"))
