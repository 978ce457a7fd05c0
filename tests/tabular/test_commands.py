"""`karp predict`, `karp evaluate` and `karp show`, on model files without any training."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from models import COLUMNS, PRICE, SPECIES, TABLE, fitted
from running import command, started

from karp import cli
from karp.tabular import model_file
from karp.tabular.columns.column_types import Category, LeftOut, Schema
from karp.tabular.report import show

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models and a table, which is the current one."""
    monkeypatch.chdir(tmp_path)
    model_file.write("model", fitted())
    model_file.write("price", fitted(PRICE))
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([TABLE, *zip(*TABLE.values(), strict=True)])
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *line: str, status: int = 0) -> tuple[str, str]:
    """What a command prints and says."""
    capsys.readouterr()
    assert status == cli.main(list(line))
    printed, said = capsys.readouterr()
    return printed, said


def test_predictions_go_to_standard_output_or_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed, said = run(capsys, "predict", "model", "t.csv", "--proba")
    assert ["species,species.Adelie,species.Gentoo,species.Chin strap", 6] == [
        printed.splitlines()[0], printed.count("\n"),
    ]  # fmt: skip
    assert "karp: t.csv, column 'city': 1 of 5 cells is of a level that training had not (line 4: 'Chur')\n" == said
    again, said = run(capsys, "predict", "model", "t.csv", "--proba", "-o", "p.csv")
    assert ("", printed) == (again, (folder / "p.csv").read_text())
    assert said.endswith("karp: 5 rows predicted, in p.csv\n")


def test_a_target_that_is_there_or_not_makes_no_difference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = run(capsys, "predict", "model", "t.csv")
    with (folder / "t.csv").open(newline="") as file:
        rows = [dict(row, species="unheard of") for row in csv.DictReader(file)]
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "more"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert expected == run(capsys, "predict", "model", "t.csv")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("predict nothing t.csv", "the model file 'nothing' cannot be read: No such file or directory"),
        ("predict t.csv t.csv", "the model file 't.csv' is damaged, or no model file"),
        ("predict model nothing.csv", "nothing.csv"),
        ("predict model t.csv -o p.xlsx", "p.xlsx: predictions are written to CSV or Parquet"),
        ("predict model t.csv -o no/p.csv", "the predictions cannot be written to no/p.csv: No such file or directory"),
        ("predict model t.csv -o ./t.csv", "./t.csv: the predictions would take the place of the table"),
        ("predict model t.csv -o p.csv --strict", "t.csv, column 'city': training had no such level (line 4: 'Chur')"),
        ("predict price t.csv --proba", "'price' is a number: it is predicted without probabilities"),
        ("evaluate price t.csv", "t.csv: there is no column 'price' among"),
        ("show t.csv", "the model file 't.csv' is damaged, or no model file"),
    ],
)
def test_what_cannot_be_done_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    printed, errors = run(capsys, *line.split(), status=2)
    assert ("", True) == (printed, errors.startswith(f"karp: {said}")), errors
    assert {"model", "price", "t.csv"} == {path.name for path in folder.iterdir()}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFO")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_part_of_a_file(folder: Path, number: int) -> None:
    os.mkfifo("pipe")
    line = command("predict", "model", "pipe", "-o", "p.csv")
    with started(line, folder, PYTHONWARNINGS="") as process:
        with open("pipe", "w"):
            process.send_signal(number)  # it has opened the pipe, and reads or is about to
        assert (128 + number, "", "") == process.end()  # Python looks at a signal that came too early after the read
    assert {"model", "price", "t.csv", "pipe"} == set(os.listdir())


def test_scores_stand_beside_the_baseline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed, said = run(capsys, "evaluate", "model", "t.csv")
    assert "4 rows" == printed.splitlines()[0].strip()
    assert ["accuracy*", "log-loss", "AUC"] == printed.splitlines()[1].split()
    assert ["karp", "majority"] == [line.split()[0] for line in printed.splitlines()[2:]]
    assert "1 of 5 rows have no target in 'species' and are left out" in said
    plain = json.loads(run(capsys, "evaluate", "model", "t.csv", "--json")[0])
    assert (4, {"karp", "majority"}) == (plain["rows"], plain["scores"].keys())


def test_a_model_shows_what_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed, _ = run(capsys, "show", "model")
    lines = printed.splitlines()
    assert "predicts  species: 3 classes (Adelie, Gentoo, Chin strap)" == lines[0]
    assert "columns   1 number, 2 categories, 1 date, 1 clock; 1 left out" == lines[1]
    assert "recipe    8-4 selu, 200 epochs of batches of 64, smoothing 0.1" == lines[2]
    assert "size   category  2 levels (1, 2), and rare ones, with gaps" in printed
    assert 80 >= max(map(len, lines))
    plain = json.loads(run(capsys, "show", "model", "--json")[0])
    assert (SPECIES.to_dict(), None) == (plain["target"], plain["results"]["validation"]["linear"]["accuracy"])
    assert plain["bytes"] == (folder / "model").stat().st_size
    assert f"sha256    {plain['sha256']}" in lines
    reading, writing = os.pipe()  # that can be read once
    with os.fdopen(reading), os.fdopen(writing, "wb") as pipe:
        pipe.write((folder / "model").read_bytes())
        pipe.close()
        assert printed == run(capsys, "show", f"/dev/fd/{reading}")[0]


def test_long_names_and_many_levels_stay_in_a_line() -> None:
    columns: tuple[Any, ...] = (
        *COLUMNS,
        LeftOut("a name of\nmany words" * 9, "it is text with 40 distinct values in 40 cells, more than half"),
        Category("levels", False, tuple(f"a level that is as long as {place}" for place in range(99)), False),
    )
    model = fitted()
    lines = show(fitted(columns=columns), 1_234_567, "0f" * 32)
    assert (80, True) == (max(map(len, lines)), "file      1.23 MB" in lines)
    assert Schema(columns).numbers == model.schema.numbers
