"""The states that the supervisor's machine is in: the phase of a run, and what is known of each worker's process."""

import signal
from collections.abc import Mapping
from enum import Enum, IntEnum


class Phase(Enum):
    """The phase of a run, as the table in supervisor.py has them."""

    RUNNING = "running"
    OVER = "over"  # the leader's program has run to its end
    FAILED = "failed"
    STOPPING = "stopping"  # no worker is to go on
    CLOSING = "closing"  # every worker's process has ended; the server writes what is left
    REOPENED = "reopened"  # the server died in CLOSING, and was started once more for it
    ENDED = "ended"


OPEN = (Phase.RUNNING, Phase.OVER, Phase.FAILED)  # the run has not been stopped or closed


class Progress(IntEnum):
    """How far a worker's process has come, as the server reports it."""

    STARTED = 0
    JOINED = 1
    LEFT = 2  # it has left the run in good order


class Process:
    """The newest process of a worker; `restarts` counts those that the worker had before."""

    __slots__ = ("dismissed", "ended", "how", "name", "progress", "released", "repeats", "restarts", "status")

    def __init__(self, restarts: int) -> None:
        self.restarts = restarts
        self.name = ""  # in messages, such as "process 4711"; '' if it has not been started
        self.progress = Progress.STARTED
        self.status: int | None = None  # the exit status, minus the signal if one killed it; None while it runs
        self.how = ""  # how it ended, if the status does not say it
        self.ended = False  # its end has been handled, after the reports that came before it
        self.repeats = False  # its program has raised an error that another worker has had at the same step
        self.released = False  # it is to end, as fewer workers are asked for
        self.dismissed = False  # the supervisor has stopped it

    @property
    def runs(self) -> bool:
        return bool(self.name) and self.status is None


def scaled(processes: Mapping[int, Process], workers: int, first: int) -> tuple[list[int], list[int]]:
    """Return which workers are to be released, and which to be started, so that there are so many.

    The last ones are released; new ones have the numbers of those that have been, and then those from `first` on.

    >>> processes = {number: Process(0) for number in range(3)}
    >>> scaled(processes, 1, first=3), scaled(processes, 5, first=3)
    (([1, 2], []), ([], [3, 4]))
    """
    known = sorted(processes.items())
    working = [worker for worker, process in known if not (process.ended or process.released)]
    free = [worker for worker, process in known if process.ended and process.released]
    return working[workers:], [*free, *range(first, first + workers)][: max(0, workers - len(working))]


def describe_end(status: int) -> str:
    """Describe with which exit status or signal a process has ended.

    >>> describe_end(3), describe_end(-9), describe_end(-40)
    ('ended with exit status 3', 'was killed by SIGKILL', 'was killed by signal 40')
    """
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # most real-time signals have no names
        return f"was killed by signal {-status}"
