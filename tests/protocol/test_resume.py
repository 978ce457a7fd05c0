"""A run that another launch goes on with: its program may have changed, what steers the bits may not."""

import json
from typing import Any

import pytest
from machines import Run, leases
from test_server import kinds, reference

from karp.data import Plan
from karp.protocol import reports
from karp.protocol.messages import Evaluation, Finish, Refusal, Score
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take
from karp.protocol.vectors import Snapshot


def resumed(run: Run, changed: bool = False) -> Run:
    """Another server that goes on with this run as another launch, from its state."""
    other = Run(1)
    other.server = Server(1, Plan, 5.0)
    other.server.joining.resume(0, changed)
    restore(other.server, json_round_trip(take(run.server)))
    other.take(other.server.tick(5.0))
    return other


def json_round_trip(snapshot: Snapshot) -> Snapshot:
    return json.loads(json.dumps(snapshot[0])), snapshot[1]


def begun(**changes: Any) -> Run:
    """A run at step 3, with one evaluation to be done if there are any."""
    run = Run(2, program_sha256="a" * 64, **changes)
    todo, answers = leases(run.join(0) + run.join(1)), list[tuple[bytes, Any]]()
    for _ in range(3):
        for worker, lease in sorted(todo.items()):
            answers = run.contribute(worker, lease)
        todo = leases(answers)
    assert 3 == run.step
    return run


def train_on(run: Run, worker: int, answers: list[tuple[bytes, Any]]) -> None:
    while leases(answers):
        answers = run.contribute(worker, leases(answers)[worker])


@pytest.mark.parametrize("changed", [False, True])
def test_a_program_that_has_changed_goes_on_only_if_the_run_is_told_so(changed: bool) -> None:
    run = resumed(begun(), changed=changed)
    answers = run.join(0, program_sha256="b" * 64)
    if not changed:
        assert ["0 Refusal"] == kinds(answers)
        assert "karp launch --resume DIR --changed" in answers[0][1].reason
        return
    assert f"from step 3 on it is {'b' * 12} (SHA-256), before {'a' * 12}" in run.reported(reports.Notice)[0].text
    assert "b" * 64 == run.reported(reports.Settings)[-1].settings["program_sha256"]
    train_on(run, 0, answers)
    assert reference(6).tobytes() == run.weights.tobytes()
    for snapshot in (run.saved[0], take(run.server)):
        assert [[0, "a" * 64], [3, "b" * 64]] == snapshot[0]["programs"]
    again = resumed(run)
    assert ["0 Refusal"] == kinds(again.join(0, program_sha256="a" * 64))
    assert "Refusal" not in " ".join(kinds(again.join(0, program_sha256="b" * 64)))


def test_all_workers_of_a_run_that_goes_on_bring_one_program() -> None:
    run = resumed(begun(), changed=True)
    run.join(0, program_sha256="a" * 64)  # it has not changed
    assert ["1 Refusal"] == kinds(run.join(1, program_sha256="b" * 64))
    run = resumed(begun(), changed=True)
    run.join(0, program_sha256="b" * 64)
    assert ["1 Refusal"] == kinds(run.join(1, program_sha256="a" * 64))


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 4), ("seed", 1), ("epochs", 3), ("data_sha256", "other"), ("weights_sha256", "c" * 64),
     ("shards", 2), ("threads", 2), ("samples", 16), ("wait_for_score", True)],
)  # fmt: skip
def test_nothing_that_steers_the_bits_changes_with_the_program(name: str, value: Any) -> None:
    run = resumed(begun(), changed=True)
    (answer,) = run.join(0, program_sha256="b" * 64, **{name: value})
    assert isinstance(answer[1], Refusal)
    assert name in answer[1].reason
    assert "Refusal" not in " ".join(kinds(run.join(0, program_sha256="b" * 64)))


def test_a_changed_program_goes_on_with_the_last_lines_of_a_run_that_is_over() -> None:
    run = Run(1, program_sha256="a" * 64)
    train_on(run, 0, run.join(0))
    other = resumed(run, changed=True)
    assert ["0 Welcome", "0 Finish"] == kinds(other.join(0, program_sha256="b" * 64))
    assert [[0, "a" * 64], [6, "b" * 64]] == take(other.server)[0]["programs"]
    assert (0, reference(6).tobytes()) == (other.main, other.weights.tobytes())


@pytest.mark.parametrize("evaluate", [False, True])
def test_a_changed_program_may_evaluate_or_no_more(evaluate: bool) -> None:
    run = resumed(begun(evaluate=not evaluate), changed=True)
    answers = run.join(0, program_sha256="b" * 64, evaluate=evaluate)
    while leases(answers):
        answers = run.contribute(0, leases(answers)[0])
        if evaluations := [message for _, message in answers if isinstance(message, Evaluation)]:
            answers = run.send(b"0", Score(evaluations[0].epoch, {"a": 1.0}, False))
    assert (True, reference(6).tobytes()) == (run.over, run.weights.tobytes())
    assert [1] * evaluate == [report.epoch for report in run.reported(reports.Evaluation)]


def test_shards_are_as_many_as_the_run_had_whoever_resumes_it() -> None:
    run = Run(3, shards=0)
    run.server.joining.resume(2, False)
    run.join(0)
    assert 2 == run.reported(reports.Settings)[0].settings["shards"]
    other = Run(3)
    other.server = Server(3, Plan, 5.0)
    restore(other.server, take(begun(shards=2).server))
    other.take(other.server.tick(5.0))
    assert "3 workers share 2 shards, so 1 of them will have nothing to do" in other.reported(reports.Notice)[0].text


def test_a_worker_that_joins_a_run_which_has_failed_is_not_named_in_a_checkpoint() -> None:
    run = begun()
    run.take(run.server.fail("given up", run.now))
    assert "given up" == next(message for _, message in run.join(2) if isinstance(message, Finish)).failure
    assert (-1, []) == (run.main, run.reported(reports.Main))
    resumed(run)  # which a checkpoint with a leader could not be before its last step
