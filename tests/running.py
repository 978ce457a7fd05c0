"""Real processes, for all tests that start any: programs, the karp command, and what a run leaves behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import pytest

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "workers" / "digits.py"

# A small program in parts: `{body}` stands before each batch's backward. Eight steps of an epoch each have 16 samples.
HEAD = """
import os, sys
import numpy as np
import karp
from karp import nn, optim
worker = int(os.environ.get("KARP_WORKER", "0"))
x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)
model = nn.MLP(3, [8], 2)
"""
LOOP = """
with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=16, epochs=2) as trainer:
    for xs, ys in trainer.batches(x, y):
        {body}
        trainer.backward(nn.cross_entropy(model(xs), ys))
"""
ONCE = """
def once(name):
    try:
        os.close(os.open(os.path.join(os.environ["KARP_RUN_DIR"], name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
"""
TRAINED = """
if trainer.main:
    print("trained", trainer.step)
"""
PROGRAM = HEAD + LOOP.format(body="pass").replace("epochs=2", "epochs=EPOCHS, shards=4") + TRAINED
GATE = 'if trainer.step == 600: open(os.environ.get("GATE", os.devnull)).close()'
ENDLESS = HEAD + LOOP.format(body=GATE).replace("epochs=2", "epochs=300")  # goes on when the gate is open

PATIENCE = 300.0  # seconds: whoever waits longer has found a hang, however busy the machine is
# Of finite numbers, with a right result: OpenBLAS 0.3.31's product of a small matrix and a vector on CPUs with AVX-512
# looks at what happens to lie in a register, about once in thirty runs of all tests.
SPURIOUS = "ignore:invalid value encountered in dot:RuntimeWarning"


def environment(**variables: str) -> dict[str, str]:
    """What a process of the tests gets: nothing of a run that is under way, and this checkout's karp."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KARP_")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    return clean | {"PYTHONPATH": path, "PYTHONWARNINGS": f"error,{SPURIOUS}"} | variables


def program(folder: Path, text: str = PROGRAM, epochs: int = 2) -> Path:
    """Write a program to this folder."""
    folder.mkdir(exist_ok=True)
    path = folder / "program.py"
    path.write_text(text.replace("EPOCHS", str(epochs)))
    return path


def command(*arguments: object) -> list[str]:
    """The karp command with these arguments, as `subprocess` takes it."""
    return [sys.executable, "-m", "karp.cli", *map(str, arguments)]


def karp(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the karp command to its end, with these variables in its environment."""
    return completed(command(*arguments), cwd, **variables)


def launch(
    folder: Path, workers: int, path: Path, *arguments: object, run: str = "run", options: tuple[object, ...] = (),
    **variables: str,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Launch a program with these arguments, to its end; `options` are the launcher's own."""
    given = ["-n", workers, "--run-dir", folder / run, *options, path, *arguments]
    return karp("launch", *given, cwd=folder, **variables)


def alone(path: Path, *arguments: object, directory: Path, **variables: str) -> tuple[dict[str, Any], str]:
    """Run a program in one process; the summary that it leaves in this directory, and what it prints."""
    line = [sys.executable, str(path), *map(str, arguments)]
    done = completed(line, directory.parent, KARP_RUN_DIR=str(directory), **variables)
    assert 0 == done.returncode, done.stderr
    return summary(directory), done.stdout


def completed(line: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        line, cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def bound_by_permissions(line: list[str]) -> list[str]:
    """The command as one runs it who may not write everywhere; root, who may, gives that up for it."""
    if os.geteuid() != 0:
        return line
    line = ["setpriv", "--bounding-set", "-dac_override", *line]
    if shutil.which("setpriv") is None or completed([*line[:3], "true"], Path.cwd()).returncode:
        pytest.skip("this system does not let root give up rights (setpriv)")
    return line


def obey_hangup() -> None:
    """Have this process end at SIGHUP, which it ignores where the tests were started by nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Process(subprocess.Popen[str]):
    """A command that has been started, and what it has said on standard error until now.

    Its lines are read here alone: `communicate` would lose those that have come together with one that was read.
    """

    stdout: TextIO
    stderr: TextIO

    def __init__(self, line: list[str], cwd: Path, **variables: str) -> None:
        super().__init__(
            line, cwd=cwd, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=obey_hangup,
        )  # fmt: skip
        self.said: list[str] = []

    def until(self, *words: str) -> str:
        """The line in which it says all of these words, which it has or will."""
        for line in chain(tuple(self.said), iter(self._hear, "")):
            if all(word in line for word in words):
                return line
        raise AssertionError(f"it has ended without a word of {words}: {''.join(self.said)}")

    def _hear(self) -> str:
        self.said.append(line := self.stderr.readline())
        return line

    def end(self) -> tuple[int, str, str]:
        """Its exit status, and all that it has printed and said, when it has ended."""
        error = "".join([*self.said, self.stderr.read()])
        return self.wait(PATIENCE), self.stdout.read(), error


def start(line: list[str], cwd: Path, **variables: str) -> Process:
    """Start a command whose output is read while it runs."""
    return Process(line, cwd, **variables)


@contextlib.contextmanager
def started(line: list[str], cwd: Path, **variables: str) -> Iterator[Process]:
    """A command that is killed should the test end before it."""
    with Process(line, cwd, **variables) as process:
        try:
            yield process
        finally:
            process.kill()


def summary(directory: Path) -> dict[str, Any]:
    """A run's summary.json."""
    found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return found


def metrics(directory: Path) -> list[dict[str, Any]]:
    """A run's reports, from metrics.jsonl."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def left_over(directory: Path) -> list[str]:
    """The commands of processes that belong to the run in this directory."""
    return [command for _, command, _ in processes(directory)]


def processes(directory: Path) -> list[tuple[int, str, dict[str, str]]]:
    """Number, command and variables of each process that belongs to the run in this directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"KARP_RUN_DIR={directory}\0".encode() in variables:
                names = dict(line.split("=", 1) for line in variables.decode().split("\0") if "=" in line)
                found.append((int(entry.name), command.replace(b"\0", b" ").decode(), names))
    return found


def gone(directory: Path) -> bool:
    """Wait until no process of the run is left; False if one stays."""
    until = time.monotonic() + PATIENCE
    while left_over(directory) and time.monotonic() < until:
        time.sleep(0.05)  # there is no event of the end of somebody else's child
    return not left_over(directory)


class Gate:
    """A file that a program can only open when the test has: a pipe with a name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        os.mkfifo(path)

    def open(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDWR)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


@contextlib.contextmanager
def gated(folder: Path, workers: int, path: Path, *options: object) -> Iterator[tuple[Process, Gate]]:
    """A launch that does not end before the gate is open at which its program waits."""
    line = command("launch", "-n", workers, "--run-dir", folder / "run", *options, path)
    with contextlib.closing(Gate(folder / "gate")) as gate, started(line, folder, GATE=str(gate.path)) as process:
        yield process, gate


@contextlib.contextmanager
def launched(folder: Path, workers: int, path: Path, *options: object) -> Iterator[tuple[Process, Gate]]:
    """One that has also begun to train, and has written a checkpoint."""
    with gated(folder, workers, path, "--checkpoint-every", 0.1, *options) as (process, gate):
        process.until("step ", "epoch ")
        assert left_over(folder / "run")
        yield process, gate


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
