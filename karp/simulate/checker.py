"""What must hold after every event of a simulated run (design, section 3), looked at from outside.

The checker sees what the server and the processes hold between two events, and what arrives. It keeps a ledger of its
own and compares bits with a reference that knows no network:

    exactly once     what has arrived of an open step grows only by shards that the message just taken holds; a step is
                     in when all its shards are in the ledger once, and each of its samples is counted once
    staleness        a contribution that is taken is no more steps older than the bound
    same bits        every node in the server's tree, the weights of every version, those that a worker computes with
                     and those that it ends with are the reference's
    no lease lost    every shard of an open step has arrived, is unleased, or is leased to a member
    members          who waits is a member that has nothing to do; who has nothing to do waits, or has been told why not
    bad input        what is refused leaves weights and trees as the reference's; nothing that is not finite enters
    evaluations      every epoch is scored once in the record of the surviving history, with that epoch's weights
    main             one process at a time speaks for all, and one does before the others are let go
    an end           the run ends, for one of the reasons that the schedule gives
"""

import math
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from karp.protocol.messages import Contribution, Evaluation, FromWorker, Lease
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import Snapshot
from karp.protocol.server.step import Step
from karp.simulate.problem import Reference
from karp.simulate.scenario import ALWAYS

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster
    from karp.simulate.worker_process import Process


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
        self.bound = schedule.staleness
        self.plan = cluster.problem.plan
        self.reference = Reference(cluster.problem, schedule, frozenset(absent))
        self.references = {0: self.reference}  # by incarnation: with staleness each has a history of its own
        self.staleness: Counter[int] = Counter()  # of the shards that were taken
        self.version = self.first = 0  # of the weights; the oldest step that is not in
        self.arrived: dict[int, set[int]] = {}  # step, as long as not all before it are in -> shards
        self.evaluated: dict[int, int] = {}  # epoch -> the version that was evaluated last
        self.message: FromWorker | None = None  # the one that this event has brought
        self.touched = False  # the server, by this event
        self.unknown: set[bytes] = set()  # main workers that a damaged checkpoint has named

    def _left_out(self, kind: str, times: int) -> bool:
        return self.cluster.schedule.skip and times == ALWAYS and kind != "raise"

    def broken(self, what: str) -> NoReturn:
        raise Violation(self.cluster, what)

    # What others tell.

    def arrives(self, message: FromWorker) -> None:
        """The server is about to take this message."""
        self.message = message

    def restarted(self, server: Server, snapshot: Snapshot | None, damaged: bool) -> None:
        """Another server is there, with nothing of what was under way but what its checkpoint holds.

        Where the newest is damaged, nobody knows the main worker any more.
        """
        if damaged:
            self.unknown |= set(self._mains())
        training = server.training
        if training.version != (0 if snapshot is None else snapshot[0]["version"]):
            self.broken("the server is not as its snapshot")
        if self.bound != 0:
            fresh = Reference(self.cluster.problem, self.cluster.schedule, self.reference.absent)
            self.reference = fresh if snapshot is None else self.reference.restored(snapshot)
        self.references[server.incarnation] = self.reference
        self.version, self.first = training.version, training.step.number
        whole = range(self.first, training.opened)  # but for those that are open
        self.arrived = {number: set(range(self.plan.shards_of(number))) for number in whole}
        self.arrived |= {number: shards_in(step) for number, step in training.open.items()}
        self.message = None

    def computes(self, process: "Process", task: Lease | Evaluation | None) -> None:
        """A worker computes this: with the weights that the task names?"""
        assert task is not None
        reference = self.references[process.worker.incarnation]
        if isinstance(task, Evaluation):
            self.evaluated[task.epoch] = task.version
        if not same(process.worker.weights, reference.weights(task.version)):
            self.broken(f"{process.peer!r} computes {task} with other weights")

    def finished(self, process: "Process") -> None:
        """A process has left its loop in good order."""
        over = process.worker.over
        assert over is not None
        reference = self.references[process.worker.incarnation]
        if not same(process.worker.weights, reference.weights(over.version)):
            self.broken(f"{process.peer!r} ends without the final weights")

    # After every event.

    def look(self) -> None:
        """All that must hold now."""
        server, message = self.cluster.host.server, self.message
        touched, self.touched, self.message = self.touched, False, None
        if server is None or not touched:
            return
        if server.training.updater is not None and server.joining.begun:
            for number in server.training.open:
                self.arrived.setdefault(number, set())
            if isinstance(message, Contribution) and message.step in self.arrived:
                self._look_at_contribution(server, message)
            self._look_at_version(server)
        if server.joining.begun and not server.ending.over and not server.training.failure:
            self._look_at_leases(server)
        self._look_at_members(server)
        self._look_at_main(server)

    def _look_at_contribution(self, server: Server, message: Contribution) -> None:
        """What has arrived is what was sent, once, and its sums are the reference's."""
        number, before = message.step, self.arrived[message.step]
        expected = self._taken(message, before)
        step = server.training.open.get(number)
        if step is not None:
            new = shards_in(step) - before
            if gone := before - shards_in(step):
                self.broken(f"shards {sorted(gone)} of step {number} had arrived and are gone")
            if extra := [shard for shard in new - expected if (number, shard) not in self.reference.absent]:
                self.broken(f"shards {sorted(extra)} of step {number} have arrived, and nobody has sent them")
        else:
            new = expected if self.bound is None or number < server.training.step.number else set()
        self._enter(message, new)
        if step is not None and self.bound is not None:
            self._look_at_tree(step)

    def _taken(self, message: Contribution, before: set[int]) -> set[int]:
        """The shards that a contribution brings: of its nodes that are finite and altogether new."""
        found: set[int] = set()
        for node in message.nodes:
            shards = set(range(node.start, min(node.stop, node.start + self.plan.shards + 1)))
            finite = math.isfinite(node.loss) and node.vector is not None and bool(np.isfinite(node.vector).all())
            if finite and shards.isdisjoint(before) and shards.isdisjoint(found):
                found |= shards
        return found

    def _enter(self, message: Contribution, new: set[int]) -> None:
        """These shards are in: into the ledger, and into the reference."""
        self.arrived[message.step] |= new
        newest = self.version
        for shard in sorted(new):
            if (message.step, shard) in self.reference.absent:
                continue
            staleness = (newest if self.bound is None else message.step) - message.version
            self.staleness[staleness] += 1
            if staleness < 0 or (self.bound is not None and staleness > self.bound):
                self.broken(f"a contribution of staleness {staleness} was taken: {message.step}, {message.version}")
            if self.bound is None:
                self.reference.update(message.step, shard, message.version)
                self.version += 1
            elif self.bound:
                self.reference.made_with[message.step, shard] = message.version

    def _look_at_tree(self, step: Step) -> None:
        for node in step.tree.nodes.values():
            expected = self.reference.node(step.number, node.start, node.stop)
            if node.vector is None or expected is None:
                if node.vector is not expected:
                    self.broken(f"({node.start}, {node.stop}) of step {step.number} is absent on one side")
            elif not same(node.vector, expected):
                self.broken(f"the sum over ({node.start}, {node.stop}) of step {step.number} is another")
            if not math.isfinite(node.loss):
                self.broken(f"the loss of ({node.start}, {node.stop}) of step {step.number} is {node.loss}")

    def _look_at_version(self, server: Server) -> None:
        """Each update is one whole step, or in an asynchronous run one shard."""
        training = server.training
        updater = training.updater
        assert updater is not None
        if not training.failure and not server.ending.over:
            for number in range(self.first, training.step.number):
                there = self.arrived[number] | {shard for step, shard in self.reference.absent if step == number}
                if missing := set(range(self.plan.shards_of(number))) - there:
                    self.broken(f"step {number} is in, and its shards {sorted(missing)} had not arrived")
        if self.bound is not None and not self.version <= training.version <= self.version + 1 + self.bound:
            self.broken(f"version {self.version} became {training.version}")
        self.version, self.first = training.version, training.step.number
        if not same(updater.weights, self.reference.weights(self.version)):
            self.broken(f"the weights of version {self.version} are others")
        if not np.isfinite(updater.weights).all():
            self.broken("the weights are not finite")
        self._look_at_samples(server)
        self.arrived = {number: shards for number, shards in self.arrived.items() if number >= self.first}

    def _look_at_samples(self, server: Server) -> None:
        """Each sample of the steps that are in was counted once."""
        samples = sum(self.plan.samples_of(number) for number in range(self.first))
        if self.bound is None:
            absent = self.reference.absent
            samples -= sum(self.plan.samples_in(*place) for place in absent if place[0] < self.first)
            for number, shards in self.arrived.items():
                if number >= self.first:
                    there = [shard for shard in shards if (number, shard) not in absent]
                    samples += sum(self.plan.samples_in(number, shard) for shard in there)
        if server.training.progress.samples != samples and not server.ending.over:
            self.broken(f"{server.training.progress.samples} samples were counted, not {samples}")

    def _look_at_leases(self, server: Server) -> None:
        """Of every open step, each shard has arrived, can be leased, or is leased to a member."""
        for number, step in server.training.open.items():
            places = set(self.arrived[number])
            for start, stop in step.unleased:
                if not places.isdisjoint(range(start, stop)):
                    self.broken(f"({start}, {stop}) of step {number} is unleased and has arrived")
                places.update(range(start, stop))
            for member in server.members.values():
                if isinstance(member.task, Lease) and member.task.step == number:
                    places.update(range(member.task.start, member.task.stop))
            if lost := set(range(step.tree.shards)) - places:
                self.broken(f"nobody is to compute the shards {sorted(lost)} of step {number}")

    def _look_at_members(self, server: Server) -> None:
        """Who waits has nothing to do; who has nothing to do waits, or there is a reason."""
        for peer, member in server.waiting.items():
            if server.members.get(peer) is not member:
                self.broken(f"{peer!r} waits and is no member")
            if member.task is not None or member.stopped or member.told:
                self.broken(f"{peer!r} waits, and should not: {member}")
        asked = server.joining.asked if server.training.updater is None else b""
        for peer, member in server.members.items():
            reason = member.task is not None or member.stopped or member.told or peer == asked
            if not reason and peer not in server.waiting:
                self.broken(f"{peer!r} is forgotten: {member}")
        numbers = [member.worker for member in server.members.values()] + list(server.ending.left.values())
        if len(numbers) != len(set(numbers)):
            self.broken(f"two workers have one number: {sorted(numbers)}")
        if server.members.keys() & server.ending.left.keys():
            self.broken("a member has left")

    def _look_at_main(self, server: Server) -> None:
        """Of those that have been told, by this server or one before it, one lives and speaks for all."""
        mains = [peer for peer in self._mains() if peer not in self.unknown] if server.ending.over else []
        if len(mains) > 1:
            self.broken(f"{mains} all speak for all")

    def _mains(self) -> list[bytes]:
        """Who lives and has been told to speak for all."""
        processes = [process for process in self.cluster.processes if process.alive]
        return [process.peer for process in processes if process.worker.over is not None and process.worker.over.main]

    # At the end.

    def conclude(self) -> None:
        """The run has ended: as it should?"""
        cluster = self.cluster
        server = cluster.host.server
        if cluster.host.failed:
            self._conclude_failure()
            return
        if not cluster.spoken and any(process.status == 0 for process in cluster.processes):
            self.broken("nobody has spoken for all")
        if server is not None and server.ending.over:  # else it was killed after the end, and nobody is left to ask
            self._conclude_steps(server)
            self._conclude_evaluations(server)

    def _conclude_failure(self) -> None:
        """Only a program that always fails ends a run as a failure; then with the weights of a whole step."""
        failure, schedule = self.cluster.host.failed, self.cluster.schedule
        if not any(bad.times > 1 for bad in schedule.bad):
            self.broken(f"the run has failed: {failure}")
        (bad,) = schedule.bad
        place = f"step {bad.step}, shard {bad.shard}"
        if place not in failure and not (schedule.skip and "none of its shards is finite" in failure):
            self.broken(f"the failure does not name {place}: {failure}")

    def _conclude_steps(self, server: Server) -> None:
        """Training went on to its last step, or to the one after which the program stopped it."""
        schedule, steps = self.cluster.schedule, server.training.step.number
        expected = {schedule.steps}
        if schedule.leave_at is not None:  # the others complete the step, if there are others
            expected = {schedule.leave_at[0], schedule.leave_at[0] + 1}
        elif schedule.stop_at is not None:
            expected = {schedule.stop_at[0] + 1}
        early = schedule.stop_at is not None or schedule.leave_at is not None
        if early and (self.cluster.happened["server"] or self.bound != 0):
            return  # the checkpoint may be of before, those that have left come no more; others may be further
        if steps not in expected:
            self.broken(f"the run ended after {steps} steps, not {expected}")

    def _conclude_evaluations(self, server: Server) -> None:
        """Each epoch once, with the loss of its own weights."""
        if not self.cluster.schedule.evaluate or self.cluster.schedule.leave_at is not None:
            return
        steps, per_epoch = server.training.step.number, self.plan.steps_per_epoch
        reports = [report.values for report in self.cluster.host.reports if report.kind == "evaluation"]
        epochs = sorted(values["epoch"] for values in reports)
        if epochs != list(range(-(-steps // per_epoch))):
            self.broken(f"the epochs {epochs} were evaluated in {steps} steps of {per_epoch}")
        for values in reports:
            epoch = values["epoch"]
            version = self.evaluated[epoch]
            if self.bound is not None and version != min(steps, (epoch + 1) * per_epoch):
                self.broken(f"epoch {epoch} was evaluated with the weights of version {version}")
            if values["scores"]["loss"] != self.cluster.problem.score(self.reference.weights(version)):
                self.broken(f"the score of epoch {epoch} is not that of the weights of version {version}")


def shards_in(step: Step) -> set[int]:
    """The shards that have arrived of a step, as its tree has them."""
    return {shard for node in step.tree.nodes.values() for shard in range(node.start, node.stop)}


def same(one: object, other: object) -> bool:
    """Whether two vectors have the same bits."""
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    return one.tobytes() == other.tobytes()
