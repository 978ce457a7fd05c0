"""Which way to a server a Trainer takes: what the environment and the program say, and what does not go together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import alone, program

from karp.environment import KEYS, NAMES, REPLAY, RUN, RUN_DIR, SERVER, TAKEN
from karp.errors import DataError, SettingError
from karp.optim import OptimizerState
from karp.parameters import Layout
from karp.protocol.worker import Worker
from karp.serve.in_process import LocalLink
from karp.trainer.link import Link, connect
from karp.trainer.replay import ReplayLink
from karp.transport.worker_end import WorkerEnd

LAYOUT = Layout({"weight": (2, 2)}, "float32")


@pytest.fixture(autouse=True)
def _nothing_of_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, TAKEN):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def connected(run_dir: Any = None, record: bool = True, state: OptimizerState | None = None) -> Link:
    return connect(Worker(np.zeros(LAYOUT.size, np.float32)), LAYOUT, None, run_dir, record, False, state, None)


def test_a_program_by_itself_has_a_server_of_its_own_and_a_fresh_directory(tmp_path: Path) -> None:
    link = connected()
    assert isinstance(link, LocalLink)
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "metrics.jsonl").is_file()


@pytest.mark.parametrize("given", ["argument", "variable", "both"])
def test_it_has_the_directory_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    if given != "argument":
        monkeypatch.setenv(RUN_DIR, str(tmp_path / "mine"))
    connected(None if given == "variable" else "mine")
    assert ["mine"] == [path.name for path in tmp_path.iterdir()]


def test_two_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_DIR, str(tmp_path / "theirs"))
    with pytest.raises(SettingError, match=r"run_dir is 'mine' in the program, but KARP_RUN_DIR"):
        connected("mine")
    assert [] == list(tmp_path.iterdir())


def test_no_record_has_no_directory(tmp_path: Path) -> None:
    assert isinstance(connected(record=False), LocalLink)
    with pytest.raises(SettingError, match=r"record is False, so run_dir 'mine' would hold no files"):
        connected("mine", record=False)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [SERVER, REPLAY])
def test_a_launched_program_goes_on_with_no_optimizer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "tcp://127.0.0.1:1")
    with pytest.raises(SettingError, match="optimizer_state is for a training in one process"):
        connected(state=OptimizerState({}))


def test_a_launched_program_speaks_to_the_run_s_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER, "tcp://127.0.0.1:9")
    monkeypatch.setenv(RUN, "0123456789abcdef")
    link = connected(record=False)  # the launcher's server keeps it
    assert isinstance(link, WorkerEnd)
    assert ("tcp://127.0.0.1:9", "0123456789abcdef") == (link.address, link.socket.run)
    link.close()
    assert [] == list(tmp_path.iterdir())


def test_keys_that_are_none_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER, "tcp://127.0.0.1:9")
    monkeypatch.setenv(KEYS, "{}")
    with pytest.raises(SettingError, match="KARP_KEYS holds no keys"):
        connected()


def test_a_record_stands_in_for_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REPLAY, str(tmp_path / "run"))
    with pytest.raises(DataError):
        connected()
    alone(program(tmp_path), directory=tmp_path / "run")
    assert isinstance(connected(), ReplayLink)
