"""What the launcher tells the server first: a room of its own, so that a launcher imports nothing of a server.

A launcher's records are named tuples: importing `dataclasses` would take a fifth of its start.
"""

import json
from typing import NamedTuple


class Config(NamedTuple):
    """What the launcher tells the server first."""

    run: str
    workers: int
    run_dir: str
    program: str
    address: str
    descriptor: int  # of the listening socket
    incarnation: int = 0
    resume: bool = False
    save_seconds: float = 10.0
    keep: int = 3
    skip: bool = False  # leave out shards whose gradient is not finite
    keys: str = ""
    shards: int = 0  # of a step, where the program leaves them to the run; 0: as many as workers
    changed: bool = False  # a run that is resumed may go on with a program file that has changed
    exchange: str = "auto"  # or "zeromq": no shared memory
    same_kernels: bool = False

    def to_line(self) -> bytes:
        return json.dumps(self._asdict()).encode() + b"\n"
