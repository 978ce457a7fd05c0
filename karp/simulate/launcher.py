"""The launcher of a simulated cluster: the real supervisor, with processes on the virtual clock."""

from typing import TYPE_CHECKING

from karp.launch.actions import Action, StartServer, StartWorker, Stop, Tell
from karp.launch.states import Phase
from karp.launch.supervisor import SERVER, Supervisor
from karp.protocol.reports import Report
from karp.simulate.worker_process import WorkerProcess

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster

TICK_SECONDS = 1.0
SIGTERM, SIGKILL = -15, -9  # as exit statuses


class Launcher:
    """Find the events of the supervisor, and perform its actions."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        scenario = cluster.scenario
        self.supervisor = Supervisor(scenario.workers - scenario.external, scenario.restarts, elsewhere=True)
        self.newest: dict[int, WorkerProcess] = {}  # worker -> its newest process that has ended
        self.ticking = False

    @property
    def ended(self) -> bool:
        """Whether the launcher starts no process any more."""
        return self.supervisor.phase is Phase.ENDED

    def begin(self) -> None:
        """Start the server and the workers."""
        self._perform(self.supervisor.begin())

    def worker_ended(self, process: WorkerProcess) -> None:
        """Find that the process of a worker has ended."""
        now, worker = self.cluster.clock.now, process.number
        self.newest[worker] = process
        self._perform(self.supervisor.exited(worker, process.status, now))
        self._perform(self.supervisor.ended(worker, now))

    def server_ended(self, back: int) -> None:
        """Find that the server has died, and that `back` of its newest checkpoints are lost."""
        self.cluster.server_process.back = back
        self._perform(self.supervisor.server_ended(SIGKILL, False, self.cluster.clock.now))

    def report(self, report: Report) -> None:
        """Read a report of the server."""
        self._perform(self.supervisor.report(report, self.cluster.clock.now))

    def _tick(self) -> None:
        self.ticking = False
        self._perform(self.supervisor.tick(self.cluster.clock.now))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case StartServer(incarnation):
                    self.supervisor.started(SERVER, "server")
                    self.cluster.server_process.start(incarnation)
                case StartWorker(worker, restarts):
                    self._start_worker(worker, restarts)
                case Tell(command):
                    self.cluster.server_process.handle_command(command)
                case Stop(workers):
                    self._stop(set(workers))
        if self.supervisor.phase in (Phase.OVER, Phase.FAILED) and not self.ticking:
            self.ticking = True
            self.cluster.clock.call_later(TICK_SECONDS, self._tick)

    def _start_worker(self, worker: int, restarts: int) -> None:
        self.supervisor.started(worker, "process")
        if restarts == 0:
            self.cluster.start_first(worker, worker)
        else:
            seconds = self.cluster.rng.exponential(self.cluster.scenario.restart_seconds)
            self.cluster.start_process(worker, seconds, self.newest[worker].slowdown)

    def _stop(self, workers: set[int]) -> None:
        for process in self.cluster.processes:
            if process.number in workers:
                process.end(SIGTERM)
