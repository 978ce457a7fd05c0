"""Prepared tables in a run's directory: removed, checked when a run is resumed, cleared where none has begun."""

from contextlib import suppress
from pathlib import Path

import pytest

from karp import prepare
from karp.errors import RecordError
from karp.record.paths import PREPARED
from karp.record.prepared_tables import check_prepared, lock_prepared, remove_leftovers, remove_prepared

TABLE = {"size": [1, 2, 3, 4] * 10, "kind": ["a", "a", "b", "b"] * 10}


def flip(path: Path, place: int = 5) -> None:
    """Change one bit of a file, whose size and mode stay."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_prepared_tables_are_removed_or_it_is_said_why_not(tmp_path: Path) -> None:
    folder = tmp_path / PREPARED
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "train.numbers").touch()
    assert ("", "", False) == (remove_prepared(tmp_path), remove_prepared(tmp_path), folder.exists())
    folder.touch()
    assert "Not a directory" == remove_prepared(tmp_path)


@pytest.mark.parametrize("name", ["train.numbers", "validation.target", "manifest.json"])
def test_one_bit_that_has_changed_in_the_table_of_a_fit_is_an_error(tmp_path: Path, name: str) -> None:
    folder = tmp_path / PREPARED
    prepare(TABLE, target="kind", directory=folder)
    assert [] == check_prepared(tmp_path)
    flip(folder / name)
    with pytest.raises(RecordError, match=rf"{name} (has changed since it was written|is damaged); fit again, in"):
        check_prepared(tmp_path)


def test_a_table_that_its_program_can_prepare_again_is(tmp_path: Path) -> None:
    for name in "ab":
        prepare(TABLE, target="kind", directory=tmp_path / PREPARED / name)
    flip(tmp_path / PREPARED / "b" / "train.target")
    (line,) = check_prepared(tmp_path)
    assert line.endswith("prepared/b/train.target has changed since it was written; the table is prepared again")
    manifests = [tmp_path / PREPARED / name / "manifest.json" for name in "ab"]
    assert [True, False] == [manifest.exists() for manifest in manifests]
    (tmp_path / PREPARED / "a" / "train.target").unlink()
    (line,) = check_prepared(tmp_path)
    assert "train.target cannot be read: No such file or directory; the table is" in line


def test_what_has_been_prepared_goes_with_an_exception_unless_the_run_has_begun(tmp_path: Path) -> None:
    for name, begun in (("made", False), ("run", True)):
        with suppress(KeyboardInterrupt), lock_prepared(tmp_path / name, made=True):
            (tmp_path / name / PREPARED / "train.target").touch()
            if begun:
                (tmp_path / name / "launch.json").touch()
            raise KeyboardInterrupt
    assert [False, True] == [(tmp_path / name).exists() for name in ("made", "run")]
    (tmp_path / "file").touch()
    refused = pytest.raises(RecordError, match=r"cannot be used: Not a directory; pass another")
    with refused, lock_prepared(tmp_path / "file", made=False):
        pass


def test_a_table_whose_process_was_killed_is_removed_and_no_other(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    directories = [tmp_path / name for name in ("killed", "used", "begun", "program", "none")]
    for directory in directories[:-1]:
        with lock_prepared(directory, made=True):  # ends well, as if by a kill: nothing is removed
            pass
    (directories[2] / "launch.json").touch()
    (directories[3] / PREPARED / ".preparing").unlink()
    with lock_prepared(directories[1], made=False):
        assert [f"{tmp_path}/killed/prepared is removed: the process that prepared it was killed"] == remove_leftovers(
            directories
        )
        refused = pytest.raises(RecordError, match="another process prepares a table in")
        with refused, lock_prepared(directories[1], made=False):
            pass
    assert [False, True, True, True, False] == [directory.exists() for directory in directories]
    (directories[1] / "mine").touch()
    assert 1 == len(remove_leftovers(directories))
    assert ["mine"] == [path.name for path in directories[1].iterdir()]
