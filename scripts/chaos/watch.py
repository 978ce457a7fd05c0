"""What can be seen of a run from outside: its processes, checkpoints, reports, ports and shared memory."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class RunProcess:
    """Describe a process of a run; `role` is 'server', 'worker' or 'joined' (a worker without a launcher)."""

    pid: int
    role: str
    worker: int
    address: str


def processes(directory: Path) -> list[RunProcess]:
    """Return the living processes that have this run's KARP_RUN_DIR in their environment."""
    living = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes()
            if f"KARP_RUN_DIR={directory}\0".encode() not in variables:
                continue
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        settings = variables.decode(errors="replace").split("\0")
        names = dict(setting.split("=", 1) for setting in settings if "=" in setting)
        launched = "worker" if "KARP_WORKER" in names else "joined"
        role = "server" if b"karp.serve.process" in command else launched
        worker, address = int(names.get("KARP_WORKER", "-1")), names.get("KARP_SERVER", "")
        living.append(RunProcess(int(entry.name), role, worker, address))
    return sorted(living, key=lambda process: (process.role, process.worker, process.pid))


def newest_step(directory: Path) -> int:
    """Return the step of the newest checkpoint, -1 if there is none."""
    try:
        names = [entry.name for entry in os.scandir(directory / "checkpoints") if entry.name.endswith(".safetensors")]
    except OSError:
        return -1
    return max((int(name[5:13]) for name in names), default=-1)


def lines(directory: Path) -> list[dict[str, Any]]:
    """Return the reports in metrics.jsonl; a line that is still being written is left out."""
    try:
        text = (directory / "metrics.jsonl").read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def summary(directory: Path) -> dict[str, Any]:
    """Return what summary.json holds, {} if there is none."""
    try:
        summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return summary


def fired_faults(directory: Path) -> dict[int, tuple[int, float]]:
    """Return the faults of KARP_FAULT that have happened: number -> (pid, time)."""
    fired = {}
    for path in (directory / "faults").glob("*"):
        pid, _, when = path.read_text().partition(" ")
        if when.endswith("\n"):
            fired[int(path.name)] = int(pid), float(when)
    return fired


def listening(port: int) -> bool:
    """Return whether any process of this machine listens on this TCP port."""
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        rows = [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []
        if any(int(row[1].rsplit(":", 1)[1], 16) == port and row[3] == "0A" for row in rows):
            return True
    return False


def shared_memory() -> set[str]:
    """Return the names in /dev/shm."""
    path = Path("/dev/shm")
    return {entry.name for entry in path.iterdir()} if path.is_dir() else set()


def abandoned_memory(before: set[str]) -> set[str]:
    """Return the names that have come to /dev/shm since, without those that somebody else's process has mapped."""
    left = shared_memory() - before
    for process in Path("/proc").glob("[0-9]*") if left else ():
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            lines = (process / "maps").read_text(errors="replace").splitlines()
            left -= {line.partition("/dev/shm/")[2] for line in lines}
    return left
