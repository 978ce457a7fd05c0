"""Checkpoints: whole or passed over; a disk that fails stops nothing."""

import contextlib
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import karp
from karp.errors import DataError
from karp.protocol.reports import Log
from karp.record import checkpoints
from karp.record.checkpoints import Writer, newest, paths, read, write
from karp.record.directory import Record
from karp.record.paths import fresh

Snapshot = tuple[dict[str, Any], dict[str, Any]]


def snapshot(version: int = 3, size: int = 4) -> Snapshot:
    vectors = {"weights": np.arange(size, dtype=np.float32), "state.velocity": np.ones(size, np.float32)}
    return {"version": version, "final": 9, "progress": {"loss": 0.5}}, vectors


def same(expected: Snapshot, found: Snapshot | None) -> bool:
    return (
        found is not None
        and expected[0] == found[0]
        and {name: vector.tobytes() for name, vector in expected[1].items()}
        == {name: vector.tobytes() for name, vector in found[1].items()}
    )


def accepted(path: Path, content: bytes) -> bool:
    """Whether a file with this content is taken; DataError is the only way to say no."""
    path.write_bytes(content)
    try:
        found = read(path)
    except DataError:
        return False
    assert same(snapshot(), found)  # nothing but the truth
    return True


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return write(tmp_path, snapshot(), 3).read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert same(snapshot(), read(write(tmp_path, snapshot(), 3)))


def test_every_truncation_is_recognised(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cut"
    assert [] == [length for length in range(len(content)) if accepted(path, content[:length])]
    assert accepted(path, content)


def test_every_byte_flipped_is_recognised_or_does_not_matter(tmp_path: Path, content: bytes) -> None:
    """The padding of the header may change: what is read is still what was written."""
    path, chance = tmp_path / "flipped", random.Random(0)
    harmless = 0
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << chance.randrange(8)
        harmless += accepted(path, bytes(flipped))
    assert harmless <= 8


def test_many_flips_and_what_is_appended_are_recognised(tmp_path: Path, content: bytes) -> None:
    path, chance = tmp_path / "flipped", random.Random(1)
    for _ in range(1000):
        flipped = bytearray(content)
        for _ in range(chance.randint(1, 5)):
            flipped[chance.randrange(len(flipped))] = chance.randrange(256)
        accepted(path, bytes(flipped))
    assert not accepted(path, content + b"\0")


FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello\n",
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "long header": (1 << 62).to_bytes(8, "little") + b"{}",
    "zeros": b"\0" * 4096,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_recognised(tmp_path: Path, name: str) -> None:
    assert not accepted(tmp_path / "foreign", FOREIGN[name])


def test_another_programs_safetensors_are_recognised(tmp_path: Path) -> None:
    from safetensors.numpy import save

    path = tmp_path / "foreign"
    for metadata in (None, {"karp": "{}"}, {"karp": "{", "sha256": ""}, {"karp": "[]"}, {"karp": "[" * 100_000}):
        assert not accepted(path, save({"weights": np.zeros(4, np.float32)}, metadata=metadata))


def test_the_message_names_file_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "step-00000003.safetensors"
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match=f"the checkpoint {path} cannot be used: .+"):
        read(path)


def test_a_directory_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be used"):
        read(tmp_path)


def test_the_one_before_a_damaged_one_is_used_with_a_message(tmp_path: Path) -> None:
    good = snapshot(1)
    write(tmp_path, good, 5)
    for version in (2, 3):
        path = write(tmp_path, snapshot(version), 5)
        path.write_bytes(path.read_bytes()[: 100 * version])
    said: list[str] = []
    assert same(good, newest(tmp_path, said.append))
    assert 2 == len(said)
    assert "step-00000003.safetensors cannot be used" in said[0]
    assert said[0].endswith("the one before it is tried")


def test_no_whole_one_is_none(tmp_path: Path) -> None:
    write(tmp_path, snapshot(), 1).write_bytes(b"")
    assert newest(tmp_path, lambda text: None) is None
    assert newest(tmp_path / "nothing", lambda text: None) is None


def test_the_newest_are_kept_and_no_half_file(tmp_path: Path) -> None:
    for version in range(6):
        write(tmp_path, snapshot(version), 2)
    assert ["step-00000005.safetensors", "step-00000004.safetensors"] == [path.name for path in paths(tmp_path)]
    assert 2 == len(list((tmp_path / checkpoints.FOLDER).iterdir()))


def test_a_damaged_one_of_a_later_step_does_not_push_out_what_is_written_now(tmp_path: Path) -> None:
    write(tmp_path, snapshot(7), 1).write_bytes(b"damaged")
    path = write(tmp_path, snapshot(5), 1)
    assert [path] == paths(tmp_path)


def test_a_death_while_writing_leaves_the_one_before(tmp_path: Path) -> None:
    """At each named point a process of its own dies; what is there afterwards is whole."""
    write(tmp_path, snapshot(1), 3)
    for point, expected in (("writing", 1), ("written", 1), ("renamed", 2)):
        text = f"import test_checkpoints as t; t.write(t.Path({str(tmp_path)!r}), t.snapshot(2), 3)"
        variables = {"KARP_RUN_DIR": str(tmp_path), "KARP_FAULT": f"server: die {point} step 2"}
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(karp.__file__).parent.parent)])
        done = subprocess.run([sys.executable, "-c", text], env=os.environ | variables | {"PYTHONPATH": path})
        assert -signal.SIGKILL == done.returncode
        (tmp_path / "faults" / "0").unlink()
        said: list[str] = []
        assert same(snapshot(expected), newest(tmp_path, said.append))
        assert [] == said


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KiB: what a full disk looks like, without a disk.

    It must be over before pytest writes its own report, which may go to a file as well.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@small_files()
def test_a_full_disk_is_said_once_with_the_last_good_one_and_writing_is_tried_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 3)
    good = writer.directory / checkpoints.FOLDER / "step-00000001.safetensors"
    for version, size in ((1, 4), (2, 4000), (3, 4000), (4, 4), (5, 4000)):
        writer.submit(snapshot(version, size))
        writer.wait()
    writer.close()
    first, second = writer.take_troubles()
    assert f"the checkpoint of step 2 could not be written ({os.strerror(errno.EFBIG)})" in first
    assert f"the last good one is {good}" in first
    assert "step 5" in second
    assert "step-00000004" in second
    assert same(snapshot(4), newest(tmp_path, lambda text: None))
    assert 2 == len(list((tmp_path / checkpoints.FOLDER).iterdir()))  # no half file


def test_a_checkpoint_is_whole_though_an_old_one_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    writer = Writer(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        for version in (1, 2, 3):
            writer.submit(snapshot(version))
            writer.wait()
    (trouble,) = writer.take_troubles()
    assert "old checkpoints in" in trouble
    assert "cannot be removed (Operation not permitted)" in trouble
    assert ("", 3) == (writer.failure, len(paths(tmp_path)))
    writer.submit(snapshot(4))
    writer.close()
    assert ([], 1) == (writer.take_troubles(), len(paths(tmp_path)))


def test_a_wait_for_a_disk_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(checkpoints, "write", lambda *arguments: go_on.wait())
    writer = Writer(tmp_path, 3)
    writer.submit(({"version": 1}, {}))
    assert not writer.wait(0.0)
    go_on.set()
    assert writer.wait()
    writer.close()


@small_files()
def test_metrics_that_cannot_be_written_are_kept_and_tried_again(tmp_path: Path) -> None:
    record = Record(tmp_path)
    for step in range(200):
        record.report(Log(0.0, step, "norm", 0.123456789))
    (trouble,) = record.writer.take_troubles()
    assert "metrics.jsonl cannot be written" in trouble
    assert 4096 == (tmp_path / "metrics.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    record.report(Log(0.0, 200, "norm", 0.0))
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert list(range(201)) == lines
    record.finish({}, None, None)


def test_an_error_that_is_not_the_disks_does_not_end_the_writing(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 3)
    writer.submit(({"version": 1, "odd": object()}, {}))
    writer.wait()
    writer.submit(snapshot(2))
    writer.close()
    (trouble,) = writer.take_troubles()
    assert "the checkpoint of step 1 could not be written" in trouble
    assert same(snapshot(2), newest(tmp_path, lambda text: None))


def test_a_disk_that_cannot_even_be_read_does_not_end_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    writer = Writer(tmp_path, 3)
    with monkeypatch.context() as disk:
        disk.setattr(checkpoints, "write", fail)
        disk.setattr(checkpoints, "paths", fail)
        writer.submit(snapshot(1))
        assert writer.wait(60.0)
    assert f"step-00000001.safetensors ({os.strerror(errno.EIO)})" in writer.failure
    writer.submit(snapshot(2))
    writer.close()
    assert "" == writer.failure
    assert same(snapshot(2), newest(tmp_path, lambda text: None))


def test_one_state_is_one_file(tmp_path: Path) -> None:
    """safetensors writes the entries of its metadata in an order that changes from call to call."""
    assert 1 == len({write(fresh(tmp_path, str(time)), snapshot(), 3).read_bytes() for time in range(20)})


@pytest.mark.parametrize(("found", "metadata"), [(1, {"karp": "{}", "sha256": "0"}), (4, {"karp": '{"format": 4}'})])
def test_a_checkpoint_of_another_karp_is_named_and_no_run_begins_again_in_its_place(
    tmp_path: Path, found: int, metadata: dict[str, str]
) -> None:
    from safetensors.numpy import save

    Record(tmp_path).finish({}, None, None)
    path = write(tmp_path, snapshot(4), 3)
    path.write_bytes(save(snapshot()[1], metadata=metadata))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json*")}
    with pytest.raises(DataError, match=f"has the format {found}, and this karp reads the format 3: go on"):
        Record(tmp_path, resume=True)
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.json*")}
    write(tmp_path, snapshot(3), 3)
    path.write_bytes(save(snapshot()[1], metadata=metadata))
    assert same(snapshot(3), newest(tmp_path, lambda text: None))


def test_more_steps_than_digits_are_in_order(tmp_path: Path) -> None:
    for version in (99_999_999, 100_000_000):
        write(tmp_path, snapshot(version), 2)
    assert same(snapshot(100_000_000), newest(tmp_path, lambda text: None))
