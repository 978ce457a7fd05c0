"""The server's half of the protocol: a state machine without I/O.

Events go in (a message from a peer, a worker lost, the clock), actions come out (send this, report that, save a
checkpoint); time is an argument. So one class serves the ZeroMQ server, the run in one process, the tests and the
simulated cluster.

    joining --(all workers are here, or the join deadline passed)--> training --(last step, last score)--> over

In training, the shards of step `version` are leased to the workers that wait. Each shard enters the step's tree once,
whoever sends it; when the tree is complete and its sum finite, the optimiser updates the weights in place, `version`
goes up by one, and the workers that wait are leased the next step together with the new weights. What is lost (a
worker, a message) is leased again. At an epoch's end its evaluation is leased too, with a copy of that epoch's
weights, so that training goes on meanwhile (unless the score steers the run). Nothing that arrives changes the
weights but a complete step.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from karp.errors import ProtocolError
from karp.optim import Updater
from karp.protocol.actions import Action, Report, Save, Send
from karp.protocol.member import Member, Pace
from karp.protocol.messages import (
    Closed,
    Contribution,
    Done,
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
from karp.protocol.progress import Progress
from karp.protocol.settings import ANY_SHARDS, Settings, Steps
from karp.protocol.step import Step, finite, named
from karp.protocol.tree import Node, Vector

JOIN_SECONDS = 60.0  # the run begins without the workers that have not joined by then
NOTICE_SECONDS = 10.0  # a wait of this length is reported, then one of twice the length, and so on
ALIVE_SECONDS = 1.0  # a sign of life to every worker this often; sending it is how a lost one is found
SAVE_SECONDS = 10.0  # between two checkpoints


class Server:
    """The parameter server's state.

    Args:
        workers: how many are expected; the run begins when so many have joined.
        plan: makes the sampling plan of (samples, batch_size, shards, seed).
        now: the time, in seconds from any origin.
        incarnation: counts the restarts of this run's server.
        save_seconds: between two checkpoints; 0: after every step.
        skip: leave a shard out whose gradient is not finite twice, instead of ending the run.
    """

    def __init__(
        self,
        workers: int,
        plan: Callable[[int, int, int, int], Steps],
        now: float,
        *,
        incarnation: int = 0,
        save_seconds: float = SAVE_SECONDS,
        skip: bool = False,
    ) -> None:
        self.workers = workers
        self.plan = plan
        self.now = now
        self.incarnation = incarnation
        self.save_seconds = save_seconds
        self.skip = skip
        self.join_by = now + JOIN_SECONDS
        self.notice_at = now + NOTICE_SECONDS
        self.alive_at = now + ALIVE_SECONDS
        self.save_at = now + save_seconds
        self.members: dict[bytes, Member] = {}
        self.waiting: dict[bytes, Member] = {}  # those that have nothing to do
        self.asked = b""  # the peer that was asked for the initial weights
        self.settings: Settings | None = None
        self.steps: Steps
        self.dtype: np.dtype[Any]
        self.updater: Updater | None = None  # holds the weights
        self.step = Step(0, 0)  # the one under way
        self.pace = Pace()
        self.final = 0  # the run is over at this version
        self.evaluations: list[Evaluation] = []  # due or leased, oldest first
        self.failures: set[tuple[int, int, int]] = set()  # (step, shard, epoch) at which the program has raised
        self.begun = False
        self.over = False
        self.failure = ""
        self.main = -1  # the worker that speaks for all
        self.done = False  # and has
        self.left: dict[bytes, int] = {}  # those that have left their `with`, and could stand in for it
        self.dropped = 0  # nodes of contributions that came twice or too late
        self.refused = 0  # messages that were not taken
        self.released = 0  # leases that were given again
        self.progress = Progress(now)
        self.out: list[Action] = []

    @property
    def version(self) -> int:
        """How many updates have been applied; the step under way has the same number."""
        return 0 if self.updater is None else self.updater.version

    # Events: each returns the actions that follow from it.

    def receive(self, peer: bytes, message: FromWorker, incarnation: int, now: float) -> list[Action]:
        """A message has arrived from a peer, meant for this incarnation of the server."""
        self.now = now
        member = self.members.get(peer)
        try:
            if isinstance(message, Join):
                self._join(peer, message)
            elif incarnation == self.incarnation and member is not None:
                HANDLERS[type(message)](self, member, message)
            elif incarnation == self.incarnation and peer in self.left:
                self._after_leaving(peer, message)
            elif isinstance(message, Failure):
                self._report("traceback", {"worker": -1, "traceback": message.traceback})
            elif not isinstance(message, Leave | Done):
                self.out.append(Send(peer, Rejoin()))
        except ProtocolError as error:
            self._refuse(peer, str(error))
        return self._take()

    def malformed(self, peer: bytes, reason: str, now: float) -> list[Action]:
        """Something that is no message has arrived."""
        self.now = now
        self._refuse(peer, reason)
        return self._take()

    def lost(self, peer: bytes, now: float) -> list[Action]:
        """A peer is gone: its connection is, or the launcher has seen its process end."""
        self.now = now
        self._drop(peer)
        return self._take()

    def ended(self, worker: int, well: bool, now: float) -> list[Action]:
        """A worker's process has ended, `well` or not; the launcher tells."""
        self.now = now
        if worker == self.main and well:
            self._close()
        for peer in [peer for peer, member in self.members.items() if member.worker == worker]:
            self._drop(peer)
        for peer in [peer for peer, number in self.left.items() if number == worker]:
            self._drop(peer)
        if not self.begun and well:
            self.workers -= 1
            self._hand_out()
        return self._take()

    def fail(self, reason: str, now: float) -> list[Action]:
        """The launcher gives the run up."""
        self.now = now
        self._fail(reason)
        self._hand_out()
        return self._take()

    def tick(self, now: float) -> list[Action]:
        """Time has passed: look at the deadlines."""
        self.now = now
        if not self.begun:
            self._look_for_missing()
        elif not self.members and not self.over and now >= self.notice_at:
            self.notice_at = now + NOTICE_SECONDS
            self._notice(f"no worker is here to compute step {self.version}; the run goes on when one joins")
        alive = now >= self.alive_at
        if alive:
            self.alive_at = now + ALIVE_SECONDS
        for member in list(self.members.values()):
            if alive and not member.told:
                self._send(member, Waiting(""))
            if now >= member.notice_at and self._keeps_waiting(member):
                member.notice_at = now + 2 * (now - member.since)
                self._notice(f"waiting for {member.doing(now)}; it has not failed, so the run waits on")
        self._double()
        self._hand_out()
        return self._take()

    def _keeps_waiting(self, member: Member) -> bool:
        task = member.task
        return isinstance(task, Evaluation) or (isinstance(task, Lease) and task.step == self.version)

    @property
    def restless(self) -> bool:
        """Whether a lease may soon have to be given again, so that ticks should come quickly."""
        return bool(self.waiting) and self.begun and not self.over

    # Joining.

    def _join(self, peer: bytes, message: Join) -> None:
        if self.settings is None:
            self._settle(message.settings)
        assert self.settings is not None
        if differences := self.settings.differences(message.settings):
            raise ProtocolError("this program differs from the run's: " + "; ".join(differences))
        self._drop(peer)
        taken = {member.worker for member in self.members.values()} | set(self.left.values())
        worker = message.worker
        if worker in taken or worker < 0:
            worker = next(number for number in range(len(taken) + 1) if number not in taken)
        member = self.members[peer] = Member(peer, worker, self.now)
        ask = self.updater is None and self.asked not in self.members
        if ask:
            self.asked = peer
        self._send(member, Welcome(worker, self.settings.shards, ask))
        self._report("joined", {"worker": worker, "host": message.host, "pid": message.pid})
        if not ask:
            self._rest(member)
        self._hand_out()

    def _settle(self, settings: Settings) -> None:
        """The first worker's settings are the run's."""
        if settings.shards == ANY_SHARDS:
            settings = settings.with_shards(self.workers)
        self._use(settings)
        self._report("settings", settings.to_dict())
        if (idle := self.workers - settings.shards) > 0:
            self._notice(
                f"{self.workers} workers share {settings.shards} shards, so {idle} of them will have nothing to do: "
                "ask for more shards or fewer workers"
            )

    def _use(self, settings: Settings) -> None:
        self.settings = settings
        self.dtype = np.dtype(settings.layout.dtype)
        self.steps = self.plan(settings.samples, settings.batch_size, settings.shards, settings.seed)
        self.final = self.steps.steps_per_epoch * settings.epochs

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
        if self.version == 0:
            member.version = 0
        self._rest(member)
        self._hand_out()

    def _begin(self) -> None:
        """Open the first step, once the weights and all workers are there."""
        if self.updater is not None and len(self.members) >= self.workers:
            self.begun = True
            self.progress.begin(self.now)
            self._report("begin", {"steps": self.final, "step": self.version, "workers": len(self.members)})
            self._open_step()
            self.out.append(Save())

    def _look_for_missing(self) -> None:
        """Before the first step: say who has not joined, and in the end begin without."""
        here = {member.worker for member in self.members.values()}
        missing = ", ".join(str(number) for number in range(self.workers) if number not in here)
        text = f"{len(here)} of {self.workers} workers have joined; missing: worker {missing}; the run begins without"
        if self.now >= self.join_by and self.updater is not None and here:
            self.workers = len(here)
            self._notice(text)
        elif self.now >= self.notice_at:
            self.notice_at = self.now + NOTICE_SECONDS
            self._notice(f"{text} in {max(0.0, self.join_by - self.now):.0f} s")

    def _drop(self, peer: bytes) -> None:
        """A member is here no more; what it was at goes to others."""
        self.waiting.pop(peer, None)
        number = self.left.pop(peer, -1)
        member = self.members.pop(peer, None)
        if member is not None:
            number = member.worker
            if member.task is not None and not self.over:
                self._report("lost", {"worker": number, "step": self.version})
            self._withdraw(member)
        if self.over and number == self.main and not self.done:
            self._name_another()
        self._hand_out()

    def _withdraw(self, member: Member) -> None:
        """What a member has not contributed of its task can be given again."""
        task, member.task = member.task, None
        if isinstance(task, Lease) and task.step == self.step.number and not self.step.complete:
            missing = [shard for gap in self.step.missing(task.start, task.stop) for shard in range(*gap)]
            if not missing:
                return
            tasks = [other.task for other in self.members.values() if isinstance(other.task, Lease)]
            held = {shard for t in tasks if t.step == task.step for shard in range(t.start, t.stop)}
            for shard in missing:
                if shard not in held:
                    self.released += 1
                    self.step.give_back(shard, shard + 1)

    # Training.

    def _open_step(self) -> None:
        version = self.version
        self.step = Step(version, self.steps.shards_of(version) if version < self.final else 0)

    def _rest(self, member: Member) -> None:
        """This member has nothing to do."""
        member.task = None
        if not member.stopped and not member.told:
            self.waiting[member.peer] = member

    def _hand_out(self) -> None:
        """Give what there is to do to the workers that wait, in the order of their numbers."""
        if self.failure or self.over:
            self._finish()
            return
        if not self.begun:
            self._begin()
            if not self.begun:
                return
        if self.evaluations and self.waiting:
            self._give_evaluations()
        if self.version >= self.final:
            if not self.evaluations:
                self._finish()
        elif self.waiting and self.step.unleased and not (self.evaluations and self._steering):
            self._lease()

    @property
    def _steering(self) -> bool:
        return self.settings is not None and self.settings.steering

    def _give_evaluations(self) -> None:
        held = {member.task.epoch for member in self.members.values() if isinstance(member.task, Evaluation)}
        for due in self.evaluations:
            if self.waiting and due.epoch not in held:
                last = max(self.waiting.values(), key=lambda member: member.worker)
                self._give(last, Evaluation(0, due.epoch, due.version, due.weights))

    def _lease(self) -> None:
        """Share what is unleased of the step among the workers that wait."""
        waiting = sorted(self.waiting.values(), key=lambda member: member.worker)
        if self.step.refusals:
            self._lease_refused(waiting)
            return
        for member, portion in zip(
            waiting, self.pace.portions(waiting, self.step.to_lease, self.now), strict=True
        ):
            while portion > 0 and (cut := self.step.cut(portion)) is not None:
                self._grant(member, *cut)
                break

    def _lease_refused(self, waiting: list[Member]) -> None:
        """A shard whose gradient was not finite goes to another worker than before, if there is one."""
        for member in waiting:
            start = self.step.unleased[0][0] if self.step.unleased else -1
            if start < 0 or (self.step.refusals.get(start) == member.peer and len(self.members) > 1):
                continue
            if (cut := self.step.cut(self.step.to_lease)) is not None:
                self._grant(member, *cut)

    def _grant(self, member: Member, start: int, stop: int) -> None:
        assert self.updater is not None
        version = self.updater.version
        self._give(member, Lease(0, version, start, stop, version, self.updater.weights))

    def _give(self, member: Member, task: Lease | Evaluation) -> None:
        del self.waiting[member.peer]
        member.number += 1
        task.number = member.number
        if member.version == task.version:  # it has these weights already
            task.weights = None
        member.task, member.version = task, task.version
        member.since, member.doubled = self.now, False
        member.notice_at = self.now + NOTICE_SECONDS
        self.out.append(Send(member.peer, task))

    def _double(self) -> None:
        """Give leases that take too long a second time, to workers that have nothing to do."""
        if not self.restless or self.step.unleased or self.step.complete:
            return
        for member in list(self.members.values()):
            lease = member.task
            if not isinstance(lease, Lease) or lease.step != self.step.number or member.doubled:
                continue
            if self.waiting and self.now >= self.pace.overdue_at(member, lease):
                member.doubled = True
                for start, stop in self.step.missing(lease.start, lease.stop):
                    self.released += 1
                    self.step.give_back(start, stop)
                self._lease()

    def _contribution(self, member: Member, message: Contribution) -> None:
        lease = member.task
        if isinstance(lease, Lease) and lease.step == message.step:
            self.pace.measure(member, lease, self.now)
            self._rest(member)
        if message.step != self.version or not self.begun or self.over:
            self.dropped += len(message.nodes)
        else:
            try:
                self._enter(member, message)
            finally:
                if isinstance(lease, Lease) and member.task is None and not self.step.complete:
                    member.task = lease
                    self._withdraw(member)
            if self.step.complete:
                self._apply()
        self._hand_out()

    def _enter(self, member: Member, message: Contribution) -> None:
        """Put a contribution's nodes into the step's tree, each shard once; all of them are checked first."""
        if message.version != self.version:
            raise ProtocolError(f"step {message.step}: a gradient of weights {message.version}, not {self.version}")
        for node in message.nodes:
            assert node.vector is not None
            self._check_vector(node.vector, f"the gradient of step {message.step}, {named(node.start, node.stop)}")
        good = [node for node in message.nodes if self._is_finite(member, node)]
        if self.failure:
            return
        self.dropped += self.step.enter(good)
        if message.last:
            self.final = min(self.final, message.step + 1)
        self._log(message.logs, message.step)

    def _is_finite(self, member: Member, node: Node) -> bool:
        """Whether a gradient can be used; if not, its shards are tried once more, alone and elsewhere."""
        if math.isfinite(node.loss) and node.vector is not None and finite(node.vector):
            return True
        what = f"the gradient of step {self.version}, {named(node.start, node.stop)} from worker {member.worker}"
        what = f"{what} is not finite (loss {node.loss})"
        if node.stop - node.start > 1 or node.start not in self.step.refusals:
            self.step.refusals |= dict.fromkeys(range(node.start, node.stop), member.peer)
            self._notice(f"{what}; it is computed once more")
        elif self.skip:
            self.step.leave_out(node.start)
            self._notice(f"{what} again: the shard is left out")
        else:
            self._fail(
                f"{what}, for the second time; the weights are those of version {self.version}. "
                "A smaller learning rate, clip_norm or scaled inputs help most often"
            )
        return False

    def _apply(self) -> None:
        """The step is complete: update the weights."""
        assert self.updater is not None
        assert self.settings is not None
        total, number = self._total(), self.step.number
        if total is None:
            return
        assert total.vector is not None
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
                self.evaluations.append(Evaluation(1, epoch, self.version, self.updater.weights.copy()))
        if self.now >= self.save_at:
            self.save_at = self.now + self.save_seconds
            self.out.append(Save())

    def _total(self) -> Node | None:
        """The step's sum, if it is finite; without the shards that were left out, the others count for them."""
        total = self.step.total
        if total.vector is None:
            self._fail(f"step {self.step.number}: the gradient of none of its shards is finite")
            return None
        if self.step.skipped:
            step, there = self.step.number, self.steps.samples_of(self.step.number)
            kept = there - sum(self.steps.samples_in(step, shard) for shard in self.step.skipped)
            scale = there / kept
            total = Node(total.start, total.stop, total.loss * scale, total.vector * self.dtype.type(scale))
        if self.step.tree.shards > 1 and total.vector is not None and not finite(total.vector):
            self._fail(f"the gradient of step {self.step.number} is not finite, though that of each of its shards is")
            return None
        return total

    def _score(self, member: Member, message: Score) -> None:
        task = member.task
        if isinstance(task, Evaluation) and task.epoch == message.epoch:
            self._rest(member)
        due = next((due for due in self.evaluations if due.epoch == message.epoch), None)
        if due is not None:  # else it came twice
            self.evaluations.remove(due)
            self.progress.metrics(message.scores, due.version)
            self._report("evaluation", {"step": due.version, "epoch": message.epoch, "scores": message.scores})
            if message.last:
                self.final = min(self.final, self.version + (0 if self._steering else 1))
        self._hand_out()

    def _ping(self, member: Member, message: Ping) -> None:
        """A worker waits: if it should not, one of two messages was lost, the task or the answer to it."""
        if member.told:
            self._send_finish(member)
        elif member.task is None:
            if self.updater is None and member.peer == self.asked:
                self._send(member, Rejoin())  # the weights it was asked for have not come
            else:
                self._rest(member)
                self._send(member, Waiting(self.waited_for()))
        elif message.seen < member.number:
            weights = self._weights_of(member.task)
            member.task.weights = weights
            self.out.append(Send(member.peer, member.task))
        else:
            self._withdraw(member)
            self._rest(member)
        self._hand_out()

    def _weights_of(self, task: Lease | Evaluation) -> Vector | None:
        if isinstance(task, Evaluation):
            return next((due.weights for due in self.evaluations if due.epoch == task.epoch), None)
        return self.updater.weights if self.updater is not None and task.version == self.version else None

    def waited_for(self) -> str:
        """Who keeps the run waiting, since when, and with what."""
        if not self.begun:
            return f"{len(self.members)} of {self.workers} workers have joined; the run begins when all have"
        busy = [member.doing(self.now) for member in self.members.values() if member.task is not None]
        return "waiting for " + (", ".join(busy[:4]) or "nobody")

    # Leaving and ending.

    def _stop(self, member: Member, message: Stop) -> None:
        """A program has left its loop: the current step is the last, if anybody is left to complete it."""
        self.waiting.pop(member.peer, None)
        if not member.stopped and not self.over:
            member.stopped = True
            self._withdraw(member)
            self.final = min(self.final, self.version + 1)
        if not self.over and all(member.stopped for member in self.members.values()):
            if self.version < self.final:
                self._notice(f"step {self.version} was left before its end by every worker: it is not applied")
            self.final = self.version
            self.evaluations.clear()
        self._hand_out()

    def _leave(self, member: Member, message: Leave) -> None:
        if not self.over:
            self._drop(member.peer)
            return
        del self.members[member.peer]
        self.waiting.pop(member.peer, None)
        self.left[member.peer] = member.worker
        if member.worker == self.main:
            self._log(message.logs, self.version)
        self._report("left", {"worker": member.worker})
        self._hand_out()

    def _after_leaving(self, peer: bytes, message: FromWorker) -> None:
        """A worker that has left its `with` is done, or asks whether it is to speak for all."""
        if isinstance(message, Done) and self.left[peer] == self.main:
            self._close()
        elif isinstance(message, Ping) and self.done:
            self.out.append(Send(peer, Closed()))
        elif isinstance(message, Ping):
            main = self.left[peer] == self.main
            reply = Finish(self.version, True, self.failure, None) if main else Waiting("the main worker to end")
            self.out.append(Send(peer, reply))

    def _close(self) -> None:
        """The main worker has spoken for all."""
        self.done = True
        self.out += [Send(peer, Closed()) for peer in self.left]

    def _name_another(self) -> None:
        """The main worker died before its program's end: another stands in for it."""
        there = [(number, peer) for peer, number in self.left.items()]
        there += [(member.worker, peer) for peer, member in self.members.items()]
        if there and not self.failure:
            self.main, peer = min(there)
            self._report("main", {"worker": self.main})
            self.out.append(Send(peer, Finish(self.version, True, "", None)))

    def _failed(self, member: Member, message: Failure) -> None:
        """The program raised. On another worker it may not; at the same place once more it does."""
        where = (message.step, message.shard, message.epoch)
        place = f"at step {message.step}, shard {message.shard}" if message.shard >= 0 else "outside of its loop"
        if message.epoch >= 0:
            place = f"in the evaluation of epoch {message.epoch}"
        self._report("traceback", {"worker": member.worker, "traceback": message.traceback})
        if where in self.failures or message.shard == message.epoch == -1:
            self._fail(f"worker {member.worker} failed {place}: {message.error}")
        else:
            self.failures.add(where)
            self._notice(f"worker {member.worker} failed {place} ({message.error}); another worker tries it")
        self._drop(member.peer)

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
                self.out.append(Save())
        for member in self.members.values():
            if not member.told and (member.peer in self.waiting or member.stopped or self.failure):
                member.told = True
                self.waiting.pop(member.peer, None)
                self._send_finish(member)

    def _send_finish(self, member: Member) -> None:
        weights = None if self.updater is None or member.version == self.version else self.updater.weights
        self._send(member, Finish(self.version, member.worker == self.main, self.failure, weights))

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
    Done: lambda server, member, message: None,
}
