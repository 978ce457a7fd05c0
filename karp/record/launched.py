"""launch.json: what a run was started with, so that it can be resumed and replayed.

A launcher writes it, and so does a program that trains by itself: a launcher can go on with that, too.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple, Self

from karp.record import files

FILE = "launch.json"


def command_line() -> str:
    """Return the command that this process was started with, as a shell would read it."""
    return shlex.join(sys.orig_argv)


class Launched(NamedTuple):
    """A program with its arguments, and those of `karp launch`."""

    program: str
    arguments: list[str]
    workers: int
    threads: int = 1
    max_restarts: int = 3
    checkpoint_every: float = 10.0
    keep: int = 3
    on_nonfinite: str = "stop"
    host: str = "127.0.0.1"
    port: int = 0
    exchange: str = "auto"  # or "zeromq": frames even on this host
    staleness: str | None = None  # the consistency options, as text; None: left to the program
    local_steps: str | None = None
    codec: str | None = None
    codec_weights: str | None = None
    same_kernels: bool = False
    kernels: str = ""  # that OpenBLAS is to use; '': those that it chooses
    on: str = "host"  # or "ray", "ray://HOST:PORT"
    most_workers: int = 0  # that Ray may have room for; 0: as many as `workers`
    cpus_per_worker: int = 0  # that Ray reserves; 0: as many as threads
    working_dir: str = ""  # that Ray sends to the nodes; '': they see this host's files
    keys: str = ""  # the directory that holds them; '' for fresh ones where keys are needed

    def with_consistency(self, texts: dict[str, str | None]) -> Self:
        """Return the same arguments with these consistency options (name -> text; None: left to the program)."""
        return self._replace(**texts)  # type: ignore[arg-type]

    def write(self, directory: Path, cwd: str = "") -> None:
        """Write launch.json: the arguments, and the directory where the program is run; raises OSError if that fails.

        The directory is `cwd`, or that of this process. The program's path becomes absolute; a link is not followed.
        """
        cwd = cwd or os.getcwd()
        absolute = self._replace(program=os.path.join(cwd, self.program))
        files.write_json(directory / FILE, absolute._asdict() | {"cwd": cwd})

    @classmethod
    def read(cls, directory: Path) -> tuple[Self, str]:
        """Read launch.json in `directory`; return the arguments, and the directory where the program is run.

        Arguments that the file lacks, as an older karp wrote it, have their defaults. Raises OSError if there is no
        such file, ValueError if it is damaged or has arguments unknown to this karp.
        """
        plain = files.read_json(directory / FILE)
        if type(plain) is not dict or plain.keys() - KINDS.keys() or NEEDED - plain.keys():
            raise ValueError(f"{FILE} is damaged, or of another version of karp")
        for name, value in plain.items():
            if type(value) not in KINDS[name] or (name == "arguments" and any(type(item) is not str for item in value)):
                raise ValueError(f"{FILE}: {name} is {value!r:.60}")
        cwd = plain.pop("cwd")
        return cls(**plain), cwd


NUMBER, TEXT = (int, float), (str, type(None))
KINDS: dict[str, tuple[type, ...]] = {"cwd": (str,), "program": (str,), "arguments": (list,), "workers": (int,)}
NEEDED = set(KINDS)
KINDS |= {
    name: TEXT if default is None else NUMBER if type(default) is float else (type(default),)
    for name, default in Launched._field_defaults.items()
}
