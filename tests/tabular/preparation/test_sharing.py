"""Preparing once for all workers of a host: one prepares, the others map, and whoever dies is no loss."""

import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from running import ONCE, karp, program

from karp import environment, prepare
from karp.tabular.preparation import passes, sharing

CSV = "size,kind\n" + "".join(f"{place % 7},{'ab'[place % 7 > 3]}\n" for place in range(200)) + "8,\n"

PROGRAM = ONCE + """
import os, sys
import karp
from karp import nn, optim
from karp.tabular.preparation import sharing

def prepare_table(*arguments):
    if "KARP_SERVER" in os.environ and once("died"):
        (arguments[3] / "train.numbers").parent.mkdir()
        (arguments[3] / "train.numbers").write_bytes(b"1234")
        os.kill(os.getpid(), 9)
    print("prepared by", os.getpid(), file=sys.stderr)
    return original(*arguments)

original, sharing.prepare_table = sharing.prepare_table, prepare_table
prepared = karp.prepare("table.csv", target="kind")
model = nn.MLP(1, [4], 2)
with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=32, epochs=2, shards=3) as trainer:
    for numbers, _, target in trainer.batches(prepared.train):
        trainer.backward(nn.cross_entropy(model(numbers), target))
"""


CHANGES: list[dict[str, Any]] = [{"seed": 1}, {"target": "size", "task": "regression"}, {"validation": 0.3}]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this process a worker of a run, and return the directory of that."""
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv(environment.SERVER, "tcp://127.0.0.1:1")
    monkeypatch.setenv(environment.RUN_DIR, str(run))
    (tmp_path / "table.csv").write_text(CSV)
    return run


def prepared_times(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that grows by the folder of each table that is prepared from now on."""
    times: list[Any] = []

    def prepare_table(*arguments: Any) -> Any:
        times.append(arguments[3])
        return passes.prepare_table(*arguments)

    monkeypatch.setattr(sharing, "prepare_table", prepare_table)
    return times


def test_the_second_worker_maps_what_the_first_has_prepared(worker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    times, file = prepared_times(monkeypatch), worker.parent / "table.csv"
    first, second = prepare(file, target="kind"), prepare(str(file), target="kind", memory=1 << 21)
    assert [(1, first.manifest, first.fingerprint)] == [(len(times), second.manifest, second.fingerprint)]
    assert first.notes == second.notes == first.train.remarks == second.train.remarks
    assert "1 of 201 rows have no target in 'kind' and are left out" in first.notes
    others = [prepare(file, **({"target": "kind"} | changed)) for changed in CHANGES]
    assert 4 == len({other.manifest for other in [first, *others]}) == len(times)
    file.write_text(CSV + "1,a\n")
    assert first.manifest != prepare(file, target="kind").manifest


def test_a_folder_that_the_program_names_is_shared_for_the_same_table_alone(
    worker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    times, file, folder = prepared_times(monkeypatch), worker.parent / "table.csv", worker.parent / "mine"
    first, second = (prepare(file, target="kind", directory=folder) for _ in range(2))
    assert [(folder / "manifest.json", first.fingerprint)] * 2 == [(p.manifest, p.fingerprint) for p in (first, second)]
    assert first.fingerprint != prepare(file, target="kind", seed=1, directory=folder).fingerprint
    frame = {"x": [1, 2, 3, 4], "y": [0, 1, 0, 1]}
    assert 2 == len({prepare(frame, target="y", seed=seed, directory=folder).fingerprint for seed in (0, 0, 1)})
    assert [folder] * 5 == times


def test_what_only_this_process_has_is_prepared_for_itself(worker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = prepared_times(monkeypatch)
    assert prepare({"x": [1, 2, 3, 4], "y": [0, 1, 0, 1]}, target="y").manifest is None
    monkeypatch.delenv(environment.SERVER)
    pytest.importorskip("pyarrow")
    assert prepare(worker.parent / "table.csv", target="kind").manifest is None
    assert [None, None] == times


def test_a_table_that_was_damaged_or_left_half_way_is_prepared_again(
    worker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    file = worker.parent / "table.csv"
    first = prepare(file, target="kind")
    assert first.manifest is not None
    os.truncate(first.manifest.with_name("validation.target"), 8)
    assert first.fingerprint == prepare(file, target="kind").fingerprint
    first.manifest.unlink()
    (first.manifest.parent / ".train.numbers.1.part").touch()
    again = prepare(file, target="kind")
    assert first.fingerprint == again.fingerprint
    assert ".train.numbers.1.part" not in os.listdir(first.manifest.parent)


def test_whoever_waits_says_for_whom(
    worker: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(sharing, "_SAY_SECONDS", 0.0)
    file = worker.parent / "table.csv"
    first = prepare(file, target="kind")
    assert first.manifest is not None
    with open(first.manifest.parent.with_suffix(".lock"), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = threading.Event()
        monkeypatch.setattr(sharing.time, "sleep", lambda seconds: (said.set(), fcntl.flock(lock, fcntl.LOCK_UN)))
        assert first.fingerprint == prepare(file, target="kind").fingerprint
    assert said.is_set()
    assert f"karp: waiting for process {os.getpid()} to prepare {file}" in capfd.readouterr().err


def test_workers_prepare_once_though_one_dies_at_it_and_a_replay_has_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "table.csv").write_text(CSV)
    path, run = program(tmp_path, PROGRAM), tmp_path / "run"
    done = karp("launch", "-n", 2, "--staleness", "none", "--run-dir", run, path, cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    assert 1 == done.stderr.count("1 of 201 rows have no target in 'kind' and are left out")
    logs = "".join(log.read_text() for log in (run / "logs").glob("worker*"))
    assert 1 == logs.count("prepared by")
    assert not (run / "prepared").exists()
    done = karp("replay", run, cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    assert json.loads((run / "replay.json").read_text())["equal"]
