"""Contributions carry the sums of their samples' weights: what the server counts by them, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from machines import Run, gradient, read_only, weights

from karp import optim
from karp.data import Plan
from karp.protocol import reports
from karp.protocol.messages import Contribution, Lease, Refusal
from karp.protocol.tree import Node, TreeSum

OF = [2.0, 1.0, 0.5, 4.5]  # the weights of a step's shards
TOTAL = sum(OF)


def first(answers: list[tuple[bytes, Any]]) -> Lease:
    return next(message for _, message in answers if isinstance(message, Lease))


def contribution(
    lease: Lease, sums: list[float] | None = None, spoilt: frozenset[int] = frozenset(), loss: float = 0.25
) -> Contribution:
    """A contribution of every shard by itself, some of them not finite."""
    nodes = []
    for shard in range(lease.start, lease.stop):
        vector = gradient(lease.step, shard) * np.float32(np.nan if shard in spoilt else 1)
        nodes.append(Node(shard, shard + 1, loss * OF[shard] / TOTAL, read_only(vector)))
    known = [TOTAL, *OF[lease.start : lease.stop]] if sums is None else sums
    return Contribution(lease.step, lease.version, nodes, [], False, lease.number, sample_weights=known)


@pytest.mark.parametrize("sums", [[], [TOTAL], [TOTAL, *OF[:3]], [TOTAL, *OF, 1.0]], ids=len)
def test_there_is_one_sum_for_the_step_and_one_for_each_node(sums: list[float]) -> None:
    run = Run(1, weighted=True)
    ((_, answer),) = run.send(b"0", contribution(first(run.join(0)), sums))
    assert isinstance(answer, Refusal)
    assert f"step 0: {len(sums)} sums of sample weights, not 5" in answer.reason
    assert (0, weights().tobytes()) == (run.version, run.weights.tobytes())


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_a_sum_is_a_finite_number_above_0(bad: float, place: int) -> None:
    sums = [TOTAL, *OF]
    sums[place] = bad
    run = Run(1, weighted=True)
    ((_, answer),) = run.send(b"0", contribution(first(run.join(0)), sums))
    assert isinstance(answer, Refusal)
    assert "step 0: the sums of sample weights are [" in answer.reason
    assert (0, weights().tobytes()) == (run.version, run.weights.tobytes())


def test_where_samples_have_no_weights_none_are_taken() -> None:
    run = Run(1)
    ((_, answer),) = run.send(b"0", contribution(first(run.join(0))))
    assert isinstance(answer, Refusal)
    assert "5 sums of sample weights, not 0" in answer.reason


def test_all_contributions_of_a_step_know_the_same_weight() -> None:
    run = Run(2, weighted=True)
    run.join(0)
    leases = {peer: message for peer, message in run.join(1) if isinstance(message, Lease)}
    assert [] == run.send(b"0", contribution(leases[b"0"]))
    lease = leases[b"1"]
    ((_, answer),) = run.send(b"1", contribution(lease, [TOTAL + 1, *OF[lease.start : lease.stop]]))
    assert isinstance(answer, Refusal)
    assert f"but its weight is {TOTAL}" in answer.reason
    assert 0 == run.version


def test_the_others_count_by_their_weights_for_a_shard_that_is_left_out() -> None:
    run = Run(1, skip=True, weighted=True)
    lease = first(run.join(0))
    for _ in range(3):  # all, then shard 3 alone, suspect, then what is next
        if lease.step:
            break
        lease = first(run.send(b"0", contribution(lease, spoilt=frozenset({3}))))
    tree = TreeSum(4)
    for shard in range(3):
        tree.add(Node(shard, shard + 1, 0.0, gradient(0, shard)))
    tree.add(Node(3, 4, 0.0, None))
    expected = optim.Updater(optim.SGD(lr=0.5), weights())
    vector = tree.total().vector
    assert vector is not None
    expected.update(vector * np.float32(TOTAL / (TOTAL - OF[3])))
    assert expected.weights.tobytes() == run.weights.tobytes()
    assert 0.25 == pytest.approx(run.totals["epoch_loss"] or 0.25)
    assert 1 == sum("is left out" in notice.text for notice in run.reported(reports.Notice))


@pytest.mark.parametrize("staleness", [0, None])
@pytest.mark.parametrize("weighted", [False, True])
def test_samples_of_a_shard_that_is_left_out_do_not_count(staleness: int | None, weighted: bool) -> None:
    run = Run(1, skip=True, weighted=weighted, staleness=staleness, epochs=1)
    answers = run.join(0)
    while any(isinstance(message, Lease) for _, message in answers):
        lease = first(answers)
        spoilt = frozenset({3} if lease.step == 0 else ())
        message = contribution(lease, None if weighted else [], spoilt, loss=float(lease.step))
        answers = run.send(b"0", message)
    assert (2 * 8 + 4 - 2, 3) == (run.totals["samples"], run.step)


@pytest.mark.parametrize("total", [np.nextafter(TOTAL, 0), TOTAL, np.nextafter(TOTAL, 9)])
def test_a_step_of_which_nothing_is_left_says_so_however_its_weight_is_rounded(total: float) -> None:
    run = Run(1, skip=True, weighted=True)
    answers = run.join(0)
    while any(isinstance(message, Lease) for _, message in answers):
        lease = first(answers)
        sums = [float(total), *OF[lease.start : lease.stop]]
        answers = run.send(b"0", contribution(lease, sums, frozenset(range(4))))
    assert (0, "step 0: the gradient of none of its shards is finite") == (run.version, run.failure)


@pytest.mark.parametrize("staleness", [0, 1, None])
def test_losses_are_means_by_weight(staleness: int | None) -> None:
    """Each step has another loss and another weight; shards of a step share both."""
    run = Run(1, weighted=True, staleness=staleness, epochs=1)
    plan = Plan(20, 8, 4, 0)
    answers, scales = run.join(0), [1.0, 10.0, 0.1]
    while any(isinstance(message, Lease) for _, message in answers):
        lease = first(answers)
        assert plan.shards_of(lease.step) == 4
        message = contribution(lease, loss=float(lease.step))
        message.sample_weights = [scales[lease.step] * weight for weight in message.sample_weights]
        answers = run.send(b"0", message)
    expected = sum(step * scale for step, scale in enumerate(scales)) / sum(scales)
    assert expected == pytest.approx(run.totals["epoch_loss"], rel=1e-12)
    assert 20 == run.totals["samples"]
