"""What is to be launched, as the run's directory keeps it so that the run can be resumed and replayed."""

import json
from pathlib import Path
from typing import NamedTuple

from karp import environment
from karp.errors import SettingError
from karp.launch import program
from karp.record import files

FILE = "launch.json"
WORKERS = 10_000  # on one machine
THREADS = 1 << 16  # as in protocol/settings.py, which a launcher does not import


class Options(NamedTuple):
    """The arguments of `karp launch`."""

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
    staleness: str | None = None  # as KARP_STALENESS says it; None: left to the program
    local_steps: str | None = None
    codec: str | None = None
    codec_weights: str | None = None
    same_kernels: bool = False
    keys: str = ""  # the directory that holds them; '' for fresh ones where keys are needed

    def check(self) -> None:
        """Raises SettingError for what cannot be launched."""
        if not program.exists(self.program):
            raise SettingError(f"there is no program {self.program!r}: pass the path of a Python file")
        if not 1 <= self.workers < WORKERS or not 1 <= self.threads < THREADS:
            few = f"at least 1, and below {WORKERS} and {THREADS}"
            raise SettingError(f"{self.workers} workers with {self.threads} threads each: both must be {few}")
        self.modes()  # raises for what are none
        if self.on_nonfinite not in ("stop", "skip") or self.exchange not in ("auto", "zeromq"):
            found = f"{self.on_nonfinite} and {self.exchange}"
            raise SettingError(f"--on-nonfinite is stop or skip and --exchange auto or zeromq, not {found}")
        if not self.checkpoint_every >= 0 or self.keep < 1 or self.max_restarts < 0:
            raise SettingError("--checkpoint-every and --max-restarts must be at least 0, --keep at least 1")

    def modes(self) -> dict[str, str]:
        """The variables by which the arguments of Trainer that were given here reach the program."""
        return environment.variables({name: getattr(self, name) for name in environment.MODES})

    def write(self, directory: Path) -> None:
        """Keep them, and the directory that the program is run in; raises OSError if that cannot be."""
        absolute = self._replace(program=program.absolute(self.program))
        files.write_json(directory / FILE, absolute._asdict() | {"cwd": str(Path.cwd())})

    @classmethod
    def read(cls, directory: Path) -> tuple["Options", str]:
        """What `write` has kept; raises OSError or ValueError if that cannot be read."""
        try:
            plain = json.loads((directory / FILE).read_text())
        except RecursionError:
            raise ValueError(f"{FILE} is nested too deeply") from None
        if type(plain) is not dict or plain.keys() != KINDS.keys():
            raise ValueError(f"{FILE} is damaged, or of another version of karp")
        for name, value in plain.items():
            if type(value) not in KINDS[name] or (name == "arguments" and any(type(one) is not str for one in value)):
                raise ValueError(f"{FILE}: {name} is {value!r:.60}")
        cwd = plain.pop("cwd")
        return cls(**plain), cwd


NUMBER, TEXT = (int, float), (str, type(None))
KINDS: dict[str, tuple[type, ...]] = {"cwd": (str,), "program": (str,), "arguments": (list,), "workers": (int,)}
KINDS |= {
    name: TEXT if default is None else NUMBER if type(default) is float else (type(default),)
    for name, default in Options._field_defaults.items()
}
