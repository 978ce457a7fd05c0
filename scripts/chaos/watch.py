"""What can be seen of a run from outside: its processes, its newest checkpoint, its lines, what it leaves behind."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """A process of a run: `role` is 'server', 'worker' or 'joined'."""

    pid: int
    role: str
    worker: int
    address: str


def processes(directory: Path) -> list[Seen]:
    """Those that live and have KARP_RUN_DIR of this run in their environment."""
    found = []
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
        names = dict(line.split("=", 1) for line in variables.decode(errors="replace").split("\0") if "=" in line)
        roles = {b"karp.serve.process": "server", b"karp.launch.worker_main": "worker"}
        role = next((role for module, role in roles.items() if module in command), "joined")
        found.append(Seen(int(entry.name), role, int(names.get("KARP_WORKER", "-1")), names.get("KARP_SERVER", "")))
    return sorted(found, key=lambda seen: (seen.role, seen.worker, seen.pid))


def newest_step(directory: Path) -> int:
    """The step of the newest checkpoint, -1 for none."""
    try:
        names = [entry.name for entry in os.scandir(directory / "checkpoints") if entry.name.endswith(".safetensors")]
    except OSError:
        return -1
    return max((int(name[5:13]) for name in names), default=-1)


def lines(directory: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl holds; a line that is not whole yet is left out."""
    try:
        text = (directory / "metrics.jsonl").read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def summary(directory: Path) -> dict[str, Any]:
    """summary.json, {} if there is none."""
    try:
        found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def struck(directory: Path) -> dict[int, tuple[int, float]]:
    """The named faults that have fired: number -> (pid, time)."""
    found = {}
    for path in (directory / "faults").glob("*"):
        pid, _, when = path.read_text().partition(" ")
        if when.endswith("\n"):
            found[int(path.name)] = int(pid), float(when)
    return found


def listening(port: int) -> bool:
    """Whether any process of this machine listens on this TCP port."""
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        rows = [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []
        if any(int(row[1].rsplit(":", 1)[1], 16) == port and row[3] == "0A" for row in rows):
            return True
    return False


def shared_memory() -> set[str]:
    """The names in /dev/shm."""
    path = Path("/dev/shm")
    return {entry.name for entry in path.iterdir()} if path.is_dir() else set()
