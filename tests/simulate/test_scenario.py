"""Scenarios that are drawn from a seed."""

import pytest

from karp.errors import SettingError
from karp.simulate import POINTS, check_many, draw_scenario
from karp.simulate.scenario import RANGE_POINTS


def test_scenarios_hold_everything_that_can_happen() -> None:
    scenarios = [draw_scenario(seed) for seed in range(500)]
    assert {"kill", "pause", "cut", "leave", "come", "server", "corrupt", "stranger", "scale"} == {
        fault.kind for scenario in scenarios for fault in scenario.faults
    }
    assert {*POINTS, *RANGE_POINTS} == {kill.point for scenario in scenarios for kill in scenario.kills}
    assert {"nan", "inf", "loss", "raise"} == {bad.kind for scenario in scenarios for bad in scenario.bad_shards}
    assert {(None, "max", "last")} | {
        (score, mode, ties) for score in ("loss", "rank") for mode in ("max", "min") for ties in ("first", "last")
    } == {(scenario.keep_best, scenario.mode, scenario.ties) for scenario in scenarios}
    assert {0, 1, 3, None} == {scenario.staleness for scenario in scenarios}
    assert {False, True} == {scenario.shared for scenario in scenarios}


def test_a_scenario_is_a_function_of_its_seed() -> None:
    assert [draw_scenario(seed) for seed in range(20)] == [draw_scenario(seed) for seed in range(20)]


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_run_can_have_is_refused(seed: int) -> None:
    with pytest.raises(SettingError, match=rf"--seed must be a whole number from 0 to {2**63 - 1}, not {seed}"):
        check_many([seed])
