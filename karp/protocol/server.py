"""The server's half of the protocol: a state machine without I/O.

Events go in (a message from a peer, a worker lost, the clock), actions come out (send this, report that); time is an
argument. So one class serves the ZeroMQ server, the run in one process, the tests and the simulated cluster.

    joining --(all workers are here, or the join deadline passed)--> training --(last step, last score)--> over

In training, the shards of step `version` are leased to the workers that wait. Each contribution enters the step's
tree once; when the tree is complete and its sum finite, the optimiser updates the weights in place, `version` goes up
by one, and the workers that wait are leased the next step together with the new weights. At an epoch's end its
evaluation is leased too, with a copy of that epoch's weights, so that training goes on meanwhile (unless the score
steers the run). Nothing that arrives changes the weights but a complete step.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from karp.errors import ProtocolError
from karp.optim import Updater
from karp.protocol.actions import Action, Member, Report, Send
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
from karp.protocol.step import Step, finite, named
from karp.protocol.tree import Vector

JOIN_SECONDS = 60.0  # the run begins without the workers that have not joined by then
NOTICE_SECONDS = 10.0  # a wait of this length is reported, then one of twice the length, and so on


class Server:
    """The parameter server's state.

    Args:
        workers: how many are expected; the run begins when so many have joined.
        plan: makes the sampling plan of (samples, batch_size, shards, seed).
        now: the time, in seconds from any origin.
    """

    def __init__(self, workers: int, plan: Callable[[int, int, int, int], Steps], now: float) -> None:
        self.workers = workers
        self.plan = plan
        self.now = now
        self.join_by = now + JOIN_SECONDS
        self.notice_at = now + NOTICE_SECONDS
        self.members: dict[bytes, Member] = {}
        self.asked = b""  # the peer that was asked for the initial weights
        self.settings: Settings | None = None
        self.steps: Steps
        self.dtype: np.dtype[Any]
        self.updater: Updater | None = None  # holds the weights
        self.step = Step(0, 0)  # the one under way
        self.final = 0  # the run is over at this version
        self.evaluations: list[Evaluation] = []  # due or leased, oldest first
        self.begun = False
        self.over = False
        self.failure = ""
        self.main = -1  # the worker that speaks for all
        self.dropped = 0  # nodes of contributions that came twice or too late
        self.refused = 0  # messages that were not taken
        self.progress = Progress(now)
        self.out: list[Action] = []

    @property
    def version(self) -> int:
        """How many updates have been applied; the step under way has the same number."""
        return 0 if self.updater is None else self.updater.version

    # Events: each returns the actions that follow from it.

    def receive(self, peer: bytes, message: FromWorker, now: float) -> list[Action]:
        """A message has arrived from a peer."""
        self.now = now
        member = self.members.get(peer)
        try:
            if member is not None and type(message) in HANDLERS:
                HANDLERS[type(message)](self, member, message)
            elif member is None and isinstance(message, Join):
                self._join(peer, message)
            else:
                odd = "twice" if member is not None else "from a peer that has not joined"
                raise ProtocolError(f"{type(message).__name__.lower()} {odd}")
        except ProtocolError as error:
            self._refuse(peer, str(error))
        return self._take()

    def malformed(self, peer: bytes, reason: str, now: float) -> list[Action]:
        """Something that is no message has arrived."""
        self.now = now
        self._refuse(peer, reason)
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
                self._notice(f"waiting for {member.doing(now)}; it has not failed, so the run waits on")
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
        member = self.members[peer] = Member(peer, worker, self.now)
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
        self.dtype = np.dtype(settings.layout.dtype)
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
        """Open the first step, once the weights and all workers are there."""
        if self.updater is not None and len(self.members) >= self.workers:
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

    def _open_step(self) -> None:
        version = self.version
        self.step = Step(version, self.steps.shards_of(version) if version < self.final else 0)

    def _hand_out(self) -> None:
        """Give what there is to do to the workers that wait, in the order of their numbers."""
        if self.failure or self.over:
            self._finish()
            return
        if not self.begun:
            self._begin()
            if not self.begun:
                return
        waiting = [member for member in self.members.values() if member.waiting]
        if len(waiting) > 1:
            waiting.sort(key=lambda member: member.worker)
        if self.evaluations:
            leased = [member.task for member in self.members.values()]
            for evaluation in self.evaluations:
                if waiting and not any(task is evaluation for task in leased):
                    self._give(waiting.pop(), evaluation)
        if self.version >= self.final:
            if not self.evaluations:
                self._finish()
        elif not (self.evaluations and self._steering):
            self._lease(waiting)

    @property
    def _steering(self) -> bool:
        return self.settings is not None and self.settings.steering

    def _lease(self, waiting: list[Member]) -> None:
        """Cut what is unleased of the step evenly over the workers that wait."""
        assert self.updater is not None
        version = self.updater.version
        for index, member in enumerate(waiting):
            cut = self.step.cut(len(waiting) - index)
            if cut is None:
                break
            self._give(member, Lease(version, *cut, version, self.updater.weights))

    def _give(self, member: Member, task: Lease | Evaluation) -> None:
        member.task = task
        member.waiting = False
        member.since = self.now
        member.notice_at = self.now + NOTICE_SECONDS
        if member.version == task.version:  # it has these weights already
            if isinstance(task, Lease):
                task.weights = None
            else:  # the copy is kept: the evaluation may have to be given again
                task = Evaluation(task.epoch, task.version, None)
        member.version = task.version
        self.out.append(Send(member.peer, task))

    def _contribution(self, member: Member, message: Contribution) -> None:
        lease, member.task = member.task, None
        member.waiting = not member.stopped
        if message.step != self.version or not self.begun or self.over:
            self.dropped += len(message.nodes)
        else:
            try:
                self._enter(member, message)
            finally:
                if isinstance(lease, Lease) and not self.step.complete:
                    self.step.give_back(lease.start, lease.stop)
            if self.step.complete:
                self._apply()
        self._hand_out()

    def _enter(self, member: Member, message: Contribution) -> None:
        """Put a contribution's nodes into the step's tree, each shard once; all of them are checked first."""
        if message.version != self.version:
            raise ProtocolError(f"step {message.step}: a gradient of weights {message.version}, not {self.version}")
        for node in message.nodes:
            what = f"the gradient of step {message.step}, {named(node.start, node.stop)}"
            self._check_vector(node.vector, what)
            if not (math.isfinite(node.loss) and finite(node.vector)):
                self._fail(
                    f"{what} from worker {member.worker} is not finite (loss {node.loss}); the weights are those of "
                    f"version {self.version}. A smaller learning rate, clip_norm or scaled inputs help most often"
                )
                return
        self.dropped += self.step.enter(message.nodes)
        if message.last:
            self.final = min(self.final, message.step + 1)
        self._log(message.logs, message.step)

    def _apply(self) -> None:
        """The step is complete: update the weights."""
        assert self.updater is not None
        assert self.settings is not None
        total, number = self.step.total, self.step.number
        if self.step.tree.shards > 1 and not finite(total.vector):
            self._fail(f"the gradient of step {number} is not finite, though that of each of its shards is")
            return
        self.updater.update(total.vector)
        self.progress.step(total.loss, self.steps.samples_of(number))
        self._open_step()
        epoch, is_last = number // self.steps.steps_per_epoch, number + 1 == self.final
        ends_epoch = is_last or (number + 1) % self.steps.steps_per_epoch == 0
        if is_last or self.progress.due(self.now, ends_epoch):
            self._report("progress", self.progress.take(self.now, number + 1, epoch, len(self.members)))
        if ends_epoch:
            self.progress.end_epoch()
            if self.settings.evaluate:
                self.evaluations.append(Evaluation(epoch, self.version, self.updater.weights.copy()))

    def _score(self, member: Member, message: Score) -> None:
        task = member.task
        if not isinstance(task, Evaluation) or task.epoch != message.epoch:
            raise ProtocolError(f"a score of epoch {message.epoch} that worker {member.worker} was not asked for")
        member.task = None
        member.waiting = not member.stopped
        self.evaluations = [due for due in self.evaluations if due.epoch != message.epoch]
        self.progress.metrics(message.scores, task.version)
        self._report("evaluation", {"step": task.version, "epoch": message.epoch, "scores": message.scores})
        if message.last:
            self.final = min(self.final, self.version + (0 if self._steering else 1))
        self._hand_out()

    # Leaving and ending.

    def _stop(self, member: Member, message: Stop) -> None:
        """A program has left its loop: the current step is the last, if anybody is left to complete it."""
        task, member.task = member.task, None
        member.stopped, member.waiting = True, False
        if isinstance(task, Lease) and task.step == self.step.number:
            self.step.give_back(task.start, task.stop)
        self.final = min(self.final, self.version + 1)
        if not self.over and all(member.stopped for member in self.members.values()):
            if self.version < self.final:
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
                member.told, member.waiting = True, False
                weights = None if self.updater is None or member.version == self.version else self.updater.weights
                self._send(member, Finish(self.version, member.worker == self.main, self.failure, weights))

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

    def _refuse(self, peer: bytes, reason: str) -> None:
        """Count what is not taken, and tell its sender why."""
        self.refused += 1
        self.out.append(Send(peer, Refusal(reason)))
        self._report("refused", {"reason": reason[:2000]})

    def _check_vector(self, vector: Vector, what: str) -> None:
        assert self.settings is not None
        size = self.settings.layout.size
        if vector.shape != (size,) or vector.dtype != self.dtype:
            raise ProtocolError(f"{what}: {vector.shape} {vector.dtype}, but the model has ({size},) {self.dtype}")

    def _take(self) -> list[Action]:
        out, self.out = self.out, []
        return out


HANDLERS: dict[type, Callable[..., None]] = {
    Contribution: Server._contribution,
    Ping: Server._ping,
    Score: Server._score,
    Initial: Server._initial,
    Stop: Server._stop,
    Leave: Server._leave,
    Failure: Server._failed,
}
