"""The outcome of a study as text, JSON and a picture, and `karp simulate`, which prints it."""

import json
import sys
from pathlib import Path

import pytest

from karp import cli
from karp.errors import MissingError, SettingError
from karp.simulate import report, study
from karp.simulate.study import Outcome, Study


def test_the_summary_gives_each_figure_in_a_line() -> None:
    outcome = Outcome(
        Study(workers=2000, shards=1000, staleness=2),
        target=0.25,
        lowest=0.125,
        curve=[(0.0, 0, 8.0), (1.5, 2, 1.0), (3.0, 4, 0.2)],
        reached=(3.0, 4),
        figures={
            "seconds": 3.0, "steps": 4, "loss": 0.2, "stragglers": 20, "crashes": 3, "staleness": {0: 3000, 2: 1000},
            "messages": {"up": 4100, "down": 4300}, "bytes": {"up": 2_500_000, "down": 512}, "lost": 1200,
            "doubled": 7, "leased_again": 1001, "dropped": 5,
        },
    )  # fmt: skip
    assert [
        "workers       2,000, 20 of them 10 times as slow; 1,000 shards of 8 samples",
        "loss          8 to 0.2 (lowest 0.125)",
        "target        0.25: reached in 3.00 s, 4 steps",
        "time          3.00 s for 4 steps, 0.75 s each",
        "staleness     0.50 on average, 2 at most",
        "messages      4,100 up, 4,300 down: 2,100 per step",
        "bytes         2.5 MB up, 512 B down",
        "leased again  1,001 shards; 5 came twice or too late",
        "faults        1,200 messages lost, 7 doubled, 3 crashes",
    ] == report.summary_lines(outcome)


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
        report.draw_picture(outcome, str(tmp_path / "curve.png"))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    outcome = study.run(Study(workers=2, steps=2))
    with pytest.raises(SettingError, match=r"--json .*figures\.json cannot be written: No such file or directory"):
        report.write_json(outcome.to_dict(), str(tmp_path / "missing" / "figures.json"))


def test_a_study_that_diverges_draws_bars_of_a_line() -> None:
    for rate in (3.0, 1000.0):
        lines = report.curve_lines(study.run(Study(workers=5, steps=20, lr=rate)))
        assert all(len(line) < 100 for line in lines)
