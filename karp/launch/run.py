"""A run on this machine: starting the server and N workers, watching them, restarting those that die.

The launcher binds the server's port before it starts any process and keeps it open. So all processes can start at the
same time, no address is guessed, and a restarted server has the same address. The launcher talks with the server over
pipes (serve/process.py), writes what each worker prints to the run's logs/, restarts processes that die, and gives the
run up where a restart cannot help. Ctrl-C reaches only the launcher.

It imports little, and no NumPy, as no other process starts before it has.
"""

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from karp import environment
from karp.errors import LostError, RecordError
from karp.launch.conclusion import conclude, resume_command
from karp.launch.options import Options
from karp.launch.processes import (
    THREAD_VARIABLES,
    Child,
    ServerProcess,
    describe_end,
    kill_group,
    start_worker,
    stop,
    tail,
)
from karp.monitor import streams
from karp.monitor.terminal import Display
from karp.record import files
from karp.record.launched import command_line
from karp.record.server_address import publish, withdraw
from karp.serve.config import Config
from karp.transport.listening import address_of, listen

if TYPE_CHECKING:
    from karp.protocol.reports import Report, Viewer

WATCH_SECONDS = 0.1
GRACE_SECONDS = 3.0  # for the other workers to end by themselves after a failure
LAST_SECONDS = 30.0  # for the other workers to end by themselves after the leader
NAME_SECONDS = 5.0  # after so long, a message names the processes that have not ended
CLOSE_SECONDS = 60.0  # for the server to write what is left


class Launch:
    """The processes of one run, from their start to the exit status."""

    def __init__(
        self, options: Options, directory: Path, resume: bool, shards: int = 0, changed: bool = False,
        display: Display | None = None,
    ) -> None:  # fmt: skip
        self.options = options
        self.directory = directory
        self.resume = resume
        self.shards = shards
        self.changed = changed
        self.display = Display(sys.stderr) if display is None else display
        self.viewers: list[Viewer] = [self.display]
        self.began = time.monotonic()
        self.run_id = os.urandom(8).hex()
        self.children: list[Child] = []  # in the order of their start; of each worker only the newest may be running
        self.endings: dict[int, bool] = {}  # worker -> whether its last process ended well; a restarted server needs it
        self.server: ServerProcess | None = None
        self.resources = contextlib.ExitStack()  # to be freed at the end
        self.address = self.worker_keys = ""  # the server's address, and its keys as text if it has any
        self.published = False  # whether the server's address is in the run's directory
        self.config: Config
        self.server_starts = 0
        self.failed_at = 0.0  # when the launcher learnt that the run has failed
        self.leader = -1  # the worker that is the leader, once the server has named it
        self.over_at = 0.0  # when the leader had ended well
        self.remaining_named = False  # a message has named the workers that have not ended since
        self.traceback: Report | None = None  # the last traceback that a worker reported
        self.interrupts = self.interrupts_shown = 0
        self.status = 0

    def run(self) -> int:
        """Start the run's processes, watch them until they end, and return the exit status."""
        streams.open_standard_descriptors()
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
        """Handle SIGINT (Ctrl-C) or SIGTERM: the first ends the run in good order, the second kills all processes."""
        self.interrupts += 1
        self.status = 128 + number
        if self.interrupts > 1:
            self._kill_all()
            if self.published:
                withdraw(self.directory)
            go_on = resume_command(self.options, self.directory)
            self.display.abandon(f"killed at once; to go on from the newest checkpoint: {go_on}")
            os._exit(self.status)

    def _kill_all(self) -> None:
        processes = [child.process for child in self.children] + ([self.server.process] if self.server else [])
        for process in processes:
            kill_group(process, signal.SIGKILL)

    def _start(self) -> None:
        """Listen for workers, note what the processes are to know, and start the server and the workers."""
        from karp.launch.credentials import keys_for

        keys = keys_for(self.options.host, self.options.keys)
        listener = self.resources.enter_context(listen(self.options.host, self.options.port))
        self.address = address_of(listener)
        self.leash, held = os.pipe()  # the system closes it when this process ends, however it ends
        for end in (self.leash, held):
            self.resources.callback(os.close, end)
        variables = {
            environment.SERVER: self.address,
            environment.RUN: self.run_id,
            environment.RUN_DIR: str(self.directory),
            environment.THREADS: str(self.options.threads),
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(THREAD_VARIABLES, str(self.options.threads)),
            **self.options.consistency_variables(),
        }
        if keys is not None:
            variables[environment.KEYS] = self.worker_keys = keys.for_worker().to_text()
            self.display.say(f"the server listens at {self.address}; workers elsewhere need its keys")
        self.variables = environment.of_child(variables, environment.FAULT, *environment.OPTION_VARIABLES.values())
        self.config = Config(
            run=self.run_id,
            workers=self.options.workers,
            run_dir=str(self.directory),
            program=Path(self.options.program).name,
            address=self.address,
            descriptor=listener.fileno(),
            save_seconds=self.options.checkpoint_every,
            keep=self.options.keep,
            skip=self.options.on_nonfinite == "skip",
            keys=keys.to_text() if keys is not None else "",
            shards=self.shards,
            changed=self.changed,
            exchange=self.options.exchange,
            same_kernels=self.options.same_kernels,
            command=command_line(),
            launched=self.began,
        )
        self._start_server()
        for worker in range(self.options.workers):
            self._start_worker(worker, 0)

    def _start_server(self) -> None:
        """Start or restart the server, and tell it which workers' processes have ended so far."""
        restarted = self.server_starts > 0
        config = self.config._replace(incarnation=self.server_starts, resume=restarted or self.resume)
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
        """Handle reports, the ends of workers, and deadlines that have passed; wait for them at most WATCH_SECONDS."""
        self._read_reports(WATCH_SECONDS, [child.end for child in self.children if child.end >= 0])
        for child in list(self.children):
            if not child.ended and child.process.poll() is not None:
                self._worker_ended(child)
        if self.failed_at and time.monotonic() - self.failed_at > GRACE_SECONDS:
            stop([child.process for child in self.children])
        if self.over_at:
            self._stop_remaining()

    def _stop_remaining(self) -> None:
        """Stop the workers that have not ended LAST_SECONDS after the leader; name them before that."""
        waited = time.monotonic() - self.over_at
        remaining = [child for child in self.children if not child.ended]
        count = len(remaining)
        if remaining and waited > LAST_SECONDS:
            for child in remaining:
                child.dismissed = True
            self.display.say(f"{count} of them had not ended and {'is' if count == 1 else 'are'} stopped")
            stop([child.process for child in remaining])
        elif remaining and waited > NAME_SECONDS and not self.remaining_named:
            self.remaining_named = True
            names = ", ".join(f"worker {child.worker} (process {child.process.pid})" for child in remaining)
            left = LAST_SECONDS - NAME_SECONDS
            self.display.say(f"the run is over; waiting for {names} to end, for {left:.0f} s more at most")

    def _read_reports(self, seconds: float, ends: Sequence[int] = ()) -> None:
        """Wait for the server's reports, or a worker's end, and handle the reports; restart a server that has ended."""
        try:
            self._handle_reports(seconds, ends)
        except EOFError:
            self._restart_server()

    def _handle_reports(self, seconds: float, ends: Sequence[int] = ()) -> None:
        """Handle the server's new reports; wait for them at most `seconds`, or until one of `ends` is readable.

        Raises EOFError if the server has ended.
        """
        assert self.server is not None
        for report in self.server.reports(seconds, ends):
            self._handle_report(report)

    def _restart_server(self) -> None:
        """Restart the server, which died, from its newest checkpoint.

        If the run has failed, stop the workers instead. Raises LostError, with the workers stopped, if the server has
        died too often or has refused to go on (exit status 2).
        """
        assert self.server is not None
        self.server.release()
        how = describe_end(self.server.process)
        if self.failed_at or self.server_starts > self.options.max_restarts or self.server.process.returncode == 2:
            stop([child.process for child in self.children])
            if self.failed_at:
                return
            last = tail(self.server.log, self.server.begin)
            raise LostError(f"the server {how}" + (f"; what it printed last:\n{last}" if last else ""))
        self.display.say(
            f"the server {how}; it is started again from its newest checkpoint "
            f"({self.server_starts} of {self.options.max_restarts})"
        )
        self._start_server()

    def _handle_report(self, report: "Report") -> None:
        """Note the news of the processes in a report, and show the report; a traceback only if the run fails by it."""
        from karp.protocol import reports

        match report:
            case reports.Settings():
                if not (self.published or self.failed_at):  # the server has the run's directory for itself now
                    self._publish()
                    if text := self.options.warning_of_cores(report.settings["threads"]):
                        self.display.say(text)
            case reports.Traceback():
                self.traceback = report
                for child in self.children:
                    if child.worker == report.worker and not child.ended:
                        child.repeats = report.repeated
                return
            case reports.Joined() | reports.Left():
                left = isinstance(report, reports.Left)
                if not left:
                    self.endings.pop(report.worker, None)  # that was the end of an earlier process
                for child in self.children:
                    if child.worker == report.worker and not child.ended:
                        child.joined = True
                        child.left = child.left or left
            case reports.Main():
                self.leader = report.worker
            case reports.Failure():
                self.status = 1
                self.failed_at = self.failed_at or time.monotonic()
                if self.traceback is not None and " failed " in report.failure:
                    self._show(self.traceback)
        self._show(report)

    def _show(self, report: "Report") -> None:
        for viewer in self.viewers:
            viewer.report(report)

    def _publish(self) -> None:
        """Publish the server's address in the run's directory, and say how a worker is added."""
        self.published = True
        try:
            publish(self.directory, self.address, self.run_id, self.worker_keys)
            self.resources.callback(withdraw, self.directory)
            how = f"to add a worker: {shlex.join(['karp', 'worker', '--run-dir', str(self.directory)])}"
        except OSError as error:
            how = f"no worker can be added, as server.json cannot be written: {files.reason(error)}"
        self.display.begun(self.directory, how)

    def _worker_ended(self, child: Child) -> None:
        """Tell the server that a worker's process has ended; then restart the worker, go on without it or fail the run.

        A worker is restarted if it died in training, but not more than `max_restarts` times.
        """
        assert self.server is not None
        status = child.process.returncode
        self._read_reports(WATCH_SECONDS if status else 0.0)  # reports of what the worker did come before its end
        child.close()
        self.endings[child.worker] = status == 0
        self.server.tell(ended=child.worker, well=status == 0)
        if status == 0 and child.worker == self.leader:
            self.over_at = time.monotonic()
        if status == 0 or self.failed_at or self.interrupts or child.dismissed:
            return
        others = [other for other in self.children if other is not child and other.process.poll() in (None, 0)]
        stands_in = child.restarts > 0 and any(other.joined for other in others)  # for one that had worked
        if status > 0 and (child.left or not (child.joined or stands_in)):
            self._fail(child, f"worker {child.worker} {child.how} {'after' if child.left else 'before'} its training")
        elif self.over_at or (child.left and others):
            self.display.say(f"worker {child.worker} {child.how} after the run")
        elif child.restarts < self.options.max_restarts:
            count = f"{child.restarts + 1} of {self.options.max_restarts}"
            if not child.repeats:
                self.display.say(f"worker {child.worker} {child.how}: it is started again ({count})")
            self._start_worker(child.worker, child.restarts + 1)
        elif any(not other.ended for other in self.children):
            self.display.say(f"worker {child.worker} {child.how} once more: the run goes on without it")
        else:
            memory = ", as by a system that runs out of memory" * (status == -signal.SIGKILL)
            self._fail(child, f"worker {child.worker} {child.how} once more{memory}, and no other is left")

    def _fail(self, child: Child, failure: str) -> None:
        """Fail the run for this reason, and show the last lines that the worker printed."""
        assert self.server is not None
        self.status = 1
        self.failed_at = time.monotonic()
        if last := tail(child.log, child.begin):
            self.display.say(f"what worker {child.worker} printed last:\n{last}")
        self.server.tell(fail=failure)

    def _close(self) -> dict[str, Any] | None:
        """End every process; return the summary that the server has written, or None."""
        self._show_interrupt("the run stops")
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
            self.resources.close()

    def _close_server(self) -> tuple[dict[str, Any] | None, bool]:
        """Have the server write its last files and end; return its summary (None: no file), and whether it died."""
        server, began, named, died = self.server, time.monotonic(), False, False
        assert server is not None
        server.tell(close=self.status)
        who = f"the server (process {server.process.pid})"
        try:
            while (waited := time.monotonic() - began) < CLOSE_SECONDS:
                self._handle_reports(WATCH_SECONDS)
                self._show_interrupt(f"{who} is writing what is left")
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

    def _show_interrupt(self, what: str) -> None:
        """Tell the user once per SIGINT or SIGTERM that it has been received, and what the launcher does about it."""
        if self.interrupts > self.interrupts_shown:
            self.interrupts_shown = self.interrupts
            self.display.say(f"interrupted: {what} (once more: at once)")
