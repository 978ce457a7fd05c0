"""The worker's half of the protocol: a state machine without I/O.

The program pulls: it asks what to do (`task`), computes, and tells (`computed`, `scored`); the messages that follow
from it are returned, to be sent. What the server answers goes in through `receive`. A contribution is sent when the
program asks for more, not at once, so that `trainer.stop()` and `trainer.log()` between the two travel with the shard
they belong to and do not depend on timing. (In one process most steps need no message: `hand_over`.)

    joining --Welcome--> waiting --Lease--> computing --the lease's last shard--> waiting --Finish--> over
       ^                    |
       +------Rejoin--------+    the server was restarted, or took this worker for lost

After a silence `tick` repeats whatever the server may not have got.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from karp import codecs
from karp.errors import LostError, ProgramError, RefusedError, RunError
from karp.protocol.kernels import UNKNOWN, Kernels
from karp.protocol.messages import (
    ERROR,
    MOST_LOGGED,
    TRACEBACK,
    Closed,
    Contribution,
    Evaluation,
    Failure,
    Finish,
    FromServer,
    FromWorker,
    Initial,
    Join,
    Lease,
    Leave,
    Logs,
    Ping,
    Refusal,
    Rejoin,
    Score,
    Stop,
    Waiting,
    Welcome,
)
from karp.protocol.settings import Settings
from karp.protocol.tree import Node, TreeSum, Vector
from karp.text import sendable

PING_SECONDS = 1.0  # a worker that has heard nothing for so long asks
FINITE = "its data are finite: a smaller learning rate, clip_norm or scaled inputs help most often"
LOST_SECONDS = 60.0  # a server that has not answered for so long is lost


@dataclass(slots=True)
class Worker:
    """The state of one worker.

    `weights` is the model's flat vector, into which arriving weights are copied. Those that come as a read-only vector
    are not: whoever hands them out keeps that memory as it is until the next task, so they are computed on where they
    lie. `current` is the vector to compute on, one or the other.
    """

    weights: Vector
    number: int = -1  # what the launcher, then the server, calls it
    current: Vector = field(init=False)
    joining: Join | None = None  # until the server has answered
    join: Join | None = None
    incarnation: int = 0  # of the server
    shards: int = 0  # of a whole global batch
    version: int = -1  # of the weights
    seen: int = 0  # the number of the last task
    task: Lease | Evaluation | None = None
    shard: int = -1  # of the lease, the one to be computed next
    over: Finish | None = None
    leaving: Leave | None = None  # the last message, once it is sent
    closed: bool = False
    waits_for: str = "the server to answer"  # what the server said last
    heard: float = 0.0
    asked: float | None = 0.0  # when the server was last asked, or told this worker what to wait for; None: not yet
    refused: bool = False
    tree: TreeSum = field(default_factory=lambda: TreeSum(1))
    codec: str | None = None  # as the settings say
    codec_weights: str | None = None
    sums: list[Node] = field(default_factory=list)  # of what is computed of the lease
    of: int = 0  # how many shards its step has
    logs: Logs = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # on the program's data
    reason: str = ""  # why the gradient of a suspect lease is not finite
    last: bool = False
    stopped: bool = False

    def __post_init__(self) -> None:
        self.current = self.weights

    def enter(
        self,
        settings: Settings,
        host: str,
        pid: int,
        now: float,
        kernels: Kernels = UNKNOWN,
        remarks: Sequence[str] = (),
    ) -> FromWorker:
        """The first message; the remarks go with the initial weights, and so are said by one worker of a run."""
        self.remarks = list(remarks)
        self.heard = self.asked = now
        self.codec, self.codec_weights = settings.codec, settings.codec_weights
        self.join = self.joining = Join(self.number, settings, host, pid, kernels)
        return self.joining

    def receive(self, message: FromServer, incarnation: int, now: float) -> FromWorker | None:
        """A message has arrived; returns the reply it asks for, if any.

        Raises RefusedError if the server does not take this worker, RunError if the run has failed.
        """
        if incarnation < self.incarnation:
            return None  # of a server that is gone
        self.heard = now
        known = incarnation == self.incarnation and self.joining is None
        if isinstance(message, Lease | Evaluation):  # first, as almost every message is one
            self.asked = now
            return self._take(message) if known else None
        if isinstance(message, Waiting) and not message.reason:
            return self._ask(now)  # a sign of life is no answer
        self.asked = now
        match message:
            case Welcome():
                return self._welcome(message, incarnation)
            case Rejoin():
                self.joining, self.task = self.join, None
                return self.join
            case Refusal():
                self.refused = True
                raise RefusedError(f"the server refused: {message.reason}")
            case Finish() if known:
                return self._finish(message)
            case Waiting() if known:
                self.waits_for = message.reason
            case Closed() if known:
                self.closed = True
        return None

    def _welcome(self, message: Welcome, incarnation: int) -> FromWorker | None:
        if incarnation != self.incarnation:
            self.version = -1  # with staleness, another server's weights of this version may be others
        self.incarnation, self.number, self.shards = incarnation, message.worker, message.shards
        self.joining, self.seen = None, 0
        if not message.initial:
            return None
        if self.current is not self.weights:  # else its own vector may be of a later version already
            self.current, self.version = self.weights, 0
        self.version = max(self.version, 0)
        return Initial(self.weights, self.remarks)

    def _take(self, task: Lease | Evaluation) -> FromWorker | None:
        """A new task, unless it is one that was given before, or the program has left."""
        if self.over is not None:  # of a server that was restarted from before the end: others are to do it
            return Leave([])
        weights, codec = task.weights, self.codec_weights
        if task.number <= self.seen or self._lacks(weights, task.version):
            return None
        self.seen = task.number
        if codec is not None and isinstance(task, Lease) and weights is not None:
            weights = codecs.decode(codec, weights, self.weights.size, self.weights.dtype)
        self._load(weights, task.version)
        if not self.stopped:
            self.task = task
            self.shard = task.start if isinstance(task, Lease) else -1
        return None

    def _finish(self, message: Finish) -> FromWorker | None:
        """The run is over; a server that says so again has not got this worker's last message."""
        if message.failure:
            self.over, self.task = message, None
            raise RunError(f"the run has failed: {message.failure}")
        if self.over is not None:
            self.over.main = message.main
            return self.leaving
        if not self._lacks(message.weights, message.version):
            self.over, self.task = message, None
            self._load(message.weights, message.version)
            self.keep(self.current)
            message.weights = None  # need not be kept as well
        return None

    @property
    def settings(self) -> Settings:
        assert self.join is not None
        return self.join.settings

    def _lacks(self, weights: Vector | None, version: int) -> bool:
        """Whether a message relies on weights that have not come, because it overtook or outlived another."""
        return weights is None and version != self.version

    def _load(self, weights: Vector | None, version: int) -> None:
        if weights is not None:
            if weights.flags.writeable or self.settings.local_steps > 1:  # which change them
                self.keep(weights)
            else:
                self.current = weights
        self.version = version

    def keep(self, weights: Vector) -> None:
        """These are the worker's own."""
        if weights is not self.weights:  # in one process they are the same vector
            np.copyto(self.weights, weights)
        self.current = self.weights

    def tick(self, now: float, where: str, trouble: str = "") -> FromWorker | None:
        """Time has passed without a message; raises LostError if the server at `where` is silent for too long.

        `trouble` is what whoever carries messages knows of the reason.
        """
        silent = now - self.heard
        known = f": {trouble}" if trouble else ""
        if silent >= LOST_SECONDS and not self.incarnation and self.shards == 0:
            raise LostError(
                f"no server has answered at {where} for {silent:.0f} s{known}; is that its address, and does its run "
                "go on?"
            )
        if silent >= LOST_SECONDS:
            raise LostError(
                f"the server at {where} has not answered for {silent:.0f} s{known} (last known: {self.waits_for})"
            )
        if self.asked is None:
            self.asked = now - PING_SECONDS
        return self._ask(now)

    def _ask(self, now: float) -> FromWorker | None:
        """What the server may not have got, or whether it has something to do; not too often."""
        waits, self.asked = self.asked, now if self.asked is None else self.asked
        if waits is None or now - waits < PING_SECONDS:
            return None
        self.asked = now
        if self.joining is not None:
            return self.joining
        return Stop() if self.stopped and self.over is None else Ping(self.seen)

    # What the program has done.

    def computed(self, gradient: Vector, loss: float, shards: int) -> None:
        """The current shard's weighted gradient and loss; `shards` is how many the step has."""
        lease, shard = self.task, self.shard
        if not isinstance(lease, Lease) or shard >= lease.stop:
            raise ProgramError("no shard is waiting for a gradient")
        if shard == lease.start:
            self.sums = []
        if self.codec is not None:  # a sum would show which shards this worker had
            vector = codecs.encode(self.codec, gradient, self.settings.seed, lease.step, shard)
            self.sums.append(Node(shard, shard + 1, loss, vector))
        elif lease.stop - lease.start == 1:
            self.sums.append(Node(shard, shard + 1, loss, gradient))
        else:
            if shard == lease.start:
                self.tree = TreeSum(shards)
            if shard + 1 < lease.stop:
                gradient = gradient.copy()  # the next backward writes into the same vector
            self.tree.add(Node(shard, shard + 1, loss, gradient))
            self.sums = list(self.tree.nodes.values())
        self.shard, self.of = shard + 1, shards

    def contribution(self, seconds: float = 0.0) -> FromWorker:
        """The message for the lease, as far as it is computed, in so many seconds of work."""
        lease = self.task
        assert isinstance(lease, Lease)
        self.task = None
        self.asked = None
        sums = self.sums if self.shard > lease.start else []
        message = Contribution(lease.step, lease.version, sums, self._logs(), self.last, lease.number, seconds)
        if lease.suspect:
            message.reason, self.reason = self.reason or FINITE, ""
        return message

    def hand_over(self, lease: Lease) -> Node | None:
        """The sum over all shards of the step, if the lease has them all and there is nothing else to be told.

        It is this worker's no more, so that whatever comes between cannot have it contribute twice; see `take_back`.
        """
        whole = lease.stop - lease.start == self.of and self.codec is None
        if not whole or self.last or self.logs:
            return None
        self.shard = lease.start
        return self.sums[0]

    def take_back(self, lease: Lease) -> None:
        """What was handed over was not taken: it is to be contributed."""
        self.shard = lease.stop

    def discard(self, last: bool) -> None:
        """What is computed of the lease, and logged, is worth nothing: its weights changed meanwhile."""
        assert isinstance(self.task, Lease)
        self.shard, self.logs, self.last = self.task.start, [], last or self.stopped

    def scored(self, scores: dict[str, float]) -> FromWorker:
        """The message with the scores of the evaluation that was leased."""
        evaluation = self.task
        assert isinstance(evaluation, Evaluation)
        self.task = self.asked = None
        return Score(evaluation.epoch, scores, self.last)

    def log(self, name: str, value: float, shard: int) -> None:
        """A number to travel with the next message; raises ProgramError for more than that takes."""
        if len(self.logs) == MOST_LOGGED:
            raise ProgramError(f"more than {MOST_LOGGED:,} numbers were logged in one step: log fewer, or their mean")
        self.logs.append((shard, name, value))

    def stop(self) -> list[FromWorker]:
        """The program left its loop early: what is computed of the current lease, and no more leases."""
        self.last = self.stopped = True
        messages = [self.contribution()] if isinstance(self.task, Lease) else []
        self.task = None
        return [*messages, Stop()]

    def leave(self) -> FromWorker:
        """The last message, once the run is over."""
        self.leaving = Leave(self._logs())
        return self.leaving

    def failed(self, error: str, traceback: str, certain: bool = False) -> FromWorker:
        """The program has raised; if only because the server refused this worker, the others go on."""
        if self.refused:
            return Leave([])
        task, self.task = self.task, None
        step, shard = (task.step, self.shard) if isinstance(task, Lease) else (-1, -1)
        epoch = task.epoch if isinstance(task, Evaluation) else -1
        return Failure(step, shard, epoch, sendable(error, ERROR), sendable(traceback, TRACEBACK), certain)

    def _logs(self) -> Logs:
        logs, self.logs = self.logs, []
        return logs
