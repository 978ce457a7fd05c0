"""Reports: what a run says of itself, one class for each kind, and the lines of metrics.jsonl that they are.

The server's machine makes them. Whoever shows or keeps a run is a `Viewer`, and gets each of them: the record, the
terminal, the pipe to the launcher.

A line of metrics.jsonl is a JSON object. Its first field, `report`, names the kind: a class below in lower case.
`seconds` and `step` follow in every line, then the fields of the kind:

    report      its step is               its fields
    settings    the oldest open one       settings: all that the bits depend on, as settings.json has it
    kernels     the oldest open one       worker (null: the server), kernels: NumPy, BLAS, … that it computes with
    joined      the oldest open one       worker, host, pid
    begin       the first to be computed  steps, steps_per_epoch, workers
    progress    how many are applied      epoch (from 0), interval_loss, step_loss, samples_per_s, workers, staleness
    workers     the oldest open one       workers: of each one since the last report: worker, host, state (computing,
                                          evaluating, waiting, gone), since, lease [step, start, stop], samples_per_s,
                                          computing, waiting, sending (shares of the time), staleness, restarts
    evaluation  the one evaluated after   epoch (from 0), scores {name: number}
    log         where it was logged       name, value, shard (null: outside of one)
    notice      the oldest open one       text
    refused     the oldest open one       reason: why a message, or a worker, was not taken
    stranger    the oldest open one       reason: why a connection was turned away
    traceback   the oldest open one       worker, traceback: of a program that has raised; repeated: its error is known
    lost        the oldest open one       worker: it was at work, and is gone
    main        how many are applied      worker: it speaks for all
    left        how many are applied      worker: it has left the run in good order
    failure     the oldest open one       failure: why the run has failed

`seconds` are those of training: 0 before the first step; a server that is started again goes on from those of its
checkpoint, and the lines after that are cut off. A number that is not finite is null. Three means of the loss over
samples have three names: `step_loss` is that of the last step, `interval_loss` that of the steps since the line of
progress before, and `epoch_loss` (in summary.json) that of the last whole epoch. `staleness` says how many
contributions since the line before had weights of which age ({} in a run without staleness).

`arrivals` are lines of arrivals.jsonl, in a form of their own (record/directory.py).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Report:
    """What every report has: the seconds of training, and the step that it is about."""

    seconds: float
    step: int


@dataclass(frozen=True, slots=True)
class Settings(Report):
    """The run's settings, when they are known or have changed."""

    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kernels(Report):
    """Kernels that are new in this run; `worker` is None for the server's."""

    worker: int | None
    kernels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Joined(Report):
    """A worker takes part."""

    worker: int
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Begin(Report):
    """The run begins, or goes on from a checkpoint; it is to have so many steps."""

    steps: int
    steps_per_epoch: int
    workers: int


@dataclass(frozen=True, slots=True)
class Progress(Report):
    """How far the run is, and what has happened since the last of these; a loss is None before the first update."""

    epoch: int
    interval_loss: float | None
    step_loss: float | None
    samples_per_s: float
    workers: int
    staleness: dict[str, int]


@dataclass(frozen=True, slots=True)
class Evaluation(Report):
    """The scores of an epoch; one that is not finite is None once it has been read from a line."""

    epoch: int
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class Log(Report):
    """A number that the program has logged, in a shard or outside of one."""

    name: str
    value: float
    shard: int | None = None


@dataclass(frozen=True, slots=True)
class Notice(Report):
    """Something that the user should know."""

    text: str


@dataclass(frozen=True, slots=True)
class Refused(Report):
    """A message was not taken; of these the 1st, 2nd, 4th, 8th, … are reported."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stranger(Report):
    """A connection was turned away; of these, too."""

    reason: str


@dataclass(frozen=True, slots=True)
class Traceback(Report):
    """A worker's program has raised; `repeated`: with an error that another has had at this step."""

    worker: int
    traceback: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class Lost(Report):
    """A worker that had a task is gone."""

    worker: int


@dataclass(frozen=True, slots=True)
class Main(Report):
    """The run is over, and this worker speaks for all."""

    worker: int


@dataclass(frozen=True, slots=True)
class Left(Report):
    """A worker has left the run, which is over."""

    worker: int


@dataclass(frozen=True, slots=True)
class Failure(Report):
    """The run has failed."""

    failure: str


@dataclass(frozen=True, slots=True)
class Arrivals(Report):
    """What was applied now, in order: [worker, version, start, stop] each; version -1: left out."""

    of: list[list[int]]


class Activity(StrEnum):
    """What a worker is at."""

    COMPUTING = "computing"
    EVALUATING = "evaluating"
    WAITING = "waiting"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker is at, and has done since the last of these; three shares of that time, which sum up to 1.

    `computing` is the share in which it computed shards or an evaluation, `sending` that in which a lease or a
    contribution was under way or waited for its receiver, `waiting` that in which it had no task.
    """

    worker: int
    host: str
    state: Activity
    since: float  # seconds of training; of one that is gone up to a second later
    lease: list[int] | None  # [step, start, stop]: the shards start … stop-1
    samples_per_s: float  # as if all shards had equally many samples
    computing: float
    waiting: float
    sending: float
    staleness: int | None  # updates since the weights that it computes with; None: it has no lease
    restarts: int  # processes with its number that came before, since the server was last started


@dataclass(frozen=True, slots=True)
class Workers(Report):
    """What each worker is at, once a second while steps are to be computed (more rarely with more than 100 workers)."""

    workers: list[WorkerStatus]


ALL: tuple[type[Report], ...] = (
    Settings, Kernels, Joined, Begin, Progress, Workers, Evaluation, Log, Notice, Refused, Stranger, Traceback, Lost,
    Main, Left, Failure, Arrivals,
)  # fmt: skip
KINDS = {kind.__name__.lower(): kind for kind in ALL}
STATUS = tuple(field.name for field in fields(WorkerStatus))
FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in ALL}


class Viewer(Protocol):
    """Whoever shows or keeps what a run says."""

    def report(self, report: Report) -> None:
        """Take the next report."""


def to_line(report: Report) -> str:
    """Return a report as a line of metrics.jsonl.

    >>> to_line(Log(1.5, 40, "norm", float("inf"), shard=2))
    '{"report": "log", "seconds": 1.5, "step": 40, "name": "norm", "value": null, "shard": 2}'
    """
    values = {name: getattr(report, name) for name in FIELDS[type(report)]}
    plain = finite({"report": type(report).__name__.lower()} | values)
    return json.dumps(plain, allow_nan=False, default=lambda status: {name: getattr(status, name) for name in STATUS})


def from_line(line: str | bytes) -> Report:
    """Return the report in a line of metrics.jsonl; raises ValueError for what is none.

    >>> from_line('{"report": "notice", "seconds": 1.5, "step": 40, "text": "waiting for worker 2"}')
    Notice(seconds=1.5, step=40, text='waiting for worker 2')
    """
    values = json.loads(line)
    try:
        kind = KINDS[values.pop("report")]
        if kind is Workers:
            values["workers"] = [
                WorkerStatus(**status | {"state": Activity(status["state"])}) for status in values["workers"]
            ]
        return kind(**values)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{line!r:.80} is no report: {error!r:.80}") from None


def finite(content: Any) -> Any:
    """Return content as JSON can say it: numbers that are not finite as null.

    >>> finite({"loss": float("nan"), "of": [1, 2.5]})
    {'loss': None, 'of': [1, 2.5]}
    """
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {name: finite(item) for name, item in content.items()}
    return [finite(item) for item in content] if isinstance(content, list | tuple) else content
