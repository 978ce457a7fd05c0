"""A run on this machine: the server, N workers, and who died and why.

The launcher binds the server's port before it starts anything, so every process can be started at once and no address
has to be guessed. It speaks with the server over pipes (serve.py), keeps what each worker prints in the run's logs/,
and reports each worker's end to the server. Every child leads a process group of its own: Ctrl-C reaches the launcher
alone, and what a worker has started goes with it.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from karp.errors import LostError, RecordError, SettingError
from karp.monitor.terminal import Display
from karp.record import fresh_directory

WATCH_SECONDS = 0.1
GRACE_SECONDS = 3.0  # for the other workers to end by themselves after a failure
KILL_SECONDS = 2.0  # between SIGTERM and SIGKILL
CLOSE_SECONDS = 30.0  # for the server to write what is left
TAIL_LINES = 40
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(slots=True)
class Child:
    """A worker's process."""

    worker: int
    process: subprocess.Popen[bytes]
    log: Path
    reported: bool = False


def launch(program: str, arguments: list[str], workers: int, run_dir: str | None, threads: int) -> int:
    """Run `program` with `workers` workers; returns the exit status.

    Raises SettingError or RecordError before anything is started, if it cannot be.
    """
    if not Path(program).is_file():
        raise SettingError(f"there is no program {program!r}: pass the path of a Python file")
    if workers < 1 or threads < 1:
        raise SettingError(f"{workers} workers with {threads} threads each: both must be at least 1")
    directory = Path(run_dir) if run_dir is not None else fresh_directory(program)
    if (directory / "metrics.jsonl").exists():
        raise RecordError(f"{directory} holds a run already (metrics.jsonl is there): pass another directory")
    try:
        (directory / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"the run directory {directory} cannot be made: {error.strerror}") from None
    return Launch(Path(program), arguments, workers, directory.resolve(), threads).run()


class Launch:
    """One run's processes."""

    def __init__(self, program: Path, arguments: list[str], workers: int, directory: Path, threads: int) -> None:
        self.program = program
        self.arguments = arguments
        self.workers = workers
        self.directory = directory
        self.threads = threads
        self.display = Display(sys.stderr)
        self.run_id = os.urandom(8).hex()
        self.children: list[Child] = []
        self.failure_at = 0.0  # when the run was seen to fail
        self.traceback_shown = False
        self.status = 0

    def run(self) -> int:
        """Start, watch and end the run."""
        try:
            self._start()
            while any(child.process.poll() is None for child in self.children):
                self._watch()
            self._watch()
        except KeyboardInterrupt:
            self.display.say("interrupted: stopping the run")
            self.status = 130
        except LostError as error:
            self.display.say(str(error))
            self.status = 1
        finally:
            self._stop_workers()
            summary = self._close_server()
        self._conclude(summary)
        return self.status

    def _start(self) -> None:
        from karp.wire.sockets import address_of, listen

        with listen() as listener:
            address = address_of(listener)
            environment = os.environ | {
                "KARP_SERVER": address,
                "KARP_RUN": self.run_id,
                "KARP_RUN_DIR": str(self.directory),
                "KARP_WORKERS": str(self.workers),
                "KARP_THREADS": str(self.threads),
                "PYTHONUNBUFFERED": "1",
                **dict.fromkeys(THREAD_VARIABLES, str(self.threads)),
            }
            descriptor = listener.fileno()
            self._start_server(address, descriptor, environment)
            for worker in range(self.workers):
                self._start_worker(worker, environment)

    def _start_server(self, address: str, descriptor: int, environment: dict[str, str]) -> None:
        with (self.directory / "logs" / "server.log").open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "karp.serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                pass_fds=[descriptor],
                start_new_session=True,
            )
        self.selector = selectors.DefaultSelector()
        assert self.server.stdout is not None
        self.selector.register(self.server.stdout, selectors.EVENT_READ)
        self.rest = b""
        self._tell(
            run=self.run_id,
            workers=self.workers,
            run_dir=str(self.directory),
            program=self.program.name,
            address=address,
            descriptor=descriptor,
        )

    def _start_worker(self, worker: int, environment: dict[str, str]) -> None:
        path = self.directory / "logs" / f"worker-{worker}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(self.program), *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment | {"KARP_WORKER": str(worker)},
                start_new_session=True,
            )
        self.children.append(Child(worker, process, path))

    def _tell(self, **order: Any) -> None:
        """A line to the server; if it is gone, `_read` finds out."""
        assert self.server.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.server.stdin.write(json.dumps(order).encode() + b"\n")
            self.server.stdin.flush()

    def _watch(self) -> None:
        """One look at everything: reports, ends of workers, the time since a failure."""
        self._read(WATCH_SECONDS)
        for child in self.children:
            if not child.reported and (status := child.process.poll()) is not None:
                child.reported = True
                self._ended(child, status)
        if self.failure_at and time.monotonic() - self.failure_at > GRACE_SECONDS:
            self._stop_workers()

    def _read(self, seconds: float) -> None:
        """Reports that the server has written."""
        if not self.selector.select(seconds):
            return
        stdout: BinaryIO = self.server.stdout  # type: ignore[assignment]
        chunk = os.read(stdout.fileno(), 1 << 16)
        if not chunk:
            self.selector.unregister(stdout)
            raise LostError(f"the server ended by itself, with status {self.server.wait()}:\n{self._server_log()}")
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            report = json.loads(line)
            self._report(report.pop("report"), report)

    def _report(self, kind: str, values: dict[str, Any]) -> None:
        if kind == "settings":
            self._warn_of_threads(values["threads"])
        elif kind == "traceback":
            self.traceback_shown = True
        elif kind == "failure":
            self.status = 1
            self.failure_at = self.failure_at or time.monotonic()
        self.display.show(kind, values)

    def _warn_of_threads(self, threads: int) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.workers * threads > cores:
            self.display.say(
                f"{self.workers} workers with {threads} BLAS thread{'s' * (threads > 1)} each on {cores} cores: "
                "they share the cores"
            )

    def _ended(self, child: Child, status: int) -> None:
        """Tell the server of a worker's end; the first that fails without a word has its output shown."""
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        if status != 0 and not self.failure_at and not self.traceback_shown:
            self._read_all()
            if not self.failure_at:
                self.failure_at = time.monotonic()
                self.status = 1
                self._show_tail(child, how)
        self._tell(ended=child.worker, status=status, detail=f"worker {child.worker} {how}")

    def _read_all(self) -> None:
        """What the server has already written: a worker's own word on its failure comes before its end."""
        until = time.monotonic() + 5 * WATCH_SECONDS
        while not self.failure_at and time.monotonic() < until:
            self._read(WATCH_SECONDS)

    def _show_tail(self, child: Child, how: str) -> None:
        lines = child.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        printed = "\n".join(lines) if lines else "(nothing)"
        self.display.say(f"worker {child.worker} {how}; what it printed last:\n{printed}")

    def _stop_workers(self) -> None:
        """End every worker that still runs, with all that it has started."""
        running = [child.process for child in self.children if child.process.poll() is None]
        for process in running:
            kill_group(process, signal.SIGTERM)
        until = time.monotonic() + KILL_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                kill_group(process, signal.SIGKILL)
                process.wait()

    def _close_server(self) -> dict[str, Any] | None:
        """Let the server write its summary and end; None if there is none."""
        if not hasattr(self, "server"):
            return None
        self._tell(close=self.status)
        try:
            self.server.communicate(timeout=CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            kill_group(self.server, signal.SIGKILL)
            self.server.communicate()
        try:
            summary: dict[str, Any] = json.loads((self.directory / "summary.json").read_text())
        except (OSError, ValueError):
            return None
        return summary

    def _conclude(self, summary: dict[str, Any] | None) -> None:
        """Show the main worker's output and what came out."""
        if summary is None:
            self.display.close()
            if self.status == 0:
                self.status = 1
                self.display.say(f"the server wrote no summary:\n{self._server_log()}")
            return
        if self.status == 0 and summary["main"] < 0:
            self.status = 1
            self.display.say(f"no worker trained: {self.program} ended without iterating over trainer.batches")
        self.display.conclude(summary, self.directory)
        shown = [child for child in self.children if child.worker == summary["main"]]
        for child in shown:
            sys.stdout.write(child.log.read_text(errors="replace"))
            sys.stdout.flush()

    def _server_log(self) -> str:
        return (self.directory / "logs" / "server.log").read_text(errors="replace")[-4000:]


def kill_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
