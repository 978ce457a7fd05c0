"""Runs whose gradients may be made with older weights: the bound, the order of arrival, and what it leads to."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Run, leases, read_only, weights
from machines import gradient as gradient_of

from karp import optim
from karp.data import Plan
from karp.protocol import reports
from karp.protocol.messages import Contribution, Evaluation, Finish, Join, Lease, Ping, Refusal, Score, Stop
from karp.protocol.server.actions import Save
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take
from karp.protocol.tree import Node, TreeSum

STEPS = 6  # of the run that `machines.settings` describes: 20 samples in batches of 8, twice
PLAN = Plan(20, 8, 4, 0)


def gradient(step: int, shard: int, version: int) -> np.ndarray:
    """A gradient that shows what it was made with."""
    return gradient_of(step, shard) * np.float32(1 + version / 8)


def contribution(lease: Lease, last: bool = False, version: int | None = None) -> Contribution:
    """A lease, computed: the sums over the maximal nodes of its range."""
    version = lease.version if version is None else version
    tree = TreeSum(PLAN.shards_of(lease.step))
    for shard in range(lease.start, lease.stop):
        tree.add(Node(shard, shard + 1, 0.25, gradient(lease.step, shard, version)))
    nodes = [node._replace(vector=read_only(node.vector)) for node in tree.nodes.values()]
    return Contribution(lease.step, version, nodes, [], last)


def begin(workers: int, **changes: Any) -> tuple[Run, dict[int, Lease]]:
    run = Run(workers, **changes)
    found: dict[int, Lease] = {}
    for worker in range(workers):
        found |= leases(run.join(worker))
    return run, found


def arrivals(run: Run) -> list[tuple[int, int, int, int]]:
    """(step, version, start, stop) as applied."""
    return [
        (report.step, version, start, stop)
        for report in run.reported(reports.Arrivals)
        for _, version, start, stop in report.of
    ]


def repeated(run: Run) -> np.ndarray:
    """The weights that the recorded arrivals lead to, without any server."""
    updater = optim.Updater(optim.SGD(lr=0.5), weights())
    steps: dict[int, TreeSum] = {}
    for step, version, start, stop in arrivals(run):
        tree = steps.setdefault(step, TreeSum(PLAN.shards_of(step)))
        for shard in range(start, stop):
            vector = gradient(step, shard, version)
            tree.add(Node(shard, shard + 1, 0.0, vector.copy()))
            if run.settings.staleness is None:
                updater.update(vector)
        if tree.complete and run.settings.staleness is not None:
            updater.update(tree.nodes[0].vector)
    assert {(step, PLAN.shards_of(step)) for step in steps if steps[step].complete} == {
        (step, PLAN.shards_of(step)) for step in range(run.step)
    }
    return updater.weights


def histogram(run: Run) -> dict[str, int]:
    found: dict[str, int] = run.totals["staleness"]
    return found


def work(run: Run, held: dict[int, Lease], choose: Any) -> None:
    """Contribute in any order until the run is over."""
    while held:
        worker = choose(sorted(held))
        lease = held.pop(worker)
        answers = run.send(b"%d" % worker, contribution(lease))
        for _, message in answers:
            assert not isinstance(message, Refusal), message
        held |= leases(answers)


def test_a_fast_worker_goes_ahead_as_far_as_the_bound_and_no_further() -> None:
    run, held = begin(2, staleness=2)
    assert {0: (0, 0, 2), 1: (0, 2, 4)} == {
        worker: (lease.step, lease.start, lease.stop) for worker, lease in held.items()
    }
    slow = held.pop(1)
    given_to_fast = []
    while held:
        lease = held.pop(0)
        given_to_fast.append((lease.step, lease.start, lease.stop, lease.version))
        held |= leases(run.send(b"0", contribution(lease)))
    # its own part of each step under way, and then what the other has not come for
    assert [(0, 0, 2, 0), (1, 0, 2, 0), (1, 2, 4, 0), (2, 0, 2, 0), (2, 2, 4, 0)] == given_to_fast
    answers = leases(run.send(b"1", contribution(slow)))
    assert 3 == run.version
    assert [3, 3] == [lease.version for lease in answers.values()]
    assert {"0": 2, "1": 2, "2": 2} == histogram(run)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.randoms())
def test_the_bound_is_never_exceeded_and_the_order_of_arrival_repeats_the_run(
    workers: int, bound: int, random: Any
) -> None:
    run, held = begin(workers, staleness=bound)
    work(run, held, random.choice)
    assert STEPS == run.version == run.step
    assert repeated(run).tobytes() == run.weights.tobytes()
    ages = [step - version for step, version, _, _ in arrivals(run)]
    assert Counter(ages) == {int(age): count for age, count in histogram(run).items()}
    assert all(0 <= age <= bound for age in ages)
    assert 40 == run.totals["samples"]
    assert run.over


@settings(deadline=None)
@given(st.integers(1, 5), st.randoms())
def test_an_asynchronous_run_applies_each_shard_once_on_arrival(workers: int, random: Any) -> None:
    run, held = begin(workers, staleness=None)
    work(run, held, random.choice)
    updates = sum(PLAN.shards_of(step) for step in range(STEPS))
    assert (updates, STEPS) == (run.version, run.step)
    assert repeated(run).tobytes() == run.weights.tobytes()
    assert updates == sum(histogram(run).values()) == len(arrivals(run))
    assert 40 == run.totals["samples"]
    assert run.over


@settings(deadline=None)
@given(st.sampled_from([1, 2, None]), st.randoms())
def test_losses_joins_and_restarts_lose_and_double_nothing(staleness: int | None, random: Any) -> None:
    run, held = begin(3, staleness=staleness)
    faults = 0
    while held:
        what = random.random() if faults < 20 else 1.0
        faults += what < 0.15
        if what < 0.1 and len(held) > 1:
            worker = random.choice(sorted(held))
            del held[worker]
            held |= leases(run.take(run.server.lost(b"%d" % worker, 1.0)))
            held |= leases(run.join(worker))
        elif what < 0.15:
            plain, vectors = take(run.server)
            snapshot = json.loads(json.dumps(plain)), vectors
            run.server = Server(3, Plan, 1.0, incarnation=run.server.incarnation + 1)
            restore(run.server, snapshot)
            held = {}
            for worker in range(3):
                held |= leases(run.join(worker))
        else:
            worker = random.choice(sorted(held))
            held |= leases(run.send(b"%d" % worker, contribution(held.pop(worker))))
    assert STEPS == run.step
    assert repeated(run).tobytes() == run.weights.tobytes()
    assert 40 == run.totals["samples"]


@pytest.mark.parametrize(("staleness", "version", "known"), [(1, 0, "1 to 2"), (1, 3, "1 to 2"), (None, 3, "0 to 2")])
def test_weights_that_are_too_old_or_of_nobody_are_refused(staleness: int | None, version: int, known: str) -> None:
    run, held = begin(1, staleness=staleness, shards=1, samples=8 * 3)
    for _ in range(2):
        held = leases(run.contribute(0, held[0]))
    before = run.weights.tobytes()
    node = Node(0, 1, 0.25, read_only(gradient_of(2, 0)))
    ((_, refusal),) = run.send(b"0", Contribution(2, version, [node], [], False))
    assert isinstance(refusal, Refusal)
    assert f"step 2: a gradient of weights {version}, not {known}" == refusal.reason
    assert before == run.weights.tobytes()


def test_an_asynchronous_run_refuses_sums_over_shards() -> None:
    run, _ = begin(1, staleness=None)
    node = Node(0, 2, 0.25, read_only(gradient_of(0, 0)))
    ((_, refusal),) = run.send(b"0", Contribution(0, 0, [node], [], False))
    assert "step 0: a sum over shards 0 to 1, but here each comes by itself" == refusal.reason
    assert 0 == run.version


@pytest.mark.parametrize("staleness", [0, 1, 2, None])
def test_every_step_under_way_is_completed_after_a_stop(staleness: int | None) -> None:
    run, held = begin(2, staleness=staleness)
    lease = held.pop(0)
    held |= leases(run.send(b"0", contribution(lease, last=True)))
    work(run, held, min)
    assert (1, True) == (run.step, run.over)
    if staleness != 0:
        assert repeated(run).tobytes() == run.weights.tobytes()
    assert run.over


@pytest.mark.parametrize("staleness", [2, None])
def test_a_loop_that_everybody_leaves_ends_with_what_is_applied(staleness: int | None) -> None:
    run, held = begin(2, staleness=staleness)
    run.send(b"0", contribution(held[0]))
    run.send(b"0", Stop())
    answers = run.send(b"1", Stop())
    assert {"0", "1"} == {peer.decode() for peer, message in answers if isinstance(message, Finish)}
    assert "step 0 was left before its end by every worker: it is not applied" in run.reported(reports.Notice)[0].text


@pytest.mark.parametrize("staleness", [2, None])
def test_no_step_of_the_next_epoch_is_leased_before_a_score_that_steers(staleness: int | None) -> None:
    run, held = begin(2, staleness=staleness, evaluate=True, wait_for_score=True)
    slow = held.pop(1)
    while held:
        lease = held.pop(0)
        assert lease.step < 3
        held |= leases(run.send(b"0", contribution(lease)))
    answers = run.send(b"1", contribution(slow))
    while more := leases(answers):
        worker, lease = more.popitem()
        assert lease.step < 3
        answers = run.send(b"%d" % worker, contribution(lease))
    ((peer, evaluation),) = [answer for answer in answers if isinstance(answer[1], Evaluation)]
    assert 3 == run.step
    assert run.weights.tobytes() == evaluation.weights.tobytes()
    assert 3 in {lease.step for lease in leases(run.send(peer, Score(0, {"a": 1.0}, False))).values()}
    assert [reports.Evaluation(0.0, 3, 0, {"a": 1.0})] == run.reported(reports.Evaluation)


def test_an_asynchronous_run_goes_no_further_than_the_next_epoch() -> None:
    run, held = begin(2, staleness=None, epochs=3)
    slow, steps = held.pop(1), set()
    while held:
        lease = held.pop(0)
        steps.add(lease.step)
        held |= leases(run.send(b"0", contribution(lease)))
    assert {0, 1, 2, 3, 4, 5} == steps
    assert 0 == run.step
    held = leases(run.send(b"1", contribution(slow)))
    assert {6} == {lease.step for lease in held.values()}
    assert 6 == run.step
    work(run, held, min)
    assert 9 == run.step


def test_a_lease_that_was_lost_with_weights_that_are_no_more_is_given_with_others() -> None:
    run, held = begin(2, staleness=None)
    run.send(b"0", contribution(held[0]))
    lost = held[1]
    ((peer, again),) = run.send(b"1", Ping(lost.number - 1))
    assert (b"1", 1, True) == (peer, again.version, again.weights is not None)
    assert again.number > lost.number


def test_staleness_goes_into_the_reports() -> None:
    run, held = begin(2, staleness=1)
    work(run, held, max)
    assert histogram(run) == dict(
        sum((Counter(report.staleness) for report in run.reported(reports.Progress)), Counter[str]())
    )


def test_settings_that_differ_in_staleness_do_not_meet() -> None:
    run, _ = begin(1, staleness=1)
    ((_, refusal),) = run.send(b"9", Join(1, Run(1, staleness=None).settings, "host", 1))
    assert "staleness is None in the program, 1 in the run" in refusal.reason


def test_a_checkpoint_comes_after_all_that_one_contribution_has_completed() -> None:
    """Else the record would be cut back to before steps that the checkpoint holds."""
    run, held = begin(2, staleness=2, save_seconds=0.0)
    slow = held.pop(1)
    while held:
        held |= leases(run.send(b"0", contribution(held.pop(0))))
    actions = run.server.receive(b"1", contribution(slow), 0, 0.0)
    kinds = [type(action) for action in actions if isinstance(action, reports.Arrivals | Save)]
    assert [reports.Arrivals, reports.Arrivals, reports.Arrivals, Save] == kinds


def test_a_contribution_that_ends_an_asynchronous_run_moves_no_weights() -> None:
    """One of its gradients is refused for the second time; another, that comes before it, is good."""
    run, held = begin(1, staleness=None)
    bad = Node(1, 2, 0.25, read_only(gradient(0, 1, 0) * np.float32(np.nan)))
    held |= leases(run.send(b"0", Contribution(0, 0, [bad], [], False)))
    before = run.weights.copy()
    good = Node(0, 1, 0.25, read_only(gradient(0, 0, 0)))
    run.send(b"0", Contribution(0, 0, [good, bad], [], False))
    assert "step 0, shard 1 from worker 0 is not finite" in run.failure
    assert (0, before.tobytes()) == (run.version, run.weights.tobytes())
