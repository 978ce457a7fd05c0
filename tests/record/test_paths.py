"""A fresh directory for a run: named by time and program, never one that is there."""

from pathlib import Path

import pytest

from karp.errors import RecordError
from karp.record import paths
from karp.record.paths import fresh, fresh_directory


@pytest.mark.parametrize(
    ("program", "stem"), [("programs/digits.py", "digits"), ("app", "app"), ("", "run"), (".hidden", ".hidden")]
)
def test_a_run_is_named_by_time_and_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, stem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths.time, "strftime", lambda form: "20260102-030405")
    made = [fresh_directory(program) for _ in range(3)]
    assert [Path("runs", f"20260102-030405-{stem}{number}") for number in ("", "-2", "-3")] == made
    assert all(path.is_dir() for path in made)


def test_a_name_that_a_file_has_is_taken_too(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("")
    assert tmp_path / "name-2" == fresh(tmp_path, "name")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"the run directory .*/file/name cannot be made: Not a directory; pass"):
        fresh(tmp_path / "file", "name")


def test_names_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(path: Path, parents: bool) -> None:
        raise FileExistsError

    monkeypatch.setattr(Path, "mkdir", taken)
    with pytest.raises(RecordError, match=r"name and 9,999 more are taken: remove old runs"):
        fresh(tmp_path, "name")
