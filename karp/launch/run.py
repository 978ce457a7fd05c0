"""A run from its launcher's start to the exit status: what the supervisor decides is done by hands (hands.py).

What is done about a process that ends, a report, Ctrl-C and the passing of time is decided in supervisor.py. Here its
actions are performed: processes are started, told and stopped by those who have them, and the user is told.

It imports little, and no NumPy, as no other process starts before it has.
"""

import contextlib
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from karp import environment
from karp.errors import LostError, RecordError
from karp.launch import actions
from karp.launch.options import Options
from karp.launch.processes import THREAD_VARIABLES, tail
from karp.launch.states import Phase
from karp.launch.supervisor import Supervisor
from karp.launch.this_host import ThisHost
from karp.monitor import streams
from karp.monitor.terminal import Display
from karp.record import files
from karp.record.launched import command_line
from karp.record.server_address import publish, withdraw
from karp.serve.config import Config

if TYPE_CHECKING:
    from karp.launch.hands import Hands
    from karp.protocol.reports import Viewer

WATCH_SECONDS = 0.1


class Launch:
    """The launch of one run; if `elsewhere`, its workers are started by others."""

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
        started = 0 if elsewhere else options.most_workers or options.workers
        self.supervisor = Supervisor(started, options.max_restarts, elsewhere)
        self.hands: Hands = self._hands()
        self.began = time.monotonic()
        self.run_id = os.urandom(8).hex()
        self.worker_keys = ""  # the server's keys as text, if it has any
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
            self.perform(self.supervisor.begin())
            while self.supervisor.phase is not Phase.ENDED:
                self._watch()
        finally:
            self._close()
            for number, handler in before.items():
                signal.signal(number, handler)
        from karp.launch.conclusion import conclude  # imported here, so that the processes start first

        newest, leader = self.hands.newest(), -1
        if self.summary is not None:
            leader = self.supervisor.output_of(self.summary["main"], trained="steps" in self.summary)
        return conclude(
            self.summary, newest, newest.get(leader), self.options, self.directory, self.display, self.status,
            self.supervisor.interrupted, self.supervisor.succeeded(leader), self.command,
        )  # fmt: skip

    def _hands(self) -> "Hands":
        """Return what starts the processes: this host, or a Ray cluster."""
        if self.options.on == "host":
            return ThisHost(self)
        from karp.launch.ray import RayCluster

        return RayCluster(self)

    @property
    def command(self) -> str:
        """The command of karp that resumes the run as it was started."""
        return "server" if self.elsewhere else "launch"

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT (Ctrl-C) or SIGTERM: the first ends the run in good order, the second kills all processes."""
        self.signals.append(number)
        if len(self.signals) > 1:
            from karp.launch.conclusion import resume_command

            self.hands.kill_all()
            if self.supervisor.published:
                withdraw(self.directory)
            go_on = resume_command(self.options, self.directory, self.command)
            self.display.abandon(f"killed at once; to go on from the newest checkpoint: {go_on}")
            os._exit(128 + number)

    def _prepare(self) -> None:
        """Have the hands listen for workers, and note what the processes are to know."""
        from karp.launch.credentials import keys_for

        options, hands = self.options, self.hands
        hands.open()
        keys = keys_for(hands.host, options.keys)
        self.variables = {
            environment.RUN: self.run_id,
            environment.RUN_DIR: str(self.directory),
            environment.THREADS: str(options.threads),
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(THREAD_VARIABLES, str(options.threads)),
            **environment.kernel_variables(options.kernels),
            **options.consistency_variables(),
        }
        if keys is not None:
            self.variables[environment.KEYS] = self.worker_keys = keys.for_worker().to_text()
            self.display.say(f"the server listens at {hands.published}; workers elsewhere need its keys")
        self.config = Config(
            run=self.run_id,
            workers=options.workers,
            run_dir=str(self.directory),
            program=Path(options.program).name,
            save_seconds=options.checkpoint_every,
            keep=options.keep,
            skip=options.on_nonfinite == "skip",
            keys=keys.to_text() if keys is not None else "",
            shards=self.shards or options.most_workers,
            changed=self.changed,
            exchange=options.exchange,
            same_kernels=options.same_kernels or bool(options.kernels),
            command=command_line(),
            launched=self.began,
        )

    def _watch(self) -> None:
        """Let the supervisor know what happens in the next WATCH_SECONDS at most."""
        self.pass_interrupt()
        self.hands.watch(WATCH_SECONDS)
        self.pass_interrupt()
        self.perform(self.supervisor.tick(time.monotonic()))

    def pass_interrupt(self) -> None:
        """Pass an interrupt that has arrived to the supervisor."""
        if self.signals and not self.supervisor.interrupted:
            self.perform(self.supervisor.interrupt(self.signals[0], time.monotonic()))

    def server_ended(self, status: int, how: str = "") -> None:
        """Read the summary, if the server was to write one, and tell the supervisor."""
        if self.supervisor.phase in (Phase.CLOSING, Phase.REOPENED):
            with contextlib.suppress(OSError, ValueError):
                self.summary = files.read_json(self.directory / "summary.json")
        self.perform(self.supervisor.server_ended(status, self.summary is not None, time.monotonic(), how))

    def moved(self) -> None:
        """Publish the server's address once more, as it is another."""
        if self.supervisor.published:
            with contextlib.suppress(OSError):
                publish(self.directory, self.hands.published, self.run_id, self.worker_keys)

    def perform(self, todo: list[actions.Action]) -> None:
        """Perform the supervisor's actions in order; if a process cannot be started, tell it so instead."""
        try:
            for action in todo:
                self._perform_one(action)
        except (LostError, RecordError) as error:
            self.perform(self.supervisor.trouble(str(error), time.monotonic()))

    def _perform_one(self, action: actions.Action) -> None:
        hands = self.hands
        match action:
            case actions.StartServer(incarnation):
                resume = incarnation > 0 or self.resume
                numbers = self.supervisor.numbers
                config = self.config._replace(incarnation=incarnation, resume=resume, numbers=numbers)
                hands.start_server(config, self.variables)
            case actions.StartWorker(worker):
                hands.start_worker(worker, self.variables)
            case actions.Tell(command):
                hands.tell(command)
            case actions.Say(text):
                self.display.say(text)
            case actions.Quote(process, text, otherwise):
                output = hands.output(process)
                last = tail(output.log, output.begin)
                if said := f"{text}:\n{last}" if last else otherwise:
                    self.display.say(said)
            case actions.Show(report):
                for viewer in self.viewers:
                    viewer.report(report)
            case actions.Publish(threads):
                self._publish()
                if text := hands.warning(threads):
                    self.display.say(text)
            case actions.Stop(workers):
                hands.stop(workers)
            case actions.KillServer():
                hands.kill_server()
            case actions.End(status):
                self.status = status

    def _publish(self) -> None:
        """Publish the server's address in the run's directory, and say how a worker is added."""
        try:
            publish(self.directory, self.hands.published, self.run_id, self.worker_keys)
            how = f"to add a worker: {shlex.join(['karp', 'worker', '--run-dir', str(self.directory)])}"
        except OSError as error:
            how = f"no worker can be added, as server.json cannot be written: {files.reason(error)}"
        self.display.begun(self.directory, how)

    def _close(self) -> None:
        """End every process, if an exception has left the run before its end, and free what is held."""
        try:
            self.perform(self.supervisor.stop(time.monotonic()))
            while self.supervisor.phase is not Phase.ENDED:
                self._watch()
        finally:
            if self.supervisor.published:
                withdraw(self.directory)
            self.hands.close()
