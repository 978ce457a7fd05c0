"""What both drivers of the server share: viewers, checkpoints, the summary."""

from pathlib import Path
from typing import Any

import numpy as np

from karp import optim
from karp.data import Plan
from karp.parameters import Layout
from karp.protocol.messages import Contribution, Initial, Join, Lease
from karp.protocol.reports import Notice, Report
from karp.protocol.server.actions import Send
from karp.protocol.server.machine import Server
from karp.protocol.settings import Settings
from karp.protocol.tree import Node
from karp.record.directory import Record
from karp.serve.driver import Audience, conclude

LAYOUT = Layout({"weight": (2, 2)}, "float32")
SETTINGS = Settings.from_dict({
    "program": "digits.py", "program_sha256": "", "layout": LAYOUT.to_dict(),
    "weights_sha256": LAYOUT.sha256(LAYOUT.zeros()), "optimizer": optim.to_dict(optim.SGD(lr=0.5)), "samples": 20,
    "data_sha256": "d", "batch_size": 10, "epochs": 1, "shards": 1, "seed": 0, "threads": 1, "evaluate": False,
    "wait_for_score": False,
})  # fmt: skip


class Viewer:
    def __init__(self) -> None:
        self.reports: list[Report] = []

    def report(self, report: Report) -> None:
        self.reports.append(report)


def trained(audience: Audience, begin: float, seconds: float) -> None:
    """Both steps of the run, so many seconds each."""
    server, now = audience.server, begin
    actions = server.receive(b"0", Join(0, SETTINGS, "host", 1), 0, now)
    actions += server.receive(b"0", Initial(LAYOUT.zeros()), 0, now)
    while leases := [each.message for each in actions if isinstance(each, Send) and isinstance(each.message, Lease)]:
        now, lease = now + seconds, leases[0]
        node = Node(0, 1, 0.25, np.ones(LAYOUT.size, np.float32))
        actions = server.receive(b"0", Contribution(lease.step, lease.version, [node], [], False), 0, now)


def audience(path: Path, now: float, launched: float, *viewers: Viewer, incarnation: int = 0) -> Audience:
    server = Server(1, Plan, now, incarnation=incarnation)
    return Audience(server, Record(path, resume=path.exists()), launched, *viewers)


def test_the_summary_says_what_ran_and_how_much_of_the_time_was_training(tmp_path: Path) -> None:
    here = audience(tmp_path / "run", 100.5, 100.0)
    trained(here, 101.0, 2.0)
    here.server.tick(110.0)
    summary = conclude(here, {"program": "digits.py", "command": "karp launch", "workers": 1}, 0)
    expected: dict[str, Any] = {
        "program": "digits.py", "command": "karp launch", "optimizer": optim.to_dict(optim.SGD(lr=0.5)), "outer": None,
        "codec": None, "codec_weights": None, "local_steps": 1, "dtype": "float32", "data_sha256": "d", "steps": 2,
        "seconds": 4.0, "wall_seconds": 10.0, "effective_share": 0.4, "epoch_loss": 0.25, "exit": 0,
    }  # fmt: skip
    assert expected == {name: summary[name] for name in expected}


def test_time_of_earlier_launches_counts_and_what_a_restart_loses_too(tmp_path: Path) -> None:
    first = audience(tmp_path / "run", 10.0, 10.0)
    trained(first, 10.0, 2.0)
    first.save()
    first.record.finish({}, None, None)  # type: ignore[union-attr]
    for incarnation in (0, 1):  # another launch, and the restart of its server
        again = audience(tmp_path / "run", 1001.0, 1000.0, incarnation=incarnation)
        saved = again.record.newest_checkpoint()  # type: ignore[union-attr]
        assert saved is not None
        again.restore(saved)
        assert 4.0 + 3.0 == again.wall_seconds(1003.0)
        again.record.finish({}, None, None)  # type: ignore[union-attr]


def test_what_the_record_has_to_say_goes_to_all_viewers_and_after_the_end_to_the_others(tmp_path: Path) -> None:
    viewer = Viewer()
    here = audience(tmp_path / "run", 0.0, 0.0, viewer)
    record = here.record
    assert record is not None
    record.say("the disk is full")
    here.report(Notice(0.0, 0, "first"))
    assert [Notice(0.0, 0, "first"), Notice(0.0, 0, "the disk is full")] == viewer.reports
    record.path.joinpath("summary.json").mkdir()
    conclude(here, {}, 0)
    assert "summary.json (Is a directory) cannot be written" in viewer.reports[-1].text  # type: ignore[attr-defined]
    assert 2 == len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
