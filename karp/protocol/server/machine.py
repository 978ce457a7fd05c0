"""The server's half of the protocol: a state machine without I/O.

A method takes an event (a message from a peer, a worker lost, a tick of the clock) and returns actions (send, report,
save a checkpoint); time is an argument. So one class serves the ZeroMQ server, a run in one process, tests, simulation.

    joining --(joining.py)--> training --(last step, last score)--> over (ending.py)

In training, the shards of the open step are leased to the workers that wait. When the step is applied (training.py),
they are leased shards of the next, with the new weights; in a range leases move on by themselves (ranges.py). Shards
of a lost worker or message are leased again. At an epoch's end its evaluation is leased too, with a copy of that
epoch's weights, so that training goes on meanwhile (unless the next epoch waits for the score).
"""

from collections.abc import Callable, Collection, Mapping

from karp.errors import ProtocolError
from karp.protocol import reports
from karp.protocol.kernels import Kernels
from karp.protocol.messages import (
    Contribution,
    Done,
    Evaluation,
    Failure,
    FromWorker,
    Initial,
    Join,
    Leave,
    Ping,
    Rejoin,
    Scale,
    Score,
    Stop,
    Waiting,
)  # fmt: skip
from karp.protocol.ranges import Memory
from karp.protocol.server.actions import Action, Send
from karp.protocol.server.ending import Ending
from karp.protocol.server.failures import Failures
from karp.protocol.server.joining import Joining
from karp.protocol.server.leasing import Leasing
from karp.protocol.server.ledger import Step
from karp.protocol.server.ranges import Ranges
from karp.protocol.server.refusals import Refusals
from karp.protocol.server.roster import Roster
from karp.protocol.server.states import RunState, WorkerState
from karp.protocol.server.training import SAVE_SECONDS, Training
from karp.protocol.server.workers import WorkerInfo
from karp.protocol.settings import Settings
from karp.protocol.steps import Steps
from karp.protocol.tree import Node, Vector

TRAINING = RunState.TRAINING  # looking up a member of an enum takes 0.1 us in Python 3.11
ALIVE_SECONDS = 1.0  # between signs of life to every worker; sending one shows whether its connection is open


class Server:
    """The state machine of the parameter server.

    Args:
        workers: how many are expected; the run begins when so many have joined.
        plan: returns the sampling plan of (samples, batch_size, shards, seed).
        now: the time, in seconds from any origin.
        incarnation: counts the restarts of this run's server.
        save_seconds: between two checkpoints; 0: after every step.
        skip: leave a shard out whose gradient is not finite twice, instead of ending the run.
        memory: the memory for the weights, if other processes read them.
        same_kernels: refuse workers whose kernels differ from those of the first.
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
        memory: Memory | None = None,
        same_kernels: bool = False,
    ) -> None:
        self.incarnation = incarnation
        self.alive_at = now + ALIVE_SECONDS
        self.out: list[Action] = []
        self.training = Training(plan, now, self.out, save_seconds, skip, memory)
        self.leasing = Leasing(self.training, self.out)
        self.ending = Ending(self.training, self.leasing, self.out)
        self.joining = Joining(workers, self.training, self.leasing, self.ending, self.out, now, same_kernels)
        self.ranges = Ranges(self.training, self.leasing, self.out)
        self.members = self.leasing.members
        self.waiting = self.leasing.waiting
        self.numbers = self.ending.numbers
        self.failures = Failures(self.training)
        self.roster = Roster(self.training, self.leasing, now)
        self.refusals = Refusals(self.training, self.out)

    # The state that drivers and tests read.

    @property
    def settings(self) -> Settings | None:
        """The run's settings, once the first worker has brought them."""
        return self.training.settings

    @property
    def ready(self) -> bool:
        """Whether settings and weights are known."""
        return self.training.ready

    @property
    def begun(self) -> bool:
        """Whether the first step has been opened."""
        return self.training.state is not RunState.JOINING

    @property
    def version(self) -> int:
        """The number of updates applied."""
        return self.ranges.current if self.ranges.is_open else self.training.version

    @property
    def weights(self) -> Vector | None:
        """The weights, once they are known."""
        return self.training.weights.vector if self.training.ready else None

    @property
    def step(self) -> int:
        """The number of the oldest step that is not applied, which is the number of steps applied."""
        return self.ranges.current if self.ranges.is_open else self.training.number

    @property
    def open_steps(self) -> Mapping[int, Step]:
        """The steps whose shards are leased or may be, oldest first."""
        return self.training.ledger.open if self.training.settings is not None else {}

    def sums(self, step: int) -> list[Node]:
        """Return the sums of an open step's gradients that have arrived; [] for any other step."""
        return list(self.training.weights.sums[step].nodes.values()) if step in self.training.weights.sums else []

    def copy_borrowed(self, vector: Vector) -> None:
        """Copy the sums that lie in this vector, borrowed from a worker that is going to write there again."""
        if self.training.weights.sums:
            self.training.weights.copy_borrowed(vector)

    @property
    def now(self) -> float:
        """The time of the last event."""
        return self.training.now

    @property
    def seconds(self) -> float:
        """The seconds of training until the last event."""
        return self.training.seconds

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of nodes dropped, shards leased again, messages refused, connections rejected, and so on."""
        return {
            "dropped": self.training.dropped,
            "leased_again": self.leasing.leased_again,
            "refused": self.refusals.messages,
            "rejected_connections": self.refusals.connections,
            "steps_in_ranges": self.ranges.steps,
        }

    @property
    def failure(self) -> str:
        """Why the run has failed; '' if it has not."""
        return self.training.failure

    @property
    def over(self) -> bool:
        """Whether training has ended, well or not: workers that ask are told so."""
        return self.training.over

    # The events. Each method returns the actions that follow from it.

    def receive(self, peer: bytes, message: FromWorker, incarnation: int, now: float) -> list[Action]:
        """Handle a message to this `incarnation` of the server; refuse a wrong one, answer Rejoin to a stranger."""
        self._begin(now)
        member = self.members.get(peer)
        try:
            handler = HANDLERS.get(type(message)) if member is not None else None
            if handler is not None and incarnation == self.incarnation:
                handler(self, member, message)
                self._hand_out()
            elif isinstance(message, Join):
                self._join(peer, message)
            elif isinstance(message, Scale):
                self.joining.scale(peer, message.workers)
            elif incarnation == self.incarnation and peer in self.ending.left_workers:
                self.ending.handle(peer, message)
            elif isinstance(message, Leave | Done):
                self.ending.handle_of_unknown(peer, message)
            elif not isinstance(message, Failure):
                self.out.append(Send(peer, Rejoin()))
            elif not self.failure:  # when a run has failed, workers that were dropped may still fail, too
                self.refusals.refuse(peer, f"a program that is not in this run has failed: {message.error:.500}")
        except ProtocolError as error:
            self.refusals.refuse(peer, str(error))
        return self._take_actions()

    def malformed(self, peer: bytes, reason: str, now: float) -> list[Action]:
        """Refuse data from a peer that are not a message, for this reason."""
        self.training.now = now
        self.refusals.refuse(peer, reason)
        return self._take_actions()

    def connection_rejected(self, reason: str, now: float) -> list[Action]:
        """Count a connection that was rejected."""
        self.training.now = now
        self.refusals.reject(reason)
        return self._take_actions()

    def lost(self, peer: bytes, now: float) -> list[Action]:
        """Drop a peer whose connection is closed."""
        self._begin(now)
        self._drop(peer)
        return self._take_actions()

    def ended(self, worker: int, well: bool, now: float) -> list[Action]:
        """Drop a worker whose process has ended; `well`: with status 0, which closes the run if it was the leader."""
        self._begin(now)
        if worker == self.ending.leader and well:
            self.ending.close()
        if worker in self.numbers:
            self._drop(self.numbers[worker])
        if self.training.state is RunState.JOINING and well:
            self.joining.workers -= 1
            self._hand_out()
        return self._take_actions()

    def computes_with(self, kernels: Kernels, now: float) -> list[Action]:
        """Record the server's own kernels, which apply the updates, and compare them with the run's (`compare`)."""
        self._begin(now)
        self.joining.compare(kernels, None, "the server")
        return self._take_actions()

    def release(self, workers: Collection[int], now: float) -> list[Action]:
        """Give the workers with these numbers no task any more, now or when they join, as they are to end."""
        self._begin(now)
        self.leasing.release_all(workers)
        self._hand_out()
        return self._take_actions()

    def fail(self, reason: str, now: float) -> list[Action]:
        """Fail the run, as the launcher gives it up."""
        self._begin(now)
        self.training.fail(reason)
        self._hand_out()
        return self._take_actions()

    def closing(self, now: float) -> list[Action]:
        """Tell every worker that the server ends, so that no worker waits for the server, and close the run."""
        self._begin(now)
        self.ending.stop_all()
        return self._take_actions()

    def tick(self, now: float) -> list[Action]:
        """Handle the passing of time: the signs of life, notices, reports and backup leases that are due."""
        self.training.now = now
        self.ranges.check(now)
        state = self.training.state
        if state is RunState.JOINING:
            self.joining.check_missing(now)
        if now >= self.alive_at:
            self.alive_at = now + ALIVE_SECONDS
            peers = self.members if state is RunState.CLOSED else self.numbers.values()  # workers that left may be gone
            self.out += [Send(peer, Waiting("")) for peer in peers]
        self.leasing.check_waits(now)
        if self.leasing.restless and state is TRAINING and not self.ranges.is_open:
            self.leasing.lease_backups(now)
        self._hand_out()
        return self._take_actions()

    @property
    def restless(self) -> bool:
        """Whether a backup lease, or the end of a range, may be due soon, so that ticks should be frequent."""
        return (self.leasing.restless or self.ranges.is_open) and self.training.state is TRAINING

    def _begin(self, now: float) -> None:
        """Begin to handle an event that may change anything: the open range, if there is one, is closed first."""
        self.training.now = now
        self.ranges.close(now)

    # Workers that join and leave.

    def _join(self, peer: bytes, message: Join) -> None:
        if (number := self.joining.known_number(peer, message)) is not None:
            self.joining.welcome(peer, number)
            return
        if peer in self.members:
            message.worker = self.members[peer].worker
            self._drop(peer, joins_again=True)
        self.joining.add_worker(peer, message, self.training.now)
        self._hand_out()

    def _drop(self, peer: bytes, joins_again: bool = False) -> None:
        """Remove a worker that is gone, and revoke its task; one that joins again stays the leader if it was."""
        self.waiting.pop(peer, None)
        member = self.members.pop(peer, None)
        departed = member or self.ending.left_workers.pop(peer, None)
        number = self.ending.number_of(peer) if departed is None else departed.worker
        self.leasing.forget_division()
        if member is not None:
            if member.task is not None and not self.training.over:
                self.training.report(reports.Lost, number)
            self.leasing.revoke(member)
        if not joins_again:
            self.numbers.pop(number, None)
            if self.training.over and 0 <= number == self.ending.leader and not self.ending.closed:
                self.ending.replace_leader()
        self._hand_out()

    # Training.

    def _hand_out(self) -> None:
        """Give tasks to idle workers; begin training if all have joined; notify workers if it has ended."""
        training = self.training
        if training.state is TRAINING and not (training.failure or training.ledger.done):
            self.leasing.hand_out(self.training.now)
        elif training.state is RunState.JOINING and not training.failure:
            self.joining.begin(self.training.now)
            if training.state is TRAINING:
                self._hand_out()
        else:
            self.ending.finish()

    def _contribution(self, member: WorkerInfo, message: Contribution) -> None:
        training = self.training
        lease = self.leasing.returned(member, message, self.training.now)
        step = training.ledger.open.get(message.step)
        if step is None or training.state is not TRAINING:
            training.dropped += len(message.nodes)
        else:
            try:
                training.accept(member.peer, member.worker, message, step, lease is not None)
            finally:
                if lease is not None and not step.arrived.holds(lease.start, lease.stop):
                    member.task = lease
                    self.leasing.revoke(member)
            if training.ledger.step.complete:
                training.advance(self.training.now, len(self.members))

    def _score(self, member: WorkerInfo, message: Score) -> None:
        self.training.check_scores(message.scores)
        task = member.task
        if isinstance(task, Evaluation) and task.epoch == message.epoch:
            self.leasing.evaluated(member, self.training.now)
        self.training.score(message.epoch, message.scores, message.last)

    def _ping(self, member: WorkerInfo, message: Ping) -> None:
        """Handle the Ping of a worker that has had no answer: its task was lost, or its answer to that, or it waits."""
        if member.state is WorkerState.NOTIFIED:
            self.ending.notify_again(member)
        elif member.task is None:
            if self.joining.needs_weights_from(member.peer):
                self.out.append(Send(member.peer, Rejoin()))  # the weights that it was asked for have not arrived
            else:
                self.leasing.mark_idle(member)
                self.out.append(Send(member.peer, Waiting(self.describe_wait())))
        elif message.seen < member.number:
            self.leasing.send_task_again(member)
        else:
            self.leasing.revoke(member)
            self.leasing.mark_idle(member)

    def describe_wait(self) -> str:
        """Describe whom the run waits for, since when, and for what."""
        joining = self.training.state is RunState.JOINING
        return self.joining.describe_wait() if joining else self.leasing.describe_wait(self.training.now)

    def _leave(self, member: WorkerInfo, message: Leave) -> None:
        if self.training.over:
            self.ending.leave(member, message)
        else:
            self._drop(member.peer)

    def _failed(self, member: WorkerInfo, message: Failure) -> None:
        self.failures.handle(member.worker, message)
        self._drop(member.peer)

    def _take_actions(self) -> list[Action]:
        now = self.training.now
        if now >= self.roster.due_at and not self.ranges.is_open:
            self.roster.report(now)
        if self.leasing.granted:
            self.ranges.open_next(now, self.roster.due_at)
        out, self.out[:] = self.out[:], []
        return out


HANDLERS: dict[type, Callable[..., None]] = {
    Contribution: Server._contribution,
    Ping: Server._ping,
    Score: Server._score,
    Initial: lambda server, member, message: server.joining.initial(member, message),
    Stop: lambda server, member, message: server.ending.stop(member),
    Leave: Server._leave,
    Failure: Server._failed,
    Done: lambda server, member, message: member.worker == server.ending.leader and server.ending.close(),
}
