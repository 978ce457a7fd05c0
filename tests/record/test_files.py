"""Files are whole or absent, whatever the disk does."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from karp.record import files


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_what_is_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    files.write(tmp_path / "file", b"one")
    files.write(tmp_path / "file", b"two")
    assert (b"two", ["file"]) == ((tmp_path / "file").read_bytes(), names(tmp_path))


def test_all_of_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []

    def flush(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            flushed.append((os.fstat(descriptor).st_size, (tmp_path / "file").exists()))

    monkeypatch.setattr(os, "fsync", flush)
    files.write(tmp_path / "file", b"text")
    assert [(4, False)] == flushed


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("odd"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    files.write(tmp_path / "file", b"before")

    def fail() -> None:
        with files.replacing(tmp_path / "file") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (b"before", ["file"]) == ((tmp_path / "file").read_bytes(), names(tmp_path))


def test_a_disk_that_is_full_when_it_is_flushed_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="quota"):
        files.write(tmp_path / "file", b"content")
    assert [] == names(tmp_path)


def test_a_directory_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write(tmp_path / "file", b"content")
    assert ["file"] == names(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "gone" / "file", b"content")


@pytest.mark.parametrize("links", [True, False])
def test_one_that_is_there_is_not_taken_the_place_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for content in (b"first", b"second"):
        try:
            with files.replacing(tmp_path / "file", 0o600, over=False) as file:
                file.write(content)
        except FileExistsError:
            assert b"second" == content
    assert (b"first", ["file"]) == ((tmp_path / "file").read_bytes(), names(tmp_path))
    assert 0o600 == stat.S_IMODE((tmp_path / "file").stat().st_mode)


def test_a_link_stays_and_what_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "file").symlink_to(tmp_path / "disk" / "file")
    files.write(tmp_path / "file", b"content")
    assert ((tmp_path / "file").is_symlink(), b"content") == (True, (tmp_path / "disk" / "file").read_bytes())


def test_a_pipe_and_a_device_stay_what_they_are(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    files.write(pipe, b"content")
    reader.join()
    assert ([b"content"], ["pipe"]) == (read, names(tmp_path))
    assert files.is_stream(Path("/dev/null"))
    assert files.is_stream(Path("/dev/stdout"))
    assert not files.is_stream(tmp_path / "file")


def test_a_file_system_that_cannot_flush_directories_is_one_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    files.write(tmp_path / "file", b"content")
    assert ["file"] == names(tmp_path)


def test_what_a_death_has_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".weights.safetensors.123.part").touch()
    (tmp_path / "weights.safetensors").touch()
    files.remove_parts(tmp_path)
    assert ["weights.safetensors"] == names(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_json_that_cannot_be_read_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011  (Python's own texts)
        files.read_json(tmp_path / "file.json")
