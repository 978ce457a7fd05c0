"""The worker's machine, event by event."""

import numpy as np
import pytest
from machines import gradient, read_only, settings, weights

from karp import optim
from karp.errors import LostError, ProgramError, RefusedError, RunError
from karp.protocol.messages import (
    ERROR,
    MOST_LOGGED,
    TRACEBACK,
    Contribution,
    Evaluation,
    Failure,
    Finish,
    Initial,
    Join,
    Lease,
    Leave,
    Ping,
    Refusal,
    Rejoin,
    Score,
    Stop,
    Waiting,
    Welcome,
)
from karp.protocol.worker import LOST_SECONDS, PING_SECONDS, Worker


def joined() -> Worker:
    worker = Worker(weights(), 3)
    assert Join(3, settings(), "host", 1) == worker.request_join(settings(), "host", 1, 0.0)
    assert worker.receive(Welcome(3, 4, False), 0, 0.0) is None
    return worker


def test_the_weights_are_sent_when_they_are_asked_for() -> None:
    worker = Worker(weights())
    worker.request_join(settings(), "host", 1, 0.0)
    answer = worker.receive(Welcome(0, 4, True), 0, 0.0)
    assert isinstance(answer, Initial)
    assert answer.weights is worker.weights


def test_a_lease_of_several_shards_is_one_message_with_one_sum_per_node() -> None:
    worker = joined()
    new = read_only(gradient(9, 9))
    worker.receive(Lease(1, 5, 1, 4, 5, new), 0, 0.0)
    assert new.tobytes() == worker.current.tobytes()
    buffer = np.empty_like(new)  # backward writes every gradient into the same vector
    for shard in range(1, 4):
        assert shard == worker.shard
        buffer[:] = gradient(5, shard)
        worker.computed(buffer, 0.5, shards=8)
    message = worker.contribution()
    assert isinstance(message, Contribution)
    assert (5, 5, False) == (message.step, message.version, message.last)
    assert [(1, 2, 0.5), (2, 4, 1.0)] == [node[:3] for node in message.nodes]
    assert gradient(5, 1).tobytes() == message.nodes[0].vector.tobytes()
    assert (gradient(5, 2) + gradient(5, 3)).tobytes() == message.nodes[1].vector.tobytes()


def test_a_shard_cannot_be_computed_twice() -> None:
    worker = joined()
    with pytest.raises(ProgramError):
        worker.computed(gradient(0, 0), 0.0, 1)
    worker.receive(Lease(1, 0, 0, 1, 0, weights()), 0, 0.0)
    worker.computed(gradient(0, 0), 0.0, 1)
    with pytest.raises(ProgramError):
        worker.computed(gradient(0, 0), 0.0, 1)


def test_logs_and_stop_travel_with_the_next_message() -> None:
    worker = joined()
    worker.receive(Lease(1, 0, 0, 1, 0, weights()), 0, 0.0)
    worker.computed(gradient(0, 0), 0.0, 1)
    worker.log("norm", 2.0, 0)
    worker.last = True
    message = worker.contribution()
    assert isinstance(message, Contribution)
    assert ([(0, "norm", 2.0)], True) == (message.logs, message.last)
    assert [] == worker.logs


def test_an_evaluation_is_scored() -> None:
    worker = joined()
    worker.receive(Evaluation(1, 2, 30, read_only(gradient(1, 1))), 0, 0.0)
    assert gradient(1, 1).tobytes() == worker.current.tobytes()
    assert Score(2, {"a": 1.0}, False) == worker.scored({"a": 1.0})
    assert worker.task is None


def test_a_loop_left_early_sends_what_is_computed() -> None:
    worker = joined()
    worker.receive(Lease(1, 0, 0, 3, 0, weights()), 0, 0.0)
    worker.computed(gradient(0, 0), 0.0, 4)
    contribution, stop = worker.stop()
    assert isinstance(contribution, Contribution)
    assert [(0, 1)] == [node[:2] for node in contribution.nodes]
    assert contribution.last
    assert Stop() == stop


def test_the_end_brings_the_final_weights() -> None:
    worker = joined()
    worker.receive(Finish(7, True, "", read_only(gradient(7, 7))), 0, 0.0)
    assert gradient(7, 7).tobytes() == worker.weights.tobytes()
    assert worker.over is not None
    assert worker.over.main
    assert Leave([]) == worker.leave()


def test_read_only_weights_are_computed_on_where_they_lie() -> None:
    worker = joined()
    before, lent = worker.weights.copy(), read_only(gradient(9, 9))
    worker.receive(Lease(1, 5, 1, 2, 5, lent), 0, 0.0)
    assert worker.current is lent
    assert before.tobytes() == worker.weights.tobytes()
    worker.computed(gradient(5, 1), 0.5, 4)
    worker.contribution()
    arrived = gradient(1, 1)
    worker.receive(Evaluation(2, 0, 4, arrived), 0, 0.0)  # may be written to, so it is copied
    assert worker.current is worker.weights
    assert arrived.tobytes() == worker.weights.tobytes()


def test_a_worker_that_is_asked_for_the_initial_weights_again_computes_with_them() -> None:
    """Of a server that died before its first checkpoint it had the memory still, with weights of a later version."""
    worker = joined()
    lent = read_only(gradient(9, 9))
    worker.receive(Lease(1, 5, 1, 2, 5, lent), 0, 0.0)
    worker.contribution()
    assert worker.receive(Rejoin(), 0, 0.0) is worker.join
    answer = worker.receive(Welcome(3, 4, True), 1, 0.0)
    assert isinstance(answer, Initial)
    worker.receive(Lease(1, 0, 1, 2, 0, None), 1, 0.0)
    assert worker.current is worker.weights is answer.weights


def test_a_second_copy_of_a_welcome_does_not_give_the_initial_weights_a_later_version() -> None:
    worker = Worker(weights())
    worker.request_join(settings(), "host", 1, 0.0)
    worker.receive(Welcome(0, 4, True), 0, 0.0)
    worker.receive(Lease(1, 1, 0, 1, 1, read_only(gradient(9, 9))), 0, 0.0)
    worker.receive(Welcome(0, 4, True), 0, 0.0)
    worker.task = None
    worker.receive(Lease(2, 1, 1, 2, 1, None), 0, 0.0)
    assert worker.task is None  # it has not these weights
    assert (0, weights().tobytes()) == (worker.version, worker.current.tobytes())


def test_what_was_computed_on_weights_that_changed_is_worth_nothing() -> None:
    worker = joined()
    worker.receive(Lease(1, 5, 1, 3, 5, read_only(gradient(9, 9))), 0, 0.0)
    worker.last = True  # the program has stopped the run because of a loss it should not have seen
    worker.log("loss", 0.1, 1)
    worker.computed(gradient(5, 1), 0.5, 4)
    worker.computed(gradient(5, 2), 0.5, 4)
    worker.discard(last=False)
    answer = worker.contribution()
    assert isinstance(answer, Contribution)
    assert ([], [], False, 1) == (answer.nodes, answer.logs, answer.last, answer.lease)
    assert worker.task is None


def test_at_the_end_the_weights_are_the_workers_own() -> None:
    worker = joined()
    lent = read_only(gradient(9, 9))
    worker.receive(Lease(1, 5, 1, 2, 5, lent), 0, 0.0)
    worker.contribution()
    worker.receive(Finish(5, True, "", None), 0, 0.0)
    assert worker.current is worker.weights
    assert lent.tobytes() == worker.weights.tobytes()


def test_local_steps_are_made_on_weights_of_ones_own() -> None:
    worker = Worker(weights(), 3)
    worker.request_join(settings(local_steps=2, outer=optim.to_dict(optim.SGD(lr=1.0))), "host", 1, 0.0)
    worker.receive(Welcome(3, 4, False), 0, 0.0)
    lent = read_only(gradient(9, 9))
    worker.receive(Lease(1, 5, 1, 2, 5, lent), 0, 0.0)
    assert worker.current is worker.weights
    assert lent.tobytes() == worker.weights.tobytes()


def test_a_task_that_relies_on_weights_which_have_not_come_is_not_taken() -> None:
    """Its number is not seen, so that the next Ping brings it once more, with the weights."""
    worker = joined()
    worker.receive(Lease(1, 5, 0, 1, 5, read_only(gradient(5, 5))), 0, 0.0)
    worker.computed(gradient(5, 0), 0.0, 1)
    worker.contribution()
    assert worker.receive(Lease(3, 6, 0, 1, 6, None), 0, 0.0) is None
    assert (None, 1, 5) == (worker.task, worker.seen, worker.version)
    worker.receive(Finish(6, False, "", None), 0, 0.0)
    assert worker.over is None


def test_a_server_that_says_the_end_once_more_gets_the_last_message_once_more() -> None:
    worker = joined()
    worker.receive(Finish(7, False, "", read_only(gradient(7, 7))), 0, 0.0)
    worker.log("accuracy", 0.5, -1)
    last = worker.leave()
    assert last == worker.receive(Finish(6, True, "", read_only(gradient(6, 6))), 0, 0.0)
    assert gradient(7, 7).tobytes() == worker.weights.tobytes()
    assert worker.over is not None
    assert (7, True) == (worker.over.version, worker.over.main)


def test_a_worker_that_has_left_its_loop_gives_a_lease_back() -> None:
    """A server that was restarted from before the end gives it one."""
    worker = joined()
    worker.receive(Finish(7, False, "", read_only(gradient(7, 7))), 0, 0.0)
    assert Leave([]) == worker.receive(Lease(1, 5, 0, 1, 5, read_only(gradient(5, 5))), 0, 0.0)
    assert gradient(7, 7).tobytes() == worker.weights.tobytes()


def test_what_ends_badly_raises() -> None:
    with pytest.raises(RunError, match="worker 1 failed"):
        joined().receive(Finish(0, False, "worker 1 failed", None), 0, 0.0)
    with pytest.raises(RefusedError, match="batch_size"):
        joined().receive(Refusal("batch_size differs"), 0, 0.0)


def test_silence_is_asked_about_and_then_an_error_that_names_what_is_known() -> None:
    worker = joined()
    assert worker.tick(PING_SECONDS - 1, "tcp://x") is None
    assert Ping(0) == worker.tick(PING_SECONDS, "tcp://x")
    worker.receive(Waiting("waiting for worker 2"), 0, PING_SECONDS)
    assert Ping(0) == worker.tick(2 * PING_SECONDS, "tcp://x")
    with pytest.raises(LostError, match=r"tcp://x has not answered for 60 s \(last known: waiting for worker 2\)"):
        worker.tick(PING_SECONDS + LOST_SECONDS, "tcp://x")


def test_an_error_that_is_too_long_keeps_its_ends_and_is_text() -> None:
    worker = joined()
    worker.receive(Lease(1, 5, 1, 4, 5, read_only(gradient(9, 9))), 0, 0.0)
    message = worker.failed("ValueError: caf\udce9" + "x" * 1_000_000, "Traceback\n" + "x" * 1_000_000 + "\nend", True)
    assert isinstance(message, Failure)
    assert (5, 1, -1, True) == (message.step, message.shard, message.epoch, message.certain)
    assert message.error.startswith("ValueError: caf\\udce9xxx")
    assert (ERROR, TRACEBACK) == (len(message.error), len(message.traceback))
    assert (True, True) == (message.traceback.startswith("Traceback\nx"), message.traceback.endswith("x\nend"))


def test_more_numbers_than_travel_with_one_message_are_refused() -> None:
    worker = joined()
    for _ in range(MOST_LOGGED):
        worker.log("loss", 0.5, 0)
    with pytest.raises(ProgramError, match=r"more than 10,000 numbers were logged in one step: log fewer"):
        worker.log("loss", 0.5, 0)
