"""A run on this machine: the server, N workers, and who died and why.

The launcher binds the server's port before it starts anything and keeps it, so every process can be started at once,
no address has to be guessed, and a server that is started again is found where it was. It speaks with the server over
pipes (serve/process.py), keeps what each worker prints in the run's logs/, starts again what dies, and gives up when
that is no use. Ctrl-C reaches the launcher alone.

It imports little, and no NumPy: until it has started the others, nobody does anything.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from karp import environment
from karp.errors import DataError, LostError, RecordError, SettingError
from karp.launch.conclusion import conclude
from karp.launch.options import Options
from karp.launch.processes import (
    THREAD_VARIABLES,
    Child,
    ServerProcess,
    how_ended,
    kill_group,
    start_worker,
    stop,
    tail,
)
from karp.launch.recorded import Recorded, options_of
from karp.monitor import streams
from karp.monitor.terminal import Display
from karp.record import files
from karp.record.paths import fresh_directory
from karp.serve.config import Config
from karp.transport.listening import address_of, listen

WATCH_SECONDS = 0.1
GRACE_SECONDS = 3.0  # for the other workers to end by themselves after a failure
LAST_SECONDS = 30.0  # for the other workers to end by themselves when the main worker has
NAME_SECONDS = 5.0  # after which they are named
CLOSE_SECONDS = 60.0  # for the server to write what is left


def launch(options: Options, run_dir: str | None) -> int:
    """Start a run; returns the exit status.

    Raises SettingError or RecordError before anything is started, if it cannot be.
    """
    options.check()
    if run_dir == "":
        raise SettingError("--run-dir is empty: pass a directory, or leave it out")
    directory = Path(run_dir) if run_dir is not None else fresh_directory(options.program)
    if (directory / "metrics.jsonl").exists():
        raise RecordError(
            f"{directory} holds a run already: pass another directory, "
            f"or go on with it: karp launch --resume {directory}"
        )
    try:
        make_logs(directory)
        options.write(directory)
    except OSError as error:
        raise RecordError(f"the run directory {directory} cannot be made: {error.strerror}") from None
    return Launch(options, directory.resolve(), resume=False).run()


def resume(run_dir: str, changes: dict[str, Any], changed: bool = False) -> int:
    """Go on with the run in a directory, with any number of workers; `changes` are fields of `Options`.

    `changed`: though the program's file has changed.
    """
    directory = Path(run_dir).resolve()
    options, cwd = options_of(directory, changes)
    settings = Recorded.read(directory)
    settings.check(directory, options, changes, changed)
    try:
        os.chdir(cwd)
    except (OSError, ValueError) as error:
        raise DataError(f"{cwd!r}, where the run was launched, cannot be entered: {error}") from None
    try:
        make_logs(directory)
    except OSError as error:
        raise RecordError(f"the run directory {directory} cannot be written: {error.strerror}") from None
    return Launch(options, directory, resume=True, shards=settings.shards, changed=changed).run()


def make_logs(directory: Path) -> None:
    """Make the folder for what processes print; raises OSError if it cannot be written to."""
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    (directory / "logs" / "server.log").open("ab").close()


class Launch:
    """One run's processes."""

    def __init__(
        self, options: Options, directory: Path, resume: bool, shards: int = 0, changed: bool = False
    ) -> None:
        self.options = options
        self.directory = directory
        self.resume = resume
        self.shards = shards
        self.changed = changed
        self.display = Display(sys.stderr)
        self.run_id = os.urandom(8).hex()
        self.children: list[Child] = []  # the newest of each worker, and those that have ended
        self.endings: dict[int, bool] = {}  # worker -> whether its last process ended well; a new server needs it
        self.server: ServerProcess | None = None
        self.listener: socket.socket | None = None
        self.config: Config
        self.server_starts = 0
        self.failed_at = 0.0  # when the run was seen to fail
        self.main = -1  # the worker that speaks for all, once the server has named it
        self.over_at = 0.0  # when that one had ended well
        self.named = False  # those that have not ended since
        self.warned = False
        self.traceback = ""
        self.interrupts = self.answered = 0
        self.status = 0

    def run(self) -> int:
        """Start, watch and end the run."""
        streams.open_closed()
        before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._start()
            while any(not child.ended for child in self.children) and not self.interrupts:
                self._watch()
        except (LostError, RecordError) as error:
            self.display.say(str(error))
            self.status = 1
        finally:
            summary = self._close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return conclude(
            summary, self.children, self.options, self.directory, self.display, self.status, bool(self.interrupts)
        )

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C: once ends the run in good order, twice at once."""
        self.interrupts += 1
        self.status = 128 + number
        if self.interrupts > 1:
            self._kill_all()
            self.display.abandon()
            os._exit(self.status)

    def _kill_all(self) -> None:
        processes = [child.process for child in self.children] + ([self.server.process] if self.server else [])
        for process in processes:
            kill_group(process, signal.SIGKILL)

    def _start(self) -> None:
        from karp.launch.credentials import keys_for

        keys = keys_for(self.options.host, self.options.keys)
        self.listener = listen(self.options.host, self.options.port)
        address = address_of(self.listener)
        self.leash, self.leash_end = os.pipe()  # closes when this process ends, however it ends
        given = {
            environment.SERVER: address,
            environment.RUN: self.run_id,
            environment.RUN_DIR: str(self.directory),
            environment.THREADS: str(self.options.threads),
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(THREAD_VARIABLES, str(self.options.threads)),
            **self.options.modes(),
        }
        if keys is not None:
            given[environment.KEYS] = keys.for_worker().to_text()
            self.display.say(f"the server listens at {address}; workers elsewhere need the keys: karp worker --help")
        self.variables = environment.of_child(given, environment.FAULT, *environment.MODE_NAMES.values())
        self.config = Config(
            run=self.run_id,
            workers=self.options.workers,
            run_dir=str(self.directory),
            program=Path(self.options.program).name,
            address=address,
            descriptor=self.listener.fileno(),
            save_seconds=self.options.checkpoint_every,
            keep=self.options.keep,
            skip=self.options.on_nonfinite == "skip",
            keys=keys.to_text() if keys is not None else "",
            shards=self.shards,
            changed=self.changed,
            exchange=self.options.exchange,
            same_kernels=self.options.same_kernels,
        )
        self._start_server()
        for worker in range(self.options.workers):
            self._start_worker(worker, 0)

    def _start_server(self) -> None:
        again = self.server_starts > 0
        config = self.config._replace(incarnation=self.server_starts, resume=again or self.resume)
        self.server = ServerProcess(config, self.variables, self.directory / "logs" / "server.log")
        self.server_starts += 1
        for worker, well in self.endings.items():
            self.server.tell(ended=worker, well=well)

    def _start_worker(self, worker: int, restarts: int) -> None:
        log = self.directory / "logs" / f"worker-{worker}.log"
        self.children.append(
            start_worker(
                worker, self.options.program, self.options.arguments, self.variables, log, self.leash, restarts
            )
        )

    def _watch(self) -> None:
        """One look at everything: reports, ends of workers, the time since a failure."""
        self._read(WATCH_SECONDS, [child.end for child in self.children if child.end >= 0])
        for child in list(self.children):
            if not child.ended and child.process.poll() is not None:
                self._ended(child)
        if self.failed_at and time.monotonic() - self.failed_at > GRACE_SECONDS:
            stop([child.process for child in self.children])
        if self.over_at:
            self._end_the_others()

    def _end_the_others(self) -> None:
        """The run is over, whatever the other workers are at."""
        waited = time.monotonic() - self.over_at
        others = [child for child in self.children if not child.ended]
        if others and waited > LAST_SECONDS:
            for child in others:
                child.dismissed = True
            self.display.say(f"{len(others)} of them had not ended and {'is' if len(others) == 1 else 'are'} stopped")
            stop([child.process for child in others])
        elif others and waited > NAME_SECONDS and not self.named:
            self.named = True
            names = ", ".join(f"worker {child.worker} (process {child.process.pid})" for child in others)
            left = LAST_SECONDS - NAME_SECONDS
            self.display.say(f"the run is over; waiting for {names} to end, for {left:.0f} s more at most")

    def _read(self, seconds: float, ends: Sequence[int] = ()) -> None:
        """Reports of the server, for which this waits, or for one of these ends; start the server again if it ended."""
        try:
            self._hear(seconds, ends)
        except EOFError:
            self._server_ended()

    def _hear(self, seconds: float, ends: Sequence[int] = ()) -> None:
        """Reports of the server; raises EOFError if it has ended."""
        assert self.server is not None
        for report in self.server.reports(seconds, ends):
            self._report(report.pop("report"), report)

    def _server_ended(self) -> None:
        """The server died: it goes on from its newest checkpoint, unless it keeps dying."""
        assert self.server is not None
        self.server.release()
        how = how_ended(self.server.process)
        if self.failed_at or self.server_starts > self.options.max_restarts or self.server.process.returncode == 2:
            stop([child.process for child in self.children])
            if self.failed_at:
                return
            last = tail(self.server.log, self.server.begin)
            raise LostError(f"the server {how}; what it printed last:\n{last}")
        self.display.say(
            f"the server {how}; it is started again from its newest checkpoint "
            f"({self.server_starts} of {self.options.max_restarts})"
        )
        self._start_server()

    def _report(self, kind: str, values: dict[str, Any]) -> None:
        if kind == "settings":
            self._warn_of_threads(values["threads"])
        elif kind == "traceback":
            self.traceback = values["traceback"]
            return
        elif kind in ("joined", "left"):
            if kind == "joined":
                self.endings.pop(values["worker"], None)  # that was another process
            for child in self.children:
                if child.worker == values["worker"] and not child.ended:
                    child.joined = True
                    child.left = child.left or kind == "left"
        elif kind == "main":
            self.main = values["worker"]
        elif kind == "failure":
            self.status = 1
            self.failed_at = self.failed_at or time.monotonic()
            if self.traceback and " failed " in values["failure"]:
                self.display.show("traceback", {"traceback": self.traceback})
        self.display.show(kind, values)

    def _warn_of_threads(self, threads: int) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.options.workers * threads > cores and not self.warned:
            self.warned = True
            each = f"{threads} BLAS thread{'s' * (threads > 1)} each"
            self.display.say(f"{self.options.workers} workers with {each} on {cores} cores: they share the cores")

    def _ended(self, child: Child) -> None:
        """A worker's process has ended: tell the server, and start it again where that may help."""
        assert self.server is not None
        status = child.process.returncode
        self._read(WATCH_SECONDS if status else 0.0)  # what it has done comes before this
        child.close()
        self.endings[child.worker] = status == 0
        self.server.tell(ended=child.worker, well=status == 0)
        if status == 0 and child.worker == self.main:
            self.over_at = time.monotonic()
        if status == 0 or self.failed_at or self.interrupts or child.dismissed:
            return
        others = [other for other in self.children if other is not child and other.process.poll() in (None, 0)]
        stands_in = child.restarts > 0 and any(other.joined for other in others)  # for one that had worked
        if status > 0 and (child.left or not (child.joined or stands_in)):
            self._fail(child, f"worker {child.worker} {child.how}")
        elif self.over_at or (child.left and others):
            self.display.say(f"worker {child.worker} {child.how} after the run")
        elif child.restarts < self.options.max_restarts:
            count = f"{child.restarts + 1} of {self.options.max_restarts}"
            self.display.say(f"worker {child.worker} {child.how}: it is started again ({count})")
            self._start_worker(child.worker, child.restarts + 1)
        elif any(not other.ended for other in self.children):
            self.display.say(f"worker {child.worker} {child.how} once more: the run goes on without it")
        else:
            self._fail(child, f"worker {child.worker} {child.how} once more, and no other is left")

    def _fail(self, child: Child, failure: str) -> None:
        """Give the run up; what the worker printed says why."""
        assert self.server is not None
        self.status = 1
        self.failed_at = time.monotonic()
        self.display.say(f"worker {child.worker} {child.how}; what it printed last:\n{tail(child.log, child.begin)}")
        self.server.tell(fail=failure)

    def _close(self) -> dict[str, Any] | None:
        """End every process; returns the summary that the server has written, if any."""
        self._answer("the run stops")
        stop([child.process for child in self.children])
        for child in self.children:
            child.close()
        try:
            if self.server is None or self.server.released:
                return None
            summary, died = self._close_server()
            if summary is None and died and self.status == 0 and self.server_starts <= self.options.max_restarts:
                self.display.say("the server died before it had closed the run: it is started again to do so")
                self._start_server()
                summary, _ = self._close_server()
            return summary
        finally:
            if self.listener is not None:
                self.listener.close()

    def _close_server(self) -> tuple[dict[str, Any] | None, bool]:
        """Have the server write what is left and end; the summary that it has written, if any, and whether it died."""
        server, began, named, died = self.server, time.monotonic(), False, False
        assert server is not None
        server.tell(close=self.status)
        who = f"the server (process {server.process.pid})"
        try:
            while (waited := time.monotonic() - began) < CLOSE_SECONDS:
                self._hear(WATCH_SECONDS)
                self._answer(f"{who} is writing what is left")
                if waited > NAME_SECONDS and not named:
                    named, left = True, CLOSE_SECONDS - NAME_SECONDS
                    self.display.say(f"waiting for {who} to write what is left, for {left:.0f} s more at most")
            self.display.say(f"{who} has not ended in {CLOSE_SECONDS:.0f} s and is killed; what it has written stands")
            server.kill()
        except EOFError:
            died = not server.ended_well()
        try:
            return files.read_json(self.directory / "summary.json"), died
        except (OSError, ValueError):
            return None, died

    def _answer(self, what: str) -> None:
        """Ctrl-C has been seen."""
        if self.interrupts > self.answered:
            self.answered = self.interrupts
            self.display.say(f"interrupted: {what} (once more: at once)")
