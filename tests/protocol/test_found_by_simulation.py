"""What the simulated cluster (karp/simulate) has found in the machines, as single cases."""

from typing import Any

import numpy as np
import pytest
from machines import Run, gradient, leases, read_only, settings, weights

from karp.data import Plan
from karp.errors import RefusedError
from karp.protocol import reports
from karp.protocol.messages import (
    Closed,
    Contribution,
    Done,
    Finish,
    Initial,
    Join,
    Lease,
    Leave,
    Ping,
    Refusal,
    Rejoin,
    Stop,
    Waiting,
    Welcome,
)
from karp.protocol.server.actions import Save, Send
from karp.protocol.server.machine import ALIVE_SECONDS, Server
from karp.protocol.server.snapshot import restore
from karp.protocol.server.states import WorkerState
from karp.protocol.tree import Node
from karp.protocol.worker import PING_SECONDS, Worker


def finished(workers: int) -> Run:
    """A run of three steps whose workers know that it is over, and have not left."""
    run = Run(workers, epochs=1, shards=workers)
    given: dict[int, Lease] = {}
    for worker in range(workers):
        given |= leases(run.join(worker))
    answers: list[tuple[bytes, Any]] = []
    while given:
        answers = [answer for worker, lease in given.items() for answer in run.contribute(worker, lease)]
        given = leases(answers)
    assert list(range(workers)) == [int(peer) for peer, message in answers if isinstance(message, Finish)]
    return run


def contributed(initial: bool) -> Worker:
    """A worker that has contributed to step 3, with weights that the server has sent it."""
    worker = Worker(weights(), 1)
    worker.request_join(settings(), "host", 1, 0.0)
    worker.receive(Welcome(1, 4, initial), 0, 0.0)
    worker.receive(Lease(1, 3, 0, 1, 3, gradient(3, 3)), 0, 0.0)
    worker.computed(gradient(3, 0), 0.0, 1)
    worker.contribution()
    return worker


def messages(answers: list[tuple[bytes, Any]]) -> list[Any]:
    return [message for _, message in answers]


def test_a_worker_whose_last_message_is_lost_is_let_go() -> None:
    """It asked for ever, and was told for ever that the run is over."""
    run = finished(2)
    run.send(b"0", Done())  # its Leave and that of worker 1 have not come
    again, closed = messages(run.send(b"1", Ping(3)))
    assert (Finish, Closed) == (type(again), type(closed))
    assert again.weights is not None  # nor, perhaps, what was sent to it


def test_a_worker_that_has_left_its_loop_and_does_not_know_the_end_is_told_again() -> None:
    """It repeated its Stop until it gave the server up, and with it the run."""
    run = finished(2)
    assert [Finish] == [type(message) for message in messages(run.send(b"1", Stop()))]


def test_a_worker_that_had_left_its_loop_before_the_server_was_restarted_is_told_the_end() -> None:
    """It held a lease of the last step, which others completed."""
    run = Run(2, epochs=1, shards=2)
    given = leases(run.join(0) + run.join(1))
    for _ in range(2):
        run.now += 1.0
        given = leases(run.contribute(0, given[0]) + run.contribute(1, given[1]))
    run.contribute(0, given[0])
    run.now += 100.0
    run.contribute(0, leases(run.take(run.server.tick(run.now)))[0])  # a backup lease
    assert (True, WorkerState.TRAINING) == (run.over, run.server.members[b"1"].state)
    assert [Finish] == [type(message) for message in messages(run.send(b"1", Stop()))]


@pytest.mark.parametrize("left", [True, False])
def test_a_main_worker_is_looked_for_until_it_is_done(left: bool) -> None:
    """Nobody noticed the death of one that no launcher had started."""
    run = finished(2)
    run.send(b"1", Leave([]))
    if left:
        run.send(b"0", Leave([]))
    assert (b"0", Waiting("")) in run.take(run.server.tick(ALIVE_SECONDS))
    answers = run.take(run.server.lost(b"0", 2.0))
    assert [(b"1", Finish(3, True, "", None, 3))] == answers
    run.send(b"1", Done())
    assert [] == run.take(run.server.tick(9.0))


@pytest.mark.parametrize("left", [True, False])
def test_a_join_that_comes_twice_does_not_replace_the_main_worker(left: bool) -> None:
    run = finished(1)
    if left:
        run.send(b"0", Leave([]))
    assert [Welcome(0, 1, False)] == messages(run.send(b"0", Join(0, run.settings, "host", 1)))
    assert (0, left) == (run.main, b"0" in run.server.ending.left_workers)


def restarted(run: Run) -> Run:
    """The same run with another server, from the checkpoint that was on the disk before its main worker was told."""
    other = Run(len(run.server.numbers), epochs=1, shards=len(run.server.numbers))
    other.server = Server(len(run.server.numbers), Plan, 5.0, incarnation=1)
    other.now = 5.0
    restore(other.server, run.saved[-1])
    return other


def test_the_checkpoint_that_names_the_main_worker_is_written_before_anybody_is_told() -> None:
    """A server that died between the two named another, and the code after the loop ran twice at once."""
    run = finished(2)
    plain, _ = run.saved[-1]
    assert (True, [0, b"0".hex()]) == (plain["finished"], plain["main"])
    kinds = [type(action).__name__ for action in run.actions]
    last = max(index for index, action in enumerate(run.actions) if action == Save(durable=True))
    assert last < kinds.index("Send", last)
    assert not any(isinstance(action, Send) and isinstance(action.message, Finish) for action in run.actions[:last])


def test_a_server_that_is_started_again_knows_the_main_worker_still() -> None:
    other = restarted(finished(2))
    assert [Rejoin()] == messages(other.send(b"1", Ping(3)))
    _, finish = messages(other.join(1))
    assert (False, 0) == (finish.main, other.main)
    assert [] == other.take(other.server.tick(6.0))  # a main worker elsewhere may not have come back yet
    other.take(other.server.receive(b"0", Leave([(-1, "score", 0.5)]), 0, 6.0))  # it speaks to the one before
    assert [(3, "score", 0.5)] == [(report.step, report.name, report.value) for report in other.reported(reports.Log)]
    assert (b"1", Closed()) not in other.send(b"1", Leave([]))
    assert (b"1", Closed()) in other.take(other.server.receive(b"0", Done(), 0, 7.0))


def test_a_main_worker_that_the_end_has_not_reached_joins_the_next_server_as_main() -> None:
    other = restarted(finished(2))
    welcome, finish = messages(other.join(0))
    assert (0, True, True) == (welcome.worker, finish.main, finish.weights is not None)


def test_a_run_that_ends_before_it_has_weights_is_not_saved() -> None:
    """Its server died of the attempt, and nothing said why the run had failed."""
    run = Run(2)
    run.send(b"0", Join(0, run.settings, "host", 1))
    run.take(run.server.fail("worker 1 ended", 1.0))
    run.take(run.server.lost(b"0", 1.0))
    assert (True, []) == (run.over, run.saved)


def test_a_main_worker_that_no_launcher_has_numbered_is_main_again() -> None:
    """It got another number, and everybody waited for the end of the one it had had."""
    other = restarted(finished(2))
    answers = other.send(b"0", Join(-1, other.settings, "host", 1))
    welcome, finish = messages(answers)
    assert (0, True) == (welcome.worker, finish.main)


def test_a_stranger_that_is_gone_is_no_main_worker() -> None:
    """Where none was named each of them cost a checkpoint, and the wait for it."""
    run = Run(1)
    run.join(0)
    run.take(run.server.fail("worker 0 ended", 1.0))
    run.take(run.server.lost(b"0", 1.0))
    before = len(run.saved)
    run.take(run.server.lost(b"stranger", 1.0))
    assert (True, -1, before) == (run.over, run.main, len(run.saved))
    over = finished(1)
    over.take(over.server.lost(b"0", 2.0))
    before = len(over.saved)
    over.take(over.server.lost(b"stranger", 2.0))
    assert (-1, before) == (over.main, len(over.saved))


@pytest.mark.parametrize("told", [True, False])
def test_a_main_worker_that_ended_while_no_server_was_there_is_replaced(told: bool) -> None:
    """By the launcher's word; without one, when its connection has not come back."""
    other = restarted(finished(2))
    other.join(1)
    gone = other.server.ended(0, False, 5.0) if told else other.server.lost(b"0", 16.0)
    assert [(b"1", True)] == [(peer, message.main) for peer, message in other.take(gone)]
    assert [(b"2", False)] == [(peer, message.main) for peer, message in other.join(2)[1:]]
    assert (b"0", Waiting("")) not in other.take(other.server.tick(16.0))


def test_the_workers_of_an_earlier_launch_are_gone() -> None:
    run = finished(2)
    other = Run(2, epochs=1, shards=2)
    other.server = Server(2, Plan, 5.0)
    restore(other.server, run.saved[-1])
    _, finish = messages(other.join(1))
    assert (True, 1) == (finish.main, other.main)


def test_another_that_is_named_main_before_it_has_left_gets_the_weights_with_it() -> None:
    """The message that brought them may have been lost."""
    run = finished(2)
    ((_, again),) = run.take(run.server.lost(b"0", 2.0))
    assert (3, True) == (again.version, again.main)
    assert again.weights is not None


def test_a_version_of_another_server_is_another() -> None:
    """With staleness each server's history has weights of its own; a worker ended with those of the one before."""
    worker = contributed(initial=False)
    worker.receive(Rejoin(), 1, 1.0)
    worker.receive(Welcome(1, 4, False), 1, 1.0)
    worker.receive(Finish(3, True, "", None), 1, 1.0)
    assert worker.over is None


def test_initial_weights_that_are_lost_are_asked_for_again() -> None:
    """The run waited for them for ever, and said that it waits for nobody."""
    run = Run(1)
    run.send(b"0", Join(0, run.settings, "host", 1))
    assert [Rejoin()] == messages(run.send(b"0", Ping(0)))
    assert [Welcome(0, 4, True)] == messages(run.send(b"0", Join(0, run.settings, "host", 1)))
    assert [0] == list(leases(run.send(b"0", Initial(read_only(weights())))))


def test_another_that_has_joined_already_is_asked_for_the_weights() -> None:
    run = Run(2)
    run.send(b"0", Join(0, run.settings, "host", 1))
    run.send(b"1", Join(1, run.settings, "host", 1))
    run.take(run.server.lost(b"0", 1.0))
    assert [Rejoin()] == messages(run.send(b"1", Ping(0)))
    assert [Welcome(1, 4, True)] == messages(run.send(b"1", Join(1, run.settings, "host", 1)))


def test_weights_that_come_twice_do_not_say_which_ones_a_worker_has() -> None:
    run = Run(2)
    run.send(b"0", Join(0, run.settings, "host", 1))
    run.send(b"0", Initial(read_only(weights())))
    run.send(b"1", Join(1, run.settings, "host", 1))
    run.send(b"0", Join(0, run.settings, "host", 1))  # it has joined again, perhaps with others
    run.send(b"0", Initial(read_only(weights() + 1)))
    assert -1 == run.server.members[b"1"].version or run.server.members[b"1"].task is not None
    lease = run.server.members[b"0"].task
    assert lease is None or lease.weights is not None


def test_a_lease_that_was_lost_and_is_not_needed_any_more_is_not_given_again() -> None:
    """It would come without weights, as those of its version are gone, and come again at every Ping."""
    run = Run(2, shards=2)
    first = leases(run.join(0) + run.join(1))
    run.now = 1.0
    run.contribute(0, first[0])
    run.now = 100.0
    run.take(run.server.tick(run.now))  # it gets a backup of worker 1's lease
    assert 1 == run.counts["leased_again"]
    nodes = [Node(1, 2, 0.0, read_only(gradient(0, 1)))]
    run.send(b"0", Contribution(0, 0, nodes, [], False))  # the step is whole without worker 1
    assert 1 == run.version
    run.contribute(0, run.server.members[b"0"].task)
    assert [] == run.send(b"1", Ping(0))
    next_of = leases(run.contribute(0, run.server.members[b"0"].task))
    assert (3, True) == (next_of[1].step, next_of[1].weights is not None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_second_copy_of_a_contribution_that_is_not_finite_is_no_second_time(bad: float) -> None:
    """The network doubled it, and the run ended for a program that had failed once."""
    run = Run(1, shards=1)
    first = leases(run.join(0))[0]
    vector = gradient(0, 0)
    vector[0] = bad
    contribution = Contribution(0, 0, [Node(0, 1, 0.5, read_only(vector))], [], False, first.number)
    again = leases(run.send(b"0", contribution))[0]
    assert (0, 1) == (again.start, again.stop)
    assert [] == run.send(b"0", contribution)
    assert ("", 1) == (run.failure, run.counts["dropped"])
    run.contribute(0, again)
    assert 1 == run.version


def test_a_second_copy_of_a_contribution_does_not_end_another_lease() -> None:
    run = Run(1, shards=1)
    first = leases(run.join(0))[0]
    nodes = [Node(0, 1, 0.5, read_only(gradient(0, 0)))]
    second = leases(run.send(b"0", Contribution(0, 0, nodes, [], False, first.number)))[0]
    assert [] == run.send(b"0", Contribution(0, 0, nodes, [], False, first.number))
    assert second.number == run.server.members[b"0"].task.number


def test_a_worker_that_was_refused_does_not_end_the_run_for_the_others() -> None:
    """It said that its program had failed outside of its loop, which no other worker can do better."""
    worker = Worker(weights(), 1)
    worker.request_join(settings(), "host", 1, 0.0)
    worker.receive(Welcome(1, 4, False), 0, 0.0)
    with pytest.raises(RefusedError):
        worker.receive(Refusal("a gradient of another shape"), 0, 0.0)
    assert Leave([]) == worker.failed("RefusedError", "Traceback …")


def test_signs_of_life_do_not_keep_a_worker_from_asking() -> None:
    """One came every second, just before the worker would have asked: what was lost was never found."""
    worker = Worker(weights(), 1)
    worker.request_join(settings(), "host", 1, 0.0)
    worker.receive(Welcome(1, 4, False), 0, 0.0)
    assert worker.receive(Waiting(""), 0, 0.5 * PING_SECONDS) is None
    assert Ping(0) == worker.receive(Waiting(""), 0, PING_SECONDS)
    assert worker.receive(Waiting(""), 0, 1.5 * PING_SECONDS) is None


def test_signs_of_life_that_have_waited_through_a_computation_are_no_reason_to_ask() -> None:
    worker = Worker(weights(), 1)
    worker.request_join(settings(), "host", 1, 0.0)
    worker.receive(Welcome(1, 4, False), 0, 0.0)
    worker.receive(Lease(1, 0, 0, 1, 0, weights()), 0, 0.0)
    worker.computed(gradient(0, 0), 0.0, 1)
    worker.contribution()
    assert worker.receive(Waiting(""), 0, 60.0) is None
    assert Ping(1) == worker.tick(60.0 + PING_SECONDS, "tcp://x")


def test_being_asked_for_the_weights_twice_does_not_say_that_they_are_the_first() -> None:
    worker = contributed(initial=True)
    worker.receive(Welcome(1, 4, True), 0, 1.0)
    assert worker.receive(Lease(1, 0, 0, 1, 0, None), 0, 1.0) is None
    assert worker.task is None
