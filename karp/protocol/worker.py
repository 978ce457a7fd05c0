"""The worker's half of the protocol: a state machine without I/O.

The caller, a Trainer, reads its `task`, computes it, and reports the result (`computed`, `scored`); methods return the
messages to send. The server's answers are passed to `receive`. A contribution is sent when the program asks for its
next batch, not before, so that `trainer.stop()` and `trainer.log()` in the loop's body travel with the shard they
belong to and do not depend on timing. (In a range most steps need no message: `offer_sum`.)

    joining --Welcome--> waiting --Lease--> computing --the lease's last shard--> waiting --Finish--> over
       ^                    |
       +------Rejoin--------+    the server was restarted, or took this worker for lost

Where no answer comes, `tick` repeats the message that the server may not have received.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from karp import codecs
from karp.errors import LostError, ProgramError, RefusedError, RunError
from karp.protocol.fields import Logs
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

PING_SECONDS = 1.0  # a worker that has had no answer for so long sends a Ping
FINITE = "its data are finite: a smaller learning rate, clip_norm or scaled inputs help most often"
LOST_SECONDS = 60.0  # a server that has not answered for so long is lost


@dataclass(slots=True)
class Worker:
    """The state of one worker.

    `weights` is the model's flat vector, into which arriving weights are copied. Weights that arrive as a read-only
    vector are not copied: their memory does not change until the next task, so the worker computes on them where they
    lie. `current` is the vector to compute on, one or the other.
    """

    weights: Vector
    number: int = -1  # the worker's number, from its launcher, then from the server
    current: Vector = field(init=False)
    joining: Join | None = None  # the request to join, until the server has answered
    join: Join | None = None
    incarnation: int = 0  # the server's incarnation
    shards: int = 0  # the number of shards of a full global batch
    version: int = -1  # the version of the weights
    seen: int = 0  # the number of the last task
    task: Lease | Evaluation | None = None
    shard: int = -1  # the next shard of the lease to compute
    over: Finish | None = None
    leaving: Leave | None = None  # the last message, once it is sent
    closed: bool = False
    waits_for: str = "the server to answer"  # the reason that the server gave last
    heard: float = 0.0  # when the last message arrived
    asked: float | None = 0.0  # since when it waits for an answer; None: since its message, whose time is unknown
    refused: bool = False
    tree: TreeSum = field(default_factory=lambda: TreeSum(1))
    codec: str | None = None  # from the settings
    codec_weights: str | None = None
    weigh: Callable[[int, int, int], float] | None = None  # sums the sample weights of (step, start, stop); None: none
    sums: list[Node] = field(default_factory=list)  # the sums over the lease's shards computed so far
    step_shards: int = 0  # the number of shards of the lease's step
    logs: Logs = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # on the program's data
    reason: str = ""  # why the gradient of a suspect lease is not finite
    last: bool = False  # the program has called trainer.stop() or left its loop: the current step is the last
    stopped: bool = False  # the program has left its loop

    def __post_init__(self) -> None:
        self.current = self.weights

    def request_join(
        self,
        settings: Settings,
        host: str,
        pid: int,
        now: float,
        kernels: Kernels = UNKNOWN,
        remarks: Sequence[str] = (),
    ) -> FromWorker:
        """Return the request to join a run; the remarks go with the initial weights, and so come from one worker."""
        self.remarks = list(remarks)
        self.heard = self.asked = now
        self.codec, self.codec_weights = settings.codec, settings.codec_weights
        self.join = self.joining = Join(self.number, settings, host, pid, kernels)
        return self.joining

    def receive(self, message: FromServer, incarnation: int, now: float) -> FromWorker | None:
        """Handle a message that has arrived; return the reply, or None if there is nothing to send.

        Messages of an earlier incarnation of the server are ignored. Raises RefusedError if the server refuses this
        worker or one of its messages, RunError if the run has failed.
        """
        if incarnation < self.incarnation:
            return None  # it is from a server before the restart
        self.heard = now
        known = incarnation == self.incarnation and self.joining is None
        if isinstance(message, Lease | Evaluation):  # this is first, as almost every message is one
            self.asked = now
            return self._accept(message) if known else None
        if isinstance(message, Waiting) and not message.reason:
            return self._remind(now)  # a sign of life is no answer
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
        """Note the number that the server gives this worker; return Initial if the server asks for it, else None."""
        if incarnation != self.incarnation:
            self.version = -1  # with staleness, a restarted server's weights of this version may differ
        self.incarnation, self.number, self.shards = incarnation, message.worker, message.shards
        self.joining, self.seen = None, 0
        if not message.initial:
            return None
        if self.current is not self.weights:  # otherwise its own vector may already be of a later version
            self.current, self.version = self.weights, 0
        self.version = max(self.version, 0)
        return Initial(self.weights, self.remarks)

    def _accept(self, task: Lease | Evaluation) -> FromWorker | None:
        """Take a task, unless it is old or its weights are missing; return Leave if the run is over for this worker."""
        if self.over is not None:  # a server restarted from before the end leases once more: other workers compute it
            return Leave([])
        weights, codec = task.weights, self.codec_weights
        if task.number <= self.seen or self._lacks_weights(weights, task.version):
            return None
        self.seen = task.number
        if codec is not None and isinstance(task, Lease) and weights is not None:
            weights = codecs.decode(codec, weights, self.weights.size, self.weights.dtype)
        self._load_weights(weights, task.version)
        if not self.stopped:
            self.task = task
            self.shard = task.start if isinstance(task, Lease) else -1
        return None

    def _finish(self, message: Finish) -> FromWorker | None:
        """End the run, once its final weights have arrived; raises RunError if the run has failed.

        To a repeated Finish, return the last message (`leaving`), which the server has not received.
        """
        if message.failure:
            self.over, self.task = message, None
            raise RunError(f"the run has failed: {message.failure}")
        if self.over is not None:
            self.over.main = message.main
            return self.leaving
        if not self._lacks_weights(message.weights, message.version):
            self.over, self.task = message, None
            self._load_weights(message.weights, message.version)
            self.keep_weights(self.current)
            message.weights = None  # so that their memory is freed
        return None

    @property
    def settings(self) -> Settings:
        """The settings of this worker's program."""
        assert self.join is not None
        return self.join.settings

    def _lacks_weights(self, weights: Vector | None, version: int) -> bool:
        """Return whether a message needs weights that have not arrived, as an earlier message was lost or overtaken."""
        return weights is None and version != self.version

    def _load_weights(self, weights: Vector | None, version: int) -> None:
        """Compute on these weights from now on, or on the current ones if `weights` is None, as of this version.

        The new weights are copied to the model's own vector if they are writable, or if local steps are going to change
        them; else they are used where they are.
        """
        if weights is not None:
            if weights.flags.writeable or self.settings.local_steps > 1:
                self.keep_weights(weights)
            else:
                self.current = weights
        self.version = version

    def keep_weights(self, weights: Vector) -> None:
        """Copy these weights into the model's own vector, and compute on that."""
        if weights is not self.weights:  # in one process they are the same vector
            np.copyto(self.weights, weights)
        self.current = self.weights

    def tick(self, now: float, where: str, diagnosis: str = "") -> FromWorker | None:
        """Return a reminder to send if no answer has come for a while, else None.

        `where` is the server's address, `diagnosis` what the transport knows of the server's silence. Raises LostError
        if the server has been silent for LOST_SECONDS.
        """
        silent = now - self.heard
        known = f": {diagnosis}" if diagnosis else ""
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
        return self._remind(now)

    def _remind(self, now: float) -> FromWorker | None:
        """Return the message that the server may not have received, or a Ping; None if no reminder is due.

        A reminder is due at most once in PING_SECONDS.
        """
        since, self.asked = self.asked, now if self.asked is None else self.asked
        if since is None or now - since < PING_SECONDS:
            return None
        self.asked = now
        if self.joining is not None:
            return self.joining
        return Stop() if self.stopped and self.over is None else Ping(self.seen)

    # Events of the program.

    def computed(self, gradient: Vector, loss: float, shards: int) -> None:
        """Add the weighted gradient and loss of the current shard, one of `shards` of its step.

        Raises ProgramError if no shard of a lease is left to compute. If this is the lease's last shard, `gradient` is
        not copied: it must not change until the contribution is sent.
        """
        lease, shard = self.task, self.shard
        if not isinstance(lease, Lease) or shard >= lease.stop:
            raise ProgramError("no shard is waiting for a gradient")
        if shard == lease.start:
            self.sums = []
        if self.codec is not None:  # the bits of an encoded sum would depend on which shards this worker had
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
        self.shard, self.step_shards = shard + 1, shards

    def contribution(self) -> FromWorker:
        """End the lease: return the contribution of the shards that are computed."""
        lease = self.task
        assert isinstance(lease, Lease)
        self.task = None
        self.asked = None
        sums = self.sums if self.shard > lease.start else []
        message = Contribution(lease.step, lease.version, sums, self._logs(), self.last, lease.number)
        if self.weigh is not None and sums:
            spans = [(0, self.step_shards), *((node.start, node.stop) for node in sums)]
            message.sample_weights = [self.weigh(lease.step, *span) for span in spans]
        if lease.suspect:
            message.reason, self.reason = self.reason or FINITE, ""
        return message

    def offer_sum(self, lease: Lease) -> Node | None:
        """Return the sum over the lease's shards, if it is one node and there is nothing else to send, else None.

        The worker counts the sum as taken, so that an exception before the update cannot make the worker contribute it
        twice; if the step does not end in its range, call `withdraw_offer`.
        """
        if len(self.sums) != 1 or self.codec is not None or self.last or self.logs:
            return None
        self.shard = lease.start
        return self.sums[0]

    def weight_of(self, step: int) -> float:
        """Return the sum of the sample weights of the step that is computed; 0 where samples have none."""
        return 0.0 if self.weigh is None else self.weigh(step, 0, self.step_shards)

    def withdraw_offer(self, lease: Lease) -> None:
        """Keep the sum that `offer_sum` returned, as the step has not ended in its range: it will be contributed."""
        self.shard = lease.stop

    def discard(self, last: bool) -> None:
        """Drop what is computed of the lease and what was logged, as the lease's weights have changed meanwhile."""
        assert isinstance(self.task, Lease)
        self.shard, self.logs, self.last = self.task.start, [], last or self.stopped

    def scored(self, scores: dict[str, float]) -> FromWorker:
        """End the evaluation that was leased: return the message with its scores."""
        evaluation = self.task
        assert isinstance(evaluation, Evaluation)
        self.task = self.asked = None
        return Score(evaluation.epoch, scores, self.last)

    def log(self, name: str, value: float, shard: int) -> None:
        """Add a number to the next message; raises ProgramError for more than MOST_LOGGED."""
        if len(self.logs) == MOST_LOGGED:
            raise ProgramError(f"more than {MOST_LOGGED:,} numbers were logged in one step: log fewer, or their mean")
        self.logs.append((shard, name, value))

    def stop(self) -> list[FromWorker]:
        """Leave the loop early, which ends training for all workers: return the messages to send.

        These are the contribution of the shards computed of the lease (perhaps none), if there is a lease, and Stop.
        """
        self.last = self.stopped = True
        messages = [self.contribution()] if isinstance(self.task, Lease) else []
        self.task = None
        return [*messages, Stop()]

    def leave(self) -> FromWorker:
        """Return the last message, once the run is over."""
        self.leaving = Leave(self._logs())
        return self.leaving

    def failed(self, error: str, traceback: str, certain: bool = False) -> FromWorker:
        """Return the message that says that the program has raised, at the current task; Leave after a Refusal."""
        if self.refused:
            return Leave([])
        task, self.task = self.task, None
        step, shard = (task.step, self.shard) if isinstance(task, Lease) else (-1, -1)
        epoch = task.epoch if isinstance(task, Evaluation) else -1
        return Failure(step, shard, epoch, sendable(error, ERROR), sendable(traceback, TRACEBACK), certain)

    def _logs(self) -> Logs:
        logs, self.logs = self.logs, []
        return logs
