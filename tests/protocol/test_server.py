"""The server's machine, event by event."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import LAYOUT, Run, gradient, leases, read_only, weights

from karp import optim
from karp.data import Plan
from karp.protocol import reports
from karp.protocol.messages import (
    Contribution,
    Done,
    Evaluation,
    Failure,
    Finish,
    Initial,
    Join,
    Lease,
    Leave,
    Ping,
    Refusal,
    Score,
    Stop,
    Welcome,
)
from karp.protocol.server.joining import JOIN_SECONDS, NOTICE_SECONDS
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take
from karp.protocol.tree import Node, TreeSum


def kinds(answers: list[tuple[bytes, Any]]) -> list[str]:
    return [f"{peer.decode()} {type(message).__name__}" for peer, message in answers]


def reference(steps: int, shards: int = 4, samples: tuple[int, ...] = (8, 8, 4)) -> np.ndarray:
    """The weights after so many steps, computed without any server."""
    updater = optim.Updater(optim.SGD(lr=0.5), weights())
    for step in range(steps):
        tree = TreeSum(min(shards, samples[step % len(samples)]))
        for shard in range(tree.shards):
            tree.add(Node(shard, shard + 1, 0.0, gradient(step, shard)))
        updater.update(tree.nodes[0].vector)
    return updater.weights


def test_the_first_worker_is_asked_for_the_weights_and_the_run_waits_for_all() -> None:
    run = Run(2)
    assert ["0 Welcome"] == kinds(run.send(b"0", Join(0, run.settings, "host", 1)))
    assert [] == kinds(run.send(b"0", Initial(read_only(weights()))))
    answers = run.join(1)
    assert ["1 Welcome", "0 Lease", "1 Lease"] == kinds(answers)
    assert answers[0][1] == Welcome(1, 4, False)
    given_leases = leases(answers)
    assert (0, 2) == (given_leases[0].start, given_leases[0].stop)
    assert (2, 4) == (given_leases[1].start, given_leases[1].stop)
    assert given_leases[0].weights is None  # it sent them
    assert weights().tobytes() == given_leases[1].weights.tobytes()


def test_another_is_asked_if_the_first_is_gone_before_it_sent_the_weights() -> None:
    run = Run(2)
    run.send(b"0", Join(0, run.settings, "host", 1))
    run.take(run.server.lost(b"0", 0.0))
    assert Welcome(1, 4, True) == run.send(b"1", Join(1, run.settings, "host", 1))[0][1]


@given(st.integers(1, 6), st.integers(1, 7), st.randoms())
def test_any_number_of_workers_in_any_order_gives_the_same_bits(workers: int, shards: int, random: Any) -> None:
    run = Run(workers, shards=shards)
    open_leases: dict[int, Lease] = {}
    for worker in range(workers):
        open_leases |= leases(run.join(worker))
    finished: dict[int, Finish] = {}
    while open_leases:
        worker = random.choice(sorted(open_leases))
        answers = run.contribute(worker, open_leases.pop(worker))
        open_leases |= leases(answers)
        finished |= {int(peer): message for peer, message in answers if isinstance(message, Finish)}
    expected = reference(6, shards)
    assert expected.tobytes() == run.weights.tobytes()
    assert set(range(workers)) == set(finished)
    assert [True] + [False] * (workers - 1) == [finished[worker].main for worker in range(workers)]
    assert 6 == run.version


def test_a_worker_gets_new_weights_with_its_next_lease_and_only_then() -> None:
    run = Run(1, shards=2)
    lease = leases(run.join(0))[0]
    after = leases(run.contribute(0, lease))[0]
    assert (1, 1) == (after.step, after.version)
    assert reference(1, 2).tobytes() == after.weights.tobytes()


def test_a_contribution_counts_once() -> None:
    run = Run(2)
    first = leases(run.join(0) + run.join(1))
    run.contribute(0, first[0])
    before = run.server.sums(0)[0].vector.tobytes()
    run.contribute(0, first[0])
    assert 2 == run.counts["dropped"]
    assert before == run.server.sums(0)[0].vector.tobytes()
    run.contribute(1, first[1])
    assert 1 == run.version
    run.contribute(1, first[1])  # late: its step has been applied
    assert 4 == run.counts["dropped"]
    assert reference(1).tobytes() == run.weights.tobytes()


def test_what_is_not_contributed_of_a_lease_is_leased_again() -> None:
    run = Run(2)
    first = leases(run.join(0) + run.join(1))
    run.contribute(0, first[0])
    lease = first[1]
    answers = run.send(
        b"1", Contribution(0, 0, [Node(3, 4, 0.0, read_only(gradient(0, 3)))], [], False)
    )
    again = leases(answers)
    assert [(2, 3)] == [(lease.start, lease.stop) for lease in again.values()]
    worker, lease = again.popitem()
    run.contribute(worker, lease)
    assert reference(1).tobytes() == run.weights.tobytes()


def wrong(**changes: Any) -> Contribution:
    node = Node(0, 1, 0.0, read_only(gradient(0, 0)))
    fields = {"step": 0, "version": 0, "nodes": [node], "logs": [], "last": False} | changes
    return Contribution(**fields)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (wrong(version=1), "a gradient of weights 1, not 0"),
        (wrong(nodes=[Node(0, 1, 0.0, np.zeros(3, np.float32))]), r"\(3,\) float32, but the model has \(32,\) float32"),
        (wrong(nodes=[Node(0, 1, 0.0, np.zeros(32))]), "float64, but the model has"),
        (wrong(nodes=[Node(1, 3, 0.0, read_only(gradient(0, 0)))]), "no node of the tree over 4 shards"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(message: Any, reason: str) -> None:
    run = Run(1)
    lease = leases(run.join(0))[0]
    answers = run.send(b"0", message)
    refusals = [message.reason for _, message in answers if isinstance(message, Refusal)]
    assert 1 == len(refusals) == run.counts["refused"] == len(run.reported(reports.Refused))
    import re

    assert re.search(reason, refusals[0])
    assert weights().tobytes() == run.weights.tobytes()
    assert [] == run.server.sums(0)
    run.contribute(0, lease)
    assert reference(1).tobytes() == run.weights.tobytes()


def test_a_stranger_is_told_to_join_and_nonsense_is_refused() -> None:
    run = Run(1)
    assert ["9 Rejoin"] == kinds(run.send(b"9", Ping(0)))
    assert 0 == run.counts["refused"]
    assert ["9 Refusal"] == kinds(run.take(run.server.malformed(b"9", "not msgpack", 1.0)))
    assert 1 == run.counts["refused"]


def test_a_program_whose_settings_differ_is_refused_with_both_values() -> None:
    run = Run(2)
    run.join(0)
    ((_, refusal),) = run.join(1, batch_size=16, optimizer=optim.to_dict(optim.SGD(lr=0.25)))
    assert "batch_size is 16 in the program, 8 in the run" in refusal.reason
    assert "optimizer.lr is 0.25 in the program, 0.5 in the run" in refusal.reason
    assert [0] == [member.worker for member in run.server.members.values()]


def test_initial_weights_that_are_not_those_of_the_settings_are_refused() -> None:
    run = Run(1)
    run.send(b"0", Join(0, run.settings, "host", 1))
    assert ["0 Refusal"] == kinds(run.send(b"0", Initial(read_only(weights() + np.float32(1)))))
    assert not run.server.ready


def poisoned(step: int, shard: int, bad: float, version: int = 0) -> Contribution:
    vector = gradient(step, shard)
    vector[0] = bad
    return Contribution(step, version, [Node(shard, shard + 1, 0.5, read_only(vector))], [], False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_tried_once_more_elsewhere_and_then_ends_the_run(bad: float) -> None:
    run = Run(2)
    todo = leases(run.join(0) + run.join(1))
    answers = run.send(b"1", poisoned(0, 3, bad))
    assert {1: (2, 3)} == {worker: (lease.start, lease.stop) for worker, lease in leases(answers).items()}
    assert "step 0, shard 3 from worker 1 is not finite" in run.reported(reports.Notice)[-1].text
    again = leases(run.contribute(0, todo[0]))
    assert {0: (3, 4)} == {worker: (lease.start, lease.stop) for worker, lease in again.items()}
    answers = run.send(b"0", poisoned(0, 3, bad))
    assert ["0 Finish", "1 Finish"] == kinds(answers)
    assert "the gradient of step 0, shard 3 from worker 0 is not finite" in run.failure
    assert run.failure == run.reported(reports.Failure)[0].failure == answers[0][1].failure
    assert weights().tobytes() == run.weights.tobytes()


def test_the_shard_of_a_lease_that_is_not_finite_is_found_by_itself() -> None:
    run = Run(1)
    run.join(0)
    vector = gradient(0, 0)
    vector[0] = np.nan
    answers = run.send(b"0", Contribution(0, 0, [Node(0, 4, 0.5, read_only(vector))], [], False))
    for shard in range(4):
        lease = leases(answers)[0]
        assert (shard, shard + 1) == (lease.start, lease.stop)
        answers = run.send(b"0", poisoned(0, 2, np.nan)) if shard == 2 else run.contribute(0, lease)
        if shard == 2:
            break
    assert "step 0, shard 2 from worker 0 is not finite" in run.failure


def test_a_shard_may_be_left_out_and_the_others_count_for_it() -> None:
    run = Run(1, shards=4, skip=True)
    answers = run.join(0)
    vector = gradient(0, 0)
    vector[0] = np.nan
    answers = run.send(b"0", Contribution(0, 0, [Node(0, 4, 0.5, read_only(vector))], [], False))
    for shard in range(4):
        lease = leases(answers)[0]
        answers = run.send(b"0", poisoned(0, 2, np.nan)) if shard == 2 else run.contribute(0, lease)
    assert 1 == run.version
    expected = optim.Updater(optim.SGD(lr=0.5), weights())
    kept = (gradient(0, 0) + gradient(0, 1)) + gradient(0, 3)
    expected.update(kept * np.float32(8 / 6))
    assert expected.weights.tobytes() == run.weights.tobytes()
    assert "the shard is left out" in run.reported(reports.Notice)[-1].text


def test_a_sum_that_overflows_ends_the_run_and_leaves_the_weights() -> None:
    run = Run(1, shards=2)
    run.join(0)
    huge = np.full(LAYOUT.size, 3e38, np.float32)
    nodes = [Node(0, 1, 0.0, read_only(huge)), Node(1, 2, 0.0, read_only(huge))]
    with np.errstate(over="ignore"):
        run.send(b"0", Contribution(0, 0, nodes, [], False))
    assert "the gradient of step 0 is not finite, though that of each of its shards is" == run.failure
    assert weights().tobytes() == run.weights.tobytes()


def test_each_epoch_is_evaluated_once_with_its_own_weights() -> None:
    run = Run(2, evaluate=True, shards=1)
    todo = leases(run.join(0) + run.join(1))
    evaluated: dict[int, bytes] = {}
    while not run.over:
        answers = []
        for worker, lease in todo.items():
            answers += run.contribute(worker, lease)
        todo = leases(answers)
        for peer, message in answers:
            if isinstance(message, Evaluation):
                assert message.epoch not in evaluated
                evaluated[message.epoch] = message.weights.tobytes() if message.weights is not None else b""
                todo |= leases(run.send(peer, Score(message.epoch, {"accuracy": 0.5 + message.epoch}, False)))
    assert reference(3, 1).tobytes() == evaluated[0]
    assert reference(6, 1).tobytes() == evaluated[1]
    assert [(3, 0), (6, 1)] == [(report.step, report.epoch) for report in run.reported(reports.Evaluation)]
    assert {"accuracy": 1.5} == run.totals["metrics"]


def test_training_goes_on_during_an_evaluation_unless_the_score_steers() -> None:
    for wait_for_score in (False, True):
        run = Run(2, evaluate=True, wait_for_score=wait_for_score, shards=1)
        todo = leases(run.join(0) + run.join(1))
        for _ in range(3):
            ((worker, lease),) = todo.items()
            answers = run.contribute(worker, lease)
            todo = leases(answers)
        assert 1 == sum(isinstance(message, Evaluation) for _, message in answers)
        assert (0 if wait_for_score else 1) == len(todo)
        (peer,) = [peer for peer, message in answers if isinstance(message, Evaluation)]
        answers = run.send(peer, Score(0, {}, True))
        assert wait_for_score == (["0 Finish", "1 Finish"] == kinds(answers))
        for worker, lease in todo.items():  # the step that was under way is the last, and is evaluated
            ((peer, evaluation),) = run.contribute(worker, lease)
            run.send(peer, Score(evaluation.epoch, {}, False))
        assert (True, 3 if wait_for_score else 4) == (run.over, run.step)


def test_the_clock_is_looked_at_often_only_while_a_lease_may_soon_be_given_again() -> None:
    run = Run(3, evaluate=True, wait_for_score=True, shards=2)
    todo = leases(run.join(0) + run.join(1) + run.join(2))
    assert run.server.restless  # worker 2 has nothing to do and could take over
    for _ in range(3):
        todo = leases([answer for worker, lease in todo.items() for answer in run.contribute(worker, lease)])
    assert (2, {}) == (len(run.server.waiting), todo)
    assert not run.server.restless  # they wait for the score
    run = Run(3, shards=2)
    for worker in range(3):
        run.join(worker)
    run.server.members[b"0"].backed_up = run.server.members[b"1"].backed_up = True
    assert not run.server.restless  # that has been done


def test_stop_ends_the_run_after_the_current_step() -> None:
    run = Run(2)
    todo = leases(run.join(0) + run.join(1))
    run.contribute(0, todo[0], last=True)
    assert ["0 Finish", "1 Finish"] == kinds(run.contribute(1, todo[1]))
    assert 1 == run.version
    assert reference(1).tobytes() == run.weights.tobytes()


def test_a_loop_left_early_leaves_its_shards_to_the_others() -> None:
    run = Run(2)
    todo = leases(run.join(0) + run.join(1))
    run.contribute(0, todo[0])
    answers = run.send(b"1", Stop())
    again = leases(answers)
    assert {0: (2, 4)} == {worker: (lease.start, lease.stop) for worker, lease in again.items()}
    assert ["0 Finish", "1 Finish"] == kinds(run.contribute(0, again[0]))
    assert reference(1).tobytes() == run.weights.tobytes()


def test_a_step_that_every_worker_left_is_not_applied_and_that_is_said() -> None:
    run = Run(1)
    run.join(0)
    assert ["0 Finish"] == kinds(run.send(b"0", Stop()))
    assert "step 0 was left before its end by every worker: it is not applied" == run.reported(reports.Notice)[0].text
    assert weights().tobytes() == run.weights.tobytes()


def raised(step: int, shard: int) -> Failure:
    return Failure(step, shard, -1, "ValueError: x", "Traceback …\nValueError: x")


def test_a_program_that_raises_twice_at_one_shard_ends_the_run_with_its_traceback() -> None:
    run = Run(3)
    todo = {}
    for worker in range(3):
        todo |= leases(run.join(worker))
    assert [] == run.send(b"1", raised(0, todo[1].start))
    assert 2 == len(run.server.members)
    again = leases(run.contribute(0, todo[0]))[0]
    assert (todo[1].start, todo[1].stop) == (again.start, again.stop)
    answers = run.send(b"0", raised(0, again.start))
    assert ["2 Finish"] == kinds(answers)
    assert f"worker 0 failed at step 0, shard {again.start}: ValueError: x" == answers[0][1].failure
    assert 2 == len(run.reported(reports.Traceback))


def test_the_main_worker_that_joins_once_more_before_it_has_been_told_stays_the_main_worker() -> None:
    """As one does whose lease was overwritten in shared memory, since another has computed the last step for it."""
    run = Run(2, samples=8, epochs=1)
    todo = leases(run.join(0) + run.join(1))
    run.contribute(1, todo[1])
    run.contribute(1, todo[0])
    assert (True, 0) == (run.over, run.main)
    answers = run.join(0)
    assert ["0 Welcome", "0 Finish"] == kinds(answers)
    assert (0, True) == (run.main, answers[-1][1].main)
    assert [0] == [report.worker for report in run.reports if isinstance(report, reports.Main)]


def test_a_worker_that_nobody_has_numbered_keeps_its_number_when_it_joins_once_more() -> None:
    run = Run(1)
    run.join(0)
    message = Join(-1, run.settings, "host", 1)
    for _ in range(2):
        run.send(b"by hand", message)
        assert {0: b"0", 1: b"by hand"} == run.server.numbers
    assert 1 == run.server.members[b"by hand"].worker


def test_an_error_that_every_worker_has_at_a_step_is_said_once() -> None:
    run = Run(4)
    todo = {}
    for worker in range(4):
        todo |= leases(run.join(worker))
    for worker in range(3):
        run.send(b"%d" % worker, raised(0, todo[worker].start))
    assert [f"worker 0 failed at step 0, shard {todo[0].start} (ValueError: x); another worker tries it"] == [
        notice.text for notice in run.reported(reports.Notice)
    ]
    assert [False, True, True] == [report.repeated for report in run.reported(reports.Traceback)]
    run.send(b"3", replace(raised(0, todo[3].start), error="TypeError: another"))
    assert 2 == len(run.reported(reports.Notice))


def test_who_fails_when_the_run_has_failed_is_no_stranger() -> None:
    run = Run(2)
    todo = leases(run.join(0) + run.join(1))
    run.send(b"1", replace(raised(0, todo[1].start), certain=True))
    run.take(run.server.lost(b"0", 1.0))
    assert [] == run.send(b"0", raised(0, todo[0].start))
    assert 0 == run.counts["refused"]


def test_a_program_that_breaks_a_rule_ends_the_run_at_once() -> None:
    run = Run(2)
    todo = leases(run.join(0) + run.join(1))
    answers = run.send(b"1", replace(raised(0, todo[1].start), certain=True))
    assert ["0 Finish"] == kinds(answers)
    assert f"worker 1 failed at step 0, shard {todo[1].start}: ValueError: x" == answers[0][1].failure


def test_a_program_that_raises_once_costs_nothing() -> None:
    run = Run(2)
    todo = leases(run.join(0) + run.join(1))
    run.send(b"1", raised(0, todo[1].start))
    again = leases(run.contribute(0, todo[0]))
    run.contribute(0, again[0])
    assert reference(1).tobytes() == run.weights.tobytes()
    assert "" == run.failure


def test_the_work_of_a_lost_worker_goes_to_others() -> None:
    run = Run(2)
    todo = leases(run.join(0) + run.join(1))
    run.contribute(0, todo[0])
    again = leases(run.take(run.server.lost(b"1", 1.0)))
    assert {0: (2, 4)} == {worker: (lease.start, lease.stop) for worker, lease in again.items()}
    run.contribute(0, again[0])
    assert reference(1).tobytes() == run.weights.tobytes()
    assert 2 == run.counts["leased_again"]
    late = run.contribute(1, todo[1])  # it was only out of reach
    assert ["1 Rejoin"] == kinds(late)


def test_a_worker_may_join_in_the_middle_of_a_step() -> None:
    run = Run(1, shards=4)
    first = leases(run.join(0))[0]
    run.server.open_steps[0].lease_again(2, 4)
    second = leases(run.join(1))[1]
    assert (2, 4) == (second.start, second.stop)
    run.contribute(1, second)
    run.send(b"0", Contribution(0, 0, [Node(0, 2, 0.5, read_only(gradient(0, 0) + gradient(0, 1)))], [], False))
    assert first.step < run.version == 1
    assert reference(1).tobytes() == run.weights.tobytes()


def test_the_run_waits_when_everybody_is_gone_and_goes_on_when_somebody_joins() -> None:
    run = Run(1)
    run.join(0)
    run.take(run.server.lost(b"0", 1.0))
    run.take(run.server.tick(20.0))
    assert "no worker is here to compute step 0" in run.reported(reports.Notice)[-1].text
    run.now = 21.0
    lease = leases(run.join(0))[0]
    run.contribute(0, lease)
    assert reference(1).tobytes() == run.weights.tobytes()


def test_a_lease_that_takes_too_long_is_given_again_and_the_first_copy_counts() -> None:
    run = Run(2)
    todo = leases(run.join(0) + run.join(1))
    run.now = 1.0
    run.contribute(0, todo[0])
    assert {} == leases(run.take(run.server.tick(1.5)))
    again = leases(run.take(run.server.tick(2.1)))
    assert {0: (2, 4)} == {worker: (lease.start, lease.stop) for worker, lease in again.items()}
    run.now = 3.0
    after = leases(run.contribute(0, again[0]))
    assert reference(1).tobytes() == run.weights.tobytes()
    assert {0: (0, 4)} == {worker: (lease.start, lease.stop) for worker, lease in after.items()}
    run.now = 10.0
    assert [] == run.contribute(1, todo[1])  # late: dropped, and it is known to be slow
    assert 2 == run.counts["dropped"]
    assert run.server.members[b"1"].slow_until > 10.0


def test_a_lost_task_or_answer_is_found_by_a_ping() -> None:
    run = Run(1, shards=1)
    lease = leases(run.join(0))[0]
    ((_, again),) = run.send(b"0", Ping(lease.number - 1))  # the lease was lost: the same comes again
    assert (lease.number, 0, 1) == (again.number, again.start, again.stop)
    assert again.weights is not None
    ((_, fresh),) = run.send(b"0", Ping(lease.number))  # the contribution was lost: it is computed again
    assert (lease.number + 1, 0, 1) == (fresh.number, fresh.start, fresh.stop)
    run.contribute(0, fresh)
    assert reference(1, 1).tobytes() == run.weights.tobytes()


def test_messages_to_an_older_server_are_answered_with_rejoin() -> None:
    run = Run(1)
    run.server.incarnation = 1
    run.join(0)
    answers = run.take(run.server.receive(b"0", Ping(0), 0, 1.0))
    assert ["0 Rejoin"] == kinds(answers)


def test_a_restored_server_goes_on_with_the_same_bits() -> None:
    run = Run(2, evaluate=True)
    todo = leases(run.join(0) + run.join(1))
    answers = []
    for _ in range(3):
        for worker, lease in sorted(todo.items()):
            answers = run.contribute(worker, lease)
        todo = leases(answers)
    snapshot = take(run.server)
    other = Run(2, evaluate=True)
    other.server = Server(2, Plan, 5.0, incarnation=1)
    restore(other.server, snapshot)
    answers = other.join(7)
    ((_, _), (_, evaluation)) = answers
    assert isinstance(evaluation, Evaluation)  # due at the checkpoint, with the weights of that epoch's end
    assert reference(3).tobytes() == evaluation.weights.tobytes()
    answers = other.send(b"7", Score(0, {"a": 1.0}, False))
    while leases(answers):
        answers = other.contribute(7, leases(answers)[7])
    assert reference(6).tobytes() == other.weights.tobytes()
    assert 40 == other.totals["samples"]


def test_the_main_worker_is_replaced_if_it_dies_before_it_is_done() -> None:
    run = Run(3, shards=3)
    todo = {}
    for worker in range(3):
        todo |= leases(run.join(worker))
    run.send(b"0", Stop())
    run.send(b"1", Stop())
    run.send(b"2", Stop())
    assert 0 == run.main
    for worker in range(3):
        run.send(b"%d" % worker, Leave([]))
    assert ["1 Waiting"] == kinds(run.send(b"1", Ping(1)))
    assert [(b"1", Finish(0, True, "", None))] == run.take(run.server.ended(0, False, 1.0))
    assert ["1 Closed", "2 Closed"] == kinds(run.send(b"1", Done()))
    assert ["2 Closed"] == kinds(run.send(b"2", Ping(1)))


def test_the_run_does_not_wait_for_a_worker_that_ended_before_it_joined() -> None:
    run = Run(2)
    run.join(0)
    assert {0: (0, 4)} == {
        worker: (lease.start, lease.stop) for worker, lease in leases(run.take(run.server.ended(1, True, 1.0))).items()
    }


def test_a_wait_is_never_silent() -> None:
    run = Run(2)
    run.join(0)
    run.take(run.server.tick(NOTICE_SECONDS))
    assert (
        "1 of 2 workers have joined; missing: worker 1; the run begins without in 50 s"
        == run.reported(reports.Notice)[-1].text
    )
    run.now = JOIN_SECONDS
    lease = leases(run.take(run.server.tick(JOIN_SECONDS)))[0]
    assert (0, 4) == (lease.start, lease.stop)
    run.take(run.server.tick(JOIN_SECONDS + NOTICE_SECONDS))
    text = run.reported(reports.Notice)[-1].text
    assert text.startswith("waiting for worker 0 (step 0, shards 0 to 3, since 10.0 s)")
    run.take(run.server.tick(JOIN_SECONDS + NOTICE_SECONDS + 1))
    assert text == run.reported(reports.Notice)[-1].text  # the next one comes later
    assert "worker 0 (step 0, shards 0 to 3" in run.server.describe_wait()


def test_logs_stand_in_the_record_with_their_step_and_shard() -> None:
    run = Run(1, shards=1)
    lease = leases(run.join(0))[0]
    node = Node(0, 1, 0.5, read_only(gradient(0, 0)))
    run.send(b"0", Contribution(0, lease.version, [node], [(0, "norm", 2.0)], True))
    assert [reports.Log(0.0, 0, "norm", 2.0, shard=0)] == run.reported(reports.Log)
    run.send(b"0", Leave([(-1, "test_accuracy", 0.75)]))
    assert {"norm": 2.0, "test_accuracy": 0.75} == run.totals["metrics"]


def test_more_workers_than_shards_is_said() -> None:
    run = Run(3, shards=2)
    run.join(0)
    assert "3 workers share 2 shards, so 1 of them will have nothing to do" in run.reported(reports.Notice)[0].text


def test_a_worker_number_that_is_taken_gives_another() -> None:
    run = Run(2)
    run.join(0)
    ((_, welcome), *_) = run.send(b"x", Join(0, run.settings, "host", 1))
    assert Welcome(2, 4, False) == welcome
