"""The README's code runs, and its tree is the tree."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from running import ROOT, completed, summary

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = re.findall(r"^\$ (.*)$", "".join(re.findall(r"```console\n(.*?)```", README, re.S)), re.M)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_python_runs(block: str, tmp_path: Path) -> None:
    done = completed([sys.executable, "-c", block], ROOT, KARP_RUN_DIR=str(tmp_path / "run"))
    assert 0 == done.returncode, done.stderr


def run(command: str, folder: Path) -> str:
    """The hash of the weights that this command ends with; what it writes to runs/ goes to this folder.

    `karp` and `python` on its PATH are those of the tests.
    """
    folder.mkdir()
    (folder / "workers").symlink_to(ROOT / "workers")
    command = command.replace("scripts/", f"{shlex.quote(str(ROOT))}/scripts/")
    (folder / "karp").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m karp.cli "$@"\n')
    (folder / "karp").chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = completed(["/bin/sh", "-c", command], folder, PATH=path, PYTHONWARNINGS="")  # pip may come by, which warns
    assert 0 == done.returncode, done.stderr
    assert "test accuracy 0.9" in done.stdout
    (run,) = (folder / "runs").iterdir()
    (said,) = re.findall(r"^karp: .*  weights ([0-9a-f]{12})  files in", done.stderr, re.M)
    found = str(summary(run)["weights_sha256"])
    assert found[:12] == said
    return found


def test_the_commands_run_and_end_with_the_same_bits(tmp_path: Path) -> None:
    """As the README says of them; scripts/test.sh is what runs this."""
    commands = [command for command in COMMANDS if not command.startswith("scripts/test.sh")]
    assert ["scripts/launch_local.sh", "python", "karp", "scripts/launch_local.sh"] == [
        command.split()[0] for command in commands
    ]
    assert 1 == len({run(command, tmp_path / str(place)) for place, command in enumerate(commands)})


def test_the_tree_names_every_room() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"^  (\S+)", tree.split("workers/")[0], re.M))
    files = {path.relative_to(ROOT / "karp").parts for path in (ROOT / "karp").rglob("*.py")}  # no caches of moved ones
    assert {parts[0] + "/" * (len(parts) > 1) for parts in files} - {"__init__.py"} == named
