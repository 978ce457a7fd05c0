"""The arguments of `karp launch`, and their check."""

import os

from karp import environment
from karp.checks import whole
from karp.errors import SettingError
from karp.launch import program
from karp.limits import setting
from karp.record.launched import Launched
from karp.text import counted

WORKERS = 10_000  # fewer than so many on one machine


def cores() -> int:
    """Return the number of cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Options(Launched):
    """The arguments of `karp launch`."""

    def check(self) -> None:
        """Raise SettingError if the run cannot be launched with these arguments."""
        if not program.exists(self.program):
            raise SettingError(f"there is no program {self.program!r}: pass the path of a Python file")
        whole("-n", self.workers, 1, WORKERS - 1)
        setting("threads", self.threads)
        self.consistency_variables()  # raises SettingError for a value that is not possible
        if self.on_nonfinite not in ("stop", "skip") or self.exchange not in ("auto", "zeromq"):
            given = f"{self.on_nonfinite} and {self.exchange}"
            raise SettingError(f"--on-nonfinite is stop or skip and --exchange auto or zeromq, not {given}")
        if not 0 <= self.checkpoint_every < float("inf"):
            raise SettingError(f"--checkpoint-every is {self.checkpoint_every}; it must be a number of seconds from 0")
        if self.on not in ("host", "ray") and not self.on.startswith("ray://"):
            raise SettingError(f"--on is {self.on!r}; it must be host, ray or ray://HOST:PORT")
        if self.most_workers and not (self.workers <= self.most_workers < WORKERS and self.on != "host"):
            raise SettingError(f"-n {self.workers}:{self.most_workers} must be from a number to one that is not below "
                "it, and with --on ray, as more workers start when there is room")  # fmt: skip
        if self.working_dir:
            self._check_working_dir()
        whole("--cpus-per-worker", self.cpus_per_worker, 0, WORKERS)
        if self.keep < 1 or self.max_restarts < 0:
            raise SettingError("--max-restarts must be at least 0, --keep at least 1")

    def _check_working_dir(self) -> None:
        """Raise SettingError unless Ray can send this working directory to the nodes, and the program with it."""
        if self.on == "host":
            raise SettingError("--working-dir goes with --on ray: on this host the program runs where it is")
        if not os.path.isdir(self.working_dir):
            raise SettingError(f"--working-dir is {self.working_dir!r}, which is no directory")
        if not is_in(self.working_dir, self.program):
            raise SettingError(f"the program {self.program} is not in --working-dir {self.working_dir}, so it would "
                "not be on the nodes")  # fmt: skip

    @property
    def cpus(self) -> int:
        """The CPUs that Ray reserves for a worker."""
        return self.cpus_per_worker or self.threads

    def warning_of_cores(self, threads: int) -> str:
        """Return a warning if the machine has too few cores for workers with so many threads each; else ''."""
        available = cores()
        if self.workers * threads <= available:
            return ""
        blas_threads = f"{counted(threads, 'BLAS thread')} each"
        return f"{self.workers} workers with {blas_threads} on {available} cores: they share the cores"

    def consistency_variables(self) -> dict[str, str]:
        """Return the environment variables that hand the consistency options given here to the program."""
        return environment.consistency_variables(self._asdict())


def is_in(directory: str, path: str) -> bool:
    """Return whether a path is a directory, or in it; links are followed."""
    directory = os.path.realpath(directory)
    return os.path.commonpath([directory, os.path.realpath(path)]) == directory
