"""The best epoch: the rule, and the machines that keep its weights and end with them."""

import json
import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Run
from machines import settings as settings_of
from test_server import kinds, reference

from karp.data import Plan
from karp.errors import SettingError
from karp.protocol import reports
from karp.protocol.best import MODES, TIES, Best, choose
from karp.protocol.messages import Evaluation, Finish, Leave, Ping, Score, Stop
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take
from karp.protocol.server.summary import summarise

NAN, INF = math.nan, math.inf
SCORES = st.sampled_from([0.0, -0.0, 0.5, 1.0, NAN, INF, -INF])
EPOCHS = 4  # of three steps each, with 8, 8 and 4 samples


def best_of(scores: dict[int, float], mode: str, ties: str) -> int | None:
    """The best of these epochs, found another way."""
    numbers = {epoch: score for epoch, score in scores.items() if score == score}
    if not numbers:
        return None
    wanted = sorted(numbers.values())[-1 if mode == "max" else 0]
    return sorted(epoch for epoch, score in numbers.items() if score == wanted)[-1 if ties == "last" else 0]


@given(scores=st.lists(SCORES, min_size=1, max_size=4), mode=st.sampled_from(MODES), ties=st.sampled_from(TIES))
def test_the_best_does_not_depend_on_the_order_in_which_scores_arrive(
    scores: list[float], mode: str, ties: str
) -> None:
    for order in permutations(range(len(scores))):
        best: Best | None = None
        for epoch in order:
            best = choose(best, Best(epoch, scores[epoch]), mode, ties)
        assert best_of(dict(enumerate(scores)), mode, ties) == (None if best is None else best.epoch)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keep_best": ""}, "keep_best must be None or the name of a score: a text of 1 to 200 characters"),
        ({"keep_best": 1}, "keep_best must be None or the name of a score"),
        ({"keep_best": "a\nb"}, "keep_best must be None or the name of a score"),
        ({"keep_best": "epoch"}, "not 'epoch', not 'epoch'"),
        ({"mode": "most"}, "mode must be 'max' or 'min', not 'most'"),
        ({"ties": None}, "ties must be 'last' or 'first', not None"),
        ({"keep_best": "a", "evaluate": False}, "keep_best is 'a', but the run has no scores: give trainer.batches"),
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        settings_of(**{"evaluate": True} | changes)


class Race:
    """A run that keeps the best of four epochs; its workers answer when and in the order that the test draws."""

    def __init__(self, workers: int, scores: list[float], **changes: Any) -> None:
        given_settings = {"epochs": EPOCHS, "evaluate": True, "keep_best": "a"} | changes
        self.run = Run(workers, **given_settings)
        self.scores = scores
        self.tasks: dict[int, Any] = {}
        self.finished: dict[int, Finish] = {}
        for worker in range(workers):
            self.note(self.run.join(worker))

    def note(self, answers: list[tuple[bytes, Any]]) -> None:
        for peer, message in answers:
            if isinstance(message, Finish):
                self.finished[int(peer)] = message
            elif getattr(message, "number", 0):
                self.tasks[int(peer)] = message

    def answer(self, worker: int) -> None:
        """This worker computes its task."""
        task = self.tasks.pop(worker)
        if isinstance(task, Evaluation):
            scores = {"b": 0.0, "a": self.scores[task.epoch]}
            self.note(self.run.send(b"%d" % worker, Score(task.epoch, scores, False)))
        else:
            self.note(self.run.contribute(worker, task))

    def to_the_end(self, draw: Any) -> None:
        while self.tasks:
            self.answer(draw(sorted(self.tasks)))

    def resumed(self, workers: int) -> "Race":
        """The same run, which another launch with so many workers goes on with."""
        other = Race(0, self.scores)
        other.run = Run(workers, epochs=EPOCHS, evaluate=True, keep_best="a")
        other.run.settings = self.run.settings
        other.run.server = Server(workers, Plan, 5.0)
        plain, vectors = take(self.run.server)
        restore(other.run.server, (json.loads(json.dumps(plain)), vectors))
        other.note(other.run.take(other.run.server.tick(5.0)))
        for worker in range(workers):
            other.note(other.run.join(worker))
        return other


def check_end(race: Race, mode: str, ties: str) -> None:
    """The run and all of its workers have ended with the weights of the best epoch, and the summary names it."""
    best = best_of(dict(enumerate(race.scores)), mode, ties)
    expected = reference(3 * (EPOCHS if best is None else best + 1)).tobytes()
    assert (True, 3 * EPOCHS) == (race.run.over, race.run.version)
    assert expected == race.run.weights.tobytes()
    for finish in race.finished.values():
        assert (best is None) or finish.weights is not None
        assert finish.weights is None or expected == finish.weights.tobytes()
    summary = summarise(race.run.server)
    assert (None if best is None else {"epoch": best, "a": race.scores[best]}) == summary.get("best")
    texts = [notice.text for notice in race.run.reported(reports.Notice)]
    assert [best is None] == [any("no epoch has a score 'a' that is a number" in text for text in texts)]


LISTS = st.lists(SCORES, min_size=EPOCHS, max_size=EPOCHS)


@given(data=st.data(), scores=LISTS, mode=st.sampled_from(MODES), ties=st.sampled_from(TIES), wait=st.booleans())
@settings(max_examples=60, deadline=None)
def test_all_end_with_the_weights_of_the_best_epoch(
    data: st.DataObject, scores: list[float], mode: str, ties: str, wait: bool
) -> None:
    workers = data.draw(st.integers(1, 3))
    race = Race(workers, scores, mode=mode, ties=ties, wait_for_score=wait)
    race.to_the_end(lambda tasks: data.draw(st.sampled_from(tasks)))
    assert set(range(workers)) >= set(race.finished)
    for worker in range(workers):
        race.note(race.run.send(b"%d" % worker, Ping(0)))  # which the others are told at, as if Finish were lost
    assert set(range(workers)) == set(race.finished)
    check_end(race, mode, ties)


@given(data=st.data(), scores=LISTS, mode=st.sampled_from(MODES), ties=st.sampled_from(TIES))
@settings(max_examples=60, deadline=None)
def test_a_run_that_is_resumed_with_other_workers_ends_with_the_same_weights(
    data: st.DataObject, scores: list[float], mode: str, ties: str
) -> None:
    race = Race(data.draw(st.integers(1, 3)), scores, mode=mode, ties=ties)
    for _ in range(data.draw(st.integers(0, 12))):
        if race.tasks:
            race.answer(data.draw(st.sampled_from(sorted(race.tasks))))
    for _ in range(2):  # the second time the run may have ended
        race = race.resumed(data.draw(st.integers(1, 3)))
        race.to_the_end(lambda tasks: data.draw(st.sampled_from(tasks)))
        check_end(race, mode, ties)


def test_a_worker_that_has_the_newest_weights_is_sent_those_of_the_best_epoch() -> None:
    race = Race(2, [1.0, 0.0, 0.0, 0.0])
    race.to_the_end(min)
    check_end(race, "max", "last")
    assert [0, 1] == sorted(race.finished)
    assert race.finished[0].weights is not None
    again = race.run.send(b"0", Ping(0))  # as if that were lost
    assert reference(3).tobytes() == again[0][1].weights.tobytes()


def test_a_server_that_dies_at_the_end_is_restored_with_the_weights_of_the_best_epoch() -> None:
    race = Race(1, [1.0, 0.0, 0.0, 0.0])
    race.to_the_end(min)
    server = Server(1, Plan, 5.0, incarnation=1)
    restore(server, take(race.run.server))
    assert (True, {"epoch": 0, "a": 1.0}) == (server.over, summarise(server)["best"])
    assert server.weights is not None
    assert reference(3).tobytes() == server.weights.tobytes()
    run = Run(1)
    run.server, run.settings = server, race.run.settings
    (finish,) = [message for _, message in run.join(0) if isinstance(message, Finish)]
    assert reference(3).tobytes() == finish.weights.tobytes()  # type: ignore[union-attr]


def test_scores_without_the_one_that_decides_are_refused_and_change_nothing() -> None:
    race = Race(1, [1.0] * EPOCHS)
    while not isinstance(race.tasks[0], Evaluation):
        race.answer(0)
    answers = race.run.send(b"0", Score(0, {"b": 1.0, "loss": 2.0}, False))
    assert ["0 Refusal"] == kinds(answers)
    assert "keep_best is 'a', but evaluate has returned 'b', 'loss'" in answers[0][1].reason
    assert [] == race.run.reported(reports.Evaluation)
    race.to_the_end(min)
    check_end(race, "max", "last")


def test_a_run_that_is_stopped_or_fails_keeps_the_weights_that_it_has() -> None:
    race = Race(1, [1.0] * EPOCHS)
    for _ in range(6):
        race.answer(0)
    steps = race.run.step
    assert steps > 3
    race.run.take(race.run.server.closing(1.0))
    assert (None, reference(steps).tobytes()) == (summarise(race.run.server).get("best"), race.run.weights.tobytes())
    race = Race(1, [1.0] * EPOCHS)
    for _ in range(6):
        race.answer(0)
    race.run.take(race.run.server.fail("no more", 1.0))
    assert (None, reference(steps).tobytes()) == (summarise(race.run.server).get("best"), race.run.weights.tobytes())


def test_when_every_worker_has_left_the_best_epoch_counts() -> None:
    race = Race(1, [0.5] * EPOCHS)
    for _ in range(6):
        race.answer(0)
    race.run.send(b"0", Stop())
    assert {"epoch": 0, "a": 0.5} == summarise(race.run.server)["best"]
    assert reference(3).tobytes() == race.run.weights.tobytes()
    race.run.send(b"0", Leave([]))


def test_a_checkpoint_whose_best_epoch_cannot_be_is_refused() -> None:
    race = Race(1, [1.0] * EPOCHS)
    for _ in range(5):
        race.answer(0)
    plain, vectors = take(race.run.server)
    assert [0, 1.0] == plain["best"]
    restore(Server(1, Plan, 0.0), (plain, vectors))
    due = {"evaluations": [[0, 3]]}, {"evaluation.0": vectors["best"]}
    for changes, of_vectors in [
        ({"best": None}, {}),
        ({"best": [EPOCHS, 1.0]}, {}),
        ({"best": [-1, 1.0]}, {}),
        ({"best": [0, NAN]}, {}),
        ({"best": [0]}, {}),
        ({"best": [0, "much"]}, {}),
        due,
        ({}, {"best": np.zeros(3, np.float32)}),
        ({}, {"best": vectors["best"].astype(np.float64)}),
        ({"settings": plain["settings"] | {"keep_best": None}}, {}),
    ]:
        with pytest.raises(SettingError, match="this is no checkpoint of a run"):
            restore(Server(1, Plan, 0.0), (plain | changes, vectors | of_vectors))
    without = {name: vector for name, vector in vectors.items() if name != "best"}
    with pytest.raises(SettingError, match="this is no checkpoint of a run"):
        restore(Server(1, Plan, 0.0), (plain, without))
