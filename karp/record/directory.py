"""The run's directory: what a run leaves behind, and what others read of it.

    settings.json        what the run is (protocol/settings.py), where and with what it computes
    metrics.jsonl        one line per report, as it happened (protocol/reports.py has their fields)
    arrivals.jsonl       of a run with staleness: [step, [[worker, version, start, stop], …]], what was applied in order
    weights.safetensors  the weights at the end, under the names and shapes of the model; summary.json has their hash
    checkpoints/         what the run can be resumed from (checkpoints.py)
    launch.json          how it was launched: program, arguments, workers; or how a launcher can go on with it
    server.json          where its server is, while a launch goes on (server_address.py; written by the launcher)
    summary.json         the totals, the last metrics, the weights' hash, the exit status; made at the end
    logs/                what each worker printed (written by the launcher)

All of them are promised: a run that has not written each to the disk in the end says so and does not end with 0.
Files that others may read while the run writes are whole or absent (files.py).
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from karp.errors import RecordError
from karp.parameters import Layout
from karp.protocol import reports
from karp.protocol.vectors import Snapshot
from karp.record import files
from karp.record.checkpoints import FOLDER, Writer, newest
from karp.record.launched import FILE, Launched
from karp.record.lines import LineLog
from karp.record.paths import check_unused

BUFFER_BYTES = 1 << 14  # of arrivals are written together

Vector = np.ndarray[Any, np.dtype[Any]]


class Record:
    """Writes one run's directory; with `resume`, goes on in one that holds a run.

    A disk that is full does not stop the run: what cannot be written is kept and tried again.

    Raises RecordError, naming the path and what to do, if it cannot be used, holds another run or is in use.
    """

    def __init__(self, path: Path, resume: bool = False, keep: int = 3) -> None:
        self.path = path
        self._kept: dict[str, Any] = {}  # file -> what it is to hold at the end, should somebody have removed it
        self._unwritten: dict[str, Any] = {}  # file -> what it is to hold, while it cannot be written
        self._made = not resume  # the directory holds no other run
        mode = os.O_RDWR | os.O_CREAT | (0 if resume else os.O_EXCL)
        if not resume:
            check_unused(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._metrics = LineLog(path / "metrics.jsonl", self.say, mode)
        except FileExistsError:
            if not path.is_dir():
                raise RecordError(f"{path} is a file: pass a directory for the run") from None
            check_unused(path)  # another run has begun here at this moment
            raise
        except OSError as error:
            raise self._refused(error) from None
        self.writer = Writer(path, keep)
        try:
            self._enter(resume)
        except BaseException:
            self._abandon()
            raise

    def _enter(self, resume: bool) -> None:
        """Lock the directory, and find what there is to go on from."""
        path = self.path
        self._lock()
        self._arrivals = LineLog(path / "arrivals.jsonl", self.say, buffer=BUFFER_BYTES)
        self._snapshot = newest(path, self.say) if resume else None
        try:
            if resume:
                (path / "summary.json").unlink(missing_ok=True)  # it says that the run has ended
                files.remove_parts(path)
                files.remove_parts(path / FOLDER)
            self._metrics.cut(self._metrics.written)
        except OSError as error:
            raise self._refused(error) from None
        self._keep_launch_file()

    def _refused(self, error: OSError) -> RecordError:
        return RecordError(f"the run directory {self.path} cannot be written: {files.reason(error)}")

    def _lock(self) -> None:
        """Lock the directory for one run at a time; the lock goes with the process."""
        try:
            import fcntl
        except ImportError:  # not on this system
            return
        try:
            fcntl.flock(self._metrics.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordError(f"another run is writing to {self.path}: wait for its end, or pass another") from None
        except OSError:  # not on this file system
            return

    def keep_launched(self, launched: Launched, cwd: str) -> None:
        """Keep how a launcher can go on with the run; raises RecordError if that cannot be."""
        try:
            launched.write(self.path, cwd)
        except OSError as error:
            self._abandon()
            raise self._refused(error) from None
        self._keep_launch_file()

    def _abandon(self) -> None:
        """Let go of a directory that cannot be used; it holds no run, unless it did before."""
        self._metrics.close()
        if self._made:
            with contextlib.suppress(OSError):
                self._metrics.path.unlink()

    def _keep_launch_file(self) -> None:
        """Remember what launch.json holds, if it is there."""
        with contextlib.suppress(OSError, ValueError):
            self._kept[FILE] = files.read_json(self.path / FILE)

    def newest_checkpoint(self) -> Snapshot | None:
        """Return the checkpoint to go on from; what was recorded after it is cut off (all of it, if there is none)."""
        snapshot, self._snapshot = self._snapshot, None
        plain = snapshot[0] if snapshot is not None else {}
        if snapshot is None:
            self.say("there is no checkpoint that can be used: the run begins again at step 0")
        try:
            self._metrics.cut(int(plain.get("metrics_bytes", 0)))
            self._arrivals.cut(int(plain.get("arrivals_bytes", 0)))
        except OSError as error:
            raise self._refused(error) from None
        return snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Have a checkpoint written."""
        self._arrivals.flush()
        self._try_again()
        snapshot[0]["metrics_bytes"], snapshot[0]["arrivals_bytes"] = self._metrics.end, self._arrivals.end
        self.writer.submit(snapshot)

    def report(self, report: reports.Report) -> None:
        """Append a line to metrics.jsonl; the settings go to their own file too, and arrivals only to theirs."""
        if isinstance(report, reports.Arrivals):
            self._arrivals.append(json.dumps([report.step, report.of], separators=(",", ":")))
            return
        if isinstance(report, reports.Settings):
            self._kept["settings.json"] = self._unwritten["settings.json"] = report.settings
            for name, why in self._try_again().items():
                self.say(f"{self.path / name} cannot be written: {why}; it is tried again")
        self._metrics.append(reports.to_line(report))

    def say(self, text: str) -> None:
        """Have a line go to the terminal and the record."""
        self.writer.troubles.append(text)

    def finish(self, summary: dict[str, Any], layout: Layout | None, weights: Vector | None) -> dict[str, Any]:
        """Write weights and summary, and close; returns the summary as it was to be written.

        Where a file is missing, or not whole, the summary says so: `missing` names each with the reason, `exit` is not
        0, and the run is not finished. The line that is said names them too.
        """
        self.writer.close()
        missing = [self.writer.failure] if self.writer.failure else []
        if layout is not None and weights is not None:
            from safetensors.numpy import save

            views = {name: np.ascontiguousarray(view) for name, view in layout.views(weights).items()}
            why = self._write("weights.safetensors", save(views, metadata={"format": "karp"}))
            missing += [f"weights.safetensors ({why})"] if why else []
            summary = summary | ({} if why else {"weights_sha256": layout.sha256(weights)})
        self._unwritten |= {name: kept for name, kept in self._kept.items() if not (self.path / name).is_file()}
        missing += [f"{name} ({why})" for name, why in self._try_again().items()]
        settled = {lines.path.name: lines.settle() for lines in (self._arrivals, self._metrics)}
        missing += [f"{name} ({why})" for name, why in settled.items() if why]
        if missing:
            summary = lacking(summary, missing)
        if why := self._write_json("summary.json", summary):
            summary = lacking(summary, [*missing, f"summary.json ({why})"])
        if "missing" in summary:
            self.say(f"not all files of the run are in {self.path}: {', '.join(summary['missing'])} cannot be written")
        self._arrivals.close()
        self._metrics.close()
        return summary

    def _try_again(self) -> dict[str, str]:
        """Write what could not be written; return each file that still cannot be, and why."""
        troubles = {name: self._write_json(name, content) for name, content in self._unwritten.items()}
        self._unwritten = {name: self._unwritten[name] for name, why in troubles.items() if why}
        return {name: why for name, why in troubles.items() if why}

    def _write_json(self, name: str, content: dict[str, Any]) -> str:
        return self._write(name, files.to_json(reports.finite(content)))

    def _write(self, name: str, content: bytes) -> str:
        """Write a file; returns why it cannot be written, or ''."""
        try:
            files.write(self.path / name, content)
        except OSError as error:
            return files.reason(error)
        return ""


def lacking(summary: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    """Return the summary of a run without some of its files."""
    return summary | {"missing": missing, "finished": False, "exit": summary.get("exit") or 1}


