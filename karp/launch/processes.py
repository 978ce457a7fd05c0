"""The processes of a run on this machine: how they are started, watched and ended."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from karp import environment
from karp.errors import RecordError
from karp.record.files import reason
from karp.serve.config import Config
from karp.serve.pipe import PipeLines

if TYPE_CHECKING:
    from karp.protocol.reports import Report

# Workers and server are not started by `-m`, as that puts the user's folder first on sys.path, where a file such as
# `queue.py` would hide a module of Python's. Both import the launcher's own karp, wherever it is installed.
WORKER_MAIN = str(Path(__file__).with_name("worker_main.py"))
SITE = str(Path(__file__).parent.parent.parent)  # the folder that karp is imported from
SERVE = f"import sys; sys.path.insert(0, {SITE!r}); import karp; del sys.path[0]; " \
        "from karp.serve.process import main; sys.exit(main())"  # fmt: skip
KILL_SECONDS = 2.0  # between SIGTERM and SIGKILL
TAIL_LINES = 40  # the lines of a log that a message shows
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Child:
    """A process that runs one worker."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, begin: int) -> None:
        self.process = process
        self.log = log
        self.begin = begin  # the offset in the log at which its output begins
        self.closed = False  # its end is known
        self.end = -1  # a descriptor (pidfd) that is readable once the process has ended; -1 on a system without

    def close(self) -> None:
        """Mark the process as ended, and close its descriptor."""
        self.closed = True
        if self.end >= 0:
            os.close(self.end)
            self.end = -1


def output(log: Path, begin: int) -> bytes:
    """Return the bytes of a log from offset `begin` on; raises OSError if it cannot be read."""
    return log.read_bytes()[begin:]


def output_text(log: Path, begin: int) -> str:
    """Return the text of a log from offset `begin` on."""
    return output(log, begin).decode(errors="replace")


def tail(log: Path, begin: int) -> str:
    """Return the last TAIL_LINES lines of a log from offset `begin` on, or a line that says why it cannot be read."""
    try:
        lines = output_text(log, begin).splitlines()[-TAIL_LINES:]
    except OSError as error:
        return f"({log} cannot be read: {reason(error)})"
    return "\n".join(lines)


def open_log(log: Path) -> BinaryIO:
    """Open a log to append to it; raises RecordError if that fails."""
    try:
        return log.open("ab")
    except OSError as error:
        raise RecordError(f"the log {log} cannot be written: {reason(error)}") from None


def start_worker(
    worker: int, program: str, arguments: list[str], variables: dict[str, str], log: Path, leash: int,
    folder: str | None = None,
) -> Child:  # fmt: skip
    """Start a program as a worker, in a folder; its output is appended to the log.

    Raises RecordError if that cannot be opened.

    `leash` is one end of a pipe: when the other end is closed, the worker kills itself (worker_main.py).
    """
    with open_log(log) as file:
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, WORKER_MAIN, program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=variables | {environment.WORKER: str(worker), environment.LEASH: str(leash)},
            pass_fds=[leash],
            process_group=0,
        )
    child = Child(process, log, begin)
    with contextlib.suppress(AttributeError, OSError):  # where there is no pidfd the launcher polls
        child.end = os.pidfd_open(process.pid)
    return child


class ServerProcess:
    """The server's process, with a pipe for commands to it and one for its reports."""

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
        assert self.process.stdout is not None
        self.lines = PipeLines(self.process.stdout.fileno())
        self.released = False
        self._write(config.to_line())

    def tell(self, **command: Any) -> None:
        """Send the server a command; if the server is gone, do nothing: the next `reports` raises EOFError."""
        self._write(json.dumps(command).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        if self.released:
            return
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def reports(self, seconds: float, others: Iterable[int] = ()) -> list["Report"]:
        """Return the server's new reports, [] if there are none; wait for them at most so many seconds.

        The wait ends early if one of the descriptors `others` is readable. Raises EOFError if the server has ended;
        after `release` the result is [].
        """
        from karp.protocol.reports import from_line  # imported here, so that the processes start first

        return [from_line(line) for line in self.read(seconds, others)]

    def read(self, seconds: float, others: Iterable[int] = ()) -> list[bytes]:
        """Return the lines of the server's new reports, as `reports` does."""
        if self.released:
            return []
        with selectors.DefaultSelector() as selector:
            for descriptor in (self.lines.descriptor, *others):
                selector.register(descriptor, selectors.EVENT_READ)
            if self.lines.descriptor not in (key.fd for key, _ in selector.select(seconds)):
                return []
        lines = self.lines.read()
        if self.lines.ended:
            raise EOFError
        return lines

    def wait_for_end(self) -> int:
        """Wait for the process, whose reports have ended, and release it; return its exit status.

        One that does not end in KILL_SECONDS is killed, and has ended with 0.
        """
        try:
            return self.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            return 0  # it closes its reports only after all of its work
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the process, with all processes that it has started, and release it."""
        kill_group(self.process, signal.SIGKILL)
        self.release()

    def release(self) -> None:
        """Reap the process, which has ended, and close its pipes."""
        self.released = True
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End these processes, with all that they have started: SIGTERM first, SIGKILL after KILL_SECONDS."""
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
    """Send a signal to a process and to all processes that it has started; if they are gone, do nothing."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
