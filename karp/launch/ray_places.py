"""Where the processes of a run are on a Ray cluster, as its launcher has it: actors, their answers, their output."""

from pathlib import Path
from typing import Any, NamedTuple


class Printed(NamedTuple):
    """Where the output of a process is on this host."""

    log: Path
    begin: int


class Place:
    """An actor, and the process that it runs."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.calls = 0
        self.number = 0  # of the process that was started last
        self.runs = False  # a process is to run here, whether it has been started or not, and its end is not known
        self.stop_by = 0.0  # when it is given up; 0: it is not to end
        self.node = ""  # its address

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the actor, after those that were called before; return the future of its answer."""
        self.calls += 1
        return self.actor.do.remote(self.calls - 1, method, *arguments)

    def poll(self, *arguments: Any) -> Any:
        """Ask the actor for news; return the future of its answer."""
        return self.actor.poll.remote(*arguments)


class Expected(NamedTuple):
    """What a future is the answer to."""

    what: str  # "look", "start" or "poll"
    process: int
    place: Place
    number: int  # of the process that is started or asked for in this place


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
