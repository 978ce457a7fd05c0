"""The processes of a run on this host, for its launcher.

The launcher binds the server's port before it starts any process and keeps it open. So all processes can start at the
same time, no address is guessed, and a restarted server has the same address. It talks with the server over pipes
(serve/process.py), and writes what each worker prints to the run's logs/. Each process leads a group of its own, so
that Ctrl-C reaches only the launcher.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from karp import environment
from karp.launch.processes import Child, ServerProcess, kill_group, start_worker, stop
from karp.launch.states import OPEN
from karp.launch.supervisor import SERVER
from karp.serve.config import Config
from karp.transport.listening import address_for_others, address_of, listen

if TYPE_CHECKING:
    from karp.launch.hands import Launching


class ThisHost:
    """The processes of one run on this host."""

    def __init__(self, launch: "Launching") -> None:
        self.launch = launch
        self.options = launch.options
        self.supervisor = launch.supervisor
        self.logs = launch.directory / "logs"
        self.children: dict[int, Child] = {}  # worker -> its newest process
        self.server: ServerProcess | None = None
        self.killed_server = False  # the supervisor is to be told of its end
        self.resources = contextlib.ExitStack()  # to be freed at the end
        self.address = self.published = ""  # the server's, for the workers here, and for others
        self.descriptor = -1  # of the socket that listens there

    @property
    def host(self) -> str:
        """The address that the server listens on."""
        return self.options.host

    def open(self) -> None:
        """Listen for workers; raises SettingError if that cannot be."""
        from karp.launch.credentials import is_loopback

        is_loopback(self.options.host)  # raises for a host that is no address
        listener = self.resources.enter_context(listen(self.options.host, self.options.port))
        self.address, self.published = address_of(listener), address_for_others(listener)
        self.descriptor = listener.fileno()
        self.leash, held = os.pipe()  # the system closes it when this process ends, however it ends
        for end in (self.leash, held):
            self.resources.callback(os.close, end)

    def start_server(self, config: Config, variables: Mapping[str, str]) -> None:
        """Start the server's process; raises RecordError if its log cannot be written."""
        config = config._replace(address=self.address, descriptor=self.descriptor)
        self.server = ServerProcess(config, self._environment(variables), self.logs / "server.log")
        self.supervisor.started(SERVER, f"process {self.server.process.pid}")

    def start_worker(self, worker: int, variables: Mapping[str, str]) -> None:
        """Start a worker's process; raises RecordError if its log cannot be written."""
        log, options = self.logs / f"worker-{worker}.log", self.options
        child = start_worker(worker, options.program, options.arguments, self._environment(variables), log, self.leash)
        self.children[worker] = child
        self.supervisor.started(worker, f"process {child.process.pid}")

    def tell(self, command: Mapping[str, object]) -> None:
        """Send the server a command; if it is gone, do nothing."""
        if self.server is not None:
            self.server.tell(**command)

    def stop(self, workers: list[int]) -> None:
        """End these workers' processes, and wait for that."""
        stop([self.children[worker].process for worker in workers])

    def kill_server(self) -> None:
        """Kill the server's process."""
        if self.server is not None:
            self.server.kill()
            self.killed_server = True

    def kill_all(self) -> None:
        """Kill every process at once."""
        processes = [child.process for child in self.children.values()] + ([self.server.process] if self.server else [])
        for process in processes:
            kill_group(process, signal.SIGKILL)

    def watch(self, seconds: float) -> None:
        """Tell the supervisor of the server's reports and of processes that end in the next seconds at most.

        The reports of what a worker did come before its end, unless all are being stopped.
        """
        self._read_reports(seconds, [child.end for child in self.children.values() if child.end >= 0])
        ended = []
        for worker, child in self.children.items():
            if not child.closed and (status := child.process.poll()) is not None:
                child.close()
                ended.append((worker, status))
        open_before = self.supervisor.phase in OPEN
        for worker, status in ended:
            self.launch.perform(self.supervisor.exited(worker, status, time.monotonic()))
        for worker, status in ended:
            if open_before:
                self._read_reports(seconds if status else 0.0)
            self.launch.pass_interrupt()  # workers that it has also ended are not started again
            self.launch.perform(self.supervisor.ended(worker, time.monotonic()))
        if self.killed_server:
            self.killed_server = False
            self.launch.server_ended(-signal.SIGKILL)

    def _read_reports(self, seconds: float, ends: Iterable[int] = ()) -> None:
        """Pass on the server's new reports, or its end; wait for them at most so long, or until an end is readable."""
        server = self.server
        if server is None or server.released:
            return
        try:
            for report in server.reports(seconds, ends):
                self.launch.perform(self.supervisor.report(report, time.monotonic()))
        except EOFError:
            self.launch.server_ended(server.wait_for_end())

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process with these variables of the run."""
        given = {environment.SERVER: self.address, **variables}
        return environment.of_child(given, *environment.HANDED_ON)

    def output(self, process: int) -> Child | ServerProcess:
        """Return the worker's newest process, or the server's."""
        if process != SERVER:
            return self.children[process]
        assert self.server is not None
        return self.server

    def newest(self) -> Mapping[int, Child]:
        """Return each worker's newest process."""
        return self.children

    def warning(self, threads: int) -> str:
        """Return a warning if this host has too few cores for the workers that are started here; else ''."""
        return self.options.warning_of_cores(threads) if self.children else ""

    def close(self) -> None:
        """Free the descriptors that are held here."""
        for child in self.children.values():
            child.close()
        self.resources.close()
