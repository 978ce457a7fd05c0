"""`karp scale`: real workers come and go at a user's word; the bits stay, and nothing is computed again."""

import time
from pathlib import Path

import pytest
from running import (
    ENDLESS,
    PATIENCE,
    Process,
    command,
    completed,
    free_port,
    karp,
    launch,
    launched,
    left_over,
    metrics,
    program,
    summary,
)

from karp.errors import LostError, SettingError
from karp.launch import scale as module
from karp.launch.scale import scale


def joined(run: Path, count: int) -> None:
    """Wait until so many workers have joined."""
    until = time.monotonic() + PATIENCE
    while sum(line["report"] == "joined" for line in metrics(run)) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


def asked(folder: Path, process: Process, workers: int, answer: str) -> None:
    done = karp("scale", "--run-dir", folder / "run", workers, cwd=folder)
    said = f"the run's launcher is asked for {workers} worker{'s' * (workers != 1)}\n"
    assert (0, said) == (done.returncode, done.stdout), done.stderr
    process.until(answer)


def test_more_workers_come_and_fewer_are_left_and_the_bits_stay(tmp_path: Path) -> None:
    path = program(tmp_path / "program", ENDLESS)
    with launched(tmp_path, 2, path) as (process, gate):
        asked(tmp_path, process, 4, "4 workers asked for: 2 more start")
        joined(tmp_path / "run", 4)
        asked(tmp_path, process, 1, "1 worker asked for: 3 end when their tasks are done")
        gate.open()
        status, _, said = process.end()
    assert 0 == status, said
    assert "is started again" not in said
    assert not [line for line in metrics(tmp_path / "run") if line["report"] == "lost"]
    assert 0 == launch(tmp_path, 2, path, run="undisturbed").returncode
    assert summary(tmp_path / "undisturbed")["weights_sha256"] == summary(tmp_path / "run")["weights_sha256"]
    assert [] == left_over(tmp_path / "run")
    over = karp("scale", "--run-dir", tmp_path / "run", 2, cwd=tmp_path)
    assert (2, "karp: no run is under way") == (over.returncode, over.stderr[:25])


def test_a_server_that_starts_no_workers_says_so(tmp_path: Path) -> None:
    line = command("server", "-n", 1, "--run-dir", tmp_path / "run", program(tmp_path))
    with Process(line, tmp_path) as process:
        try:
            process.until("files in")
            refused = completed(command("scale", "--run-dir", tmp_path / "run", 2), tmp_path)
            assert (2, True) == (refused.returncode, "workers are started elsewhere" in refused.stderr), refused.stderr
        finally:
            process.terminate()
            process.communicate()


@pytest.mark.parametrize(
    ("where", "workers", "reason"),
    [
        ((None, None), 2, "needs the server's ADDRESS or --run-dir DIR"),
        (("tcp://127.0.0.1:1", "run"), 2, "needs the server's ADDRESS or --run-dir DIR"),
        (("127.0.0.1", None), 2, "ADDRESS is '127.0.0.1'; it must be tcp://HOST:PORT"),
        (("tcp://127.0.0.1:1", None), 0, "the number of workers"),
    ],
)
def test_what_cannot_be_asked_is_refused(where: tuple[str | None, str | None], workers: int, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        scale(*where, None, workers)


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(module, "ASK_SECONDS", 0.05)
    with pytest.raises(LostError, match=r"no server has answered at tcp://127\.0\.0\.1:"):
        scale(f"tcp://127.0.0.1:{free_port()}", None, None, 2)
