"""The actions that the supervisor returns; whoever has the processes of a run performs them (run.py).

They are named tuples, as importing `dataclasses` would take a fifth of the launcher's start.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from karp.protocol.reports import Report


class StartServer(NamedTuple):
    """Start the server's process; from incarnation 1 on it goes on from the run's newest checkpoint."""

    incarnation: int


class StartWorker(NamedTuple):
    """Start a process for a worker, which has had `restarts` before."""

    worker: int
    restarts: int


class Tell(NamedTuple):
    """Send the server a command (serve/process.py); if it is gone, do nothing."""

    command: dict[str, Any]


class Say(NamedTuple):
    """Tell the user."""

    text: str


class Quote(NamedTuple):
    """Tell the user what a process printed last, after a text; if it printed nothing, say `otherwise`, if anything."""

    process: int
    text: str
    otherwise: str = ""


class Show(NamedTuple):
    """Show a report to the run's viewers."""

    report: "Report"


class Publish(NamedTuple):
    """Publish the server's address, as the run's directory is the server's now; its workers have so many threads."""

    threads: int


class Stop(NamedTuple):
    """Stop these workers' processes, and have `exited` follow for each of them."""

    workers: list[int]


class KillServer(NamedTuple):
    """Kill the server's process, and have `server_ended` follow."""


class End(NamedTuple):
    """The run's processes have ended; so far this is the launcher's exit status."""

    status: int


Action = StartServer | StartWorker | Tell | Say | Quote | Show | Publish | Stop | KillServer | End
