"""What a run's directory holds, and what cannot be one."""

import json
from pathlib import Path

import pytest

from karp.errors import RecordError
from karp.record.directory import Record
from karp.record.lines import Lines


def test_every_line_is_json_whatever_the_numbers_are(tmp_path: Path) -> None:
    record = Record(tmp_path / "run")
    record.report("log", {"step": 1, "name": "v", "value": float("nan")})
    record.finish({"loss": float("inf"), "metrics": {"v": float("nan")}}, None, None)

    def refuse(text: str) -> None:
        raise AssertionError(text)

    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert {"report": "log", "step": 1, "name": "v", "value": None} == json.loads(line, parse_constant=refuse)
    found = json.loads((tmp_path / "run" / "summary.json").read_text(), parse_constant=refuse)
    assert {"loss": None, "metrics": {"v": None}} == found


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="is a file: pass a directory"):
        Record(tmp_path / "file")


def test_a_file_that_is_shorter_than_its_checkpoint_is_said(tmp_path: Path) -> None:
    path, said = tmp_path / "lines.jsonl", list[str]()
    path.write_text("[1]\n")
    Lines(path, said.append).cut(4)
    assert [] == said
    Lines(path, said.append).cut(10)
    assert ["lines.jsonl is shorter than its run's checkpoint: 6 bytes are lost"] == said
