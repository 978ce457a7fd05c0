"""A round of scripts/chaos.sh: twelve schedules on real processes, with every kind of fault in them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SEED = 0  # a round with few long pauses
SCHEDULES = 12


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def test_a_schedule_is_a_function_of_its_seed_and_a_round_holds_every_kind() -> None:
    from chaos.schedule import HANDS, KINDS, draw

    assert SCHEDULES == HANDS
    for first in (0, HANDS, 5 * HANDS, SEED):
        schedules = [draw(seed, 115) for seed in range(first, first + HANDS)]
        assert schedules == [draw(seed, 115) for seed in range(first, first + HANDS)]
        assert set(KINDS) == {fault.kind for schedule in schedules for fault in schedule.faults}


def test_every_plan_names_faults_that_there_are() -> None:
    from chaos.schedule import draw

    from karp import faults

    for seed in range(200):
        schedule = draw(seed, 115)
        named = [fault for fault in schedule.faults if fault.plan]
        assert len(named) == (len(faults.parse(schedule.plan)) if named else 0)


@pytest.mark.timeout(400)
def test_a_round_ends_with_the_bits_of_the_undisturbed_run(tmp_path: Path) -> None:
    arguments = ["--schedules", SCHEDULES, "--seed", SEED, "--epochs", 5, "--json", tmp_path / "chaos.json"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "chaos", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=350,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    results = [json.loads(line) for line in (tmp_path / "chaos.json").read_text().splitlines()]
    assert [(seed, True, True) for seed in range(SEED, SEED + SCHEDULES)] == [
        (result["seed"], result["ok"], result["bits_equal"]) for result in results
    ]
    assert f"schedules {SCHEDULES}, survived {SCHEDULES}, bits equal {SCHEDULES}" in done.stdout
