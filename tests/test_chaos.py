"""A round of scripts/chaos.sh: seventeen scenarios on real processes, with every kind of fault in them."""

import json
import sys
from pathlib import Path

from running import completed

SEED = 0  # a round with few long pauses
SCENARIOS = 17


def test_a_scenario_is_a_function_of_its_seed_and_a_round_holds_every_kind() -> None:
    from chaos.scenario import HANDS, KINDS, draw_scenario

    assert SCENARIOS == HANDS
    for first in (0, HANDS, 5 * HANDS, SEED):
        scenarios = [draw_scenario(seed, 115) for seed in range(first, first + HANDS)]
        assert scenarios == [draw_scenario(seed, 115) for seed in range(first, first + HANDS)]
        assert set(KINDS) == {fault.kind for scenario in scenarios for fault in scenario.faults}


def test_every_plan_names_faults_that_there_are() -> None:
    from chaos.scenario import draw_scenario

    from karp import faults

    for seed in range(200):
        scenario = draw_scenario(seed, 115)
        named = [fault for fault in scenario.faults if fault.plan]
        assert len(named) == (len(faults.parse(scenario.plan)) if named else 0)


def test_a_round_ends_with_the_bits_of_the_undisturbed_run(tmp_path: Path) -> None:
    arguments = ["--schedules", SCENARIOS, "--seed", SEED, "--epochs", 5, "--json", tmp_path / "chaos.json"]
    done = completed([sys.executable, "-P", "-m", "chaos", *map(str, arguments)], tmp_path, TMPDIR=str(tmp_path))
    assert 0 == done.returncode, done.stdout + done.stderr
    results = [json.loads(line) for line in (tmp_path / "chaos.json").read_text().splitlines()]
    assert [(seed, True, True) for seed in range(SEED, SEED + SCENARIOS)] == [
        (result["seed"], result["ok"], result["bits_equal"]) for result in results
    ]
    assert f"schedules {SCENARIOS}, survived {SCENARIOS}, bits equal {SCENARIOS}" in done.stdout
