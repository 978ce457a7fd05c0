"""How workers whom somebody else starts (karp launch, mpiexec, Ray) begin together and say how fast they were.

The parent listens on a socket in a directory of its own; its path travels in the environment. Each worker connects
when it has imported and built what it needs, waits there until all have come, works, and writes one line of JSON.
The parent starts one command for the group, or one per worker, and fails with their last words if any ends before
its workers have reported.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from bench.contest import FailedError

VARIABLE = "KARP_BENCH_GATE"
START_SECONDS = 180.0  # within which all must have come
END_SECONDS = 60.0  # for everybody to end after the last report

Report = dict[str, Any]


class Gate:
    """The worker's end."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.environ[VARIABLE])

    def meet(self) -> None:
        """Wait until everybody has come."""
        self.socket.sendall(b"\n")
        if not self.socket.recv(1):
            raise SystemExit("the bench has ended")

    def report(self, report: Mapping[str, Any]) -> None:
        """The last word."""
        self.socket.sendall(json.dumps(report).encode() + b"\n")
        self.socket.close()


def run(
    commands: Sequence[Sequence[str]], workers: int, environment: Mapping[str, str], seconds: float
) -> list[Report]:
    """Start these commands, let `workers` workers meet, and return their reports, which take about so many seconds.

    Raises FailedError with the reason, if there is no report from each.
    """
    with tempfile.TemporaryDirectory(prefix="karp-bench-") as directory, socket.socket(socket.AF_UNIX) as listener:
        path = f"{directory}/gate"
        listener.bind(path)
        listener.listen(workers)
        known = dict(environment) | {VARIABLE: path, "KARP_BENCH_DIR": directory}
        with tempfile.TemporaryFile() as words:
            processes = [
                subprocess.Popen(
                    [*command],
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=words,
                    env=known,
                    cwd=directory,
                    process_group=0,  # so that all it has started can be ended
                )
                for command in commands
            ]
            try:
                reports = _Hall(listener, workers, processes).reports(seconds)
                until = time.monotonic() + END_SECONDS
                for process in processes:
                    process.wait(max(0.0, until - time.monotonic()))
                    if process.returncode:
                        raise FailedError(f"ended with status {process.returncode}")
                return reports
            except subprocess.TimeoutExpired:
                raise FailedError("does not end") from None
            except FailedError as error:
                raise FailedError(f"{error}{_last(words)}") from None
            finally:
                for process in processes:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def _last(words: BinaryIO) -> str:
    words.seek(0)
    lines = [line.strip() for line in words.read().decode(errors="replace").splitlines() if line.strip()]
    raised = [line for line in lines if "Error" in line.split(":")[0]]
    return f": {(raised or lines)[-1]}" if lines else ""


class _Hall:
    """The parent's end."""

    def __init__(self, listener: socket.socket, workers: int, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self.listener = listener
        self.workers = workers
        self.processes = processes
        self.connections: list[socket.socket] = []
        self.said: dict[socket.socket, bytes] = {}

    def reports(self, seconds: float) -> list[Report]:
        """Let them meet, and collect what they say."""
        try:
            self._collect(1, time.monotonic() + START_SECONDS, "come")
            for connection in self.connections:
                connection.sendall(b"!")
            self._collect(2, time.monotonic() + seconds + END_SECONDS, "reported")
            return [json.loads(self.said[connection].split(b"\n")[1]) for connection in self.connections]
        finally:
            for connection in self.connections:
                connection.close()

    def _collect(self, lines: int, deadline: float, what: str) -> None:
        """Until so many lines have come from everybody."""
        while True:
            done = sum(said.count(b"\n") >= lines for said in self.said.values())
            if done == self.workers:
                return
            failed = next((process for process in self.processes if process.poll()), None)
            if failed is not None:
                raise FailedError(f"ended with status {failed.returncode}")
            if time.monotonic() > deadline or all(process.poll() is not None for process in self.processes):
                raise FailedError(f"{done} of {self.workers} workers have {what}")
            silent = [connection for connection in self.connections if self.said[connection].count(b"\n") < lines]
            for ready in select.select([self.listener, *silent], [], [], 0.2)[0]:
                if ready is self.listener:
                    connection = self.listener.accept()[0]
                    self.connections.append(connection)
                    self.said[connection] = b""
                elif some := ready.recv(1 << 16):
                    self.said[ready] += some
                else:
                    raise FailedError("a worker has gone without a report")


