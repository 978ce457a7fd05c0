"""`karp simulate`: the figures of a large cluster."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from karp import cli
from karp.errors import MissingError, SettingError
from karp.simulate import study
from karp.simulate.study import Study


def test_a_still_cluster_takes_the_time_of_its_shards_and_messages() -> None:
    outcome = study.run(Study(workers=4, steps=10, spread=0.0, latency=0.0, target=0.0))
    found = outcome.figures
    assert (10, {0: 40}, 0, 0, 0) == tuple(found[name] for name in ("steps", "staleness", "lost", "doubled", "dropped"))
    assert 1.0 == pytest.approx(found["seconds"])
    assert 320 == found["samples"]
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
    found = study.run(Study(workers=20, steps=20, staleness=staleness, straggler=0.1, target=0.0)).figures
    assert (most, 2) == (max(found["staleness"]), found["stragglers"])


def test_an_asynchronous_run_is_measured_in_updates() -> None:
    found = study.run(Study(workers=20, steps=20, staleness=None, target=0.0)).figures
    assert 400 == sum(found["staleness"].values())
    assert max(found["staleness"]) > 10


def test_with_stragglers_staleness_saves_time() -> None:
    times = [
        study.run(Study(workers=30, steps=30, straggler=0.1, staleness=staleness, target=0.0)).figures["seconds"]
        for staleness in (0, 3)
    ]
    assert times[1] < 0.8 * times[0]


def test_faults_are_counted() -> None:
    found = study.run(Study(workers=10, steps=30, loss=0.02, duplicate=0.02, crash=0.05, target=0.0)).figures
    assert min(found["lost"], found["doubled"], found["crashes"], found["leased_again"]) > 0
    assert 30 == found["steps"]


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


def test_the_command_prints_figures_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    assert 0 == cli.main(["simulate", "-n", "8", "--steps", "12", "--staleness", "1", "--json", str(path)])
    printed = capsys.readouterr().out
    assert "workers       8; 8 shards of 8 samples" in printed
    assert "█" in printed
    written = json.loads(path.read_text())
    assert (8, 1) == (written["settings"]["workers"], written["settings"]["staleness"])
    assert written["steps"] == written["curve"][-1][1]


def test_the_command_runs_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == cli.main(["simulate", "--schedules", "3", "--seed", "5"])
    assert capsys.readouterr().out.startswith("3 schedules held over ")


@pytest.mark.parametrize("staleness", ["0", "2", "none"])
def test_the_picture_is_drawn(tmp_path: Path, staleness: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.png"
    assert 0 == cli.main(["simulate", "-n", "8", "--steps", "12", "--staleness", staleness, "--picture", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_missing_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = study.run(Study(workers=2, steps=2))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingError, match=r"pip install 'karp\[plot\]'"):
        study.picture(outcome, str(tmp_path / "curve.png"))


def test_ticks_are_those_of_the_server_process() -> None:
    from karp.serve import process
    from karp.simulate import cluster, server_process
    from karp.transport import zeromq

    simulated = server_process.TICK_SECONDS, server_process.RESTLESS_SECONDS
    assert (process.TICK_SECONDS, process.RESTLESS_SECONDS) == simulated
    assert zeromq.DEAD_SECONDS == cluster.DEAD_SECONDS


@pytest.mark.parametrize(
    "given",
    [
        {"seed": -1}, {"target": math.nan}, {"rows": 10**11}, {"factor": math.inf}, {"crash": 100.0}, {"spread": 1e9},
        {"shards": 2_000_000},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_cannot_be_imagined_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(given))):
        study.run(Study(workers=5, steps=5, **given))


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_study_that_diverges_draws_bars_of_a_line(tmp_path: Path) -> None:
    for rate in (3.0, 1000.0):
        lines = study.bars(study.run(Study(workers=5, steps=20, lr=rate)))
        assert all(len(line) < 100 for line in lines)
