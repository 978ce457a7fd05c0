"""The consistency options with real processes: a record is repeated to the same bits, digits are learnt with each."""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from running import DIGITS, ENDLESS, alone, command, launched, processes, started, summary
from running import karp as karp_command
from running import program as program_file

import karp
from karp import nn, optim
from karp.consistency import CODEC
from karp.errors import DataError, RunError, SettingError
from karp.protocol.messages import Stop
from karp.record.arrivals import read
from karp.record.directory import Record
from karp.trainer.replay import ReplayLink


def launch(
    directory: Path, workers: int, *options: object, program: tuple[object, ...], **variables: str
) -> dict[str, Any]:
    arguments = ("launch", "-n", workers, "--run-dir", directory, *options, *program)
    done = karp_command(*arguments, cwd=directory.parent, **variables)
    assert 0 == done.returncode, done.stderr
    found = summary(directory)
    assert (0, 0, "") == (found["exit"], found["refused"], found["failure"])
    return found


def replayed(directory: Path) -> dict[str, Any]:
    """What `karp replay` has found; it says the same with its exit status."""
    done = karp_command("replay", directory, cwd=directory.parent)
    found: dict[str, Any] = json.loads((directory / "replay.json").read_text())
    assert (0 if found["equal"] else 1) == done.returncode, done.stderr
    assert f"{found['weights_sha256']}: {'equal' if found['equal'] else 'NOT equal'}" in done.stdout
    return found


def arrivals(directory: Path) -> list[tuple[int, int, int, int, int]]:
    """(step, worker, version, start, stop)."""
    lines = map(json.loads, (directory / "arrivals.jsonl").read_text().splitlines())
    return [(step, *numbers) for step, found in lines for numbers in found]


@pytest.mark.parametrize("staleness", ["1", "2", "none"])
def test_a_run_with_staleness_learns_and_is_repeated_to_the_same_bits(tmp_path: Path, staleness: str) -> None:
    program = (DIGITS, "--epochs", 15, "--lr", 0.03)
    found = launch(tmp_path / "run", 3, "--staleness", staleness, program=program)
    again = replayed(tmp_path / "run")
    assert (True, found["weights_sha256"]) == (again["equal"], again["weights_sha256"])
    assert found["metrics"]["test_accuracy"] >= 0.95
    order = arrivals(tmp_path / "run")
    assert len(order) == sum(found["staleness"].values())
    assert found["samples"] == 1438 * 15
    if staleness == "none":
        assert len(order) == found["updates"]
        assert len({(step, start) for step, _, _, start, _ in order}) == len(order)
    else:
        assert all(0 <= step - version <= int(staleness) for step, _, version, _, _ in order)
        assert {str(age) for age in range(int(staleness) + 1)} >= set(found["staleness"])


def test_the_bits_of_a_changed_record_are_others(tmp_path: Path) -> None:
    launch(tmp_path / "run", 2, "--staleness", 2, program=(DIGITS, "--epochs", 2))
    path = tmp_path / "run" / "arrivals.jsonl"
    step, first = json.loads(path.read_text().splitlines()[7])
    changed = [[worker, 7 if version != 7 else 6, start, stop] for worker, version, start, stop in first]
    lines = path.read_text().splitlines()
    lines[7] = json.dumps([step, changed])
    path.write_text("\n".join(lines) + "\n")
    assert not replayed(tmp_path / "run")["equal"]


def test_a_run_without_staleness_is_repeated_too(tmp_path: Path) -> None:
    found = launch(tmp_path / "run", 2, program=(DIGITS, "--epochs", 2))
    assert not (tmp_path / "run" / "arrivals.jsonl").exists()
    assert "staleness" not in found
    assert found["weights_sha256"] == replayed(tmp_path / "run")["weights_sha256"]


@pytest.mark.parametrize("staleness", ["2", "none"])
def test_a_server_and_workers_that_die_leave_a_record_that_is_repeated(tmp_path: Path, staleness: str) -> None:
    # any worker: while the first of them join the server that is started again, they may do all that is left
    faults = "worker: die computing step 20; server: die applied step 60; worker: die sent step 90"
    options = ("--staleness", staleness, "--checkpoint-every", 0)
    found = launch(tmp_path / "run", 3, *options, program=(DIGITS, "--epochs", 6), KARP_FAULT=faults)
    assert 3 == len(list((tmp_path / "run" / "faults").iterdir()))
    assert 1438 * 6 == found["samples"]
    order = arrivals(tmp_path / "run")
    shards = [(step, shard) for step, _, _, start, stop in order for shard in range(start, stop)]
    assert sorted(set(shards)) == sorted(shards)
    assert replayed(tmp_path / "run")["equal"]


def test_an_interrupted_asynchronous_run_goes_on_and_its_record_is_whole(tmp_path: Path) -> None:
    with launched(tmp_path, 2, program_file(tmp_path, ENDLESS), "--staleness", "none") as (process, _):
        process.send_signal(signal.SIGINT)
        assert 130 == process.end()[0]
    done = karp_command("launch", "--resume", tmp_path / "run", "-n", 3, cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    found = summary(tmp_path / "run")
    assert (64 * 300, 0) == (found["samples"], found["exit"])
    assert replayed(tmp_path / "run")["equal"]


@pytest.mark.parametrize("codec", CODEC.values)
def test_a_codec_learns_and_shows_no_workers(tmp_path: Path, codec: str) -> None:
    options = ("--epochs", 8, "--shards", 3)
    variables = {"KARP_CODEC": codec, "KARP_CODEC_WEIGHTS": "bfloat16"}
    expected, _ = alone(DIGITS, *options, directory=tmp_path / "0", **variables)
    assert expected["metrics"]["test_accuracy"] >= 0.95
    for workers in (1, 2, 3):
        given = ("--codec", codec, "--codec-weights", "bfloat16")
        found = launch(tmp_path / str(workers), workers, *given, program=(DIGITS, *options))
        assert expected["weights_sha256"] == found["weights_sha256"]
    assert expected["weights_sha256"] == replayed(tmp_path / "3")["weights_sha256"]


def test_local_steps_learn_and_show_no_workers(tmp_path: Path) -> None:
    options = ("--epochs", 20, "--shards", 3, "--lr", 0.05)
    expected, _ = alone(DIGITS, *options, directory=tmp_path / "0", KARP_LOCAL_STEPS="4")
    assert (6 * 20, 1438 * 20, 20) == (expected["steps"], expected["samples"], expected["epochs"])
    assert expected["metrics"]["test_accuracy"] >= 0.95
    for workers in (1, 2, 3):
        found = launch(tmp_path / str(workers), workers, "--local-steps", 4, program=(DIGITS, *options))
        assert (expected["weights_sha256"], 1438 * 20) == (found["weights_sha256"], found["samples"])
    assert expected["weights_sha256"] == replayed(tmp_path / "2")["weights_sha256"]


@pytest.mark.parametrize("staleness", ["1", "none"])
def test_the_options_go_together(tmp_path: Path, staleness: str) -> None:
    given = ("--staleness", staleness, "--local-steps", 4, "--codec", "int8", "--codec-weights", "float16")
    found = launch(tmp_path / "run", 3, *given, program=(DIGITS, "--epochs", 6, "--lr", 0.05))
    assert (1438 * 6, 6) == (found["samples"], found["epochs"])
    assert replayed(tmp_path / "run")["equal"]


def test_program_and_launcher_must_agree_on_staleness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trainer(**changes: Any) -> karp.Trainer:
        return karp.Trainer(nn.MLP(2, [2], 2), optim.SGD(lr=0.1), batch_size=4, run_dir=tmp_path / "run", **changes)

    assert 0 == trainer().staleness
    assert trainer(staleness=None).staleness is None
    monkeypatch.setenv("KARP_STALENESS", "none")
    assert trainer().staleness is None
    assert trainer(staleness=None).staleness is None
    with pytest.raises(SettingError, match=r"staleness is 0 in the program, but KARP_STALENESS .* says None"):
        trainer(staleness=0)
    monkeypatch.setenv("KARP_STALENESS", "2")
    assert 2 == trainer().staleness
    monkeypatch.setenv("KARP_STALENESS", "-2")
    with pytest.raises(SettingError, match=r"staleness must be a whole number .*, or None \('none'\): .*, not '-2'"):
        trainer()
    assert 2 == karp_command("launch", "-n", 1, "--staleness", "two", DIGITS, cwd=tmp_path).returncode


def test_one_process_has_no_staleness_and_async_of_one_shard_is_the_same_bits(tmp_path: Path) -> None:
    hashes = []
    for number, staleness in enumerate(["0", "3", "none"]):
        options = ["--epochs", 1, "--shards", 1]
        found, _ = alone(DIGITS, *options, directory=tmp_path / str(number), KARP_STALENESS=staleness)
        hashes.append(found["weights_sha256"])
        assert (None if staleness == "0" else {"0": 23}) == found.get("staleness")
    assert hashes[0] == hashes[1] == hashes[2]


def test_replay_names_what_it_lacks(tmp_path: Path) -> None:
    done = karp_command("replay", tmp_path, cwd=tmp_path)
    assert 2 == done.returncode
    assert "does not hold the record of a run that has ended" in done.stderr


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with staleness."""
    directory = tmp_path_factory.mktemp("record") / "run"
    launch(directory, 2, "--staleness", 2, program=(DIGITS, "--epochs", 1, "--shards", 4))
    return directory


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: [], "it ends after 0 of the run's"),
        (lambda lines: lines[:-1], "of the run's"),
        (lambda lines: [*lines[:3], *lines[4:]], "line 4, is damaged: step 4 instead of 3"),
        (lambda lines: [*lines[:3], lines[2], *lines[4:]], "line 4, is damaged: step 2 instead of 3"),
        (lambda lines: ['[0,[[0,0,0,1],[1,0,0,4]]]', *lines[1:]], "line 1, is damaged: shards 0 to 4 of step 0 once"),
        (lambda lines: ['[0,[[0,0,0,9]]]', *lines[1:]], "line 1, is damaged: shards 0 to 9 of step 0"),
        (lambda lines: ['[0,[[0,3,0,4]]]', *lines[1:]], "line 1, is damaged: weights 3 where the run had 0"),
        (lambda lines: [*lines[:5], '[5,[[0,2,0,4]]]', *lines[6:]], "line 6, is damaged: weights 2 where the run"),
        (lambda lines: ['[0,[[0,0,0,1]]]', *lines[1:]], "line 1, is damaged: step 0 is not whole"),
        (lambda lines: ['[0,"x"]', *lines[1:]], "line 1, is damaged"),
        (lambda lines: ["{", *lines[1:]], "line 1, is damaged"),
        (lambda lines: ["[" * 100_000, *lines[1:]], "line 1, is damaged"),
    ],
    ids=["empty", "short", "gap", "twice", "overlap", "beyond", "future", "stale", "part", "text", "syntax", "deep"],
)
def test_a_damaged_record_is_said_at_once(record: Path, tmp_path: Path, change: Any, reason: str) -> None:
    directory = tmp_path / "run"
    shutil.copytree(record, directory)
    path = directory / "arrivals.jsonl"
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(DataError, match=re.escape(reason)):
        read(directory)


def test_options_that_the_launcher_gave_are_the_records(record: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(record, directory)
    (directory / "launch.json").unlink()
    done = karp_command("replay", directory, DIGITS, "--epochs", 1, "--shards", 4, cwd=tmp_path)
    assert (0, True) == (done.returncode, ": equal" in done.stdout), done.stderr


def test_a_run_that_goes_on_has_not_ended(record: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(record, directory)
    resumed = Record(directory, resume=True)  # by a server that is then killed
    resumed.writer.close()
    done = karp_command("replay", directory, cwd=tmp_path)
    assert 2 == done.returncode
    assert f"has not ended: go on with it first (karp launch --resume {directory})" in done.stderr


def test_a_program_that_leaves_before_the_record_ends_is_told_how_to_end(record: Path) -> None:
    link = ReplayLink(record, None)
    with pytest.raises(RunError, match="left each by itself"):
        link.send(Stop(), 0)


def test_a_worker_from_elsewhere_is_given_the_options_or_refused(tmp_path: Path) -> None:
    given, program = ["--staleness", "1", "--codec", "int8"], [DIGITS, "--epochs", "100000"]
    line = command("launch", "-n", 1, "--run-dir", tmp_path / "run", *given, *program)
    with started(line, tmp_path) as run:
        run.until("step ", "epoch ")
        join = ["worker", "--server", server_of(tmp_path / "run")]
        refused = karp_command(*join, *program, cwd=tmp_path)
        assert 2 == refused.returncode
        assert "staleness is 0 in the program, 1 in the run; codec is None in the program" in refused.stderr
        with started(command(*join, *given, *program), tmp_path) as joined:
            run.until("step ", "2 workers")
            joined.send_signal(signal.SIGINT)
            assert 130 == joined.end()[0]
        run.send_signal(signal.SIGINT)
        assert 130 == run.end()[0]


def server_of(directory: Path) -> str:
    """The address that a run's workers have."""
    return next(names["KARP_SERVER"] for _, _, names in processes(directory) if "KARP_SERVER" in names)
