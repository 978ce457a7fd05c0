"""The run's directory: its files, and how they are written.

    settings.json        the run's settings (protocol/settings.py)
    metrics.jsonl        one line per report, as it happened (protocol/reports.py has their fields)
    arrivals.jsonl       with staleness: [step, [[worker, version, start, stop], …]], contributions as they were applied
    weights.safetensors  the weights at the end, under the names and shapes of the model; summary.json has their hash
    checkpoints/         the states from which the run can be resumed (checkpoints.py)
    launch.json          how it was launched: program, arguments, workers; or how a launcher can resume it
    server.json          the address of its server, while a launch goes on (server_address.py; written by the launcher)
    summary.json         what ran, the totals, the last metrics, the weights' hash, the exit status; written at the end
    logs/                the output of the server and of each worker (written by the launcher)
    replay.json          the outcome of the last `karp replay` of the run (written by that)
    prepared/            tables prepared for its workers (written by karp.tabular); gone when the run has ended well
    fit.json             what `karp fit` has its workers do (written by karp.tabular)

In the summary, `seconds` are those of training: without the time before the first step and what a restart has lost.
`wall_seconds` are those of all launches, of earlier ones until their last checkpoint; `effective_share` is `seconds`
over `wall_seconds`. `bytes_sent` and `bytes_received` count the frames over the server's sockets since it was
last started; what lies in shared memory is not sent, and a run in one process sends nothing. `epoch_loss` is the mean
over the samples of the last whole epoch, or of the one that has begun. `best`, in a run that has ended with the
weights of its best epoch (Trainer's keep_best), is that epoch, counted from 0 as in metrics.jsonl, with its score.

All of them are promised: a run that could not write one of them says so, and its exit status is not 0. Files that
others may read while the run writes are complete or absent (files.py).
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from karp.errors import RecordError
from karp.parameters import Layout
from karp.protocol import reports
from karp.protocol.tree import Vector
from karp.protocol.vectors import Snapshot
from karp.record import files
from karp.record.checkpoints import FOLDER, Writer, newest
from karp.record.launched import FILE, Launched
from karp.record.lines import LineLog
from karp.record.paths import check_unused

BUFFER_BYTES = 1 << 14  # so many bytes of arrivals are collected before they are written


class Record:
    """Writes a run's directory; with `resume` that of a run which is resumed. `keep` is the number of checkpoints.

    A full disk does not stop the run: what cannot be written is kept in memory and written later, but for checkpoints
    and for lines beyond a MiB.

    Raises RecordError, naming the path and what to do, if the directory cannot be used, holds another run or is in use.
    """

    def __init__(self, path: Path, resume: bool = False, keep: int = 3) -> None:
        self.path = path
        self._contents: dict[str, Any] = {}  # file -> its content, to write it again at the end if it was removed
        self._unwritten: dict[str, Any] = {}  # file -> its content, while it cannot be written
        self._is_new = not resume  # whether the directory held no run before
        mode = os.O_RDWR | os.O_CREAT | (0 if resume else os.O_EXCL)
        if not resume:
            check_unused(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._metrics = LineLog(path / "metrics.jsonl", self.say, mode)
        except FileExistsError:
            if not path.is_dir():
                raise RecordError(f"{path} is a file: pass a directory for the run") from None
            check_unused(path)  # another run has begun here since the first check
            raise
        except OSError as error:
            raise self._refused(error) from None
        self.writer = Writer(path, keep)
        try:
            self._open(resume)
        except BaseException:
            self._abandon()
            raise

    def _open(self, resume: bool) -> None:
        """Lock the directory; of a run that is resumed read the newest checkpoint, and remove summary and leftovers.

        Raises RecordError if a run holds the lock or files cannot be changed, FormatError for checkpoints of another
        version of karp.
        """
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
        """Lock the directory until the process ends, if the system has locks; raise RecordError if a run holds it."""
        if files.lock(self._metrics.descriptor) is False:
            raise RecordError(f"another run is writing to {self.path}: wait for its end, or pass another")

    def keep_launched(self, launched: Launched, cwd: str) -> None:
        """Write launch.json, from which a launcher can resume the run; raises RecordError if that fails."""
        try:
            launched.write(self.path, cwd)
        except OSError as error:
            self._abandon()
            raise self._refused(error) from None
        self._keep_launch_file()

    def _abandon(self) -> None:
        """Unlock a directory that cannot be used, and remove the file that would mark it as a run's."""
        self._metrics.close()
        if self._is_new:
            with contextlib.suppress(OSError):
                self._metrics.path.unlink()

    def _keep_launch_file(self) -> None:
        """Keep the content of launch.json in memory, if it can be read, so that it can be written again."""
        with contextlib.suppress(OSError, ValueError):
            self._contents[FILE] = files.read_json(self.path / FILE)

    def newest_checkpoint(self) -> Snapshot | None:
        """Return the checkpoint to resume from, and cut off the lines recorded after it; None: begin again at step 0.

        Raises RecordError if the lines cannot be cut off.
        """
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
        """Have a checkpoint written soon, in a thread; failures come as lines for the user."""
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
            self._contents["settings.json"] = self._unwritten["settings.json"] = report.settings
            for name, why in self._try_again().items():
                self.say(f"{self.path / name} cannot be written: {why}; it is tried again")
        self._metrics.append(reports.to_line(report))

    def say(self, text: str) -> None:
        """Add a line about the record's troubles, which goes to all viewers as a notice."""
        self.writer.troubles.append(text)

    def finish(self, summary: dict[str, Any], layout: Layout | None, weights: Vector | None) -> dict[str, Any]:
        """Write weights and summary, and close the files; return the summary.

        If a file is missing or incomplete, the summary says so: `missing` names each with the reason, `exit` is not 0,
        and the run is not `finished`. A line to the user names them too.
        """
        self.writer.close()
        missing = [self.writer.failure] if self.writer.failure else []
        if layout is not None and weights is not None:
            from karp.parameters import weights_file

            content = weights_file.write(layout.views(weights), weights_file.KARP)
            why = self._write("weights.safetensors", content)
            missing += [f"weights.safetensors ({why})"] if why else []
            summary = summary | ({} if why else {"weights_sha256": layout.sha256(weights)})
        removed = {name: content for name, content in self._contents.items() if not (self.path / name).is_file()}
        self._unwritten |= removed
        missing += [f"{name} ({why})" for name, why in self._try_again().items()]
        synced = {lines.path.name: lines.sync() for lines in (self._arrivals, self._metrics)}
        missing += [f"{name} ({why})" for name, why in synced.items() if why]
        if missing:
            summary = with_missing(summary, missing)
        if why := self._write_json("summary.json", summary):
            summary = with_missing(summary, [*missing, f"summary.json ({why})"])
        if "missing" in summary:
            self.say(f"not all files of the run are in {self.path}: {', '.join(summary['missing'])} cannot be written")
        self._arrivals.close()
        self._metrics.close()
        return summary

    def _try_again(self) -> dict[str, str]:
        """Write the files that could not be written; return each that still cannot be, and why."""
        troubles = {name: self._write_json(name, content) for name, content in self._unwritten.items()}
        self._unwritten = {name: self._unwritten[name] for name, why in troubles.items() if why}
        return {name: why for name, why in troubles.items() if why}

    def _write_json(self, name: str, content: dict[str, Any]) -> str:
        return self._write(name, files.to_json(reports.finite(content)))

    def _write(self, name: str, content: bytes) -> str:
        """Write a file; return why it cannot be written, or ''."""
        try:
            files.write(self.path / name, content)
        except OSError as error:
            return files.reason(error)
        return ""


def with_missing(summary: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    """Return the summary, marked as not finished, of a run that could not write these files."""
    return summary | {"missing": missing, "finished": False, "exit": summary.get("exit") or 1}


