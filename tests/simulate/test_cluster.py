"""Thousands of small clusters full of faults: every invariant holds after every event of each."""

from dataclasses import replace

import pytest

from karp.protocol.reports import Lost, Progress, Released
from karp.protocol.server.machine import Server
from karp.simulate import ALWAYS, POINTS, BadShard, Cluster, Fault, Kill, Scenario, check_many, draw_scenario

CHUNK = 50
BOUNDS = [0, 2, None]  # on staleness
NO_FAULTS = Scenario(workers=3, shards=5, samples=24, batch_size=8, epochs=2, evaluate=True)


def run(scenario: Scenario) -> Cluster:
    cluster = Cluster(scenario)
    cluster.run()
    return cluster


def server_of(cluster: Cluster) -> Server:
    assert cluster.server is not None
    return cluster.server


@pytest.mark.parametrize("first", range(0, 3000, CHUNK))
def test_scenarios_hold(first: int) -> None:
    events, _ = check_many(range(first, first + CHUNK))
    assert events > 50 * CHUNK


def history(scenario: Scenario) -> tuple[object, ...]:
    """What can be told of a run from outside."""
    cluster = run(scenario)
    vector = server_of(cluster).weights
    weights = b"" if vector is None else vector.tobytes()
    return cluster.clock.events, cluster.clock.now, cluster.network.counts, cluster.injector.counts, weights


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_is_one_history(seed: int) -> None:
    assert history(draw_scenario(seed)) == history(draw_scenario(seed))


@pytest.mark.parametrize("external", [0, 3])
@pytest.mark.parametrize(
    ("point", "staleness"),  # a lease of an asynchronous run is one shard
    [(point, bound) for point in POINTS for bound in BOUNDS if (point, bound) != ("computing", None)],
)
def test_a_worker_dies_at_each_point(point: str, external: int, staleness: int | None) -> None:
    """`external`: no launcher sees it end, and none starts it again."""
    step = 3 if point in ("lease", "computing", "sending", "sent") else 0
    cluster = run(replace(NO_FAULTS, kills=(Kill(point, step=step),), external=external, staleness=staleness))
    assert {point: 1} == cluster.injector.counts
    assert 6 == server_of(cluster).step


@pytest.mark.parametrize("staleness", BOUNDS)
@pytest.mark.parametrize("back", [0, 2])
@pytest.mark.parametrize("event", range(1, 70, 7))
def test_the_server_dies_after_any_event(event: int, back: int, staleness: int | None) -> None:
    cluster = run(replace(NO_FAULTS, faults=(Fault("server", event, seconds=0.5, back=back),), staleness=staleness))
    assert (1, 1) == (cluster.injector.counts["server"], cluster.server_process.incarnation)


@pytest.mark.parametrize("event", range(5, 60, 5))
def test_the_server_and_a_worker_die_at_once(event: int) -> None:
    """The launcher's word that the worker has ended is lost with the server."""
    cluster = run(replace(NO_FAULTS, faults=(Fault("kill", event), Fault("server", event, seconds=2.0))))
    assert (1, 1) == (cluster.injector.counts["server"], cluster.injector.counts["kill"])


@pytest.mark.parametrize("seconds", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("noticed", [True, False])
def test_a_worker_is_cut_off(seconds: float, noticed: bool) -> None:
    assert 1 == run(replace(NO_FAULTS, faults=(Fault("cut", 20, 1, seconds, noticed),))).injector.counts["cut"]


@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_a_worker_stands_still(seconds: float) -> None:
    assert 1 == run(replace(NO_FAULTS, faults=(Fault("pause", 20, 1, seconds),))).injector.counts["pause"]


@pytest.mark.parametrize("variant", range(8))
def test_what_cannot_be_right_changes_nothing(variant: int) -> None:
    faults = Fault("corrupt", 25, 1, variant=variant), Fault("stranger", 40, variant=variant)
    cluster = run(replace(NO_FAULTS, faults=faults))
    assert 6 == server_of(cluster).version


@pytest.mark.parametrize("kind", ["nan", "inf", "loss", "raise"])
def test_a_program_that_fails_once_costs_nothing(kind: str) -> None:
    cluster = run(replace(NO_FAULTS, bad_shards=(BadShard(kind, 1, 3),)))
    assert (1, "") == (cluster.injector.counts[kind], cluster.server_process.failure)


@pytest.mark.parametrize("kind", ["nan", "inf", "loss", "raise"])
def test_a_program_that_fails_always_ends_the_run(kind: str) -> None:
    cluster = run(replace(NO_FAULTS, bad_shards=(BadShard(kind, 1, 3, ALWAYS),)))
    assert "step 1, shard 3" in cluster.server_process.failure
    assert 1 == server_of(cluster).version


@pytest.mark.parametrize("kind", ["nan", "inf", "loss"])
def test_a_shard_that_is_never_finite_may_be_left_out(kind: str) -> None:
    cluster = run(replace(NO_FAULTS, bad_shards=(BadShard(kind, 1, 3, ALWAYS),), skip=True))
    assert ("", 6) == (cluster.server_process.failure, server_of(cluster).version)


@pytest.mark.parametrize("shared", [False, True])
def test_workers_that_are_scaled_cost_neither_bits_nor_work(shared: bool) -> None:
    """Of three there are one, then five, then two; nothing is restarted or computed twice."""
    still = replace(NO_FAULTS, shards=4, epochs=40, compute_spread=0.0, shared=shared)
    events = ((60, 1), (140, 5), (300, 2))
    cluster = run(replace(still, faults=tuple(Fault("scale", event, workers=workers) for event, workers in events)))
    server = server_of(cluster)
    released = [report.worker for report in cluster.server_process.reports if isinstance(report, Released)]
    assert ({"scale": 3}, [1, 2], 5) == (cluster.injector.counts, sorted(released)[:2], len(released))
    assert not any(isinstance(report, Lost) for report in cluster.server_process.reports)
    assert (0, history(still)[-1]) == (server.counts["leased_again"], history(cluster.scenario)[-1])


def test_a_network_that_loses_and_doubles_a_third_of_its_messages() -> None:
    counts = run(replace(NO_FAULTS, loss_rate=0.3, duplicate_rate=0.3, in_order=False, latency=0.05)).network.counts
    assert counts["messages lost"] > 0 < counts["messages doubled"]


def seconds_of(scenario: Scenario) -> float:
    """Virtual seconds from the first step to the last."""
    reports = [report.seconds for report in run(scenario).server_process.reports if isinstance(report, Progress)]
    return float(reports[-1])


@pytest.mark.parametrize("compute", [0.01, 0.1, 2.0])
@pytest.mark.parametrize("worker", [0, 3])
def test_a_straggler_costs_at_most_half_of_the_time_and_no_bits(compute: float, worker: int) -> None:
    """4 workers, 12 shards, 50 steps; three workers alone would take a third longer than four."""
    steady = Scenario(
        workers=4, shards=12, samples=240, batch_size=24, epochs=5, compute_seconds=compute, latency=0.0005
    )
    assert 50 == steady.steps
    ratio = seconds_of(replace(steady, slow_workers=((worker, 10.0),))) / seconds_of(steady)
    assert 1.0 <= ratio <= 1.5


def test_steps_end_in_ranges_and_memory_is_left_when_the_lock_s_holder_is_stopped() -> None:
    steps = in_ranges = renewed = 0
    for seed in range(300):
        scenario = draw_scenario(seed)
        if scenario.shared:
            cluster = run(scenario)
            steps += server_of(cluster).step
            in_ranges += server_of(cluster).counts["steps_in_ranges"]
            renewed += any("other memory" in getattr(report, "text", "") for report in cluster.server_process.reports)
    assert in_ranges > 0.3 * steps
    assert renewed > 0


@pytest.mark.parametrize("seed", [72125, 81702])
def test_a_run_that_fails_after_its_end_keeps_the_weights_of_its_best_epoch(seed: int) -> None:
    check_many([seed])
