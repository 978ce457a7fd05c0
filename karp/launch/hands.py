"""What a launcher needs of whoever has the processes of its run: of this host (this_host.py), or of a Ray cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from karp.launch.actions import Action
from karp.launch.options import Options
from karp.launch.supervisor import Supervisor
from karp.serve.config import Config


class Output(Protocol):
    """Where a process's output is: in a log on this host, from an offset on."""

    @property
    def log(self) -> Path: ...

    @property
    def begin(self) -> int: ...


class Launching(Protocol):
    """What the hands know of the launch."""

    options: Options
    directory: Path
    supervisor: Supervisor

    def perform(self, todo: list[Action]) -> None:
        """Perform the supervisor's actions."""

    def server_ended(self, status: int, how: str = "") -> None:
        """Take note of the end of the server's process; `how` says it in words, if the status does not."""

    def moved(self) -> None:
        """Publish the server's address once more, as it is another."""

    def pass_interrupt(self) -> None:
        """Let the supervisor know of an interrupt that has arrived."""


class Hands(Protocol):
    """Processes of one run: they are started and ended here, and the supervisor's machine is told of their ends.

    `open` comes first, and sets `published`. It raises SettingError or LostError if there can be no server. What
    starts a process raises RecordError or LostError if that cannot be.
    """

    published: str  # the server's address, as others can reach it

    @property
    def host(self) -> str:
        """The address that the server listens on; any but loopback needs keys."""

    def open(self) -> None: ...

    def start_server(self, config: Config, variables: Mapping[str, str]) -> None:
        """Start the server's process with these variables of the run; `supervisor.started` follows, now or later."""

    def start_worker(self, worker: int, variables: Mapping[str, str]) -> None:
        """Start a worker's process with these variables of the run; `supervisor.started` follows, now or later."""

    def tell(self, command: Mapping[str, object]) -> None:
        """Send the server a command; if it is gone, do nothing."""

    def stop(self, workers: list[int]) -> None:
        """End these workers' processes: first by SIGTERM, then by SIGKILL."""

    def kill_server(self) -> None: ...

    def kill_all(self) -> None:
        """Kill every process at once; this may be called at any time."""

    def watch(self, seconds: float) -> None:
        """Tell the supervisor what happens in the next seconds at most: reports, ends of processes."""

    def output(self, process: int) -> Output:
        """Return where the output is of a worker's newest process, or of the server (SERVER)."""

    def newest(self) -> Mapping[int, Output]:
        """Return where the output is of each worker's newest process."""

    def warning(self, threads: int) -> str:
        """Return a warning if there are too few cores for the workers with so many threads each; else ''."""

    def close(self) -> None:
        """Free all that is held here; nothing is left running."""
