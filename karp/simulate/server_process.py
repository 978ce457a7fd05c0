"""The server's process: the real machine, driven as serve/process.py drives it, with checkpoints that reach a disk."""

from typing import TYPE_CHECKING

from karp.data import Plan
from karp.protocol.messages import FromWorker
from karp.protocol.server.actions import Action, Report, Save, Send
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import Snapshot, restore, take

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster

TICK_SECONDS = 0.25  # as in serve/process.py
RESTLESS_SECONDS = 0.05
KEEP = 3  # checkpoints


class Host:
    """Holds the server, or None while it is down, and what outlives it: checkpoints and reports."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.incarnation = 0
        self.server: Server | None = None
        self.disk: list[tuple[float, int, Snapshot]] = []  # (from when it is whole, reports until then, it)
        self.reports: list[Report] = []  # as the record keeps them: cut back to the checkpoint at a restart
        self.ticked = self.tick_at = 0.0
        self.endings: dict[int, bool] = {}  # as the launcher keeps them: worker -> whether its last process ended well
        self.failed = ""  # why the run has failed
        self.start(None)

    def start(self, back: int | None) -> None:
        """Start the server: afresh (None), or again from the checkpoint so many before the newest, if there is one."""
        now = self.cluster.clock.now
        schedule = self.cluster.schedule
        self.server = Server(
            schedule.workers,
            Plan,
            now,
            incarnation=self.incarnation,
            save_seconds=schedule.save_seconds,
            skip=schedule.skip,
        )
        self.ticked, self.tick_at = now, float("inf")
        if back is not None:
            whole = [entry for entry in self.disk if entry[0] <= now]
            entry = whole[max(0, len(whole) - 1 - back)] if whole else None
            self.disk = [] if entry is None else [kept for kept in whole if kept[1] <= entry[1]]
            del self.reports[0 if entry is None else entry[1] :]
            if entry is not None:
                restore(self.server, entry[2])
            if self.cluster.checker is not None:
                self.cluster.checker.restarted(self.server, None if entry is None else entry[2], back > 0)
            for worker, well in self.endings.items():
                self.perform(self.server.ended(worker, well, now))
            if entry is not None:
                self.perform(self.server.tick(now))
        self._plan_tick()

    def die(self, seconds: float, back: int) -> None:
        """kill -9, and another one after so many seconds."""
        if self.server is not None:
            self.server = None
            self.cluster.happened["server"] += 1
            self.cluster.clock.after(seconds, self._again, back)

    def _again(self, back: int) -> None:
        if self.failed:  # the launcher gives such a run up
            self.cluster.give_up()
            return
        self.incarnation += 1
        self.start(back)

    # Events of the server; each is one turn of the loop in serve/process.py.

    def receive(self, peer: bytes, incarnation: int, message: FromWorker) -> None:
        """A message has arrived."""
        if self.server is None:
            if self.cluster.chance.happens(0.5):  # it waits at the sender's end until there is a server again
                self.cluster.clock.after(0.1, self.receive, peer, incarnation, message)
            return
        checker = self.cluster.checker
        if checker is not None:
            checker.arrives(message)
        self.perform(self.server.receive(peer, message, incarnation, self.cluster.clock.now))
        self._plan_tick()

    def malformed(self, peer: bytes) -> None:
        if self.server is not None:
            self.perform(self.server.malformed(peer, "no message", self.cluster.clock.now))

    def ended(self, worker: int, well: bool) -> None:
        """The launcher has seen the end of a worker's process; a server that is down hears of it when it is back."""
        self.endings[worker] = well
        if self.server is not None:
            self.perform(self.server.ended(worker, well, self.cluster.clock.now))

    def _plan_tick(self) -> None:
        """Announce the next look at the clock."""
        if self.server is None:
            return
        at = self.ticked + (RESTLESS_SECONDS if self.server.restless else TICK_SECONDS)
        if at < self.tick_at:
            self.tick_at = at
            self.cluster.clock.at(at, self._tick, at, self.incarnation)

    def _tick(self, at: float, incarnation: int) -> None:
        if self.server is None or at != self.tick_at or incarnation != self.incarnation:
            return  # another one was announced in its place
        now = self.cluster.clock.now
        self.ticked, self.tick_at = now, float("inf")
        self.perform(self.server.tick(now))
        self._plan_tick()

    def perform(self, actions: list[Action]) -> None:
        """Do what the machine says; a peer that turns out to be gone is one more event."""
        server, cluster = self.server, self.cluster
        assert server is not None
        if cluster.checker is not None:
            cluster.checker.touched = True
        for action in actions:
            match action:
                case Send(peer, message):
                    if not cluster.send_down(peer, message):
                        self.perform(server.lost(peer, cluster.clock.now))
                case Report():
                    self.reports.append(action)
                    if action.kind in ("joined", "left"):
                        self.endings.pop(action.values["worker"], None)
                    cluster.reported(action)
                case Save(lasting):
                    self._save(server, lasting)

    def _save(self, server: Server, lasting: bool) -> None:
        """The newest checkpoint, on the disk a little later; a server that waits for that does nothing else."""
        cluster = self.cluster
        if cluster.checker is None and not cluster.schedule.strikes:
            return
        seconds = 0.0 if lasting else cluster.chance.exponential(cluster.schedule.save_takes)
        self.disk.append((cluster.clock.now + seconds, len(self.reports), take(server)))
        del self.disk[:-KEEP]
