"""Reports: what a run tells its viewers, one class for each kind, and their form as lines of metrics.jsonl.

The server's machine makes them. Each report goes to all viewers of the run: the record, the terminal, the pipe to the
launcher.

A line of metrics.jsonl is a JSON object. Its first field, `report`, names the kind: a class below in lower case.
`seconds` and `step` follow in every line, then the fields of the kind:

    report      its step is               its fields
    settings    the oldest open one       settings: all that the bits depend on, as settings.json has it
    kernels     the oldest open one       worker (null: the server), kernels: NumPy, BLAS, … that it computes with
    joined      the oldest open one       worker, host, pid
    begin       the first to be computed  steps, steps_per_epoch, workers
    exchange    the oldest open one       workers, sharing (how many share the server's memory), in_ranges (whether
                                          steps end among them); once per launch, soon after begin
    progress    how many are applied      epoch (from 0), interval_loss, step_loss, samples_per_s, workers, staleness
    workers     the oldest open one       workers: of each one since the last report: worker, host, state (computing,
                                          evaluating, waiting, gone), since, lease [step, start, stop], samples_per_s,
                                          computing, waiting, sending (shares of the time), staleness, restarts
    evaluation  the one evaluated after   epoch (from 0), scores {name: number}
    log         where it was logged       name, value, shard (null: outside of one)
    notice      the oldest open one       text
    refused     the oldest open one       reason: why a message, or a worker, was refused
    rejected    the oldest open one       reason: why a connection was rejected
    traceback   the oldest open one       worker, traceback: of a program that has raised; repeated: its error is known
    lost        the oldest open one       worker: it had a task, and is gone
    scale       the oldest open one       workers: so many are asked for; first: new ones have numbers from this on
    released    the oldest open one       worker: it has no task and gets no other, as fewer workers are asked for
    main        how many are applied      worker: it is the leader
    left        how many are applied      worker: it has left the run in good order
    closed      how many are applied      the leader's program has ended
    listening   0                         to the launcher alone: the server has the run's directory for itself
    failure     the oldest open one       failure: why the run has failed

`seconds` are those of training: 0 before the first step; a restarted server goes on from those of its checkpoint, and
later lines are cut off. A number that is not finite is null. Three means of the loss over samples have three names:
`step_loss` is that of the last step, `interval_loss` that of the steps since the previous line of progress, and
`epoch_loss` (in summary.json) that of the last complete epoch. `staleness` counts the contributions since the previous
line by the age of their weights ({} in a run without staleness).

Every report begins with the seconds of training and the step that it is about. Reports are named tuples: nineteen
dataclasses took 12 ms of the start of a launcher, which else needs none, and 7 ms of that of a server.

`arrivals` are lines of arrivals.jsonl, in a form of their own (record/directory.py).
"""

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, get_args


class Settings(NamedTuple):
    """The run's settings, once they are known and when they change."""

    seconds: float
    step: int
    settings: dict[str, Any]


class Kernels(NamedTuple):
    """Kernels that a worker, or the server (`worker` None), is the first to use in this run."""

    seconds: float
    step: int
    worker: int | None
    kernels: dict[str, str]


class Joined(NamedTuple):
    """A worker has joined the run."""

    seconds: float
    step: int
    worker: int
    host: str
    pid: int


class Begin(NamedTuple):
    """The run begins, or is resumed from a checkpoint (`workers` is 0 then); `steps` is the number of all its steps."""

    seconds: float
    step: int
    steps: int
    steps_per_epoch: int
    workers: int


class Exchange(NamedTuple):
    """How gradients and weights travel; `in_ranges`: steps end among the workers, without the server."""

    seconds: float
    step: int
    workers: int
    sharing: int  # workers that share the server's memory; those that do not use frames over ZeroMQ
    in_ranges: bool


class Progress(NamedTuple):
    """The progress of the run since the previous report of this kind; a loss that is not known is None."""

    seconds: float
    step: int
    epoch: int
    interval_loss: float | None
    step_loss: float | None
    samples_per_s: float
    workers: int
    staleness: dict[str, int]


class Evaluation(NamedTuple):
    """The scores of an epoch; in a report read from a line, a score that is not finite is None."""

    seconds: float
    step: int
    epoch: int
    scores: dict[str, float]


class Log(NamedTuple):
    """A number that the program has logged, in a shard or outside of one."""

    seconds: float
    step: int
    name: str
    value: float
    shard: int | None = None


ONE_PROCESS = "one process, without exchange, would train"  # in the notice that a run is slower than that


class Notice(NamedTuple):
    """A text that the user should read."""

    seconds: float
    step: int
    text: str


class Refused(NamedTuple):
    """A message was refused; the 1st, 2nd, 4th, 8th, … of them are reported."""

    seconds: float
    step: int
    reason: str


class Rejected(NamedTuple):
    """A connection was rejected; the 1st, 2nd, 4th, 8th, … of them are reported."""

    seconds: float
    step: int
    reason: str


class Traceback(NamedTuple):
    """A worker's program has raised; `repeated` says that a program had raised the same error at this step before."""

    seconds: float
    step: int
    worker: int
    traceback: str
    repeated: bool


class Lost(NamedTuple):
    """A worker that had a task is gone."""

    seconds: float
    step: int
    worker: int


class Scale(NamedTuple):
    """A user has asked for so many workers; those that are new have numbers from `first` on."""

    seconds: float
    step: int
    workers: int
    first: int


class Released(NamedTuple):
    """A worker that is to end has no task any more."""

    seconds: float
    step: int
    worker: int


class Main(NamedTuple):
    """The run is over, and this worker is the leader."""

    seconds: float
    step: int
    worker: int


class Left(NamedTuple):
    """A worker has left the run in good order."""

    seconds: float
    step: int
    worker: int


class Closed(NamedTuple):
    """The leader's program has ended: nothing is left to be done."""

    seconds: float
    step: int


class Listening(NamedTuple):
    """The server has the run's directory for itself, and workers can join."""

    seconds: float
    step: int


class Failure(NamedTuple):
    """The run has failed."""

    seconds: float
    step: int
    failure: str


class Arrivals(NamedTuple):
    """The contributions of a step that were applied, in order: [worker, version, start, stop]; version -1: left out."""

    seconds: float
    step: int
    of: list[list[int]]


class Activity(StrEnum):
    """What a worker does at the moment."""

    COMPUTING = "computing"
    EVALUATING = "evaluating"
    WAITING = "waiting"
    GONE = "gone"


class WorkerStatus(NamedTuple):
    """The status of a worker, with three shares of the time since the previous report, which add up to 1.

    `computing` is the share in which it computed shards or an evaluation, `sending` that in which a lease or a
    contribution was under way or waited for its receiver, `waiting` that in which it had no task.
    """

    worker: int
    host: str
    state: Activity
    since: float  # when its state began, in seconds of training; for one that is gone up to a second later
    lease: list[int] | None  # [step, start, stop]: the shards start … stop-1
    samples_per_s: float  # computed as if all shards had equally many samples
    computing: float
    waiting: float
    sending: float
    staleness: int | None  # updates since the weights that it computes with; None if it has no lease
    restarts: int  # earlier processes with its number, since the server was last started


class Workers(NamedTuple):
    """The status of all workers, once a second during training, and less often with more than 100 workers."""

    seconds: float
    step: int
    workers: list[WorkerStatus]


Report = (
    Settings | Kernels | Joined | Begin | Exchange | Progress | Workers | Evaluation | Log | Notice | Refused | Rejected
    | Traceback | Lost | Scale | Released | Main | Left | Closed | Listening | Failure | Arrivals
)  # fmt: skip
KINDS: dict[str, type[Report]] = {kind.__name__.lower(): kind for kind in get_args(Report)}


class Viewer(Protocol):
    """The protocol of a viewer, which shows or records a run's reports."""

    def report(self, report: Report) -> None:
        """Handle the next report."""


def to_line(report: Report) -> str:
    """Encode a report as a line of metrics.jsonl.

    >>> to_line(Log(1.5, 40, "norm", float("inf"), shard=2))
    '{"report": "log", "seconds": 1.5, "step": 40, "name": "norm", "value": null, "shard": 2}'
    """
    values = report._asdict()
    if isinstance(report, Workers):
        values["workers"] = [status._asdict() for status in report.workers]
    return json.dumps(finite({"report": type(report).__name__.lower()} | values), allow_nan=False)


def from_line(line: str | bytes) -> Report:
    """Decode a line of metrics.jsonl to its report; raises ValueError for a line that is not a report.

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
    """Replace numbers that are not finite by None, which JSON can encode, in nested maps and lists.

    >>> finite({"loss": float("nan"), "of": [1, 2.5]})
    {'loss': None, 'of': [1, 2.5]}
    """
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {name: finite(item) for name, item in content.items()}
    return [finite(item) for item in content] if isinstance(content, list | tuple) else content
