"""Faults at named points of real processes, each as a single case; scripts/chaos.sh mixes them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import PATIENCE, PROGRAM, command, environment, karp, launch, program, start, summary

from karp.launch.options import Options
from karp.launch.processes import Child, output_text, start_worker
from karp.launch.run import Launch
from karp.launch.this_host import ThisHost
from karp.protocol.reports import Joined, Report

BITS: dict[int, str] = {}


def undisturbed(folder: Path) -> str:
    """The weights' hash of a run that nothing happens to."""
    if 2 not in BITS:
        done = launch(folder, 2, program(folder), run="undisturbed")
        assert (0, "trained 8\n") == (done.returncode, done.stdout), done.stderr
        BITS[2] = summary(folder / "undisturbed")["weights_sha256"]
    return BITS[2]


def struck(folder: Path, fault: str, *options: object) -> str:
    """What a launch says in which this happens; it ends well, with the bits of an undisturbed one.

    Its server writes checkpoints when the run begins and ends, not when the clock says so.
    """
    options = ("--checkpoint-every", 1000, *options)
    done = launch(folder, 2, program(folder), options=options, KARP_FAULT=fault)
    assert (0, "trained 8\n") == (done.returncode, done.stdout), done.stderr
    assert (folder / "run" / "faults" / "0").exists()
    assert undisturbed(folder) == summary(folder / "run")["weights_sha256"]
    return done.stderr


def marking(folder: Path) -> Path:
    """A program of which each main worker leaves a folder of its own."""
    path = program(folder)
    said = 'print("trained"'
    path.write_text(path.read_text().replace(said, "os.mkdir(f'main {os.getpid()}')\n    " + said))
    return path


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("point", ["left", "done"])
def test_the_program_is_gone_through_even_if_its_worker_dies_after_the_loop(
    tmp_path: Path, workers: int, point: str
) -> None:
    fault = f"worker 0: die {point}"
    done = launch(tmp_path, workers, program(tmp_path), KARP_FAULT=fault)
    assert 0 == done.returncode, done.stderr
    assert "trained 8\n" in done.stdout
    assert (tmp_path / "run" / "faults" / "0").exists()
    assert undisturbed(tmp_path) == summary(tmp_path / "run")["weights_sha256"]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("time", [1, 2])
def test_the_program_is_gone_through_once_if_the_server_dies_when_the_run_is_over(
    tmp_path: Path, workers: int, time: int
) -> None:
    """After it has told one worker, or another, that all is over."""
    path = marking(tmp_path)
    done = launch(tmp_path, workers, path, KARP_FAULT=f"server: die replied step 8 time {min(time, workers)}")
    assert (0, "trained 8\n") == (done.returncode, done.stdout), done.stderr
    assert "it is started again" in done.stderr  # to go on; if the worker has ended by then, to close the run
    assert 1 == len(list(tmp_path.glob("main *")))


def test_no_second_worker_speaks_for_all_if_the_server_dies_when_the_first_has_spoken(tmp_path: Path) -> None:
    """The launcher sees the main worker's end before it hears that it has left; the next server is told of it."""
    path = marking(tmp_path)
    done = launch(tmp_path, 2, path, KARP_FAULT="server: delay 1 received step 8; server: die received step 8 time 3")
    assert (0, "trained 8\n") == (done.returncode, done.stdout), done.stderr
    assert 1 == len(list(tmp_path.glob("main *")))


def test_the_reports_of_what_a_worker_did_are_read_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that dies as soon as it has joined, of which the launcher has not heard yet, is started again."""

    class Unheard:
        released = False

        def reports(self, seconds: float, ends: object = ()) -> list[Report]:
            return [Joined(0.0, 0, 0, "host", 1)]

        def tell(self, **command: object) -> None:
            assert {"ended": 0, "well": False} == command

    started: list[int] = []
    launch = Launch(Options("program.py", [], 2), tmp_path, resume=False)
    launch.supervisor.begin()
    launch.supervisor.started(0, "process 1")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    assert 3 == process.wait(PATIENCE)
    hands = launch.hands
    assert isinstance(hands, ThisHost)
    monkeypatch.setattr(hands, "start_worker", lambda worker, variables: started.append(worker))
    launch.variables = {}
    hands.children, hands.server = {0: Child(process, tmp_path / "log", 0)}, Unheard()  # type: ignore[assignment]
    hands.watch(0.0)
    assert ([0], 0) == (started, launch.supervisor.status)


def test_a_worker_that_cannot_begin_again_leaves_the_run_to_the_others(tmp_path: Path) -> None:
    text = PROGRAM.replace("x = ", "if worker and os.path.exists('run/faults/0'): raise MemoryError\nx = ", 1)
    done = karp(
        "launch", "-n", 2, "--max-restarts", 1, "--run-dir", "run", program(tmp_path, text=text),
        cwd=tmp_path, KARP_FAULT="worker 1: die leased",
    )  # fmt: skip
    assert (0, "trained 8\n") == (done.returncode, done.stdout), done.stderr
    assert undisturbed(tmp_path) == summary(tmp_path / "run")["weights_sha256"]


@pytest.mark.parametrize("unbuffered", ["", "1"])  # it decides what is tried once more at the interpreter's end
def test_a_run_goes_on_when_nobody_looks_any_more(tmp_path: Path, unbuffered: str) -> None:
    """As in `karp launch … 2>&1 | head -1`."""
    path = program(tmp_path, epochs=400)
    line = command("launch", "-n", 2, "--run-dir", tmp_path / "run", path)
    launch = start(line, tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert launch.stdout is not None
    assert launch.stderr is not None
    launch.stderr.readline()
    launch.stderr.close()
    assert "trained 1600\n" == launch.stdout.read()
    launch.stdout.close()
    assert 0 == launch.wait(PATIENCE)
    assert summary(tmp_path / "run")["finished"]


def test_a_launcher_that_may_not_watch_processes_asks_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("os.pidfd_open", refused, raising=False)
    leash, leash_end = os.pipe()
    path = program(tmp_path, text="print(7)")
    child = start_worker(0, str(path), [], environment(), tmp_path / "log", leash)
    assert -1 == child.end
    assert 0 == child.process.wait(PATIENCE)
    os.close(leash)
    os.close(leash_end)
    assert "7\n" == output_text(child.log, child.begin)
    child.close()


def test_a_server_that_dies_while_it_closes_the_run_is_started_again_to_do_so(tmp_path: Path) -> None:
    """Its workers have ended; the checkpoint before the last is of the end, too."""
    said = struck(tmp_path, "server: die writing step 8 time 2")
    assert "the server died before it had closed the run" in said
    assert summary(tmp_path / "run")["finished"]


def test_a_server_that_dies_in_the_first_steps_finds_a_checkpoint_however_slow_the_disk(tmp_path: Path) -> None:
    """Its workers' weights are not the initial ones any more."""
    said = struck(tmp_path, "server: delay 0.5 writing; server: die applied step 2", "--exchange", "zeromq")
    assert "the server was killed by SIGKILL; it is started again" in said
    assert not re.search(r"worker \d (ended|was killed|failed)", said)  # none was asked for the initial weights


def test_the_end_waits_for_a_slow_disk_and_nobody_gives_the_server_up(tmp_path: Path) -> None:
    """The last checkpoint takes longer than the time between two signs of life."""
    struck(tmp_path, "server: delay 1.5 writing step 8")


def test_a_fault_that_is_none_is_said() -> None:
    from karp import faults
    from karp.errors import SettingError

    for plan in ("worker: sing leased", "worker: die received", "server: die leased", "worker: delay leased", ""):
        with pytest.raises(SettingError, match="is no fault"):
            faults.parse(plan)


def test_each_fault_fires_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from karp import faults

    monkeypatch.setenv("KARP_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("KARP_WORKER", "1")
    monkeypatch.setattr(faults, "PLAN", "worker 1: raise leased step 3 time 2; worker 0: raise leased")
    for _ in range(2):  # two processes of the run
        monkeypatch.setattr(faults, "_faults", None)
        faults.reach("leased", step=2)
        faults.reach("leased", step=3)
        if not (tmp_path / "faults").exists():
            with pytest.raises(RuntimeError, match="the fault 0 of KARP_FAULT"):
                faults.reach("leased", step=4)
        faults.reach("leased", step=5)
    assert ["0"] == [path.name for path in (tmp_path / "faults").iterdir()]
