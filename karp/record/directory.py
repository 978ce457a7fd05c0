"""The run's directory: what a run leaves behind, and what others read of it.

    settings.json        what the run is (protocol/settings.py), where and with what it computes
    metrics.jsonl        one line per report, as it happened
    arrivals.jsonl       of a run with staleness: [step, [[worker, version, start, stop], …]], what was applied in order
    weights.safetensors  the weights at the end, under the names and shapes of the model; summary.json has their hash
    checkpoints/         what the run can be resumed from (checkpoints.py)
    launch.json          how it was launched: program, arguments, workers (written by the launcher)
    summary.json         the totals, the last metrics, the weights' hash, the exit status; made at the end
    logs/                what each worker printed (written by the launcher)

Files that others may read while the run writes are written aside and renamed.
"""

import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from karp.errors import RecordError
from karp.parameters import Layout
from karp.protocol.server.snapshot import Snapshot
from karp.record.checkpoints import Writer, newest
from karp.record.lines import Lines

BUFFER_BYTES = 1 << 14  # of arrivals are written together

Vector = np.ndarray[Any, np.dtype[Any]]


def facts() -> dict[str, str]:
    """What the bits depend on beyond the settings: Python, NumPy, its BLAS and the kind of CPU."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas = ", ".join(f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}" for pool in pools)
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas.strip() or "unknown",
        "cpu": cpu(),
    }


def cpu() -> str:
    """The CPU's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Record:
    """Writes one run's directory; with `resume`, goes on in one that holds a run.

    A disk that is full does not stop the run: what cannot be written is kept and tried again.

    Raises RecordError, naming the path and what to do, if it cannot be used, holds another run or is in use.
    """

    def __init__(self, path: Path, resume: bool = False, keep: int = 3) -> None:
        self.path = path
        mode = os.O_RDWR | os.O_CREAT | (0 if resume else os.O_EXCL)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._metrics = Lines(path / "metrics.jsonl", self.say, mode)
        except FileExistsError:
            if not path.is_dir():
                raise RecordError(f"{path} is a file: pass a directory for the run") from None
            raise RecordError(
                f"{path} holds a run already: pass another directory; one that was launched goes on with "
                f"karp launch --resume {path}"
            ) from None
        except OSError as error:
            raise RecordError(f"the run directory {path} cannot be written: {error.strerror}") from None
        self._lock()
        try:
            if resume:
                (path / "summary.json").unlink(missing_ok=True)  # it says that the run has ended
        except OSError as error:
            raise RecordError(f"the run directory {path} cannot be written: {error.strerror}") from None
        self.writer = Writer(path, keep)
        self._metrics.cut(self._metrics.written)
        self._arrivals = Lines(path / "arrivals.jsonl", self.say, buffer=BUFFER_BYTES)

    def _lock(self) -> None:
        """One run at a time; the lock goes with the process."""
        try:
            import fcntl
        except ImportError:  # not on this system
            return
        try:
            fcntl.flock(self._metrics.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._metrics.close()
            raise RecordError(f"another run is writing to {self.path}: wait for its end, or pass another") from None

    def newest_checkpoint(self) -> Snapshot | None:
        """The checkpoint to go on from; what was recorded after it is cut off (all of it, if there is none)."""
        snapshot = newest(self.path, lambda text: self.writer.troubles.append(text))
        plain = snapshot[0] if snapshot is not None else {}
        if snapshot is None:
            self.say("there is no checkpoint that can be used: the run begins again at step 0")
        self._metrics.cut(int(plain.get("metrics_bytes", 0)))
        self._arrivals.cut(int(plain.get("arrivals_bytes", 0)))
        return snapshot

    def save(self, snapshot: Snapshot) -> None:
        """Have a checkpoint written."""
        self._arrivals.flush()
        snapshot[0]["metrics_bytes"], snapshot[0]["arrivals_bytes"] = self._metrics.end, self._arrivals.end
        self.writer.submit(snapshot)

    def report(self, kind: str, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl; the settings go to their own file too, and arrivals only to theirs."""
        if kind == "arrivals":
            self._arrivals.append(json.dumps([values["step"], values["of"]], separators=(",", ":")))
            return
        if kind == "settings":
            self._write_json("settings.json", values)
        self._metrics.append(json.dumps(plain({"report": kind, **values}), allow_nan=False))

    def say(self, text: str) -> None:
        """A line for the terminal and the record."""
        self.writer.troubles.append(text)

    def finish(self, summary: dict[str, Any], layout: Layout | None, weights: Vector | None) -> None:
        """Write weights and summary, and close."""
        self.writer.close()
        if layout is not None and weights is not None:
            from safetensors.numpy import save

            views = {name: np.ascontiguousarray(view) for name, view in layout.views(weights).items()}
            self._write("weights.safetensors", save(views, metadata={"format": "karp"}))
            summary = summary | {"weights_sha256": layout.sha256(weights)}
        self._arrivals.close()
        self._write_json("summary.json", summary)
        self._metrics.close()

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        self._write(name, (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode())

    def _write(self, name: str, content: bytes) -> None:
        aside = self.path / f".{name}.part"
        try:
            aside.write_bytes(content)
            os.replace(aside, self.path / name)
        except OSError as error:
            self.say(f"{self.path / name} cannot be written: {error.strerror}")


def plain(content: Any) -> Any:
    """What JSON can say: numbers that are not finite as null.

    >>> plain({"loss": float("nan"), "of": [1, 2.5]})
    {'loss': None, 'of': [1, 2.5]}
    """
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {name: plain(one) for name, one in content.items()}
    return [plain(one) for one in content] if isinstance(content, list | tuple) else content


