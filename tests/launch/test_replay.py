"""`karp replay`: which program is run again, with which variables, and what is said of the outcome."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import PROGRAM, alone, program

from karp.environment import REPLAY, THREADS
from karp.errors import DataError, SettingError
from karp.launch import replay
from karp.launch.processes import WORKER_MAIN
from karp.record.kernels import kernels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    folder = tmp_path_factory.mktemp("recorded")
    text = PROGRAM.replace("epochs=EPOCHS", "epochs=EPOCHS, codec='float16', threads=1")
    alone(program(folder, text), "a", directory=folder / "run")
    return folder / "run"


def outcome(run: Path, equal: bool) -> dict[str, Any]:
    recorded = json.loads((run / "summary.json").read_text())["weights_sha256"]
    return {"weights_sha256": recorded if equal else "0" * 64, "recorded_sha256": recorded, "equal": equal}


@pytest.mark.parametrize("equal", [True, False])
def test_the_program_is_run_again_as_it_was_and_both_hashes_are_said(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], equal: bool
) -> None:
    started = []

    def repeat(line: list[str], cwd: str, env: dict[str, str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not (run / replay.FILE).exists()  # that of an earlier one
        started.append((line, cwd, env))
        (run / replay.FILE).write_text(json.dumps(outcome(run, equal)))
        return subprocess.CompletedProcess(line, 0)

    (run / replay.FILE).write_text("of an earlier one")
    monkeypatch.setattr(replay.subprocess, "run", repeat)
    assert int(not equal) == replay.replay(str(run), None, [])
    ((line, cwd, variables),) = started
    assert [sys.executable, WORKER_MAIN, str(run.parent / "program.py"), "a"] == line
    assert (str(run.parent), str(run), "1") == (cwd, variables[REPLAY], variables[THREADS])
    options = {"KARP_STALENESS": "0", "KARP_LOCAL_STEPS": "1", "KARP_CODEC": "float16"}
    assert options == {name: variables[name] for name in options}
    assert "KARP_CODEC_WEIGHTS" not in variables
    said = capsys.readouterr().out
    assert "karp: 8 contributions of 8 steps applied again, in the recorded order" in said
    assert ("NOT equal" in said, "the kernels are the run's, so the program" in said) == (not equal, not equal)


@pytest.mark.parametrize(("status", "expected"), [(3, 3), (-9, 137)])
def test_a_program_that_fails_ends_the_command_as_it_has_ended(
    run: Path, monkeypatch: pytest.MonkeyPatch, status: int, expected: int
) -> None:
    done = subprocess.CompletedProcess([], status)
    monkeypatch.setattr(replay.subprocess, "run", lambda *line, **others: done)
    assert expected == replay.replay(str(run), None, [])


def test_what_cannot_be_repeated_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"there is no program 'missing.py' in .*: name it: karp replay"):
        replay.replay(str(run), "missing.py", [])
    monkeypatch.setattr(replay.subprocess, "run", lambda *line, **others: subprocess.CompletedProcess([], 0))
    with pytest.raises(DataError, match=r"program.py ended without training"):
        replay.replay(str(run), None, [])
    with pytest.raises(DataError, match=r"does not say which program was run .*: karp replay .* PROGRAM"):
        replay.launched(tmp_path, None, [])
    with pytest.raises((DataError, SettingError)):
        replay.replay(str(tmp_path), None, [])


def test_why_the_bits_are_others_is_said_as_far_as_it_is_known() -> None:
    mine = {**kernels().to_dict(), "workers": [0], "server": False}
    other = mine | {"blas": "openblas 0.1 Prescott"}

    def summary(*uses: dict[str, Any]) -> dict[str, Any]:
        return {"kernels": list(uses)}

    assert "the kernels are the run's" in replay.explain_difference(summary(mine))
    assert "here are other kernels than the run's: blas" in replay.explain_difference(summary(other))
    assert "computed with several kernels, so it cannot be repeated: blas" in replay.explain_difference(
        summary(mine, other)
    )
    for damaged in ({}, {"kernels": []}, {"kernels": [{"blas": 3}]}, {"kernels": 7}):
        assert "summary.json does not say" in replay.explain_difference(damaged)
