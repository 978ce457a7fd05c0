"""The study of the goodput: what failures cost in each mode."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from karp import cli
from karp.simulate import goodput, goodput_report
from karp.simulate.cluster import Cluster
from karp.simulate.goodput import Band, Point
from karp.simulate.scenario import Scenario

RATES = (0.0, 0.01)


def test_without_failures_all_computation_reaches_the_weights() -> None:
    for mode in goodput.MODES:
        assert 1.0 == pytest.approx(goodput.run(Point(mode, 4, 0.0, seed=0, steps=4)), rel=0.005)
    assert 1.0 == goodput.run(Point(goodput.RESTART_ALL, 4, 0.0, seed=0, steps=4))


def test_failures_cost_synchronous_steps_more_than_stale_ones() -> None:
    synchronous, stale = (
        goodput.run(Point(mode, 40, 0.2, seed=0, steps=40)) for mode in ("synchronous", "staleness 2")
    )
    assert synchronous < 0.97 * stale


def test_a_seed_is_a_history() -> None:
    first, again, other = (goodput.run(Point("synchronous", 10, 0.2, seed, steps=20)) for seed in (0, 0, 1))
    assert (True, False) == (first == again, first == other)


@pytest.mark.parametrize(
    ("failures", "end", "kept"),
    [([], 50.0, 50.0), ([99.0], 120.0, 21.0), ([100.0], 120.0, 120.0), ([250.0, 380.0], 400.0, 320.0)],
)
def test_restarts_of_all_lose_what_came_after_the_checkpoint(failures: list[float], end: float, kept: float) -> None:
    assert kept == goodput.kept_steps(failures, end)


def test_more_failures_leave_less_with_restarts_of_all() -> None:
    shares = [goodput.restart_all(rate, seed=0) for rate in (0.0001, 0.001, 0.01, 0.1)]
    assert sorted(shares, reverse=True) == shares
    assert shares[0] > 0.95
    assert shares[-1] < 0.01


def straggling(**changes: Any) -> Cluster:
    """A run with a worker that takes ten times as long, when it has ended."""
    scenario = Scenario(workers=4, shards=8, samples=64, batch_size=16, slow_workers=((0, 10.0),), **changes)
    cluster = Cluster(scenario, check=False, limit=math.inf)
    cluster.run()
    return cluster


def test_without_backup_leases_the_run_waits_for_a_straggler() -> None:
    with_backups, without = straggling(), straggling(backups=False)
    assert with_backups.server is not None
    assert without.server is not None
    assert 0 == without.server.counts["leased_again"] < with_backups.server.counts["leased_again"]
    assert with_backups.clock.now < without.clock.now


@pytest.mark.parametrize("signs_of_life", [True, False])
def test_what_spares_events_changes_no_weights(signs_of_life: bool) -> None:
    """Shards that take the same time are computed in one event, and signs of life need none."""
    ends = [straggling(compute_spread=spread, signs_of_life=signs_of_life) for spread in (0.1, 0.0)]
    assert (False, True) == tuple(cluster.shards_at_once for cluster in ends)
    first, second = (cluster.server.weights for cluster in ends if cluster.server is not None)
    assert first is not None
    assert second is not None
    assert first.tobytes() == second.tobytes()


def test_the_command_prints_a_table_and_draws_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    for module in (goodput, goodput_report):
        monkeypatch.setattr(module, "RATES", RATES)
    monkeypatch.setattr(goodput, "WORKER_STEPS", 800)
    picture, figures = tmp_path / "goodput.svg", tmp_path / "goodput.json"
    assert 0 == cli.main(["simulate", "goodput", "-n", "3", "--picture", str(picture), "--json", str(figures)])
    printed = capsys.readouterr().out.splitlines()
    assert "3 workers, failures of one of them in 8.1 s:" == printed[0]
    assert ["none", "0.01"] == printed[1].split()
    assert [*goodput.MODES, goodput.RESTART_ALL] == [line[:15].strip() for line in printed[2:-1]]
    assert "<svg" in picture.read_text()
    found = json.loads(figures.read_text())
    assert 600.0 == found["settings"]["restart_seconds"]
    assert 10 == len(found["bands"])
    assert [1, 3] == [len(band["goodput"]) for band in found["bands"][:2]]


def test_a_cell_says_from_the_lowest_to_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goodput_report, "RATES", RATES)
    assert "synchronous" in goodput_report.text_of(Band("synchronous", 3, 0.0, [1.0]))
    assert "50.0 to 75.0" == goodput_report.text_of(Band("synchronous", 3, 0.01, [0.75, 0.5, 0.6])).strip()


@pytest.mark.parametrize("given", [["--steps", "3"], ["--schedules", "2"], ["-n", "0"], ["--seed", "-1"]])
def test_what_the_study_does_not_take_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == cli.main(["simulate", "goodput", *given])
    assert "its other numbers are fixed" in capsys.readouterr().err or given[0] in ("-n", "--seed")
