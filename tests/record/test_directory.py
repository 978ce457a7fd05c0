"""What a run's directory holds, what cannot be one, and files of it that cannot be written."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karp.errors import RecordError
from karp.parameters import Layout
from karp.protocol import reports
from karp.record import lines
from karp.record.directory import Record
from karp.record.launched import Launched
from karp.record.lines import LineLog

LAYOUT = Layout({"weight": (2, 2)}, "float32")
SETTINGS = {"seed": 1}


def finish(record: Record, weights: bool = True) -> dict[str, Any]:
    """A run that has ended well with these weights."""
    summary = {"exit": 0, "finished": True}
    return record.finish(summary, LAYOUT, LAYOUT.zeros()) if weights else record.finish(summary, None, None)


def test_every_line_is_json_whatever_the_numbers_are(tmp_path: Path) -> None:
    record = Record(tmp_path / "run")
    record.report(reports.Log(0.5, 1, "v", float("nan")))
    record.finish({"loss": float("inf"), "metrics": {"v": float("nan")}}, None, None)

    def refuse(text: str) -> None:
        raise AssertionError(text)

    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    expected = {"report": "log", "seconds": 0.5, "step": 1, "name": "v", "value": None, "shard": None}
    assert expected == json.loads(line, parse_constant=refuse)
    found = json.loads((tmp_path / "run" / "summary.json").read_text(), parse_constant=refuse)
    assert {"loss": None, "metrics": {"v": None}} == found


@pytest.mark.parametrize("name", ["arrivals.jsonl", "settings.json", "summary.json", "weights.safetensors"])
def test_a_directory_with_a_file_of_an_earlier_run_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[0,[]]\n")
    with pytest.raises(RecordError, match=f"^{tmp_path} holds {name}, as of an earlier run: pass another directory"):
        Record(tmp_path)
    assert [(name, "[0,[]]\n")] == [(path.name, path.read_text()) for path in tmp_path.iterdir()]


@pytest.mark.parametrize("resume", [False, True])
def test_a_record_that_cannot_be_entered_lets_go_of_its_lock_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    if resume:
        finish(Record(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(LineLog, "cut", refuse)
        patch.setattr(os, "close", (closed := Closed()).close)
        with pytest.raises(RecordError, match="cannot be written: No space left on device"):
            Record(tmp_path / "run", resume)
    assert 1 == closed.count
    assert resume is (tmp_path / "run" / "metrics.jsonl").exists()
    finish(Record(tmp_path / "run", resume))


def refuse(log: LineLog, size: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Closed:
    """Counts the descriptors that are closed."""

    def __init__(self) -> None:
        self.count = 0
        self._close = os.close

    def close(self, descriptor: int) -> None:
        self.count += 1
        self._close(descriptor)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="is a file: pass a directory"):
        Record(tmp_path / "file")


def test_a_file_that_is_shorter_than_its_checkpoint_is_said(tmp_path: Path) -> None:
    path, said = tmp_path / "lines.jsonl", list[str]()
    path.write_text("[1]\n")
    LineLog(path, said.append).cut(4)
    assert [] == said
    short = LineLog(path, said.append)
    short.cut(10)
    assert ["lines.jsonl is shorter than its run's checkpoint: 6 bytes are lost"] == said
    short.append("[2]")
    assert "6 bytes of it are lost" == short.sync()
    short.close()


def test_a_run_that_is_whole_lacks_nothing(tmp_path: Path) -> None:
    record = Record(tmp_path / "run")
    record.report(reports.Settings(0.0, 0, SETTINGS))
    record.report(reports.Arrivals(0.0, 0, []))
    summary = finish(record)
    assert (0, True, None) == (summary["exit"], summary["finished"], summary.get("missing"))
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    there = {"arrivals.jsonl", "metrics.jsonl", "settings.json", "summary.json", "weights.safetensors"}
    assert there == {path.name for path in (tmp_path / "run").iterdir()}


def is_a_directory(name: str) -> Callable[[Path], None]:
    def obstruct(run: Path) -> None:
        if (run / name).exists():
            (run / name).unlink()
        (run / name).mkdir()

    return obstruct


def another_takes_its_place(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").write_text("{}\n")


@pytest.mark.parametrize(
    ("obstruct", "missing"),
    [
        (is_a_directory("weights.safetensors"), ["weights.safetensors (Is a directory)"]),
        (is_a_directory("settings.json"), ["settings.json (Is a directory)"]),
        (is_a_directory("arrivals.jsonl"), ["arrivals.jsonl (Is a directory)"]),
        (is_a_directory("summary.json"), ["summary.json (Is a directory)"]),
        (is_a_directory("metrics.jsonl"), ["metrics.jsonl (another file has taken its place)"]),
        (another_takes_its_place, ["metrics.jsonl (another file has taken its place)"]),
        (
            shutil.rmtree,
            [f"{name} (No such file or directory)" for name in
             ("weights.safetensors", "settings.json", "arrivals.jsonl", "metrics.jsonl", "summary.json")],
        ),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_written_is_named_and_the_run_does_not_end_well(
    tmp_path: Path, obstruct: Callable[[Path], None], missing: list[str]
) -> None:
    run = tmp_path / "run"
    record = Record(run)
    record.report(reports.Notice(0.0, 0, "about to be obstructed"))
    obstruct(run)
    record.report(reports.Settings(0.0, 0, SETTINGS))
    record.report(reports.Arrivals(0.0, 0, []))
    summary = finish(record)
    assert (1, False, missing) == (summary["exit"], summary["finished"], summary["missing"])
    assert ("weights.safetensors" in missing[0]) != ("weights_sha256" in summary)
    said = record.writer.take_troubles()[-1]
    assert f"not all files of the run are in {run}: {', '.join(missing)} cannot be written" == said
    assert [] == list(tmp_path.glob("**/*.part"))


def test_settings_that_could_not_be_written_are_tried_again(tmp_path: Path) -> None:
    record = Record(tmp_path / "run")
    (tmp_path / "run" / "settings.json").mkdir()
    record.report(reports.Settings(0.0, 0, SETTINGS))
    (said,) = record.writer.take_troubles()
    assert said.endswith("settings.json cannot be written: Is a directory; it is tried again")
    (tmp_path / "run" / "settings.json").rmdir()
    assert "missing" not in finish(record, weights=False)
    assert SETTINGS == json.loads((tmp_path / "run" / "settings.json").read_text())


def test_settings_that_are_gone_at_the_end_are_written_again_or_named(tmp_path: Path) -> None:
    for name, put in (("gone", Path.unlink), ("taken", lambda path: (path.unlink(), path.mkdir()))):
        record = Record(tmp_path / name)
        record.report(reports.Settings(0.0, 0, SETTINGS))
        put(tmp_path / name / "settings.json")
        summary = finish(record, weights=False)
        if name == "gone":
            assert "missing" not in summary
            assert SETTINGS == json.loads((tmp_path / name / "settings.json").read_text())
        else:
            assert (1, ["settings.json (Is a directory)"]) == (summary["exit"], summary["missing"])


def test_how_a_run_was_launched_is_written_again_if_it_is_gone(tmp_path: Path) -> None:
    program = Launched(str(tmp_path / "program.py"), ["x"], 3)
    (tmp_path / "launched").mkdir()
    program.write(tmp_path / "launched", "/")
    for name in ("launched", "alone"):
        record = Record(tmp_path / name)
        if name == "alone":
            record.keep_launched(program, "/")
        file = tmp_path / name / "launch.json"
        file.unlink()
        assert "missing" not in finish(record, weights=False)
        assert (program, "/") == Launched.read(tmp_path / name)


def test_lines_for_which_there_is_no_room_are_counted_and_none_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "PENDING_BYTES", 20)
    path, said = tmp_path / "lines.jsonl", list[str]()
    path.mkdir()
    file = LineLog(path, said.append)
    for number in range(1000, 1008):
        file.append(str(number))
    assert (4, 20, "Is a directory") == (file.lost, file.end, file.sync())
    path.rmdir()
    file.append("1008")
    assert ["1000", "1001", "1002", "1003", "1008"] == path.read_text().splitlines()
    assert "4 lines of it are lost, as there was no room" == file.sync()
    file.close()
    assert 1 == len(said)


def test_the_weights_of_one_state_are_one_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record = Record(tmp_path / name)
        record.finish({}, LAYOUT, np.arange(LAYOUT.size, dtype=np.float32))
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_directory_in_which_the_launch_cannot_be_kept_holds_no_run(tmp_path: Path) -> None:
    (tmp_path / "run" / "launch.json").mkdir(parents=True)
    with pytest.raises(RecordError, match="cannot be written: Is a directory"):
        Record(tmp_path / "run").keep_launched(Launched("program.py", [], 1), str(tmp_path))
    (tmp_path / "run" / "launch.json").rmdir()
    record = Record(tmp_path / "run")
    record.keep_launched(Launched("program.py", [], 1), str(tmp_path))
    assert "missing" not in finish(record)
    with pytest.raises(RecordError, match=f"pass another directory, or go on with it: karp launch --resume {tmp_path}"):
        Record(tmp_path / "run")
