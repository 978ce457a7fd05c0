"""What must hold after every event of a simulated run (design, section 3), looked at from outside.

The checker sees what the server and the processes hold between two events, and what arrives. It keeps a ledger of its
own and compares bits with a reference that knows no network:

    exactly once     what has arrived of the open step grows only by shards that the message just taken holds; a version
                     counts up by one, from a step whose shards are all in the ledger once, to the reference's weights
    same bits        every node in the server's tree, the weights of every version, those that a worker computes with
                     and those that it ends with are the reference's
    no lease lost    every shard of the open step has arrived, is unleased, or is leased to a member
    members          who waits is a member that has nothing to do; who has nothing to do waits, or has been told why not
    bad input        what is refused leaves version, weights and tree as they were; nothing that is not finite enters
    evaluations      every epoch is scored once in the record of the surviving history, with that epoch's weights
    main             one process at a time speaks for all, and one does before the others are let go
    an end           the run ends, for one of the reasons that the schedule gives
"""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from karp.protocol import Server, Snapshot
from karp.protocol.messages import Contribution, Evaluation, FromWorker, Lease
from karp.simulate.model import Reference
from karp.simulate.schedule import ALWAYS

if TYPE_CHECKING:
    from karp.protocol.member import Member
    from karp.simulate.cluster import Cluster
    from karp.simulate.process import Process


class Violation(AssertionError):
    """An invariant does not hold in a simulated run."""

    def __init__(self, cluster: "Cluster", what: str) -> None:
        clock, host = cluster.clock, cluster.host
        version = host.server.training.version if host.server is not None else -1
        super().__init__(
            f"{what}\n  at event {clock.events}, {clock.now:.3f} s, version {version}, incarnation {host.incarnation}\n"
            f"  {cluster.schedule}\n  again: karp simulate --schedules 1 --seed {cluster.schedule.seed}"
        )


class Checker:
    """Looks at a cluster after every event."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        schedule = cluster.schedule
        absent = {(bad.step, bad.shard) for bad in schedule.bad if self._left_out(bad.kind, bad.times)}
        self.reference = Reference(cluster.problem, schedule, frozenset(absent))
        self.bound = schedule.staleness
        self.staleness: Counter[int] = Counter()  # of the contributions that were taken
        self.version = 0
        self.incarnation = 0
        self.arrived: set[int] = set()  # shards of the open step
        self.message: FromWorker | None = None  # the one that this event has brought
        self.ends: Counter[int] = Counter()  # the versions with which processes have left their loops

    def _left_out(self, kind: str, times: int) -> bool:
        return self.cluster.schedule.skip and times == ALWAYS and kind != "raise"

    def demand(self, truth: bool, what: str) -> None:
        if not truth:
            raise Violation(self.cluster, what)

    # What others tell.

    def arrives(self, server: Server, message: FromWorker) -> None:
        """The server is about to take this message."""
        self.message = message

    def restarted(self, server: Server, snapshot: Snapshot | None) -> None:
        """Another server is there, with nothing of the open step."""
        self.version = server.training.version
        self.arrived = set()
        self.incarnation = server.incarnation
        self.demand(self.version == (0 if snapshot is None else snapshot[0]["version"]), "the snapshot is another")

    def computes(self, process: "Process", task: Lease | Evaluation | None) -> None:
        """A worker computes this: with the weights that the task names?"""
        assert task is not None
        expected = self.reference.weights(task.version)
        self.demand(same(process.worker.weights, expected), f"{process.peer!r} computes {task} with other weights")

    def finished(self, process: "Process") -> None:
        """A process has left its loop in good order."""
        over = process.worker.over
        assert over is not None
        self.ends[over.version] += 1
        expected = self.reference.weights(over.version)
        self.demand(same(process.worker.weights, expected), f"{process.peer!r} ends without the final weights")

    # After every event.

    def look(self) -> None:
        """All that must hold now."""
        server = self.cluster.host.server
        if server is None:
            return
        message, self.message = self.message, None
        training = server.training
        if training.updater is not None:
            self._look_at_version(server, message)
            if message is not None:
                self._look_at_tree(server, message)
                self._look_at_weights(server)
        if server.begun and not server.over:
            self._look_at_leases(server)
        self._look_at_members(server)
        self._look_at_main(server)

    def _look_at_version(self, server: Server, message: FromWorker | None) -> None:
        """One update at a time, from a whole step."""
        training = server.training
        if training.version == self.version:
            return
        self.demand(training.version == self.version + 1, f"version {self.version} became {training.version}")
        step = self.version
        if isinstance(message, Contribution):
            self._take(message, step)
        skipped = {shard for number, shard in self.reference.absent if number == step}
        expected = set(range(self.cluster.problem.plan.shards_of(step)))
        missing = sorted(expected - self.arrived - skipped)
        self.demand(not missing, f"step {step} was applied, and its shards {missing} had not arrived")
        self.version, self.arrived = training.version, set()
        samples = sum(self.cluster.problem.plan.samples_of(number) for number in range(self.version))
        self.demand(training.progress.samples == samples, f"{training.progress.samples} samples, not {samples}")

    def _take(self, message: Contribution, step: int) -> None:
        """Enter the shards of a contribution into the ledger."""
        if message.step != step:
            return
        staleness = message.step - message.version
        self.demand(0 <= staleness <= self.bound, f"a contribution of staleness {staleness} was taken")
        new = {shard for node in message.nodes for shard in range(node.start, node.stop)} - self.arrived
        self.staleness[staleness] += len(new)
        self.arrived |= new

    def _look_at_tree(self, server: Server, message: FromWorker) -> None:
        """What has arrived is what was sent, once, and its sums are the reference's."""
        step = server.training.step
        arrived = {shard for node in step.tree.nodes.values() for shard in range(node.start, node.stop)}
        if step.number == self.version and arrived != self.arrived:
            self.demand(self.arrived <= arrived, f"shards {sorted(self.arrived - arrived)} had arrived and are gone")
            if isinstance(message, Contribution):
                self._take(message, step.number)
            extra = sorted(arrived - self.arrived)
            self.demand(not extra, f"shards {extra} have arrived, and nobody has sent them")
            self.arrived = arrived
        for node in step.tree.nodes.values():
            expected = self.reference.node(step.number, node.start, node.stop)
            equal = node.vector is expected or (
                node.vector is not None and expected is not None and same(node.vector, expected)
            )
            self.demand(equal, f"the sum over ({node.start}, {node.stop}) of step {step.number} is another")
            self.demand(bool(np.isfinite(node.loss)), f"the loss of ({node.start}, {node.stop}) is {node.loss}")

    def _look_at_weights(self, server: Server) -> None:
        updater = server.training.updater
        assert updater is not None
        expected = self.reference.weights(updater.version)
        self.demand(same(updater.weights, expected), f"the weights of version {updater.version} are others")
        self.demand(bool(np.isfinite(updater.weights).all()), "the weights are not finite")

    def _look_at_leases(self, server: Server) -> None:
        step = server.training.step
        if server.training.failure:
            return
        places = set(self.arrived)
        for start, stop in step.unleased:
            self.demand(places.isdisjoint(range(start, stop)), f"({start}, {stop}) is unleased and has arrived")
            places.update(range(start, stop))
        for member in server.members.values():
            if isinstance(member.task, Lease) and member.task.step == step.number:
                places.update(range(member.task.start, member.task.stop))
        lost = set(range(step.tree.shards)) - places
        self.demand(not lost, f"nobody is to compute the shards {sorted(lost)} of step {step.number}")

    def _look_at_members(self, server: Server) -> None:
        for peer, member in server.waiting.items():
            self.demand(server.members.get(peer) is member, f"{peer!r} waits and is no member")
            idle = member.task is None and not member.stopped and not member.told
            self.demand(idle, f"{peer!r} waits, and should not: {member}")
        for peer, member in server.members.items():
            idle = member.task is None and peer not in server.waiting
            self.demand(not idle or self._excused(server, peer, member), f"{peer!r} is forgotten: {member}")
        numbers = [member.worker for member in server.members.values()] + list(server.left.values())
        self.demand(len(numbers) == len(set(numbers)), f"two workers have one number: {sorted(numbers)}")
        self.demand(not server.members.keys() & server.left.keys(), "a member has left")

    def _excused(self, server: Server, peer: bytes, member: "Member") -> bool:
        return member.stopped or member.told or (server.training.updater is None and peer == server.asked)

    def _look_at_main(self, server: Server) -> None:
        """Of those whom this server has told, one lives and speaks for all."""
        mains = [
            process
            for process in self.cluster.processes
            if process.alive and process.worker.over is not None and process.worker.over.main
            and self._still_main(server, process)
        ]  # fmt: skip
        self.demand(len(mains) <= 1, f"{[process.peer for process in mains]} all speak for all")

    def _still_main(self, server: Server, process: "Process") -> bool:
        return process.worker.incarnation == server.incarnation

    # At the end.

    def conclude(self) -> None:
        """The run has ended: as it should?"""
        cluster = self.cluster
        server = cluster.host.server
        if cluster.host.failed:
            self._conclude_failure()
            return
        killed = any(process.left and process.status != 0 for process in cluster.processes)
        self.demand(cluster.spoken > 0 or killed, "nobody has spoken for all")
        if server is None or not server.over:
            return  # it was killed after the end, and nobody is left to ask
        self._conclude_version(server)
        self._conclude_evaluations(server)

    def _conclude_failure(self) -> None:
        """Only a program that always fails ends a run as a failure; then with the weights of a whole step."""
        failures = [self.cluster.host.failed]
        schedule = self.cluster.schedule
        self.demand(any(bad.times > 1 for bad in schedule.bad), f"the run has failed: {failures}")
        (bad,) = schedule.bad
        place = f"step {bad.step}, shard {bad.shard}"
        named = place in failures[0] or (schedule.skip and "none of its shards is finite" in failures[0])
        self.demand(named, f"the failure does not name {place}: {failures}")

    def _conclude_version(self, server: Server) -> None:
        schedule, version = self.cluster.schedule, server.training.version
        if schedule.leave_at is not None:  # the others complete the step, if there are others
            expected = {schedule.leave_at[0], schedule.leave_at[0] + 1}
        else:
            expected = {schedule.steps if schedule.stop_at is None else schedule.stop_at[0] + 1}
        known = schedule.stop_at is None and (schedule.leave_at is None or not self.cluster.happened["server"])
        self.demand(not known or version in expected, f"the run ended with version {version}, not {expected}")

    def _conclude_evaluations(self, server: Server) -> None:
        """Each epoch once, with the loss of its own weights."""
        if not self.cluster.schedule.evaluate or self.cluster.schedule.leave_at is not None:
            return
        per_epoch = self.cluster.problem.plan.steps_per_epoch
        version = server.training.version
        due = [min(version, (epoch + 1) * per_epoch) for epoch in range(-(-version // per_epoch))]
        expected = sorted((step, self.cluster.problem.score(self.reference.weights(step))) for step in due)
        reports = [report.values for report in self.cluster.host.reports if report.kind == "evaluation"]
        actual = sorted((values["step"], values["scores"]["loss"]) for values in reports)
        self.demand(expected == actual, f"evaluations (version, loss): {actual}, not {expected}")


def same(one: object, other: object) -> bool:
    """Whether two vectors have the same bits."""
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    return one.tobytes() == other.tobytes()
