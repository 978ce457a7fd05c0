"""Studies: the figures of a large cluster."""

import math
from typing import Any

import pytest

from karp.errors import SettingError
from karp.simulate import study
from karp.simulate.study import Study


def test_a_still_cluster_takes_the_time_of_its_shards_and_messages() -> None:
    outcome = study.run(Study(workers=4, steps=10, spread=0.0, latency=0.0, target=0.0))
    figures = outcome.figures
    names = ("steps", "staleness", "lost", "doubled", "dropped")
    assert (10, {0: 40}, 0, 0, 0) == tuple(figures[name] for name in names)
    assert 1.0 == pytest.approx(figures["seconds"])
    assert 320 == figures["samples"]
    assert list(range(11)) == [steps for _, steps, _ in outcome.curve]


def test_the_target_ends_the_run_and_is_reached_by_the_curve() -> None:
    outcome = study.run(Study(workers=4, steps=200, lr=0.2))
    assert outcome.reached is not None
    seconds, steps = outcome.reached
    assert (seconds, steps) == outcome.curve[-1][:2]
    assert outcome.curve[-1][2] <= outcome.target < outcome.curve[-2][2]
    assert steps < 200


@pytest.mark.parametrize(("staleness", "most"), [(0, 0), (1, 1), (3, 3)])
def test_staleness_is_measured_and_within_its_bound(staleness: int, most: int) -> None:
    figures = study.run(Study(workers=20, steps=20, staleness=staleness, straggler=0.1, target=0.0)).figures
    assert (most, 2) == (max(figures["staleness"]), figures["stragglers"])


def test_an_asynchronous_run_is_measured_in_updates() -> None:
    figures = study.run(Study(workers=20, steps=20, staleness=None, target=0.0)).figures
    assert 400 == sum(figures["staleness"].values())
    assert max(figures["staleness"]) > 10


def test_with_stragglers_staleness_saves_time() -> None:
    times = [
        study.run(Study(workers=30, steps=30, straggler=0.1, staleness=staleness, target=0.0)).figures["seconds"]
        for staleness in (0, 3)
    ]
    assert times[1] < 0.8 * times[0]


def test_faults_are_counted() -> None:
    figures = study.run(Study(workers=10, steps=30, loss=0.02, duplicate=0.02, crash=0.05, target=0.0)).figures
    assert min(figures["lost"], figures["doubled"], figures["crashes"], figures["leased_again"]) > 0
    assert 30 == figures["steps"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"loss": 1.0}, "--loss is 1.0; it must be a share"),
        ({"straggler": -0.1}, "--straggler is -0.1; it must be a share"),
        ({"latency": float("nan")}, "--latency is nan; it must be a number from 0"),
        ({"workers": 0}, "--workers, --shards"),
        ({"compute": 0.0}, "--compute above 0"),
    ],
)
def test_what_cannot_be_simulated_is_named(wrong: dict[str, float], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        study.run(Study(**wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"seed": -1}, {"target": math.nan}, {"rows": 10**11}, {"factor": math.inf}, {"crash": 100.0}, {"spread": 1e9},
        {"shards": 2_000_000}, {"exchange": "nobody"}, {"cores": 0}, {"message": math.nan},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_cannot_be_imagined_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(given))):
        study.run(Study(workers=5, steps=5, **given))


@pytest.mark.parametrize("workers", [1, 2, 16, 64])
@pytest.mark.parametrize("exchange", ["server", "workers"])
def test_a_step_takes_what_the_cost_model_says(workers: int, exchange: str) -> None:
    """In microseconds: computing 60, a message one way 5, handling it 12, adding a gradient 2, the update 12."""
    costs = {"compute": 60e-6, "latency": 5e-6, "message": 12e-6, "adding": 2e-6, "update": 12e-6}
    made = Study(workers=workers, steps=400, spread=0.0, target=0.0, exchange=exchange, **costs)  # type: ignore[arg-type]
    figures = study.run(made).figures
    if exchange == "server":
        expected = 60 + 2 * 5 + workers * (12 + 2) + 12
    else:
        expected = 60 + 5 + 12 + (workers - 1) * 2 + 12
    assert expected == pytest.approx(1e6 * figures["seconds"] / 400, rel=0.05)


def test_workers_share_the_cores() -> None:
    seconds = [
        study.run(Study(workers=8, steps=20, spread=0.0, latency=0.0, target=0.0, cores=cores)).figures["seconds"]
        for cores in (8, 2)
    ]
    assert 4.0 == pytest.approx(seconds[1] / seconds[0], rel=0.01)
