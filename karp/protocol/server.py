"""The server's half of the protocol: a state machine without I/O.

Events go in (a message from a peer, a worker lost, the clock), actions come out (send this, report that); time is an
argument. So one class serves the ZeroMQ server, the run in one process, the tests and the simulated cluster.

    expecting --(all workers have joined, or the join deadline passed)--> training --(last step, last score)--> over

In training, the shards of step `version` are leased to the workers that wait. Each contribution enters the step's
tree once; when the tree is complete and its sum finite, the optimiser updates the weights in place, `version` goes up
by one, and the workers that wait are leased the next step together with the new weights. At an epoch's end its
evaluation is leased too, with a copy of that epoch's weights, so that training goes on meanwhile (unless the score
steers the run). Nothing that arrives changes the weights but a complete step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from karp.errors import ProtocolError
from karp.optim import Updater
from karp.protocol.messages import (
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
    Score,
    Stop,
    Waiting,
    Welcome,
)
from karp.protocol.progress import Progress
from karp.protocol.settings import Settings, Steps
from karp.protocol.tree import TreeSum, Vector

JOIN_SECONDS = 60.0  # the run begins without the workers that have not joined by then
NOTICE_SECONDS = 10.0  # a wait of this length is reported, then one of twice the length, and so on


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


@dataclass(slots=True)
class Server:
    """The parameter server's state; `workers` is how many are expected, `plan` makes the sampling plan of a run."""

    workers: int
    plan: Callable[[int, int, int, int], Steps]
    now: float = 0.0
    settings: Settings | None = None
    members: dict[bytes, Member] = field(default_factory=dict)
    failure: str = ""
    over: bool = False
    main: int = -1
    begun: bool = False
    dropped: int = 0  # contributions, or parts of them, that came twice or too late
    refused: int = 0  # messages that were not taken
    evaluations: list[Evaluation] = field(default_factory=list)  # due or leased, oldest first
    unleased: list[tuple[int, int]] = field(default_factory=list)  # ranges of shards of the current step
    join_by: float = field(init=False)
    notice_at: float = field(init=False)
    asked: bytes = b""  # the peer that was asked for the initial weights
    steps: Steps = field(init=False)
    final: int = field(init=False)  # the run is over at this version
    updater: Updater | None = None
    tree: TreeSum = field(default_factory=lambda: TreeSum(1))
    progress: Progress = field(init=False)
    out: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.join_by = self.now + JOIN_SECONDS
        self.notice_at = self.now + NOTICE_SECONDS
        self.progress = Progress(self.now)

    # Events: each returns the actions that follow from it.

    def receive(self, peer: bytes, message: FromWorker, now: float) -> list[Action]:
        """A message has arrived from a peer."""
        self.now = now
        member = self.members.get(peer)
        try:
            if member is not None:
                HANDLERS[type(message)](self, member, message)
            elif isinstance(message, Join):
                self._join(peer, message)
            else:
                raise ProtocolError(f"{type(message).__name__.lower()} from a peer that has not joined")
        except ProtocolError as error:
            self.refuse(peer, str(error))
        return self._take()

    def malformed(self, peer: bytes, reason: str, now: float) -> list[Action]:
        """Something that is no message has arrived."""
        self.now = now
        self.refuse(peer, reason)
        return self._take()

    def ended(self, worker: int, status: int, detail: str, now: float) -> list[Action]:
        """A worker's process has ended; the launcher tells. (Carrying on without it has its place here.)"""
        self.now = now
        member = next((member for member in self.members.values() if member.worker == worker), None)
        if member is not None:
            del self.members[member.peer]
        if status != 0:
            self._fail(detail)
        elif member is not None and not self.over:
            self._fail(f"worker {worker} ended in the middle of the run, without an error and without leaving")
        elif member is None and not self.begun:
            self.workers -= 1
        self._hand_out()
        return self._take()

    def tick(self, now: float) -> list[Action]:
        """Time has passed: look at the deadlines."""
        self.now = now
        if not self.begun:
            self._look_for_missing()
        for member in self.members.values():
            if member.task is not None and now >= member.notice_at:
                member.notice_at = now + 2 * (now - member.since)
                self._notice(f"waiting for {member.doing(now)}; it is alive, so the run waits on")
        self._hand_out()
        return self._take()

    # Joining.

    def _join(self, peer: bytes, message: Join) -> None:
        if self.settings is None:
            self._settle(message.settings)
        elif differences := self.settings.differences(message.settings):
            raise ProtocolError("this program differs from the run's: " + "; ".join(differences))
        taken = {member.worker for member in self.members.values()}
        worker = message.worker
        if worker in taken or worker < 0:
            worker = next(number for number in range(len(taken) + 1) if number not in taken)
        member = Member(peer, worker, self.now)
        self.members[peer] = member
        ask = self.updater is None and self.asked not in self.members
        if ask:
            self.asked = peer
        member.waiting = not ask
        self._send(member, Welcome(worker, ask))
        self._report("joined", {"worker": worker, "host": message.host, "pid": message.pid})
        self._hand_out()

    def _settle(self, settings: Settings) -> None:
        """The first worker's settings are the run's."""
        self.settings = settings
        self.steps = self.plan(settings.samples, settings.batch_size, settings.shards, settings.seed)
        self.final = self.steps.steps_per_epoch * settings.epochs
        self._report("settings", settings.to_dict())
        if (idle := self.workers - settings.shards) > 0:
            self._notice(
                f"{self.workers} workers share {settings.shards} shards, so {idle} of them will have nothing to do: "
                "ask for more shards or fewer workers"
            )

    def _initial(self, member: Member, message: Initial) -> None:
        assert self.settings is not None
        if self.updater is None:
            layout = self.settings.layout
            self._check_vector(message.weights, "the initial weights")
            if layout.sha256(message.weights) != self.settings.weights_sha256:
                raise ProtocolError("the initial weights are not those that the settings name")
            weights = message.weights  # in one process: the model's own vector
            if not weights.flags.writeable:
                weights = layout.zeros()
                weights[:] = message.weights
            self.updater = Updater(self.settings.optimizer, weights)
        member.version = 0
        member.waiting = True
        self._hand_out()

    def _begin(self) -> None:
        """Open the first step, once the weights are there and so are the workers."""
        if self.begun or self.updater is None:
            return
        if len(self.members) >= self.workers:
            self.begun = True
            self.progress.begin(self.now)
            self._report("begin", {"steps": self.final, "workers": len(self.members)})
            self._open_step()

    def _look_for_missing(self) -> None:
        """Before the first step: say who has not joined, and in the end begin without."""
        here = {member.worker for member in self.members.values()}
        missing = ", ".join(str(number) for number in range(self.workers) if number not in here)
        text = f"{len(here)} of {self.workers} workers have joined; missing: worker {missing}; the run begins without"
        if self.now >= self.join_by and self.updater is not None:
            self.workers = len(here)
            self._notice(text)
        elif self.now >= self.notice_at:
            self.notice_at = self.now + NOTICE_SECONDS
            self._notice(f"{text} in {max(0.0, self.join_by - self.now):.0f} s")

    # Training.

    @property
    def version(self) -> int:
        """How many updates have been applied; the step being computed has the same number."""
        return 0 if self.updater is None else self.updater.version

    def _open_step(self) -> None:
        if self.version < self.final:
            shards = self.steps.shards_of(self.version)
            self.tree = TreeSum(shards)
            self.unleased = [(0, shards)]

    def _hand_out(self) -> None:
        """Give what there is to do to the workers that wait, in the order of their numbers."""
        self._begin()
        if self.failure or self.over:
            self._finish()
            return
        if not self.begun:
            return
        waiting = [member for member in self.members.values() if member.waiting]
        if len(waiting) > 1:
            waiting.sort(key=lambda member: member.worker)
        leased = {id(member.task) for member in self.members.values()} if self.evaluations else set()
        for evaluation in self.evaluations:
            if waiting and id(evaluation) not in leased:
                self._give(waiting.pop(), evaluation)
        if self.version >= self.final:
            if not self.evaluations:
                self._finish()
        elif self.unleased and waiting and not (self.evaluations and self._steering):
            self._lease(waiting)

    @property
    def _steering(self) -> bool:
        return self.settings is not None and self.settings.steering

    def _lease(self, waiting: list[Member]) -> None:
        """Cut the unleased shards evenly over the workers that wait."""
        assert self.updater is not None
        version = self.updater.version
        left = sum(stop - start for start, stop in self.unleased)
        for index, member in enumerate(waiting):
            if not self.unleased:
                break
            start, stop = self.unleased.pop(0)
            size = -(-left // (len(waiting) - index))
            if stop - start > size:
                self.unleased.insert(0, (start + size, stop))
                stop = start + size
            left -= stop - start
            self._give(member, Lease(version, start, stop, version, self.updater.weights))

    def _give(self, member: Member, task: Lease | Evaluation) -> None:
        member.task = task
        member.waiting = False
        member.since = self.now
        member.notice_at = self.now + NOTICE_SECONDS
        if member.version == task.version:  # it has these weights already
            if isinstance(task, Lease):
                task.weights = None
                self.out.append(Send(member.peer, task))
            else:  # the copy is kept: the evaluation may have to be given again
                self._send(member, Evaluation(task.epoch, task.version, None))
            return
        member.version = task.version
        self.out.append(Send(member.peer, task))

    def _contribution(self, member: Member, message: Contribution) -> None:
        lease = member.task
        member.task = None
        member.waiting = not member.stopped
        if message.step == self.version and self.begun and not self.over:
            try:
                self._enter(member, message)
            finally:
                if self.tree.complete:
                    self._apply()
                elif isinstance(lease, Lease):
                    self._return(lease)
                self._hand_out()
        else:
            self.dropped += max(1, len(message.nodes))
            self._hand_out()

    def _enter(self, member: Member, message: Contribution) -> None:
        """Put a contribution's nodes into the step's tree, each shard once; all of them are checked first."""
        if message.version != self.version:
            raise ProtocolError(
                f"step {message.step}: weights of version {message.version}, not {self.version}, under a gradient"
            )
        for node in message.nodes:
            what = f"the gradient of step {message.step}, {named(node.start, node.stop)}"
            self._check_vector(node.vector, what)
            if not (math.isfinite(node.loss) and finite(node.vector)):
                self._fail(
                    f"{what} from worker {member.worker} is not finite "
                    f"(loss {node.loss}); the weights are those of version {self.version}. "
                    "A smaller learning rate, clip_norm or scaled inputs help most often"
                )
                return
        for node in message.nodes:
            if not self.tree.add(node):
                self.dropped += 1
        if message.last:
            self.final = min(self.final, message.step + 1)
        self._log(message.logs, message.step)

    def _return(self, lease: Lease) -> None:
        """What of a lease has not arrived can be leased again."""
        if lease.step != self.version:
            return
        for start, stop in self.tree.missing():
            start, stop = max(start, lease.start), min(stop, lease.stop)
            if start < stop:
                self.unleased.append((start, stop))
        if len(self.unleased) > 1:
            self.unleased.sort()

    def _apply(self) -> None:
        """The step is complete: update the weights."""
        assert self.updater is not None
        total = self.tree.nodes[0]
        step = self.updater.version
        if self.tree.shards > 1 and not finite(total.vector):
            self._fail(f"the gradient of step {step} is not finite, though that of each of its shards is")
            return
        self.updater.update(total.vector)
        self.progress.step(total.loss, self.steps.samples_of(step))
        self._open_step()
        epoch = step // self.steps.steps_per_epoch
        ends_epoch = (step + 1) % self.steps.steps_per_epoch == 0 or step + 1 == self.final
        if self.progress.due(self.now, ends_epoch) or step + 1 == self.final:
            self._report("progress", self.progress.take(self.now, step + 1, epoch, len(self.members)))
        if ends_epoch:
            self.progress.end_epoch()
        assert self.settings is not None
        if self.settings.evaluate and ends_epoch:
            self.evaluations.append(Evaluation(epoch, self.version, self.updater.weights.copy()))

    def _score(self, member: Member, message: Score) -> None:
        task = member.task
        if not isinstance(task, Evaluation) or task.epoch != message.epoch:
            raise ProtocolError(f"a score of epoch {message.epoch} that worker {member.worker} was not asked for")
        member.task = None
        member.waiting = True
        self.evaluations = [due for due in self.evaluations if due.epoch != message.epoch]
        self.progress.metrics(message.scores, task.version)
        self._report("evaluation", {"step": task.version, "epoch": message.epoch, "scores": message.scores})
        if message.last:
            self.final = min(self.final, self.version + (0 if self._steering else 1))
        self._hand_out()

    # Leaving and ending.

    def _stop(self, member: Member, message: Stop) -> None:
        """A program has left its loop: the current step is the last, if anybody is left to complete it."""
        member.stopped, member.waiting = True, False
        if isinstance(member.task, Lease):
            self._return(member.task)
        member.task = None
        self.final = min(self.final, self.version + 1)
        if all(member.stopped for member in self.members.values()):
            if self.version < self.final and not self.over:
                self._notice(f"step {self.version} was left before its end by every worker: it is not applied")
            self.final = self.version
            self.evaluations.clear()
        self._hand_out()

    def _leave(self, member: Member, message: Leave) -> None:
        del self.members[member.peer]
        if member.worker == self.main:
            self._log(message.logs, self.version)
        self._report("left", {"worker": member.worker})
        if not self.over:
            self._fail(f"worker {member.worker} left in the middle of the run")
            self._hand_out()

    def _failed(self, member: Member, message: Failure) -> None:
        del self.members[member.peer]
        self._report("traceback", {"worker": member.worker, "traceback": message.traceback})
        self._fail(f"worker {member.worker} failed: {message.error}")
        self._hand_out()

    def _fail(self, failure: str) -> None:
        if not self.failure:
            self.failure = failure
            self._report("failure", {"step": self.version, "failure": failure})

    def _finish(self) -> None:
        """Tell every worker that waits; the others are told when they next send."""
        if not self.over:
            self.over = True
            if self.members and not self.failure:
                self.main = min(member.worker for member in self.members.values())
        for member in self.members.values():
            if not member.told and (member.waiting or member.stopped or self.failure):
                self._send_finish(member)

    def _send_finish(self, member: Member) -> None:
        member.told = True
        member.waiting = False
        weights = None if self.updater is None or member.version == self.version else self.updater.weights
        member.version = self.version
        main = member.worker == self.main
        self._send(member, Finish(self.version, main, self.failure, weights))

    def _ping(self, member: Member, message: Ping) -> None:
        self._send(member, Waiting(self.waited_for()))

    def waited_for(self) -> str:
        """Who keeps the run waiting, since when, and with what."""
        if not self.begun:
            return f"{len(self.members)} of {self.workers} workers have joined; the run begins when all have"
        busy = [member.doing(self.now) for member in self.members.values() if member.task is not None]
        return "waiting for " + (", ".join(busy[:4]) or "nobody")

    # What goes out.

    def _send(self, member: Member, message: FromServer) -> None:
        self.out.append(Send(member.peer, message))

    def _report(self, kind: str, values: dict[str, Any]) -> None:
        self.out.append(Report(kind, values))

    def _notice(self, text: str) -> None:
        self._report("notice", {"step": self.version, "text": text})

    def _log(self, logs: Logs, step: int) -> None:
        for shard, name, value in logs:
            self.progress.metrics({name: value}, step)
            where = {"step": step} if shard < 0 else {"step": step, "shard": shard}
            self._report("log", where | {"name": name, "value": value})

    def refuse(self, peer: bytes, reason: str) -> None:
        """Count what is not taken, and tell its sender why."""
        self.refused += 1
        self.out.append(Send(peer, Refusal(reason)))
        self._report("refused", {"reason": reason[:2000]})

    def _check_vector(self, vector: Vector, what: str) -> None:
        assert self.settings is not None
        layout = self.settings.layout
        if vector.shape != (layout.size,) or vector.dtype != layout.dtype:
            raise ProtocolError(
                f"{what}: {vector.shape} {vector.dtype}, but the model has ({layout.size},) {layout.dtype}"
            )

    def _take(self) -> list[Action]:
        out, self.out = self.out, []
        return out


def named(start: int, stop: int) -> str:
    """A range of shards in words: 'shard 3', 'shards 3 to 5'."""
    return f"shard {start}" if stop - start == 1 else f"shards {start} to {stop - 1}"


def finite(vector: Vector) -> bool:
    """Whether every element is finite: one product, and a look at each only if that overflowed.

    >>> finite(np.array([1e300, 1e300])), finite(np.array([1.0, np.nan]))
    (True, False)
    """
    return math.isfinite(np.dot(vector, vector)) or bool(np.isfinite(vector).all())


HANDLERS: dict[type, Callable[..., None]] = {
    Contribution: Server._contribution,
    Ping: Server._ping,
    Score: Server._score,
    Initial: Server._initial,
    Stop: Server._stop,
    Leave: Server._leave,
    Failure: Server._failed,
}
