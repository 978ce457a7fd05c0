"""The invariants that must hold after every event of a simulated run (design, section 3), checked from outside.

The checker reads what the server and the processes hold between two events, and the messages that arrive. It keeps a
ledger of its own, and compares bits with a reference that trains without a network:

    exactly once     a shard of an open step has arrived only if a message has brought it; a step is applied when all
                     its shards have arrived, and each of its samples is counted once
    staleness        no contribution that is taken is older than the bound allows
    same bits        every node in the server's tree, the weights of every version, those that a worker computes with
                     and those that it ends with are the reference's
    no lease lost    every shard of an open step has arrived, is unleased, or is leased to a worker of the run
    workers          a worker without a task waits for one, or has been told why there is none; nobody else waits
    bad input        a message that is refused changes neither weights nor trees; nothing that is not finite enters them
    best epoch       where one is kept, it is the best by all scores of the surviving history, the server ends with its
                     weights, and so does every worker
    evaluations      the record of the surviving history has one score for each epoch, that of the epoch's weights
    leader           at most one living process is the leader, and there is one before the others may end
    an end           the run ends, and for a reason that the scenario gives
"""

import math
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from karp.protocol import reports
from karp.protocol.messages import Contribution, Evaluation, FromWorker, Lease, Score
from karp.protocol.server.ledger import Step
from karp.protocol.server.machine import Server
from karp.protocol.server.states import WorkerState
from karp.protocol.tree import Vector
from karp.protocol.vectors import Snapshot
from karp.simulate.problem import Reference
from karp.simulate.scenario import ALWAYS, BadShard

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster
    from karp.simulate.worker_process import WorkerProcess


class Violation(AssertionError):
    """The error that an invariant does not hold in a simulated run; its text says how to repeat the run."""

    def __init__(self, cluster: "Cluster", reason: str) -> None:
        clock, server, seed = cluster.clock, cluster.server, cluster.scenario.seed
        version = server.version if server is not None else -1
        incarnation = cluster.server_process.incarnation
        super().__init__(
            f"{reason}\n  at event {clock.events}, {clock.now:.3f} s, version {version}, incarnation {incarnation}\n"
            f"  {cluster.scenario}\n  to repeat: karp simulate --schedules 1 --seed {seed}"
        )


class Checker:
    """Check the invariants of a cluster after every event."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        scenario = cluster.scenario
        left_out = {(bad.step, bad.shard) for bad in scenario.bad_shards if scenario.skip and is_never_finite(bad)}
        self.max_staleness = scenario.staleness
        self.plan = cluster.problem.plan
        self.reference = Reference(cluster.problem, scenario, frozenset(left_out))
        self.references = {0: self.reference}  # incarnation -> reference: with staleness their weights differ
        self.version = 0  # the version of the weights
        self.first_open = 0  # the oldest step that is not applied
        self.arrived: dict[int, set[int]] = {}  # step -> its shards, from `first_open` on
        self.evaluated: dict[int, int] = {}  # epoch -> the version that was evaluated last
        self.due: dict[int, int] = {}  # epoch -> the version of its weights, as its evaluation was last due
        self.final_versions: dict[int, int] = {}  # incarnation -> the version whose weights its run has ended with
        self.ended: set[int] = set()  # steps that have ended in ranges, from `first_open` on
        self.message: FromWorker | None = None  # the message that the server handles in this event
        self.server_acted = False  # whether the server has acted in this event
        self.forgotten_leaders: set[bytes] = set()  # leaders whom the server knew until its newest checkpoint was lost

    def fail(self, reason: str) -> NoReturn:
        """Raise Violation."""
        raise Violation(self.cluster, reason)

    # What the server and the processes are about to do.

    def before_message(self, message: FromWorker) -> None:
        """Note the message that the server takes next."""
        self.message = message

    def before_task(self, process: "WorkerProcess", task: Lease | Evaluation) -> None:
        """Check that a worker computes a task with the weights that the task names."""
        reference = self.references[process.worker.incarnation]
        if isinstance(task, Evaluation):
            self.evaluated[task.epoch] = task.version
        if not same_bits(process.worker.current, reference.weights(task.version)):
            self.fail(f"{process.peer!r} computes {task} with other weights")

    def ended_in_range(self, step: int, weights: Vector) -> None:
        """Note that a step has ended among the workers, and check the weights that they have made."""
        if not same_bits(weights, self.reference.weights(step + 1)):
            self.fail(f"step {step} has ended among the workers with other weights")
        self.arrived[step] = set(range(self.plan.shards_of(step)))
        self.arrived.setdefault(step + 1, set())
        self.ended.add(step)

    def check_final_weights(self, process: "WorkerProcess") -> None:
        """Check that a worker leaves its loop with the final weights."""
        over = process.worker.over
        assert over is not None
        reference = self.references[process.worker.incarnation]
        version = self.final_versions.get(process.worker.incarnation, over.version)
        if not same_bits(process.worker.weights, reference.weights(version)):
            self.fail(f"{process.peer!r} ends without the final weights")

    def server_restarted(self, server: Server, snapshot: Snapshot | None, newest_lost: bool) -> None:
        """Set the checker's ledger back to the state of a server that was restarted from a snapshot, or None.

        `newest_lost` says that this is not the newest checkpoint, so it may name another leader. Raises Violation if
        the server differs from its snapshot.
        """
        if newest_lost:
            self.forgotten_leaders |= set(self._leaders())
        if server.version != (0 if snapshot is None else snapshot[0]["version"]):
            self.fail("the server is not as its snapshot")
        if self.max_staleness != 0:
            fresh = Reference(self.cluster.problem, self.cluster.scenario, self.reference.left_out)
            self.reference = fresh if snapshot is None else self.reference.restored(snapshot)
        self.references[server.incarnation] = self.reference
        self.version, self.first_open = server.version, server.step
        opened = server.training.ledger.opened if server.ready else 0
        self.arrived = {step: set(range(self.plan.shards_of(step))) for step in range(self.first_open, opened)}
        self.arrived |= {number: shards_arrived(step) for number, step in server.open_steps.items()}
        self.message = None
        self.ended.clear()

    # After every event.

    def check_event(self) -> None:
        """Check all invariants after an event, if the server has acted; raises Violation for one that does not hold."""
        server, message, server_acted = self.cluster.server, self.message, self.server_acted
        self.message, self.server_acted = None, False
        if server is None or not server_acted:
            return
        if server.ready and server.begun:
            for step in server.open_steps:
                self.arrived.setdefault(step, set())
            if isinstance(message, Contribution) and message.step in self.arrived:
                self._check_contribution(server, message)
            self.due |= server.training.ledger.evaluations
            if isinstance(message, Score):
                self._check_best(server)
            if server.step == server.training.number:  # otherwise it has yet to take over what has ended in a range
                self._check_version(server)
        if server.begun and not server.over and not server.failure:
            self._check_leases(server)
        self._check_workers(server)
        self._check_leader(server)

    def _check_contribution(self, server: Server, message: Contribution) -> None:
        """Check that only shards that were sent have arrived, and that their sums are the reference's."""
        number, before = message.step, self.arrived[message.step]
        sent = self._new_shards(message, before)
        step = server.open_steps.get(number)
        if step is not None:
            new = shards_arrived(step) - before
            if gone := before - shards_arrived(step):
                self.fail(f"shards {sorted(gone)} of step {number} had arrived and are gone")
            if extra := [shard for shard in new - sent if (number, shard) not in self.reference.left_out]:
                self.fail(f"shards {sorted(extra)} of step {number} have arrived, and nobody has sent them")
        else:
            new = sent if self.max_staleness is None or number < server.step else set()
        self._enter(message, new)
        if step is not None and self.max_staleness is not None:
            self._check_sums(server, step)

    def _new_shards(self, message: Contribution, arrived: set[int]) -> set[int]:
        """Return the shards that a contribution adds: all shards of its finite nodes, unless one had arrived before."""
        new: set[int] = set()
        for node in message.nodes:
            shards = set(range(node.start, min(node.stop, node.start + self.plan.shards + 1)))
            finite = math.isfinite(node.loss) and node.vector is not None and bool(np.isfinite(node.vector).all())
            if finite and shards.isdisjoint(arrived) and shards.isdisjoint(new):
                new |= shards
        return new

    def _enter(self, message: Contribution, new: set[int]) -> None:
        """Enter new shards of a contribution into the ledger and the reference, and check its staleness."""
        self.arrived[message.step] |= new
        newest = self.version
        for shard in sorted(new):
            if (message.step, shard) in self.reference.left_out:
                continue
            staleness = (newest if self.max_staleness is None else message.step) - message.version
            if staleness < 0 or (self.max_staleness is not None and staleness > self.max_staleness):
                self.fail(f"a contribution of staleness {staleness} was taken: {message.step}, {message.version}")
            if self.max_staleness is None:
                self.reference.update(message.step, shard, message.version)
                self.version += 1
            elif self.max_staleness:
                self.reference.weight_versions[message.step, shard] = message.version

    def _check_sums(self, server: Server, step: Step) -> None:
        """Check that every sum of an open step's gradients has the bits of the reference, and a finite loss."""
        for node in server.sums(step.number):
            expected = self.reference.node_sum(step.number, node.start, node.stop)
            if node.vector is None or expected is None:
                if node.vector is not expected:
                    self.fail(f"({node.start}, {node.stop}) of step {step.number} is absent on one side")
            elif not same_bits(node.vector, expected):
                self.fail(f"the sum over ({node.start}, {node.stop}) of step {step.number} is another")
            if not math.isfinite(node.loss):
                self.fail(f"the loss of ({node.start}, {node.stop}) of step {step.number} is {node.loss}")

    def _check_version(self, server: Server) -> None:
        """Check that an update is one whole step, or one shard of an asynchronous run, and that its bits are right."""
        weights = server.weights
        assert weights is not None
        if not server.failure and not server.over:
            for step in range(self.first_open, server.step):
                if missing := set(range(self.plan.shards_of(step))) - self.arrived[step] - self._left_out_of(step):
                    self.fail(f"step {step} is applied, and its shards {sorted(missing)} had not arrived")
        newest = math.inf if self.max_staleness is None else self.version + 1 + self.max_staleness + len(self.ended)
        if not (self.max_staleness is None or self.version <= server.version <= newest):
            self.fail(f"version {self.version} became {server.version}")
        self.version, self.first_open = server.version, server.step
        version = self.version
        if server.over and server.training.done and not server.failure:
            version = self.final_versions[server.incarnation] = self._check_best(server)
        elif server.failure:  # perhaps after its end
            version = self.final_versions.get(server.incarnation, version)
        if not same_bits(weights, self.reference.weights(version)):
            self.fail(f"the weights of version {self.version} are others")
        if not np.isfinite(weights).all():
            self.fail("the weights are not finite")
        self._check_samples(server)
        self.arrived = {step: shards for step, shards in self.arrived.items() if step >= self.first_open}
        self.ended = {step for step in self.ended if step >= self.first_open}

    def _check_best(self, server: Server) -> int:
        """Check which epoch the server takes for the best; return the version of the weights that the run keeps."""
        scenario, best = self.cluster.scenario, server.training.best
        scored = {
            report.epoch: report.scores[scenario.keep_best]
            for report in self.cluster.server_process.reports
            if isinstance(report, reports.Evaluation) and scenario.keep_best is not None
        }
        numbers = [score for score in scored.values() if not math.isnan(score)]
        if not numbers:
            if best is not None:
                self.fail(f"the best epoch is {best}, and none has a score")
            return self.version
        wanted = max(numbers) if scenario.mode == "max" else min(numbers)
        epochs = [epoch for epoch, score in scored.items() if score == wanted]
        epoch = max(epochs) if scenario.ties == "last" else min(epochs)
        if best != (epoch, wanted):
            self.fail(f"the best epoch is {best}, not {epoch} of {scored}")
        return self.due[epoch]

    def _left_out_of(self, step: int) -> set[int]:
        return {shard for left_out_step, shard in self.reference.left_out if left_out_step == step}

    def _check_samples(self, server: Server) -> None:
        """Check that the server has counted as many samples as the updates contain."""
        samples = sum(self.plan.samples_of(step) for step in range(self.first_open))
        left_out = self.reference.left_out  # these shards are never counted
        samples -= sum(self.plan.samples_in(step, shard) for step, shard in left_out if step < self.first_open)
        if self.max_staleness is None:  # the others are counted when they arrive
            for step, shards in self.arrived.items():
                if step >= self.first_open:
                    counted = shards - self._left_out_of(step)
                    samples += sum(self.plan.samples_in(step, shard) for shard in counted)
        if server.training.progress.samples != samples and not server.over:
            self.fail(f"{server.training.progress.samples} samples were counted, not {samples}")

    def _check_leases(self, server: Server) -> None:
        """Check that each shard of an open step has arrived, is unleased, or is leased to a worker."""
        for number, step in server.open_steps.items():
            known = set(self.arrived[number])
            for start, stop in step.unleased:
                if not known.isdisjoint(range(start, stop)):
                    self.fail(f"({start}, {stop}) of step {number} is unleased and has arrived")
                known.update(range(start, stop))
            for member in server.members.values():
                if isinstance(member.task, Lease) and member.task.step == number:
                    known.update(range(member.task.start, member.task.stop))
            if lost := set(range(step.shards)) - known:
                self.fail(f"nobody is to compute the shards {sorted(lost)} of step {number}")

    def _check_workers(self, server: Server) -> None:
        """Check that every worker in training that could be given a task is waiting for one, and no other worker."""
        for peer, member in server.waiting.items():
            if server.members.get(peer) is not member:
                self.fail(f"{peer!r} waits and is no member")
            if member.task is not None or member.state is not WorkerState.TRAINING:
                self.fail(f"{peer!r} waits, and should not: {member}")
        asked = server.joining.asked if not server.ready else b""
        for peer, member in server.members.items():
            reason = member.task is not None or member.state is not WorkerState.TRAINING or peer == asked
            if not reason and peer not in server.waiting:
                self.fail(f"{peer!r} is forgotten: {member}")
        numbers = [member.worker for member in [*server.members.values(), *server.ending.left_workers.values()]]
        if len(numbers) != len(set(numbers)):
            self.fail(f"two workers have one number: {sorted(numbers)}")
        if server.members.keys() & server.ending.left_workers.keys():
            self.fail("a member has left")

    def _check_leader(self, server: Server) -> None:
        """Check that at most one living process is the leader, named by this server or one before it."""
        leaders = [peer for peer in self._leaders() if peer not in self.forgotten_leaders] if server.over else []
        if len(leaders) > 1:
            self.fail(f"there are several leaders: {leaders}")

    def _leaders(self) -> list[bytes]:
        """Return the peers of the living processes that know themselves to be the leader."""
        alive = [process for process in self.cluster.processes if process.alive]
        return [process.peer for process in alive if process.worker.over is not None and process.worker.over.main]

    # At the end.

    def check_end(self) -> None:
        """Check that the run has ended for a reason that the scenario gives, after the right step, with all scores."""
        cluster, server = self.cluster, self.cluster.server
        if cluster.server_process.failure:
            self._check_failure()
            return
        if not cluster.leaders_ended and any(process.status == 0 for process in cluster.processes):
            self.fail("no leader has run to its end")
        if server is not None and server.over:  # Otherwise it died after the end, and nobody is left to join.
            self._check_steps(server)
            self._check_evaluations(server)

    def _check_failure(self) -> None:
        """Check that the run failed by a program that always fails at one shard, and that the failure names it.

        A launcher also fails the run if a worker ends with an error outside of its training, as one does to which the
        server has answered that its message is malformed.
        """
        failure, scenario = self.cluster.server_process.failure, self.cluster.scenario
        if self.cluster.injector.counts["corrupt"] and failure.endswith(("before its training", "after its training")):
            return
        if not any(bad_shard.times > 1 for bad_shard in scenario.bad_shards):
            self.fail(f"the run has failed: {failure}")
        (bad_shard,) = scenario.bad_shards
        place = f"step {bad_shard.step}, shard {bad_shard.shard}"
        if place not in failure and not (scenario.skip and "none of its shards is finite" in failure):
            self.fail(f"the failure does not name {place}: {failure}")

    def _check_steps(self, server: Server) -> None:
        """Check that training ended after its last step, or after the one at which the program stopped it."""
        scenario, steps = self.cluster.scenario, server.step
        expected = {scenario.steps}
        if scenario.leave_at is not None:  # The other workers complete the step, if there are any.
            expected = {scenario.leave_at[0], scenario.leave_at[0] + 1}
        elif scenario.stop_at is not None:
            expected = {scenario.stop_at[0] + 1}
        early = scenario.stop_at is not None or scenario.leave_at is not None
        if early and (self.cluster.injector.counts["server"] or self.max_staleness != 0):
            return  # The checkpoint may be older than the stop, and with staleness other workers may be further.
        if steps not in expected:
            self.fail(f"the run ended after {steps} steps, not {expected}")

    def _check_evaluations(self, server: Server) -> None:
        """Check that each epoch has one score, that of its own weights."""
        scenario = self.cluster.scenario
        if not scenario.evaluate or scenario.leave_at is not None:
            return
        steps, per_epoch = server.step, self.plan.steps_per_epoch
        reported = self.cluster.server_process.reports
        evaluations = [report for report in reported if isinstance(report, reports.Evaluation)]
        epochs = sorted(evaluation.epoch for evaluation in evaluations)
        if epochs != list(range(-(-steps // per_epoch))):
            self.fail(f"the epochs {epochs} were evaluated in {steps} steps of {per_epoch}")
        for evaluation in evaluations:
            epoch = evaluation.epoch
            version = self.evaluated[epoch]
            if self.max_staleness is not None and version != min(steps, (epoch + 1) * per_epoch):
                self.fail(f"epoch {epoch} was evaluated with the weights of version {version}")
            if evaluation.scores["loss"] != self.cluster.problem.score(self.reference.weights(version)):
                self.fail(f"the score of epoch {epoch} is not that of the weights of version {version}")


def is_never_finite(bad_shard: BadShard) -> bool:
    """Return whether the gradient or loss of a shard is never finite, whichever worker computes it."""
    return bad_shard.times == ALWAYS and bad_shard.kind != "raise"


def shards_arrived(step: Step) -> set[int]:
    """Return the shards of a step that have arrived, as the server's ledger has them."""
    missing = {shard for start, stop in step.missing(0, step.shards) for shard in range(start, stop)}
    return set(range(step.shards)) - missing


def same_bits(vector: Vector, expected: Vector) -> bool:
    """Return whether two vectors have the same bits."""
    return vector.tobytes() == expected.tobytes()
