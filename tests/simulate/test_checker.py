"""The checker finds what is wrong: a run whose server or worker is patched with one fault raises Violation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from karp import optim
from karp.protocol import reports
from karp.protocol.messages import Finish
from karp.protocol.server.ending import Ending
from karp.protocol.server.leasing import Leasing
from karp.protocol.server.ledger import Arrived
from karp.protocol.server.machine import Server
from karp.protocol.server.training import Training
from karp.protocol.server.weights import Weights
from karp.protocol.tree import Node, TreeSum
from karp.protocol.worker import Worker
from karp.simulate import BadShard, Cluster, Fault, Kill, Scenario, Violation, draw_scenario, server_process

NO_FAULTS = Scenario(workers=3, shards=5, samples=24, batch_size=8, epochs=2, evaluate=True)
Patch = Callable[[pytest.MonkeyPatch], None]


def came_from_a_worker(node: Node) -> bool:
    return node.vector is not None and not node.vector.flags.writeable


def count_a_shard_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    add = TreeSum.add

    def twice(tree: TreeSum, node: Node) -> None:
        doubled = node.start == 0 and came_from_a_worker(node)
        add(tree, node._replace(vector=node.vector + node.vector) if doubled else node)

    monkeypatch.setattr(TreeSum, "add", twice)


def skip_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    add = TreeSum.add

    def without(tree: TreeSum, node: Node) -> None:
        add(tree, node._replace(vector=None) if node.start == 2 and came_from_a_worker(node) else node)

    monkeypatch.setattr(TreeSum, "add", without)


def sum_in_the_order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    sums: dict[TreeSum, list[Node]] = {}
    add = TreeSum.add

    def in_turn(tree: TreeSum, node: Node) -> None:
        arrived = came_from_a_worker(node)
        add(tree, node)
        if arrived:
            sums.setdefault(tree, []).append(node)
            if tree.complete:
                total = sums[tree][0].vector
                for other in sums[tree][1:]:
                    total = total + other.vector
                tree.nodes[0] = tree.nodes[0]._replace(vector=total)

    monkeypatch.setattr(TreeSum, "add", in_turn)


def apply_before_all_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Arrived.add

    def early(arrived: Arrived, start: int, stop: int) -> bool:
        added = add(arrived, start, stop)
        arrived.complete = arrived.complete or (added and 0 in arrived.starts)
        return added

    monkeypatch.setattr(Arrived, "add", early)


def forget_the_lease_of_a_lost_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leasing, "revoke", lambda leasing, member: setattr(member, "task", None))
    monkeypatch.setattr(Leasing, "lease_backups", lambda leasing, now: None)


def forget_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leasing, "mark_idle", lambda leasing, member: setattr(member, "task", None))


def apply_what_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weights, "finite", lambda *arguments: True)


def believe_that_a_worker_has_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    give = Leasing._give

    def without(leasing: Leasing, member: Any, task: Any, now: float) -> None:
        task.weights = task.weights if member.version < 0 else None
        give(leasing, member, task, now)

    monkeypatch.setattr(Leasing, "_give", without)
    monkeypatch.setattr(Worker, "_lacks_weights", lambda *arguments: False)


def report_a_score_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    score = Training.score

    def twice(training: Training, epoch: int, scores: dict[str, float], last: bool) -> None:
        score(training, epoch, scores, last)
        training.report(reports.Evaluation, epoch, scores)

    monkeypatch.setattr(Training, "score", twice)


def evaluate_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    conclude = Training.conclude

    def spoilt(training: Training, *arguments: Any) -> None:
        conclude(training, *arguments)
        for weights in training.weights.of_epochs.values():
            weights[0] += 1

    monkeypatch.setattr(Training, "conclude", spoilt)


def name_everybody_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Ending._send

    def named(ending: Ending, peer: bytes, message: Any) -> None:
        if isinstance(message, Finish):
            message.main = True
        send(ending, peer, message)

    monkeypatch.setattr(Ending, "_send", named)


def forget_who_is_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started again while the leader is at its code after the loop names another."""
    monkeypatch.setattr(Ending, "restore", lambda ending, main, peer: None)


def let_everybody_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ending, "handle", lambda ending, peer, message: ending.close())


def lose_the_optimisers_state(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = server_process.restore

    def afresh(server: Server, snapshot: Any) -> None:
        plain, vectors = snapshot
        zeros = {name: np.zeros_like(vector) if "state" in name else vector for name, vector in vectors.items()}
        restore(server, (plain, zeros))

    monkeypatch.setattr(server_process, "restore", afresh)


def take_what_is_too_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    use = Training.use

    def lax(training: Training, settings: Any) -> None:
        use(training, settings)
        assert training.ledger.max_staleness is not None
        training.ledger.max_staleness += 2

    monkeypatch.setattr(Training, "use", lax)


def give_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong in the books, only nobody is told."""
    monkeypatch.setattr(Leasing, "send_task_again", lambda leasing, member: None)
    monkeypatch.setattr(Leasing, "lease_backups", lambda leasing, now: None)


def send_weights_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("karp.simulate.network.read_only_copy", lambda vector: vector)


def keep_the_newest_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("karp.protocol.best.choose", lambda best, other, mode, ties: other)


def keep_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(weights: Weights) -> None:
        weights.vector[0] += 1

    monkeypatch.setattr(Weights, "use_best", spoilt)


def end_without_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only workers that have not the newest weights are sent any."""
    send = Ending._send_finish

    def without(ending: Ending, member: Any) -> None:
        training = ending.training
        best, training.best = training.best, None
        send(ending, member)
        training.best = best

    monkeypatch.setattr(Ending, "_send_finish", without)


def forget_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started again begins to compare anew."""
    restore = server_process.restore

    def afresh(server: Server, snapshot: Any) -> None:
        restore(server, snapshot)
        server.training.best = None

    monkeypatch.setattr(server_process, "restore", afresh)


MOMENTUM = optim.SGD(lr=0.05, momentum=0.9)
SAVING = replace(NO_FAULTS, optimizer=MOMENTUM, save_seconds=0.0, write_seconds=0.0)
BEST = replace(SAVING, epochs=5, keep_best="rank")
CASES: list[tuple[Patch, Scenario, str]] = [
    (count_a_shard_twice, NO_FAULTS, "the sum over .* is another|the weights of version 1 are others"),
    (skip_a_shard, NO_FAULTS, "is absent on one side|the weights of version 1 are others"),
    (sum_in_the_order_of_arrival, replace(NO_FAULTS, workers=5), "the weights of version 1 are others"),
    (apply_before_all_has_arrived, NO_FAULTS, "had not arrived|and nobody has sent them"),
    (forget_the_lease_of_a_lost_worker, replace(NO_FAULTS, kills=(Kill("lease"),)), "nobody is to compute the shards"),
    (forget_a_worker, NO_FAULTS, "is forgotten"),
    (
        apply_what_is_not_finite,
        replace(NO_FAULTS, bad_shards=(BadShard("nan", 1, 3),)),
        "nobody has sent|is another|had not arrived",
    ),
    (believe_that_a_worker_has_the_weights, NO_FAULTS, "with other weights"),
    (report_a_score_twice, NO_FAULTS, r"the epochs \[0, 0, 1, 1\] were evaluated"),
    (evaluate_other_weights, NO_FAULTS, "with other weights"),
    (name_everybody_leader, NO_FAULTS, "several leaders"),
    (forget_who_is_leader, replace(SAVING, faults=(Fault("server", 105),)), "several leaders"),
    (let_everybody_go, replace(NO_FAULTS, kills=(Kill("done"),)), "no leader has run to its end"),
    (lose_the_optimisers_state, replace(SAVING, faults=(Fault("server", 40),)), "weights of version .* are others"),
    (take_what_is_too_stale, replace(NO_FAULTS, staleness=1, slow_workers=((0, 20.0),)), "of staleness .* was taken"),
    (give_nothing_again, replace(NO_FAULTS, loss_rate=0.3), "the run has not ended"),
    (keep_the_newest_epoch, BEST, "the best epoch is .*, (not|and none)"),
    (keep_other_weights, BEST, "the weights of version .* are others"),
    (end_without_the_best_weights, BEST, "ends without the final weights"),
    (forget_the_best_epoch, replace(BEST, faults=(Fault("server", 220),)), "the best epoch is .*, not"),
    (send_weights_that_change, replace(NO_FAULTS, staleness=2, compute_spread=0.5, latency=0.05), "with other weights"),
]


@pytest.mark.parametrize(("patch", "scenario", "reason"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_fault_that_is_built_in_is_found(
    patch: Patch, scenario: Scenario, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cluster(scenario).run()  # Every invariant holds without the patch.
    patch(monkeypatch)
    with pytest.raises(Violation, match=reason):
        Cluster(scenario, limit=200.0).run()


def test_a_violation_names_the_command_that_repeats_it() -> None:
    with pytest.raises(Violation, match=r"has not ended after(.*\n)*.*to repeat: karp simulate --schedules 1 --seed 7"):
        Cluster(draw_scenario(7), limit=0.0).run()
