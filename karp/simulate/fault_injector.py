"""What goes wrong in a simulated run, as its scenario says, and how often it has."""

from collections import Counter
from typing import TYPE_CHECKING

from karp.protocol.messages import Contribution, FromWorker, Initial, Scale
from karp.protocol.tree import Node
from karp.simulate.problem import Problem
from karp.simulate.scenario import BadShard, Fault, Kill

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster
    from karp.simulate.worker_process import WorkerProcess

SIGKILL = -9  # as an exit status


class FaultInjector:
    """Inject the faults of a scenario into its cluster, and count them."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.kills: list[Kill] = list(cluster.scenario.kills)  # the kills still to happen
        self.faults: list[Fault] = list(cluster.scenario.faults)  # the faults still to happen, in order
        self.times_left: dict[BadShard, int] = {bad: bad.times for bad in cluster.scenario.bad_shards}
        self.counts: Counter[str] = Counter()  # kind or point -> number of faults that have happened

    def schedule_crash(self, process: "WorkerProcess") -> None:
        """Schedule the crash of a process that has started, if workers crash in this scenario."""
        rate = self.cluster.scenario.crash_rate
        if rate:
            self.cluster.clock.call_later(self.cluster.rng.exponential(1.0 / rate), self._crash, process)

    def _crash(self, process: "WorkerProcess") -> None:
        if self.cluster.clock.now < self.cluster.scenario.faults_until and process.alive and process.in_block:
            self.counts["crash"] += 1
            process.end(SIGKILL)

    def kill_at(self, process: "WorkerProcess", point: str, step: int | None) -> bool:
        """Kill a process at one of POINTS if the scenario says so; return whether it did.

        `step` is compared with the scenario's; None stands for the server's version.
        """
        server = self.cluster.server
        version = 0 if server is None else server.version
        numbers = (-1, process.number, process.worker.number)
        for kill in self.kills:
            if kill.point == point and kill.worker in numbers and kill.step <= (version if step is None else step):
                self.kills.remove(kill)
                self.counts[point] += 1
                process.end(SIGKILL)
                return True
        return False

    def bad_shard_at(self, step: int, shard: int) -> BadShard | None:
        """Return the failure of the program that is due at this shard, and count it; None if none is due."""
        for bad_shard, times in self.times_left.items():
            if (bad_shard.step, bad_shard.shard) == (step, shard) and times:
                self.times_left[bad_shard] = times - 1
                self.counts[bad_shard.kind] += 1
                return bad_shard
        return None

    def inject_next(self) -> bool:
        """Inject the next fault if its event has happened; return whether it has."""
        if not self.faults or self.faults[0].event > self.cluster.clock.events:
            return False
        self._inject(self.faults.pop(0))
        return True

    def _inject(self, fault: Fault) -> None:
        """Inject a fault; a fault that needs a living server or worker does nothing if there is none."""
        cluster = self.cluster
        alive = [process for process in cluster.processes if process.alive]
        if fault.kind == "server":
            if cluster.server is not None:
                self.counts["server"] += 1
                cluster.server_process.kill(fault.seconds, fault.back)
        elif fault.kind == "come":
            self.counts["come"] += 1
            cluster.start_process(-1, 0.0)
        elif fault.kind == "scale":
            self.counts["scale"] += 1
            cluster.server_process.receive(b"user", 0, Scale(fault.workers))
        elif fault.kind == "stranger":
            self._send_malformed(b"nobody", fault.variant)
        elif alive:
            self._inject_into_worker(alive[fault.worker % len(alive)], fault)

    def _inject_into_worker(self, process: "WorkerProcess", fault: Fault) -> None:
        now = self.cluster.clock.now
        self.counts[fault.kind] += 1
        match fault.kind:
            case "kill":
                process.end(SIGKILL)
            case "pause":
                process.paused_until = max(process.paused_until, now + fault.seconds)
            case "cut":
                process.cut_since, process.cut_until = now, now + fault.seconds
                process.cut_noticed = fault.noticed
            case "leave":
                process.interrupt()
            case "corrupt":
                self._send_malformed(process.peer, fault.variant)

    def _send_malformed(self, peer: bytes, variant: int) -> None:
        """Let a message that the server has to refuse arrive from this peer; do nothing while the server is down."""
        server_process, server = self.cluster.server_process, self.cluster.server
        if server is None:
            return
        if variant == 0 or not server.ready:
            server_process.receive_garbage(peer)
            return
        message = malformed_message(variant, server.version, self.cluster.problem)
        server_process.receive(peer, server.incarnation, message)


def malformed_message(variant: int, version: int, problem: Problem) -> FromWorker:
    """Return a contribution, or initial weights, that no worker sends: variants 1 to 7, then from the first again."""
    vector, shards = problem.layout.zeros() + 1, problem.plan.shards

    def contribution(weights_version: int, *nodes: Node) -> Contribution:
        return Contribution(version, weights_version, list(nodes), [], False)

    messages: list[FromWorker] = [
        contribution(version, Node(0, 1, 0.0, vector[1:])),  # another shape
        contribution(version, Node(0, 1, 0.0, vector.astype(float))),  # another dtype
        contribution(version + 1, Node(0, 1, 0.0, vector)),  # computed with weights that do not exist
        contribution(version, Node(0, 1, 0.0, vector), Node(shards, shards + 1, 0.0, vector)),  # no shard of the step
        contribution(version, Node(1, 1 + 2 * shards, 0.0, vector)),  # no node of the tree
        Initial(vector * 7),  # other weights than those of the run
        Initial(vector[1:]),
    ]
    return messages[(variant - 1) % len(messages)]
