"""What the server's machine gives back for an event, and what it knows of a worker."""

from dataclasses import dataclass
from typing import Any

from karp.protocol.messages import Evaluation, FromServer, Lease
from karp.protocol.step import named


@dataclass(slots=True)
class Send:
    """An action: this message to that peer."""

    peer: bytes
    message: FromServer


@dataclass(slots=True)
class Report:
    """An action: something the record keeps and a person sees; `values` are plain types."""

    kind: str
    values: dict[str, Any]


Action = Send | Report


@dataclass(slots=True)
class Member:
    """A worker that has joined: what it holds and what it is at."""

    peer: bytes
    worker: int
    since: float  # when its task was given
    version: int = -1  # of the weights it holds; -1: none of the server's
    task: Lease | Evaluation | None = None
    waiting: bool = False
    stopped: bool = False  # its program has left the loop
    told: bool = False  # that the run is over
    notice_at: float = 0.0

    def doing(self, now: float) -> str:
        """'worker 2 (step 41, shards 0 to 1, since 3.2 s)'."""
        if isinstance(self.task, Lease):
            what = f"step {self.task.step}, {named(self.task.start, self.task.stop)}"
        elif self.task is not None:
            what = f"evaluation of epoch {self.task.epoch}"
        else:
            what = "its next message"
        return f"worker {self.worker} ({what}, since {now - self.since:.1f} s)"
