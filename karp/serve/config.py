"""The configuration that a launcher sends to its server; in a file of its own, so that a launcher imports no server.

Config is a named tuple, as importing `dataclasses` would take a fifth of the launcher's start.
"""

import json
from typing import NamedTuple


class Config(NamedTuple):
    """The configuration of a server process: the first line that its launcher sends."""

    run: str
    workers: int
    run_dir: str
    program: str
    address: str = ""
    descriptor: int = -1  # the descriptor of the listening socket
    incarnation: int = 0
    resume: bool = False
    save_seconds: float = 10.0
    keep: int = 3
    skip: bool = False  # leave out shards whose gradient is not finite
    keys: str = ""
    shards: int = 0  # the shards of a step, if the program leaves their number to the run; 0: as many as workers
    changed: bool = False  # a run that is resumed may go on with a program file that has changed
    exchange: str = "auto"  # "zeromq" uses no shared memory
    same_kernels: bool = False
    command: str = ""  # the launcher's command line
    numbers: int = 0  # workers' numbers below are given by the launcher
    launched: float = 0.0  # when the launcher began, as time.monotonic() has it in all processes of a host

    def to_line(self) -> bytes:
        """Encode the configuration as a line of JSON."""
        return json.dumps(self._asdict()).encode() + b"\n"
