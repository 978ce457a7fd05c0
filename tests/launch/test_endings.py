"""How a launch ends when its workers do not end as they should."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from running import (
    HEAD,
    LOOP,
    PROGRAM,
    ROOT,
    Process,
    command,
    completed,
    karp,
    launch,
    metrics,
    program,
    started,
    summary,
)

from karp.errors import SettingError
from karp.launch import run, start, supervisor
from karp.launch.options import Options
from karp.monitor.terminal import Display
from karp.protocol.reports import Begin
from karp.record.server_address import publish

AFTER = {
    "stopped": """
import signal
if not trainer.main: os.kill(os.getpid(), signal.SIGSTOP)
print("main")
""",
    "ends by itself when told to": """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if not trainer.main: signal.pause()
print("main")
""",
}


@pytest.mark.parametrize("how", AFTER)
def test_a_worker_that_does_not_end_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    path = program(tmp_path, text=HEAD + LOOP.format(body="pass") + AFTER[how])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(supervisor, "NAME_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "LAST_SECONDS", 1.0)
    status = start.launch(Options(str(path), [], 2), str(tmp_path / "run"))
    printed = capfd.readouterr()
    assert (0, "main\n") == (status, printed.out), printed.err
    assert "the run is over; waiting for worker" in printed.err
    assert (0, True) == (summary(tmp_path / "run")["exit"], summary(tmp_path / "run")["finished"])
    named = re.search(r"process (\d+)", printed.err)
    assert named is not None
    with pytest.raises(ProcessLookupError):
        os.kill(int(named[1]), 0)


@contextlib.contextmanager
def held_up(folder: Path, **seconds: float) -> Iterator[tuple[Process, int]]:
    """A launch that says it waits for the server to write what is left; that process is stopped, or soon will be."""
    patches = "".join(f"supervisor.{name} = {value}; " for name, value in seconds.items())
    options = f"Options({str(program(folder))!r}, [], 2, checkpoint_every=1000.0)"  # when it begins and ends
    call = f"start.launch({options}, {str(folder / 'run')!r})"
    modules = "from karp.launch import start, supervisor; from karp.launch.options import Options"
    code = f"{modules}; {patches}raise SystemExit({call})"
    line = [sys.executable, "-c", code]
    with started(line, folder, KARP_FAULT="server: pause writing step 8 time 2") as launch:
        said = launch.until("waiting for the server (process ", ") to write what is left, for ", " s more at most")
        yield launch, int(said.split("(process ")[1].split(")")[0])


def test_ctrl_c_while_the_server_writes_what_is_left_is_answered_and_costs_nothing(tmp_path: Path) -> None:
    with held_up(tmp_path, NAME_SECONDS=0.0) as (launch, server):
        launch.send_signal(signal.SIGINT)
        said = launch.until("interrupted")
        assert f"the server (process {server}) is writing what is left (once more: at once)" in said
        while launch.poll() is None:  # it may not have been stopped yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(server, signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                launch.wait(0.05)
        status, printed, error = launch.end()
    assert (0, "trained 8\n") == (status, printed), error
    assert "to go on" not in error
    assert (8, True) == (summary(tmp_path / "run")["steps"], summary(tmp_path / "run")["finished"])


def test_ctrl_c_while_the_program_is_at_what_follows_its_loop_says_how_to_go_on_with_that(tmp_path: Path) -> None:
    wait = "if not os.path.exists('go'): open('here', 'w').close(); signal.pause()\n    print("
    path = program(tmp_path, text="import signal" + PROGRAM.replace("print(", wait))
    os.mkfifo(tmp_path / "here")
    with started(command("launch", "-n", 2, "--run-dir", tmp_path / "run", path), tmp_path) as launch:
        (tmp_path / "here").open().close()  # waits for the main worker
        launch.send_signal(signal.SIGINT)
        status, printed, error = launch.end()
    assert (130, "") == (status, printed)
    assert "the training had ended, but not the program; to go on with that: karp launch --resume" in error
    (tmp_path / "go").touch()
    again = karp("launch", "--resume", tmp_path / "run", cwd=tmp_path)
    assert (0, "trained 8\n") == (again.returncode, again.stdout), again.stderr


def test_a_server_that_dies_while_it_is_waited_for_after_ctrl_c_leaves_a_run_to_go_on_with(tmp_path: Path) -> None:
    with held_up(tmp_path, NAME_SECONDS=0.0) as (launch, server):
        launch.send_signal(signal.SIGINT)
        launch.until("interrupted")
        os.kill(server, signal.SIGKILL)
        status, _, error = launch.end()
    assert 130 == status
    assert f"the server wrote no summary; to go on: karp launch --resume {tmp_path / 'run'} -n 2" in error


def test_a_server_that_hangs_at_the_end_is_named_and_killed(tmp_path: Path) -> None:
    with held_up(tmp_path, NAME_SECONDS=0.0, CLOSE_SECONDS=1.0) as (launch, server):
        status, _, error = launch.end()
    assert 1 == status
    assert f"the server (process {server}) has not ended in 1 s and is killed" in error
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    again = karp("launch", "--resume", tmp_path / "run", cwd=tmp_path)
    assert (0, True) == (again.returncode, summary(tmp_path / "run")["finished"]), again.stderr


def test_a_program_that_ends_well_in_the_middle_does_not_end_the_run_well(tmp_path: Path) -> None:
    path = program(tmp_path, text=HEAD + LOOP.format(body="if trainer.step == 5: raise SystemExit(0)"))
    done = launch(tmp_path, 2, path)
    assert 1 == done.returncode
    assert "ended in every worker before the run did: it is at step 5" in done.stderr
    found = summary(tmp_path / "run")
    assert (1, False, 5) == (found["exit"], found["finished"], found["steps"])


def test_a_score_that_is_no_number_is_shown_as_such(tmp_path: Path) -> None:
    loop = LOOP.format(body="pass").replace("(x, y):", "(x, y, evaluate=lambda: {'auc': float('nan')}):")
    path = program(tmp_path, text=HEAD + loop + "print('end')")
    done = launch(tmp_path, 2, path)
    assert (0, "end\n") == (done.returncode, done.stdout), done.stderr
    assert "karp: auc not finite" in done.stderr


def test_two_interrupts_at_once_kill_everything_and_still_say_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has not been answered when the second comes."""
    launch = run.Launch(Options("program.py", [], 4), tmp_path, resume=False)
    publish(tmp_path, "tcp://127.0.0.1:1", "run", "")
    launch.supervisor.published = True
    ends = []
    monkeypatch.setattr(os, "_exit", ends.append)
    with (tmp_path / "said").open("w") as stream:
        launch.display = Display(stream)
        launch._interrupt(signal.SIGINT, None)
        assert [] == ends
        launch._interrupt(signal.SIGINT, None)
    assert [130] == ends
    how = f"to go on from the newest checkpoint: karp launch --resume {tmp_path} -n 4"
    assert f"karp: killed at once; {how}\n" == (tmp_path / "said").read_text()
    assert not (tmp_path / "server.json").exists()


def test_a_launch_leaves_no_descriptor_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = program(tmp_path)
    before = sorted(os.listdir("/proc/self/fd"))
    assert 0 == start.launch(Options(str(path), [], 1), str(tmp_path / "run"))
    assert before == sorted(os.listdir("/proc/self/fd"))


def test_a_log_that_somebody_has_removed_is_named_and_the_run_does_not_end_well(tmp_path: Path) -> None:
    remove = "if worker == 1: os.unlink(os.environ['KARP_RUN_DIR'] + '/logs/worker-1.log')"
    done = launch(tmp_path, 2, program(tmp_path, text=HEAD + remove + LOOP.format(body="pass") + "print(7)"))
    assert (1, "7\n") == (done.returncode, done.stdout), done.stderr
    assert f"karp: somebody has removed logs/worker-1.log of {tmp_path / 'run'} during the run" in done.stderr


def test_one_error_of_all_workers_is_shown_once(tmp_path: Path) -> None:
    path = program(tmp_path, text=HEAD + LOOP.format(body="if trainer.step == 3: raise ValueError('boom')"))
    done = launch(tmp_path, 4, path)
    assert 1 == done.returncode
    said = [line for line in done.stderr.splitlines() if line.startswith("karp: worker")]
    assert [("tries it", 1), ("ValueError: boom", 2)] == [
        (words, sum(words in line for line in said)) for words in ("tries it", "ValueError: boom")
    ], done.stderr
    assert 1 == done.stderr.count("Traceback")
    assert 4 <= sum(line["report"] == "traceback" for line in metrics(tmp_path / "run"))


def test_what_karp_refuses_is_shown_with_the_program_s_line_alone(tmp_path: Path) -> None:
    path = program(tmp_path, text=HEAD + "y[5] = 7" + LOOP.format(body="pass"))
    done = launch(tmp_path, 2, path)
    assert 1 == done.returncode
    assert "class index 7 is none of the 2 classes" in done.stderr
    assert "trainer.backward(nn.cross_entropy(model(xs), ys))" in done.stderr
    assert "losses.py" not in done.stderr


def test_a_rule_that_every_worker_breaks_at_once_is_said_once(tmp_path: Path) -> None:
    path = program(tmp_path, text=HEAD + LOOP.format(body="continue"))
    done = launch(tmp_path, 4, path)
    assert 1 == done.returncode
    assert 1 == len(re.findall(r"^karp: .*not given to trainer.backward", done.stderr, re.M)), done.stderr


def test_a_terminal_that_is_left_at_once_has_its_cursor() -> None:
    mine, theirs = os.openpty()
    with open(theirs, "w") as stream, open(mine, "rb", buffering=0) as screen:
        display = Display(stream)
        display.report(Begin(0.0, 0, 3, 3, 1))
        display.abandon("a last line")
        shown = b""
        while b"\x1b[?25h" not in shown:
            shown += screen.read(1 << 12)
        assert b"\x1b[?25l" in shown  # it was hidden
        while b"a last line" not in shown:
            shown += screen.read(1 << 12)
        display.close()


def test_a_terminal_that_is_gone_does_not_keep_a_launcher_from_its_end() -> None:
    mine, theirs = os.openpty()
    with open(theirs, "w") as stream:
        display = Display(stream)
        display.bar = object()  # a real one has a thread, which would write there too
        os.close(mine)
        display.abandon("a last line")


def test_what_an_earlier_launch_printed_is_not_printed_again(tmp_path: Path) -> None:
    path = program(tmp_path, text=HEAD + LOOP.format(body="pass") + "print('printed')")
    first = launch(tmp_path, 2, path)
    again = karp("launch", "--resume", tmp_path / "run", "-n", 1, cwd=tmp_path)
    assert (0, "printed\n", 0, "printed\n") == (first.returncode, first.stdout, again.returncode, again.stdout)


def test_a_time_between_checkpoints_is_a_number(tmp_path: Path) -> None:
    path = program(tmp_path, text=HEAD)
    for seconds in (float("nan"), float("inf"), -1.0):
        with pytest.raises(SettingError, match="--checkpoint-every is"):
            start.launch(Options(str(path), [], 1, checkpoint_every=seconds), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_launcher_imports_nothing_that_takes_long_and_a_worker_no_server() -> None:
    heavy = {"numpy", "zmq", "msgpack", "asyncio", "rich", "dataclasses", "inspect"}
    modules = "karp.cli, karp.launch.start, karp.launch.credentials"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = completed([sys.executable, "-c", code], ROOT)
    assert ("[]\n", 0) == (done.stdout, done.returncode), done.stderr
    given = {"threads": 2, "staleness": "2", "local_steps": "4", "codec": "int8", "codec_weights": "float16"}
    code = "from karp.launch.options import Options"
    code = f"{code}; Options({str(ROOT / 'workers' / 'digits.py')!r}, [], 2, **{given}).check()"
    done = completed([sys.executable, "-c", f"import sys; {code}; print(sorted({heavy} & set(sys.modules)))"], ROOT)
    assert ("[]\n", 0) == (done.stdout, done.returncode), done.stderr
    code = "import sys, karp.trainer.trainer, karp.transport.zeromq; print([n for n in sys.modules if 'karp' in n])"
    done = completed([sys.executable, "-c", code], ROOT)
    assert "karp.protocol.worker" in done.stdout
    servers = {"karp.protocol.server", "karp.serve.in_process", "karp.serve.process", "karp.record.directory"}
    assert servers == {name for name in servers if find_spec(name)}
    assert set() == {name for name in servers if f"'{name}" in done.stdout}
