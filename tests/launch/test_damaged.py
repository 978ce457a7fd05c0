"""A damaged world around a run: what is wrong is said at once, in one line, with what to do; what is there stays."""

import errno
import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from running import PATIENCE, PROGRAM, bound_by_permissions, command, completed, karp, launch, program, start, summary

from karp.errors import DataError, RecordError, SettingError
from karp.launch.options import Options
from karp.launch.recorded import Recorded
from karp.launch.start import resume
from karp.transport import keys

DATA = """
import os
import karp
from karp import data, nn, optim
worker = os.environ.get("KARP_WORKER", "0")
own = "data-" + worker + ".csv"
table = data.read(own if os.path.exists(own) else "data.csv", target="y")
model = nn.MLP(2, [4], 2)
with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=4, epochs=EPOCHS, shards=2) as trainer:
    for xs, ys in trainer.batches(table):
        trainer.backward(nn.cross_entropy(model(xs), ys))
"""
ROWS = "a,b,y\n" + "".join(f"{row},{row % 3},{row % 2}\n" for row in range(20))


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What karp says, without the warning about few cores."""
    return [line for line in done.stderr.splitlines() if "they share the cores" not in line]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a launch that was refused before it began."""
    assert (2, "") == (done.returncode, done.stdout), done.stderr
    (line,) = lines(done)
    assert line.startswith("karp: ")
    return line


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = launch(tmp_path, 1, program(tmp_path), options=("--port", port))
    assert f"the server cannot listen on 127.0.0.1:{port}" in refusal(done)
    assert "name another host or port" in done.stderr


@pytest.mark.parametrize("where", ["file/run", "file"])
def test_a_run_directory_that_cannot_be(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    done = karp("launch", "-n", 1, "--run-dir", where, program(tmp_path), cwd=tmp_path)
    assert f"the run directory {where} cannot be made" in refusal(done)


def test_a_run_directory_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o500)
    line = command("launch", "-n", 1, "--run-dir", "run", program(tmp_path))
    done = completed(bound_by_permissions(line), tmp_path)
    assert "the run directory run cannot be made: Permission denied" in refusal(done)


def test_a_second_run_in_the_same_directory(tmp_path: Path) -> None:
    path = program(tmp_path)
    assert 0 == launch(tmp_path, 1, path).returncode
    before = summary(tmp_path / "run")
    done = launch(tmp_path, 1, path)
    assert f"{tmp_path / 'run'} holds a run already: pass another directory, or go on with it" in refusal(done)
    assert before == summary(tmp_path / "run")


def test_two_launches_that_resume_one_directory_at_once(tmp_path: Path) -> None:
    path = program(tmp_path, epochs=100)
    assert 0 == launch(tmp_path, 1, path, run="once").returncode
    cut = karp(
        "launch", "-n", 1, "--checkpoint-every", 0, "--max-restarts", 0, "--run-dir", tmp_path / "run", path,
        cwd=tmp_path, KARP_FAULT="server: die applied step 100",
    )  # fmt: skip
    assert 1 == cut.returncode
    both = [start(command("launch", "--resume", tmp_path / "run"), tmp_path) for _ in range(2)]
    ended = [(*process.communicate(timeout=PATIENCE), process.returncode) for process in both]
    assert (0, "trained 400\n") in [(status, out) for out, _, status in ended], ended
    for _, error, status in ended:
        if status:  # else the second came when the first was through
            assert [f"karp: another run is writing to {tmp_path / 'run'}: wait for its end, or pass another"] == [
                line for line in error.splitlines() if "they share the cores" not in line
            ]
    assert summary(tmp_path / "once")["weights_sha256"] == summary(tmp_path / "run")["weights_sha256"]


def test_a_directory_without_a_run_cannot_be_resumed(tmp_path: Path) -> None:
    done = karp("launch", "--resume", tmp_path, cwd=tmp_path)
    assert f"{tmp_path} holds no run that `karp launch` can go on with" in refusal(done)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cwd": None}, "cwd is None"),
        ({"cwd": "\0"}, "cannot be entered: .*embedded null"),
        ({"arguments": "abc"}, "arguments is 'abc'"),
        ({"arguments": [1]}, r"arguments is \[1\]"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"threads": True}, "threads is True"),
        ({"host": 5}, "host is 5"),
        ({"staleness": 2}, "staleness is 2"),
        ({"max_restarts": float("nan")}, "max_restarts is nan"),
        ({"colour": "red"}, "launch.json is damaged, or of another version of karp"),
        ("[" * 100_000, "launch.json is nested too deeply"),
        ("[1, 2]", "launch.json is damaged"),
        ("{", "Expecting property name"),
    ],
)
def test_what_a_damaged_directory_says_of_its_launch_is_not_believed(
    tmp_path: Path, changes: dict[str, object] | str, reason: str
) -> None:
    Options(str(program(tmp_path)), [], 1).write(tmp_path)
    file = tmp_path / "launch.json"
    file.write_text(changes if isinstance(changes, str) else json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(DataError, match=reason):
        resume(str(tmp_path), {})


@pytest.mark.parametrize("change", [{"exchange": "pigeons"}, {"on_nonfinite": "hope"}, {"workers": 10**30}])
def test_what_no_launch_can_be_told_is_refused_of_a_directory_too(tmp_path: Path, change: dict[str, object]) -> None:
    Options(str(program(tmp_path)), [], 1)._replace(**change).write(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"auto or zeromq|-n must be a whole number from 1"):
        resume(str(tmp_path), {})


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (None, 0, "cannot be read: No such file or directory; make them with `karp keys DIR`"),
        ("{}", 0o600, "holds no keys: make them with `karp keys DIR`"),
        ("", 0o600, "holds no keys"),
        ('{"server_public": 1, "server_secret": 2, "worker_public": 3, "worker_secret": 4}', 0o600, "is damaged"),
        ("{}", 0o644, "may be read by others: chmod 600 it"),
    ],
)
def test_keys_that_cannot_be_used(tmp_path: Path, content: str | None, mode: int, reason: str) -> None:
    (tmp_path / "keys").mkdir()
    if content is not None:
        (tmp_path / "keys" / "karp-keys.json").write_text(content)
        (tmp_path / "keys" / "karp-keys.json").chmod(mode)
    path = program(tmp_path)
    done = launch(tmp_path, 1, path, options=("--keys", "keys"))
    assert f"keys/karp-keys.json {reason}" in refusal(done)
    done = karp("worker", "--server", "tcp://127.0.0.1:9", "--keys", "keys", path, cwd=tmp_path)
    assert f"keys/karp-keys.json {reason}" in refusal(done)


def test_keys_are_not_overwritten(tmp_path: Path) -> None:
    assert 0 == karp("keys", "keys", cwd=tmp_path).returncode
    before = (tmp_path / "keys" / "karp-keys.json").read_text()
    assert "exists: keys are not overwritten" in refusal(karp("keys", "keys", cwd=tmp_path))
    assert before == (tmp_path / "keys" / "karp-keys.json").read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module\n" + PROGRAM, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("\0", "null bytes"),
    ],
)
def test_a_program_that_cannot_be_run(tmp_path: Path, text: str, reason: str) -> None:
    done = launch(tmp_path, 2, program(tmp_path, text=text))
    assert 1 == done.returncode
    assert reason in done.stderr
    assert re.search(r"^karp: what worker \d printed last:$", done.stderr, re.M)
    assert 1 == done.stderr.count(reason)
    assert re.search(r"^karp: worker \d ended with exit status 1 before its training$", done.stderr, re.M)


def fingerprints(text: str) -> list[str]:
    """Both values of data_sha256 that a refusal names."""
    part = text.split("data_sha256 is ", 1)[1]
    return [part.split("'")[1], part.split("'")[3]]


def test_data_that_differ_between_workers_are_refused_with_both_fingerprints(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(ROWS)
    (tmp_path / "data-1.csv").write_text(ROWS.replace("7,1,1", "7,1,0"))
    done = launch(tmp_path, 2, program(tmp_path, text=DATA))
    assert 1 == done.returncode
    one, other = fingerprints(done.stderr)
    assert one != other
    assert {32} == {len(one), len(other)}


def test_data_that_changed_before_a_resume_are_refused_with_both_fingerprints(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(ROWS)
    path = program(tmp_path, text=DATA, epochs=4)
    arguments = ["launch", "-n", 1, "--checkpoint-every", 0, "--max-restarts", 0, "--run-dir", tmp_path / "run", path]
    cut = karp(*arguments, cwd=tmp_path, KARP_FAULT="server: die applied step 10")
    assert 1 == cut.returncode
    (tmp_path / "data.csv").write_text(ROWS.replace("7,1,1", "7,1,0"))
    done = karp("launch", "--resume", tmp_path / "run", cwd=tmp_path)
    assert 1 == done.returncode
    changed, before = fingerprints(done.stderr)
    assert changed != before
    (tmp_path / "data.csv").write_text(ROWS)
    assert 0 == karp("launch", "--resume", tmp_path / "run", cwd=tmp_path).returncode
    assert 20 == summary(tmp_path / "run")["steps"]


def test_a_damaged_checkpoint_is_passed_over_with_a_message(tmp_path: Path) -> None:
    path = program(tmp_path, epochs=30)
    assert 0 == launch(tmp_path, 1, path, run="once").returncode
    arguments = ["launch", "-n", 2, "--checkpoint-every", 0, "--max-restarts", 0, "--run-dir", tmp_path / "run", path]
    assert 1 == karp(*arguments, cwd=tmp_path, KARP_FAULT="server: die renamed step 50").returncode
    newest = max((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    done = karp("launch", "--resume", tmp_path / "run", cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    assert f"the checkpoint {newest} cannot be used" in done.stderr
    assert "the one before it is tried" in done.stderr
    assert summary(tmp_path / "once")["weights_sha256"] == summary(tmp_path / "run")["weights_sha256"]


def test_a_full_disk_is_said_and_costs_no_bits(tmp_path: Path) -> None:
    path = program(tmp_path)
    assert 0 == launch(tmp_path, 1, path, run="once").returncode
    arguments = ["launch", "-n", 2, "--checkpoint-every", 0, "--run-dir", tmp_path / "run", path]
    done = karp(*arguments, cwd=tmp_path, KARP_FAULT="server: full writing step 1")
    assert 0 == done.returncode, done.stderr
    assert 1 == done.stderr.count("could not be written (No space left on device); the last good one is "), done.stderr
    assert summary(tmp_path / "once")["weights_sha256"] == summary(tmp_path / "run")["weights_sha256"]
    assert 8 == summary(tmp_path / "run")["steps"]


def test_weights_that_cannot_be_written_are_named_and_a_resume_writes_them(tmp_path: Path) -> None:
    obstacle = tmp_path / "run" / "weights.safetensors"
    obstruct = f"if 'FREE' not in os.environ: os.makedirs({str(obstacle)!r}, exist_ok=True)"
    path = program(tmp_path, text=f"{PROGRAM}\n{obstruct}\n")
    done = launch(tmp_path, 2, path)
    assert (1, "trained 8\n") == (done.returncode, done.stdout)
    assert f"not all files of the run are in {tmp_path / 'run'}: weights.safetensors (Is a directory)" in done.stderr
    assert f"to have all of its files once they can be written: karp launch --resume {tmp_path / 'run'}" in done.stderr
    found = summary(tmp_path / "run")
    assert (1, False, 8) == (found["exit"], found["finished"], found["steps"])
    obstacle.rmdir()
    again = karp("launch", "--resume", tmp_path / "run", cwd=tmp_path, FREE="1")
    assert (0, "trained 8\n", True) == (again.returncode, again.stdout, obstacle.is_file()), again.stderr


def test_keys_for_which_there_is_no_room_leave_no_half_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match=r"the keys cannot be written to .*: No space left on device"):
        keys.write(keys.make(), tmp_path / "keys")
    assert [] == list(tmp_path.iterdir())


def test_a_program_that_was_repaired_goes_on_where_it_is_said_to_have_changed(tmp_path: Path) -> None:
    """The same bits as if it had never failed; the launcher refuses before it starts anything, and names the option."""
    broken = PROGRAM.replace("(x, y):", "(x, y, evaluate=lambda: 1 / (2 - trainer.epoch)):")
    path, run = program(tmp_path, text=broken, epochs=4), tmp_path / "run"
    assert 1 == launch(tmp_path, 2, path).returncode
    before = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "summary.json", "settings.json")}
    path.write_text(broken.replace("2 - trainer.epoch", "1 + trainer.epoch").replace("EPOCHS", "4"))
    refused = refusal(karp("launch", "--resume", run, cwd=tmp_path))
    assert f"the program {path} has changed since the run in {run} ran it" in refused
    assert f"pass --changed: karp launch --resume {run} --changed" in refused
    assert before == {name: (run / name).read_bytes() for name in before}
    done = karp("launch", "--resume", run, "-n", 1, "--changed", cwd=tmp_path)
    assert (0, "trained 16\n") == (done.returncode, done.stdout), done.stderr
    programs = summary(run)["programs"]
    assert [0, 2] == [len(programs) - 2, len({ran["sha256"] for ran in programs})]
    assert "the program has changed: from step" in done.stderr
    whole = launch(tmp_path, 2, path, run="whole")
    assert 0 == whole.returncode, whole.stderr
    assert summary(tmp_path / "whole")["weights_sha256"] == summary(run)["weights_sha256"]
    assert 0 == karp("launch", "--resume", run, cwd=tmp_path).returncode  # it is the run's now


SETTINGS = {"staleness": None, "local_steps": 1, "codec": "int8", "codec_weights": None, "threads": 2, "shards": 3}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codec": "float16"}, "--codec is 'float16', but 'int8' in the run in"),
        ({"codec_weights": "float16"}, "--codec-weights is 'float16', but None in the run"),
        ({"staleness": "0"}, "--staleness is 0, but None in the run"),
        ({"local_steps": "2"}, "--local-steps is '?2'?, but 1 in the run"),
        ({"threads": 1}, "--threads is 1, but 2 in the run"),
    ],
)
def test_what_the_bits_depend_on_does_not_change_at_a_resume(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    path = program(tmp_path)
    Options(str(path), [], 1).write(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(SettingError, match=reason):
        resume(str(tmp_path), changes)
    recorded = Recorded.read(tmp_path)
    same = {"staleness": "none", "local_steps": "1", "codec": "int8", "threads": 2, "workers": 5, "port": 5000}
    recorded.check(tmp_path, Options(str(path), [], 1), same, False)
    assert 3 == recorded.shards


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"shards": "many", "program_sha256": 7}'])
def test_settings_that_cannot_be_read_are_the_servers_to_know(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    recorded = Recorded.read(tmp_path)
    assert 0 == recorded.shards


def test_only_a_resume_has_a_program_that_has_changed(tmp_path: Path) -> None:
    done = karp("launch", "-n", 1, "--changed", program(tmp_path), cwd=tmp_path)
    assert "--changed goes with --resume DIR" in refusal(done)
