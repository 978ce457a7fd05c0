"""The README's code runs, and its tree is the tree."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from running import ROOT, completed

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = re.findall(r"^\$ (.*)$", "".join(re.findall(r"```console\n(.*?)```", README, re.S)), re.M)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_python_runs(block: str, tmp_path: Path) -> None:
    done = completed([sys.executable, "-c", block], ROOT, KARP_RUN_DIR=str(tmp_path / "run"))
    assert 0 == done.returncode, done.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("scripts/test.sh")])
def test_a_command_runs(command: str, tmp_path: Path) -> None:
    """With a `karp` and a `python` on PATH that are those of the tests; test.sh is what runs this.

    What it writes to runs/ goes to a folder of the test's.
    """
    (tmp_path / "workers").symlink_to(ROOT / "workers")
    command = command.replace("scripts/", f"{shlex.quote(str(ROOT))}/scripts/")
    (tmp_path / "karp").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m karp.cli "$@"\n')
    (tmp_path / "karp").chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    if command.startswith("karp launch"):
        command = command.replace("karp launch", f"karp launch --run-dir {shlex.quote(str(tmp_path / 'run'))}")
    variables = {"PATH": path, "PYTHONWARNINGS": ""}  # pip may come by, which warns
    if command.startswith("python"):
        variables["KARP_RUN_DIR"] = str(tmp_path / "run")
    done = completed(["/bin/sh", "-c", command], tmp_path, **variables)
    assert 0 == done.returncode, done.stderr
    assert "test accuracy 0.9" in done.stdout


def test_the_tree_names_every_room() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"^  (\S+)", tree.split("workers/")[0], re.M))
    files = {path.relative_to(ROOT / "karp").parts for path in (ROOT / "karp").rglob("*.py")}  # no caches of moved ones
    assert {parts[0] + "/" * (len(parts) > 1) for parts in files} - {"__init__.py"} == named
