"""The processes of a run on this machine: how they are started, watched and ended."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from karp import environment
from karp.errors import RecordError
from karp.record.files import reason
from karp.serve.config import Config

# Neither is started by `-m`, for which the folder that the user is in would be looked at first: a `queue.py` there is
# nobody's business. Both have the launcher's own karp, which finds its parts once it is found.
WORKER_MAIN = str(Path(__file__).with_name("worker_main.py"))
HOUSE = str(Path(__file__).parent.parent.parent)
SERVE = f"import sys; sys.path.insert(0, {HOUSE!r}); import karp; del sys.path[0]; " \
        "from karp.serve.process import main; sys.exit(main())"  # fmt: skip
KILL_SECONDS = 2.0  # between SIGTERM and SIGKILL
TAIL_LINES = 40
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Child:
    """One process of a worker; `restarts` of that worker came before it."""

    def __init__(self, worker: int, process: subprocess.Popen[bytes], log: Path, begin: int, restarts: int) -> None:
        self.worker = worker
        self.process = process
        self.log = log
        self.begin = begin  # of what it prints, in the log
        self.restarts = restarts
        self.ended = self.joined = self.left = False
        self.dismissed = False  # ended by the launcher, as the run is over
        self.end = -1  # a descriptor that can be read once the process has ended, where the system has such a thing

    def close(self) -> None:
        """Its end has been seen."""
        self.ended = True
        if self.end >= 0:
            os.close(self.end)
            self.end = -1

    @property
    def ended_well(self) -> bool:
        return self.process.returncode == 0

    @property
    def how(self) -> str:
        """How it ended, in words."""
        return how_ended(self.process)


def how_ended(process: subprocess.Popen[bytes]) -> str:
    """How a process has ended, in words."""
    status = process.returncode
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"


def output(log: Path, begin: int) -> bytes:
    """Return what has been printed to a log since it had so many bytes."""
    return log.read_bytes()[begin:]


def printed(log: Path, begin: int) -> str:
    """Return that as text."""
    return output(log, begin).decode(errors="replace")


def tail(log: Path, begin: int) -> str:
    """Return its last lines."""
    try:
        lines = printed(log, begin).splitlines()[-TAIL_LINES:]
    except OSError as error:
        return f"({log} cannot be read: {reason(error)})"
    return "\n".join(lines) if lines else "(nothing)"


def open_log(log: Path) -> BinaryIO:
    """Open a log to append to it; raises RecordError if that cannot be."""
    try:
        return log.open("ab")
    except OSError as error:
        raise RecordError(f"the log {log} cannot be written: {reason(error)}") from None


def start_worker(
    worker: int, program: str, arguments: list[str], variables: dict[str, str], log: Path, leash: int, restarts: int
) -> Child:
    """Start a program as a worker; what it prints is appended to the log."""
    with open_log(log) as file:
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, WORKER_MAIN, program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=variables | {environment.WORKER: str(worker), environment.LEASH: str(leash)},
            pass_fds=[leash],
            process_group=0,
        )
    child = Child(worker, process, log, begin, restarts)
    with contextlib.suppress(AttributeError, OSError):  # not on this system, or not allowed: then the launcher polls
        child.end = os.pidfd_open(process.pid)
    return child


class ServerProcess:
    """The server, and the pipes to it."""

    def __init__(self, config: Config, variables: dict[str, str], log: Path) -> None:
        self.log = log
        with open_log(log) as file:
            self.begin = file.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=variables,
                pass_fds=[config.descriptor],
                process_group=0,
            )
        self.rest = b""
        self.released = False
        self._write(config.to_line())

    def tell(self, **order: Any) -> None:
        """A line to the server; if it is gone, `reports` finds out."""
        self._write(json.dumps(order).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        if self.released:
            return
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def reports(self, seconds: float, others: Iterable[int] = ()) -> Iterator[dict[str, Any]]:
        """What the server has reported, waiting at most so long, or until one of the other descriptors can be read.

        Raises EOFError when the server has ended.
        """
        if self.released:
            return
        assert self.process.stdout is not None
        mine = self.process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            for one in (mine, *others):
                selector.register(one, selectors.EVENT_READ)
            if mine not in (key.fd for key, _ in selector.select(seconds)):
                return
        chunk = os.read(mine, 1 << 16)
        if not chunk:
            raise EOFError
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def ended_well(self) -> bool:
        """Whether it has ended well, now that its reports have ended."""
        try:
            return self.process.wait(KILL_SECONDS) == 0
        except subprocess.TimeoutExpired:
            return True  # it has done what it had to
        finally:
            self.kill()

    def kill(self) -> None:
        """End it, with all that it has started."""
        kill_group(self.process, signal.SIGKILL)
        self.release()

    def release(self) -> None:
        """Let go of a process that has ended."""
        self.released = True
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End these processes, with all that they have started."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        kill_group(process, signal.SIGTERM)
    until = time.monotonic() + KILL_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill_group(process, signal.SIGKILL)
            process.wait()


def kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
