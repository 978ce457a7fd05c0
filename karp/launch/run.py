"""A run on this machine: the processes of the server and N workers, which the supervisor has started and ended.

The launcher binds the server's port before it starts any process and keeps it open. So all processes can start at the
same time, no address is guessed, and a restarted server has the same address. The launcher talks with the server over
pipes (serve/process.py), and writes what each worker prints to the run's logs/. What it does about a process that ends,
a report, Ctrl-C and the passing of time is decided in supervisor.py; here its events are found and its actions
performed. Ctrl-C reaches only the launcher.

It imports little, and no NumPy, as no other process starts before it has.
"""

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from karp import environment
from karp.errors import RecordError
from karp.launch import actions
from karp.launch.options import Options
from karp.launch.processes import THREAD_VARIABLES, Child, ServerProcess, kill_group, start_worker, stop, tail
from karp.launch.states import Phase
from karp.launch.supervisor import SERVER, Supervisor
from karp.monitor import streams
from karp.monitor.terminal import Display
from karp.record import files
from karp.record.launched import command_line
from karp.record.server_address import publish, withdraw
from karp.serve.config import Config
from karp.transport.listening import address_for_others, address_of, listen

if TYPE_CHECKING:
    from karp.protocol.reports import Viewer

WATCH_SECONDS = 0.1


class Launch:
    """The processes of one run, from their start to the exit status; if `elsewhere`, only the server's are its own."""

    def __init__(
        self, options: Options, directory: Path, resume: bool, shards: int = 0, changed: bool = False,
        display: Display | None = None, elsewhere: bool = False,
    ) -> None:  # fmt: skip
        self.options = options
        self.directory = directory
        self.resume = resume
        self.shards = shards
        self.changed = changed
        self.display = Display(sys.stderr) if display is None else display
        self.viewers: list[Viewer] = [self.display]
        self.elsewhere = elsewhere
        self.supervisor = Supervisor(0 if elsewhere else options.workers, options.max_restarts, elsewhere)
        self.began = time.monotonic()
        self.run_id = os.urandom(8).hex()
        self.children: dict[int, Child] = {}  # worker -> its newest process
        self.server: ServerProcess | None = None
        self.resources = contextlib.ExitStack()  # to be freed at the end
        self.address = self.published = ""  # the server's address, and as others can reach it
        self.worker_keys = ""  # its keys as text, if it has any
        self.config: Config
        self.signals: list[int] = []  # SIGINT and SIGTERM that have arrived; the first is an event for the supervisor
        self.summary: dict[str, Any] | None = None  # what the server has written, once it has closed the run
        self.status = 0

    def run(self) -> int:
        """Start the run's processes, watch them until they end, and return the exit status."""
        streams.open_standard_descriptors()
        before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._prepare()
            self._perform(self.supervisor.begin())
            while self.supervisor.phase is not Phase.ENDED:
                self._watch()
        finally:
            self._close()
            for number, handler in before.items():
                signal.signal(number, handler)
        from karp.launch.conclusion import conclude  # imported here, so that the processes start first

        leader = -1
        if self.summary is not None:
            leader = self.supervisor.output_of(self.summary["main"], trained="steps" in self.summary)
        return conclude(
            self.summary, self.children, self.children.get(leader), self.options, self.directory, self.display,
            self.status, self.supervisor.interrupted, self.supervisor.succeeded(leader), self.command,
        )  # fmt: skip

    @property
    def command(self) -> str:
        """The command of karp that resumes the run as it was started."""
        return "server" if self.elsewhere else "launch"

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT (Ctrl-C) or SIGTERM: the first ends the run in good order, the second kills all processes."""
        self.signals.append(number)
        if len(self.signals) > 1:
            from karp.launch.conclusion import resume_command

            self._kill_all()
            if self.supervisor.published:
                withdraw(self.directory)
            go_on = resume_command(self.options, self.directory, self.command)
            self.display.abandon(f"killed at once; to go on from the newest checkpoint: {go_on}")
            os._exit(128 + number)

    def _kill_all(self) -> None:
        processes = [child.process for child in self.children.values()] + ([self.server.process] if self.server else [])
        for process in processes:
            kill_group(process, signal.SIGKILL)

    def _prepare(self) -> None:
        """Listen for workers, and note what the processes are to know."""
        from karp.launch.credentials import keys_for

        keys = keys_for(self.options.host, self.options.keys)
        listener = self.resources.enter_context(listen(self.options.host, self.options.port))
        self.address = address_of(listener)
        self.published = address_for_others(listener)
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
            self.display.say(f"the server listens at {self.published}; workers elsewhere need its keys")
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
            elsewhere=self.elsewhere,
            command=command_line(),
            launched=self.began,
        )

    # Events.

    def _watch(self) -> None:
        """Find the events of the next WATCH_SECONDS at most, and perform what the supervisor does about them."""
        self._pass_interrupt()
        self._read_reports(WATCH_SECONDS, [child.end for child in self.children.values() if child.end >= 0])
        self._find_ended()
        self._perform(self.supervisor.tick(time.monotonic()))

    def _pass_interrupt(self) -> None:
        """Pass an interrupt that has arrived to the supervisor."""
        if self.signals and not self.supervisor.interrupted:
            self._perform(self.supervisor.interrupt(self.signals[0], time.monotonic()))

    def _find_ended(self) -> None:
        """Find workers' processes that have ended; the reports of what they did come before their ends."""
        ended = []
        for worker, child in self.children.items():
            if not child.closed and (status := child.process.poll()) is not None:
                ended.append(worker)
                self._perform(self.supervisor.exited(worker, status, time.monotonic()))
        for worker in ended:
            child = self.children[worker]
            self._read_reports(WATCH_SECONDS if child.process.returncode else 0.0)
            child.close()
            self._pass_interrupt()  # workers that it has also ended are not started again
            self._perform(self.supervisor.ended(worker, time.monotonic()))

    def _read_reports(self, seconds: float, ends: Iterable[int] = ()) -> None:
        """Handle the server's new reports, or its end; wait for them at most so long, or until an end is readable."""
        server = self.server
        if server is None or server.released:
            return
        try:
            for report in server.reports(seconds, ends):
                self._perform(self.supervisor.report(report, time.monotonic()))
        except EOFError:
            self._server_ended(server.wait_for_end())

    def _server_ended(self, status: int) -> None:
        """Read the summary, if the server was to write one, and tell the supervisor."""
        if self.supervisor.phase in (Phase.CLOSING, Phase.REOPENED):
            with contextlib.suppress(OSError, ValueError):
                self.summary = files.read_json(self.directory / "summary.json")
        self._perform(self.supervisor.server_ended(status, self.summary is not None, time.monotonic()))

    # Actions.

    def _perform(self, todo: list[actions.Action]) -> None:
        """Perform the supervisor's actions in order; if a process cannot be started, tell it so instead."""
        try:
            for action in todo:
                self._perform_one(action)
        except RecordError as error:
            self._perform(self.supervisor.trouble(str(error), time.monotonic()))

    def _perform_one(self, action: actions.Action) -> None:
        match action:
            case actions.StartServer(incarnation):
                config = self.config._replace(incarnation=incarnation, resume=incarnation > 0 or self.resume)
                self.server = ServerProcess(config, self.variables, self.directory / "logs" / "server.log")
                self.supervisor.started(SERVER, f"process {self.server.process.pid}")
            case actions.StartWorker(worker):
                self._start_worker(worker)
            case actions.Tell(command):
                assert self.server is not None
                self.server.tell(**command)
            case actions.Say(text):
                self.display.say(text)
            case actions.Quote(process, text, otherwise):
                if said := self._quoted(process, text) or otherwise:
                    self.display.say(said)
            case actions.Show(report):
                for viewer in self.viewers:
                    viewer.report(report)
            case actions.Publish(threads):
                self._publish()
                if not self.elsewhere and (text := self.options.warning_of_cores(threads)):
                    self.display.say(text)
            case actions.Stop(workers):
                self._stop(workers)
            case actions.KillServer():
                assert self.server is not None
                self.server.kill()
                self._server_ended(-signal.SIGKILL)
            case actions.End(status):
                self.status = status

    def _start_worker(self, worker: int) -> None:
        log = self.directory / "logs" / f"worker-{worker}.log"
        options = self.options
        child = start_worker(worker, options.program, options.arguments, self.variables, log, self.leash)
        self.children[worker] = child
        self.supervisor.started(worker, f"process {child.process.pid}")

    def _quoted(self, process: int, text: str) -> str:
        """Return a text and what a process printed last; '' if it printed nothing."""
        printed = self.server if process == SERVER else self.children[process]
        assert printed is not None
        last = tail(printed.log, printed.begin)
        return f"{text}:\n{last}" if last else ""

    def _stop(self, workers: list[int]) -> None:
        """End these workers' processes, and wait for that."""
        stop([self.children[worker].process for worker in workers])
        if self.supervisor.phase is Phase.STOPPING:
            for worker in workers:
                self.children[worker].close()
                status = self.children[worker].process.returncode
                self._perform(self.supervisor.exited(worker, status, time.monotonic()))

    def _publish(self) -> None:
        """Publish the server's address in the run's directory, and say how a worker is added."""
        try:
            publish(self.directory, self.published, self.run_id, self.worker_keys)
            self.resources.callback(withdraw, self.directory)
            how = f"to add a worker: {shlex.join(['karp', 'worker', '--run-dir', str(self.directory)])}"
        except OSError as error:
            how = f"no worker can be added, as server.json cannot be written: {files.reason(error)}"
        self.display.begun(self.directory, how)

    def _close(self) -> None:
        """End every process, if an exception has left the run before its end, and free what the launcher holds."""
        try:
            self._perform(self.supervisor.stop(time.monotonic()))
            while self.supervisor.phase is not Phase.ENDED:
                self._watch()
        finally:
            for child in self.children.values():
                child.close()
            self.resources.close()
