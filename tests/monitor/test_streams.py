"""Standard streams that are closed, full, or read by nobody any more."""

import os
import shlex
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from running import HEAD, LOOP, PATIENCE, command, environment, program, summary

from karp.monitor import streams
from karp.monitor.terminal import Display


def shell(line: str, folder: Path, unbuffered: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, whose status is that of the first command in a pipe."""
    variables = environment() | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {})
    if not unbuffered:
        variables.pop("PYTHONUNBUFFERED", None)
    return subprocess.run(
        ["bash", "-c", line + "; exit ${PIPESTATUS[0]}"], cwd=folder, env=variables, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False,
    )  # fmt: skip


UNWRITTEN = "karp: what was to be printed could not be written: No space left on device\n"


def karp(*arguments: object) -> str:
    return shlex.join(command(*arguments))


def test_what_nobody_reads_is_thrown_away_until_somebody_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    descriptor = os.open(tmp_path / "pipe", os.O_WRONLY)
    monkeypatch.setattr(sys, "stdout", streams.safe_stream(None, descriptor))
    os.close(end)
    for _ in range(3):
        print("x" * 100_000)
    assert "" == streams.output_failure()
    end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    print("heard")
    assert b"heard\n" == os.read(end, 100)
    os.close(end)
    os.close(descriptor)


def test_what_a_full_disk_has_swallowed_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", streams.safe_stream(full, full.fileno()))
        print("lost")
        assert "No space left on device" == streams.output_failure()


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    end, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    arrived = bytearray()

    def read() -> None:
        while chunk := os.read(end, 1 << 16):
            arrived.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    stream = streams.safe_stream(None, descriptor)
    stream.write("x" * 1_000_000)
    stream.flush()
    os.close(descriptor)
    reader.join(PATIENCE)
    os.close(end)
    assert b"x" * 1_000_000 == bytes(arrived)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "é ×  caf\\udce9"), ("latin-1", "é ×  caf\\udce9"), ("ascii", "\\xe9 \\xd7  caf\\udce9")],
)
def test_what_the_encoding_lacks_is_written_as_an_escape(tmp_path: Path, encoding: str, expected: str) -> None:
    with (tmp_path / "file").open("w", encoding=encoding) as file:
        stream = streams.safe_stream(file, file.fileno())
        Display(stream).say("é ×  caf\udce9")
    assert f"karp: {expected}\n".encode(encoding) == (tmp_path / "file").read_bytes()


def test_bytes_of_another_process_are_shown_as_they_are(capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", streams.safe_stream(None, 1))
    print("before", end=" ")
    streams.show(b"caf\xe9\x00\n")
    assert b"before caf\xe9\x00\n" == capfdbinary.readouterr().out


def test_a_program_may_have_closed_its_own_stream(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        display = Display(file)
    display.say("nobody")
    display.say("hears this")
    assert display.stream is None


@pytest.mark.parametrize("closed", [c for c in product("01", repeat=3) if "1" in c], ids="".join)
def test_closed_descriptors_are_the_null_device_and_nothing_else_is_opened_there(
    tmp_path: Path, closed: tuple[str, ...]
) -> None:
    code = (
        "import os; from karp.monitor.streams import open_standard_descriptors; open_standard_descriptors(); "
        "fd = os.open('file', os.O_CREAT); "
        "names = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]; inherited = [os.get_inheritable(n) for n in "
        "range(3)]; open('found', 'w').write(f'{fd > 2} {names.count(os.devnull)} {all(inherited)}')"
    )
    ends = " ".join(f"{n}{'<' if n == 0 else '>'}&-" for n in range(3) if closed[n] == "1")
    done = shell(f"{shlex.join([sys.executable, '-c', code])} {ends}", tmp_path)
    null = closed.count("1") + (closed[0] == "0")  # as standard input is anyway
    assert (0, f"True {null} True") == (done.returncode, (tmp_path / "found").read_text())


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("--version | true", 0, ""),
        ("--version > /dev/full", 1, UNWRITTEN),
        ("--version <&- >&- 2>&-", 0, ""),
        ("--help | true", 0, ""),
        ("launch --help > /dev/full", 1, UNWRITTEN),
        ("nonsense 2>&1 | true", 2, ""),
        ("launch 2> /dev/full", 2, ""),
        ("launch -n 2 missing.py 2>&- >&-", 2, ""),
    ],
)
def test_a_command_whose_output_cannot_be_written(
    tmp_path: Path, line: str, status: int, said: str, unbuffered: bool
) -> None:
    done = shell(f"{karp()} {line}", tmp_path, unbuffered)
    assert (status, said) == (done.returncode, done.stderr)


def test_what_nobody_reads_is_done_all_the_same(tmp_path: Path) -> None:
    line = f"{karp('simulate', '--workers', 3, '--steps', 3, '--json', 'curve.json')} | true"
    done = shell(line, tmp_path)
    assert (0, "", True) == (done.returncode, done.stderr, (tmp_path / "curve.json").exists())


LINES = "\nif trainer.main:\n    for line in range(3000): print('line', line)\n"


@pytest.mark.parametrize(("ends", "status"), [("| head -1", 0), ("> /dev/full", 1), ("<&- >&- 2>&-", 0)])
def test_a_run_that_is_not_looked_at_ends_as_it_should(tmp_path: Path, ends: str, status: int) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass") + LINES)
    done = shell(f"{karp('launch', '-n', 2, '--run-dir', 'run', path)} {ends}", tmp_path)
    assert status == done.returncode, done.stderr
    assert ("cannot be shown (No space left on device)" in done.stderr) == (status == 1)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (0, True) == (summary(tmp_path / "run")["exit"], summary(tmp_path / "run")["finished"])


@pytest.mark.parametrize("ends", ["2>&1 >/dev/null | true", "2> /dev/full", "<&- >&- 2>&-"])
def test_progress_that_nobody_reads_is_no_failure_of_a_program_in_one_process(tmp_path: Path, ends: str) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass").replace("epochs=2", "epochs=2, run_dir='run'"))
    done = shell(f"{shlex.join([sys.executable, str(path)])} {ends}", tmp_path)
    assert 0 == done.returncode
    assert summary(tmp_path / "run")["finished"]


def test_what_a_program_prints_in_its_loop_goes_where_it_prints_to(tmp_path: Path) -> None:
    """The progress bar on a terminal beside it draws nothing of a file's."""
    path = program(tmp_path, HEAD + LOOP.format(body="print(trainer.step)").replace("epochs=2", "run_dir='run'"))
    mine, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, str(path)], cwd=tmp_path, env=environment(TERM="xterm"), stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    os.close(mine)  # the terminal hangs up, too
    printed, _ = process.communicate(timeout=PATIENCE)
    assert (0, b"0\n1\n2\n3\n") == (process.returncode, printed)
