"""scripts/setup.sh makes one environment and mends it; the suite says what it passes over. Nothing is installed."""

import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, bound_by_permissions, completed

# All that setup.sh asks of a Python: its version, a venv (whose Python is this again), pip. It writes down each set-up.
STUB = r"""#!/bin/bash
case "$*" in
*"-m venv"*)
    folder=${*: -1}
    rm -rf "$folder" && mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" && echo venv >>"$LOG" ;;
*"-m pip"*)
    [ -z "${KILLED:-}" ] || kill -9 $PPID
    [ -z "${OFFLINE:-}" ] || exit 1
    echo "pip ${*: -1}" >>"$LOG" ;;
*"-I -c"*) echo "${VERSION:-3.11.2}" ;;
esac
"""


class Checkout:
    """A checkout with the real setup.sh and a Python that only pretends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a check out"
        self.log = folder / "log"
        self.python = folder / "python"
        (self.folder / "scripts").mkdir(parents=True)
        (self.folder / "pyproject.toml").write_text("[project]\n")
        (self.folder / "scripts" / "setup.sh").write_bytes((ROOT / "scripts" / "setup.sh").read_bytes())
        self.python.write_text(STUB)
        self.python.chmod(0o755)
        (folder / "bin").mkdir()
        (folder / "bin" / "python3").symlink_to(self.python)

    def run(self, extras: str = "", bound: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        line = ["bash", "-c", 'source scripts/setup.sh "$1"; echo "$PATH"', "bash", extras]
        path = f"{self.folder.parent / 'bin'}:/usr/bin:/bin"
        given = {"PATH": path, "LOG": str(self.log), **variables}
        return completed(bound_by_permissions(line) if bound else line, self.folder, **given)

    def set_up(self, extras: str = "", **variables: str) -> list[str]:
        """What a call has made, and that it ended well with the environment on PATH."""
        self.log.write_text("")
        done = self.run(extras, **variables)
        assert (0, True) == (done.returncode, done.stdout.startswith(f"{self.folder}/.venv/bin:")), done.stderr
        return [line.replace(f"pip {self.folder}", "pip ") for line in self.log.read_text().splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_second_call_starts_at_once_and_what_is_there_is_kept(checkout: Checkout) -> None:
    assert ["venv", "pip "] == checkout.set_up()
    assert [] == checkout.set_up()
    assert ["pip [test]"] == checkout.set_up("test")
    assert [[], []] == [checkout.set_up(), checkout.set_up("test")]
    assert ["pip [check,parity,test]"] == checkout.set_up("parity,check")
    assert [[], [], []] == [checkout.set_up("test"), checkout.set_up(), checkout.set_up("check,test")]
    (checkout.folder / "pyproject.toml").write_text("[project]\nname = 'karp'\n")
    assert ["pip [check,parity,test]"] == checkout.set_up()
    assert [] == checkout.set_up(CDPATH="/usr:/tmp")


def test_a_checkout_that_was_moved_gets_an_environment_for_its_place(checkout: Checkout) -> None:
    checkout.set_up("test")
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("moved"))
    assert ["venv", "pip [test]"] == checkout.set_up()
    assert [] == checkout.set_up("test")


@pytest.mark.parametrize("damage", ["gone", "broken", "other"])
def test_an_environment_whose_python_is_another_or_none_is_made_again(checkout: Checkout, damage: str) -> None:
    checkout.set_up("test")
    python = checkout.folder / ".venv" / "bin" / "python"
    if damage == "gone":
        python.unlink()
    elif damage == "broken":
        python.write_text("#!/no/such/python\n")
    wanted = {"PYTHON": str(checkout.python), "VERSION": "3.13.0"} if damage == "other" else {}
    if damage == "other":
        python.write_text(STUB.replace("VERSION", "NO_VERSION"))
    assert ["venv", "pip [test]"] == checkout.set_up(**wanted)
    assert [] == checkout.set_up(**wanted)


def test_a_set_up_that_was_killed_or_failed_is_taken_up_again(checkout: Checkout) -> None:
    checkout.set_up("test")
    assert -9 == checkout.run("parity", KILLED="1").returncode
    failed = checkout.run(OFFLINE="1")
    assert 1 == failed.returncode
    assert "could not be installed (see above): check the network and try again" in failed.stderr
    assert ["pip [test]"] == checkout.set_up()  # what nobody asks for any more is not tried for ever
    assert 1 == checkout.run("parity", OFFLINE="1").returncode
    assert [] == checkout.set_up("test")  # as it was


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"PATH": "/usr/bin:/bin", "PYTHON": "no-such-python"}, "there is no no-such-python: install Python 3.11"),
        ({"PYTHON": "false"}, "too old: karp needs Python 3.11 or newer (set PYTHON to the path of one)"),
    ],
)
def test_a_python_that_cannot_be_used_is_named(checkout: Checkout, variables: dict[str, str], reason: str) -> None:
    done = checkout.run(**variables)
    assert (1, True) == (done.returncode, reason in done.stderr), done.stderr


def test_where_nothing_may_be_written_that_is_said(checkout: Checkout) -> None:
    checkout.folder.chmod(0o555)
    done = checkout.run(bound=True)
    checkout.folder.chmod(0o755)
    assert 1 == done.returncode
    assert "may not write there: do it once as the owner, or work in a copy" in done.stderr


SKIPPED = """
import pytest
def test_library(): pytest.importorskip("matplotlib.no_such_part")
def test_library_again(): pytest.importorskip("matplotlib.no_such_part")
def test_system(): pytest.skip("this system has no moon")
"""


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_passed_over_is_said_and_may_be_forbidden(tmp_path: Path, strict: bool) -> None:
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "tests" / "test_some.py").write_text(SKIPPED)
    done = completed([sys.executable, "-m", "pytest", "tests", *(["--no-skips"] if strict else [])], tmp_path)
    missing = "matplotlib is not installed (pip install 'karp[plot]')"
    assert "1 passed over: this system has no moon" in done.stdout
    if strict:
        assert (1, 2) == (done.returncode, done.stdout.count(f"\npassed over: {missing}\n")), done.stdout
    else:
        assert (0, True) == (done.returncode, f"2 passed over: {missing}\n" in done.stdout), done.stdout
