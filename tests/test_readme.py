"""The README's code runs, and its tree is the tree."""

import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from running import ROOT, completed, summary

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = re.findall(r"^\$ (.*)$", "".join(re.findall(r"```console\n(.*?)```", README, re.S)), re.M)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_python_runs(block: str, tmp_path: Path) -> None:
    (tmp_path / "workers").symlink_to(ROOT / "workers")
    done = completed([sys.executable, "-c", block], tmp_path)
    assert 0 == done.returncode, done.stderr


def run(command: str, folder: Path) -> tuple[str, str]:
    """Run a command of the README where workers/ is; return what it prints and what it says.

    `karp` and `python` on its PATH are those of the tests.
    """
    if not folder.exists():
        folder.mkdir()
        (folder / "workers").symlink_to(ROOT / "workers")
        (folder / "karp").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m karp.cli "$@"\n')
        (folder / "karp").chmod(0o755)
    command = command.replace("scripts/", f"{shlex.quote(str(ROOT))}/scripts/")
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = completed(["/bin/sh", "-c", command], folder, PATH=path, PYTHONWARNINGS="")  # pip may come by, which warns
    assert 0 == done.returncode, done.stderr
    return done.stdout, done.stderr


def trained(command: str, folder: Path) -> str:
    """Run a command that trains on the digits; return the hash of the weights that it ends with."""
    out, said = run(command, folder)
    assert "test accuracy 0.9" in out
    (directory,) = (folder / "runs").iterdir()
    (shown,) = re.findall(r"^karp: .*  weights ([0-9a-f]{12})  files in", said, re.M)
    weights = str(summary(directory)["weights_sha256"])
    assert weights[:12] == shown
    return weights


def test_the_commands_that_simulate_an_exchange_run(tmp_path: Path) -> None:
    commands = [command for command in COMMANDS if command.startswith("karp simulate")]
    assert 2 == len(commands)
    for command in commands:
        out, _ = run(command, tmp_path / "here")
        assert "workers       64; 64 shards" in out


def test_the_commands_that_train_end_with_the_same_bits(tmp_path: Path) -> None:
    """As the README says of them; scripts/test.sh is what runs this."""
    others = "scripts/test.sh", "karp fit", "karp show", "karp evaluate", "karp predict", "karp export"
    others += ("karp simulate",)
    commands = [command for command in COMMANDS if not command.startswith(others)]
    assert ["scripts/launch_local.sh", "python", "karp", "scripts/launch_local.sh"] == [
        command.split()[0] for command in commands
    ]
    assert 1 == len({trained(command, tmp_path / str(place)) for place, command in enumerate(commands)})


def test_the_journey_from_a_table_to_predictions(tmp_path: Path) -> None:
    """The commands on the penguins, in their order, say what the README shows, figures aside."""
    commands = [command for command in COMMANDS if "penguins" in command and "export" not in command]
    assert ["fit", "show", "evaluate", "predict"] == [command.split()[1] for command in commands]
    folder = tmp_path / "journey"
    out, said = run(commands[0], folder)
    shown = README.split("```\nrows      344 read")[1].split("```")[0]
    labels = re.findall(r"^([a-z]\S*(?: model)?)\s", "rows      344 read" + shown, re.M)
    assert {"rows", "target", "columns", "recipe", "training", "best", "karp", "linear model", "model"} <= set(labels)
    assert [] == [label for label in labels if not re.search(rf"^{label}\s", said + out, re.M)]
    for command in commands[1:]:
        run(command, folder)
    assert 345 == len((folder / "predicted.csv").read_text().splitlines())


def test_the_model_opens_where_there_is_no_karp(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    (command,) = (command for command in COMMANDS if "karp export" in command)
    folder = tmp_path / "journey"
    fit = "karp fit workers/penguins.csv --target species -o penguins.safetensors -n 1 --epochs 1"
    for line in (fit, command):
        run(line, folder)
    session = runtime.InferenceSession(folder / "penguins.onnx")
    numbers = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "year")
    feed = dict.fromkeys(numbers, np.array([np.nan, 50.0]))
    texts = {"island": ["Dream", "nowhere"], "sex": ["", "female"]}
    feed |= {name: np.array(cells, object) for name, cells in texts.items()}
    label, probabilities = session.run(None, feed)
    assert ((2,), (2, 3)) == (label.shape, probabilities.shape)
    assert set(label) <= {"Adelie", "Chinstrap", "Gentoo"}


def test_the_tree_names_every_room() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"^  (\S+)", tree.split("workers/")[0], re.M))
    files = {path.relative_to(ROOT / "karp").parts for path in (ROOT / "karp").rglob("*.py")}  # no caches of moved ones
    assert {parts[0] + "/" * (len(parts) > 1) for parts in files} - {"__init__.py"} == named
