"""The server's process: the real machine, driven as serve/process.py drives it, and its checkpoints on a disk."""

from typing import TYPE_CHECKING, Any, NamedTuple

from karp.data import Plan
from karp.protocol import reports
from karp.protocol.messages import Contribution, FromWorker
from karp.protocol.server.actions import Action, Save, Send
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take
from karp.protocol.vectors import Snapshot
from karp.serve.process import RESTLESS_SECONDS, TICK_SECONDS
from karp.simulate.shared_memory import Memory, SharedMemory

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster

KEPT_CHECKPOINTS = 3
RESEND_SECONDS = 0.1  # between two attempts to deliver a message to a server that is down


class Checkpoint(NamedTuple):
    """A snapshot on the disk."""

    written_at: float
    reports: int  # the number of the run's reports when the snapshot was taken
    snapshot: Snapshot


class ServerProcess:
    """Hold the server, None while it is down, and what survives its death: checkpoints and reports."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.incarnation = 0
        self.server: Server | None = None
        self.disk: list[Checkpoint] = []
        self.memory: SharedMemory | None = None
        self.reports: list[reports.Report] = []  # as in the record; a restart cuts them back to the checkpoint's
        self.failure = ""  # why the run has failed
        self.back = 0  # how many of the newest checkpoints were lost with the last server
        self.busy_until = 0.0  # it handles a message, or an update, until then
        self._last_tick = self._next_tick = 0.0

    def start(self, incarnation: int) -> None:
        """Start the server; from incarnation 1 on from a checkpoint, if there is one."""
        self.incarnation = incarnation
        server = self._start()
        if incarnation > 0:
            self._restore(server)
        self._schedule_tick()

    def _start(self) -> Server:
        """Start a server that knows nothing of the run."""
        now, scenario = self.cluster.clock.now, self.cluster.scenario
        self.memory = SharedMemory(self.cluster) if scenario.shared else None
        self.server = Server(
            scenario.workers,
            Plan,
            now,
            incarnation=self.incarnation,
            save_seconds=scenario.save_seconds,
            skip=scenario.skip,
            memory=self.memory,
        )
        self.server.leasing.backups = scenario.backups
        self._last_tick, self._next_tick = now, float("inf")
        return self.server

    def kill(self, seconds: float, back: int) -> None:
        """Kill the server, with `back` of its newest checkpoints; the launcher sees its end so many seconds later."""
        self.server = None
        if self.memory is not None:
            self.memory.leave()
        self.cluster.clock.call_later(seconds, self.cluster.launcher.server_ended, back)

    def _restore(self, server: Server) -> None:
        """Restore a server from the newest checkpoint that is left."""
        cluster, snapshot = self.cluster, self._roll_back(self.back)
        if snapshot is not None:
            restore(server, snapshot)
        if cluster.checker is not None:
            cluster.checker.server_restarted(server, snapshot, newest_lost=self.back > 0)
        if snapshot is not None:
            self.perform(server.tick(cluster.clock.now))

    def _roll_back(self, back: int) -> Snapshot | None:
        """Return the snapshot to restart from; None if no checkpoint is complete.

        Later reports and checkpoints are deleted, and checkpoints whose writing had not ended.
        """
        written = [checkpoint for checkpoint in self.disk if checkpoint.written_at <= self.cluster.clock.now]
        if not written:
            self.disk, self.reports = [], []
            return None
        chosen = written[max(0, len(written) - 1 - back)]
        self.disk = [checkpoint for checkpoint in written if checkpoint.reports <= chosen.reports]
        del self.reports[chosen.reports :]
        return chosen.snapshot

    @property
    def invitation(self) -> Memory | None:
        """The memory that a worker which joins is invited to; None if there is none."""
        return None if self.server is None or self.memory is None else self.memory.memory

    # Events of the server. Each is one turn of the loop in serve/process.py.

    def receive(self, peer: bytes, incarnation: int, message: FromWorker) -> None:
        """Pass a message that has arrived to the server; while that is down, lose the message or try again later."""
        cluster = self.cluster
        if self.server is None:
            if cluster.rng.bernoulli(0.5):
                cluster.clock.call_later(RESEND_SECONDS, self.receive, peer, incarnation, message)
            return
        if cluster.clock.now < self.busy_until:
            cluster.clock.call_at(self.busy_until, self.receive, peer, incarnation, message)
            return
        if cluster.checker is not None:
            cluster.checker.before_message(message)
        version = self.server.version
        actions = self.server.receive(peer, message, incarnation, cluster.clock.now)
        if seconds := self._seconds_of(message, self.server.version - version):
            self.busy_until = cluster.clock.now + seconds
            cluster.clock.call_at(self.busy_until, self._perform_later, actions, self.incarnation)
        else:
            self.perform(actions)
        self._schedule_tick()

    def _seconds_of(self, message: FromWorker, updates: int) -> float:
        """Return how long a message keeps the server busy, and the updates that followed from it."""
        scenario = self.cluster.scenario
        gradients = len(message.nodes) if isinstance(message, Contribution) else 0
        adding = gradients * scenario.adding_seconds
        return scenario.message_seconds + adding + updates * scenario.update_seconds

    def _perform_later(self, actions: list[Action], incarnation: int) -> None:
        if self.server is not None and incarnation == self.incarnation:
            self.perform(actions)

    def receive_garbage(self, peer: bytes) -> None:
        """Pass bytes that are not a message to the server, if it is up."""
        if self.server is not None:
            self.perform(self.server.malformed(peer, "no message", self.cluster.clock.now))

    def handle_command(self, command: dict[str, Any]) -> None:
        """Handle a command from the launcher, as serve/process.py does; while the server is down, lose it.

        A server that is to close stays up, so that messages of its end which the network loses are sent again.
        """
        server, now = self.server, self.cluster.clock.now
        if server is None:
            return
        if "close" in command:
            if server.over:  # one that has lost the checkpoint of the run's end goes on, with workers from elsewhere
                self.perform(server.closing(now))
        elif "fail" in command:
            self.perform(server.fail(command["fail"], now))
        elif "released" in command:
            self.perform(server.release(command["released"], now))
        else:
            self.perform(server.ended(command["ended"], command["well"], now))

    def _schedule_tick(self) -> None:
        """Schedule the next tick, or an earlier one if the server has become restless."""
        if self.server is None:
            return
        at = self._last_tick + (RESTLESS_SECONDS if self.server.restless else TICK_SECONDS)
        if at < self._next_tick:
            self._next_tick = at
            self.cluster.clock.call_at(at, self._tick, at, self.incarnation)

    def _tick(self, at: float, incarnation: int) -> None:
        if self.server is None or at != self._next_tick or incarnation != self.incarnation:
            return  # An earlier tick has taken the place of this one.
        now = self.cluster.clock.now
        self._last_tick, self._next_tick = now, float("inf")
        self.perform(self.server.tick(now))
        self._schedule_tick()

    def perform(self, actions: list[Action]) -> None:
        """Perform the actions of the machine in order; a peer whose connection is closed is then lost."""
        server, cluster = self.server, self.cluster
        assert server is not None
        if cluster.checker is not None:
            cluster.checker.server_acted = True
        for action in actions:
            match action:
                case Send(peer, message):
                    if not cluster.send_down(peer, message):
                        self.perform(server.lost(peer, cluster.clock.now))
                case Save(durable):
                    self._save(server, durable)
                case _:
                    self._report(action)

    def _report(self, report: reports.Report) -> None:
        """Keep a report, and pass it to the launcher."""
        self.reports.append(report)
        if isinstance(report, reports.Failure):
            self.failure = self.failure or report.failure
        self.cluster.launcher.report(report)

    def _save(self, server: Server, durable: bool) -> None:
        """Write a checkpoint: it is on the disk a little later, or at once if `durable`; in a study write none."""
        cluster = self.cluster
        if cluster.checker is None and not cluster.scenario.faults:
            return  # A study never restarts its server.
        seconds = 0.0 if durable else cluster.rng.exponential(cluster.scenario.write_seconds)
        self.disk.append(Checkpoint(cluster.clock.now + seconds, len(self.reports), take(server)))
        del self.disk[:-KEPT_CHECKPOINTS]
