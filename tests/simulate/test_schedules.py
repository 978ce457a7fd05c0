"""Thousands of small clusters full of faults: every invariant holds after every event of each."""

from dataclasses import replace

import pytest

from karp.simulate import ALWAYS, POINTS, Bad, Cluster, Kill, Schedule, Strike, Violation, draw, study

CHUNK = 50
BOUNDS = [0, 2, None]  # on staleness
STILL = Schedule(workers=3, shards=5, samples=24, batch_size=8, epochs=2, evaluate=True)  # nothing befalls it


def run(schedule: Schedule) -> Cluster:
    cluster = Cluster(schedule)
    cluster.run()
    return cluster


@pytest.mark.parametrize("first", range(0, 3000, CHUNK))
def test_schedules_hold(first: int) -> None:
    happened = study.hold(range(first, first + CHUNK))
    assert CHUNK == happened["schedules"]


def test_schedules_hold_everything_that_can_happen() -> None:
    schedules = [draw(seed) for seed in range(500)]
    assert {"kill", "pause", "cut", "leave", "come", "server", "corrupt", "stranger"} == {
        strike.kind for schedule in schedules for strike in schedule.strikes
    }
    assert set(POINTS) == {kill.point for schedule in schedules for kill in schedule.kills}
    assert {"nan", "inf", "loss", "raise"} == {bad.kind for schedule in schedules for bad in schedule.bad}
    assert {0, 1, 3, None} == {schedule.staleness for schedule in schedules}


def history(schedule: Schedule) -> tuple[object, ...]:
    """What can be told of a run from outside."""
    cluster = run(schedule)
    assert cluster.host.server is not None
    updater = cluster.host.server.training.updater
    weights = b"" if updater is None else updater.weights.tobytes()
    return cluster.clock.events, cluster.clock.now, cluster.network.counts, cluster.happened, weights


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_is_one_history(seed: int) -> None:
    assert history(draw(seed)) == history(draw(seed))


@pytest.mark.parametrize("external", [0, 3])
@pytest.mark.parametrize(
    ("point", "staleness"),  # a lease of an asynchronous run is one shard
    [(point, bound) for point in POINTS for bound in BOUNDS if (point, bound) != ("computing", None)],
)
def test_a_worker_dies_at_each_point(point: str, external: int, staleness: int | None) -> None:
    """`external`: no launcher sees it end, and none starts it again."""
    step = 3 if point in ("lease", "computing", "sending", "sent") else 0
    cluster = run(replace(STILL, kills=(Kill(point, step=step),), external=external, staleness=staleness))
    assert {point: 1} == cluster.happened
    assert cluster.host.server is not None
    assert 6 == cluster.host.server.training.step.number


@pytest.mark.parametrize("staleness", BOUNDS)
@pytest.mark.parametrize("back", [0, 2])
@pytest.mark.parametrize("event", range(1, 70, 7))
def test_the_server_dies_after_any_event(event: int, back: int, staleness: int | None) -> None:
    cluster = run(replace(STILL, strikes=(Strike("server", event, seconds=0.5, back=back),), staleness=staleness))
    assert (1, 1) == (cluster.happened["server"], cluster.host.incarnation)


@pytest.mark.parametrize("event", range(5, 60, 5))
def test_the_server_and_a_worker_die_at_once(event: int) -> None:
    """The launcher's word that the worker has ended is lost with the server."""
    cluster = run(replace(STILL, strikes=(Strike("kill", event), Strike("server", event, seconds=2.0))))
    assert (1, 1) == (cluster.happened["server"], cluster.happened["kill"])


@pytest.mark.parametrize("seconds", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("noticed", [True, False])
def test_a_worker_is_cut_off(seconds: float, noticed: bool) -> None:
    assert 1 == run(replace(STILL, strikes=(Strike("cut", 20, 1, seconds, noticed),))).happened["cut"]


@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_a_worker_stands_still(seconds: float) -> None:
    assert 1 == run(replace(STILL, strikes=(Strike("pause", 20, 1, seconds),))).happened["pause"]


@pytest.mark.parametrize("which", range(8))
def test_what_cannot_be_right_changes_nothing(which: int) -> None:
    cluster = run(replace(STILL, strikes=(Strike("corrupt", 25, 1, back=which), Strike("stranger", 40, back=which))))
    assert cluster.host.server is not None
    assert 6 == cluster.host.server.training.version


@pytest.mark.parametrize("kind", ["nan", "inf", "loss", "raise"])
def test_a_program_that_fails_once_costs_nothing(kind: str) -> None:
    cluster = run(replace(STILL, bad=(Bad(kind, 1, 3),)))
    assert (1, "") == (cluster.happened[kind], cluster.host.failed)


@pytest.mark.parametrize("kind", ["nan", "inf", "loss", "raise"])
def test_a_program_that_fails_always_ends_the_run(kind: str) -> None:
    cluster = run(replace(STILL, bad=(Bad(kind, 1, 3, ALWAYS),)))
    assert "step 1, shard 3" in cluster.host.failed
    assert cluster.host.server is not None
    assert 1 == cluster.host.server.training.version


@pytest.mark.parametrize("kind", ["nan", "inf", "loss"])
def test_a_shard_that_is_never_finite_may_be_left_out(kind: str) -> None:
    cluster = run(replace(STILL, bad=(Bad(kind, 1, 3, ALWAYS),), skip=True))
    assert cluster.host.server is not None
    assert ("", 6) == (cluster.host.failed, cluster.host.server.training.version)


def test_a_network_that_loses_and_doubles_a_third_of_its_messages() -> None:
    counts = run(replace(STILL, loss=0.3, duplicate=0.3, in_order=False, latency=0.05)).network.counts
    assert counts["messages lost"] > 0 < counts["messages doubled"]


def test_a_violation_names_the_command_that_repeats_it() -> None:
    with pytest.raises(Violation, match=r"has not ended after(.*\n)*.*again: karp simulate --schedules 1 --seed 7"):
        Cluster(draw(7), limit=0.0).run()


def seconds_of(schedule: Schedule) -> float:
    """Virtual seconds from the first step to the last."""
    reports = [report.values["seconds"] for report in run(schedule).host.reports if report.kind == "progress"]
    return float(reports[-1])


@pytest.mark.parametrize("compute", [0.01, 0.1, 2.0])
@pytest.mark.parametrize("worker", [0, 3])
def test_a_straggler_costs_at_most_half_of_the_time_and_no_bits(compute: float, worker: int) -> None:
    """4 workers, 12 shards, 50 steps; three workers alone would take a third longer than four."""
    whole = Schedule(workers=4, shards=12, samples=240, batch_size=24, epochs=5, compute=compute, latency=0.0005)
    assert 50 == whole.steps
    ratio = seconds_of(replace(whole, slow=((worker, 10.0),))) / seconds_of(whole)
    assert 1.0 <= ratio <= 1.5
