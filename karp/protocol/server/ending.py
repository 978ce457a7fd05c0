"""How a run ends: a leader is named, every worker is told that the run is over, all leave (states.py draws the states).

The main worker runs its program's code after the loop alone. So who it is must outlive the server: the checkpoint that
names it is on the disk before it learns of it, and a server that is restored from it waits for the same one, for as
long as that may live.
"""

from karp.protocol import reports
from karp.protocol.messages import Closed, Done, Finish, FromServer, FromWorker, Leave, Ping, Waiting
from karp.protocol.server.actions import Action, Save, Send
from karp.protocol.server.leasing import Leasing
from karp.protocol.server.states import RunState, WorkerState
from karp.protocol.server.training import Training
from karp.protocol.server.workers import WorkerInfo
from karp.protocol.tree import Vector


class Ending:
    """The end of the run that this training and these leases belong to."""

    def __init__(self, training: Training, leasing: Leasing, out: list[Action]) -> None:
        self.training = training
        self.leasing = leasing
        self.out = out
        self.main = -1  # the worker that speaks for all
        self.numbers: dict[int, bytes] = {}  # of those that have joined, whether they have left or not
        self.left: dict[bytes, WorkerInfo] = {}  # those that have left their `with`, and could stand in for it

    @property
    def closed(self) -> bool:
        """Whether the leader has done its work, or nobody is to wait for it."""
        return self.training.state is RunState.CLOSED

    def restore(self, main: int, peer: bytes) -> None:
        """This worker had been named, and may be at its code after the loop."""
        self.training.change_state(RunState.OVER)
        self.main = main
        self.numbers[main] = peer

    def is_main(self, peer: bytes) -> bool:
        """Whether this is the main worker, which may not have joined again since a checkpoint named it."""
        return peer == self.numbers.get(self.main)

    def name(self, worker: int) -> None:
        """This worker speaks for all, whatever happens to the server."""
        self.main = worker
        self.training.report(reports.Main, worker)
        self._save(durable=True)

    def name_another(self) -> None:
        """The main worker died before its program's end: another stands in for it."""
        self.main = -1
        if self.training.failure:
            return
        if not self.numbers:
            self._save(durable=True)  # the next one that joins is named
        else:
            worker, peer = min(self.numbers.items())
            self.name(worker)
            if peer in self.leasing.members:  # it may not have got the weights yet
                self.repeat(self.leasing.members[peer])
            else:
                self._send(peer, self._finish(main=True))

    def finish(self) -> None:
        """Tell every worker that waits; the others are told when they next send."""
        members, waiting = self.leasing.members, self.leasing.waiting
        at_once = bool(self.training.failure)
        everybody = list((waiting if self.training.over and not at_once else members).values())
        if not self.training.over:
            self.training.change_state(RunState.OVER)
            if members and not at_once:
                self.name(min(member.worker for member in members.values()))
        for member in [each for each in everybody if each.state is not WorkerState.NOTIFIED]:
            if member.peer in waiting or member.state is WorkerState.STOPPED or at_once:
                self.tell(member)

    def tell(self, member: WorkerInfo) -> None:
        """Tell a worker that the run is over."""
        member.change_state(WorkerState.NOTIFIED)
        self.leasing.waiting.pop(member.peer, None)
        self._send_finish(member)

    def repeat(self, member: WorkerInfo) -> None:
        """It has been told, and asks nevertheless: the message was lost, or its Leave."""
        member.version = -1  # the weights may be lost, too
        self._send_finish(member)
        if self.closed:
            self._send(member.peer, Closed())

    def leave(self, member: WorkerInfo, message: Leave) -> None:
        """A worker that has been told leaves its `with`."""
        del self.leasing.members[member.peer]
        self.leasing.waiting.pop(member.peer, None)
        member.change_state(WorkerState.LEFT)
        self.left[member.peer] = member
        if member.worker == self.main:
            self.log(message)
        self.training.report(reports.Left, member.worker)

    def log(self, message: Leave) -> None:
        """What the main worker has logged after the loop."""
        if message.logs:
            self.training.log(message.logs, self.training.number)
            self._save(durable=False)

    def hear(self, peer: bytes, message: FromWorker) -> None:
        """A worker that has left is done, or asks whether it is to speak for all."""
        main = self.left[peer].worker == self.main
        if isinstance(message, Done) and main:
            self.close()
        elif isinstance(message, Ping) and self.closed:
            self._send(peer, Closed())
        elif isinstance(message, Ping) and main:
            self._send(peer, self._finish(main=True))
        elif isinstance(message, Ping):
            self._send(peer, Waiting("the main worker to end"))

    def hear_of_another(self, peer: bytes, message: Leave | Done) -> None:
        """The last words to another server; if its main worker says them, this one has to hear them."""
        if not self.training.over or not self.is_main(peer) or peer in self.leasing.members:
            return
        self.left[peer] = WorkerInfo(peer, self.main, 0.0, state=WorkerState.LEFT)
        if isinstance(message, Done):
            self.close()
        else:
            self.log(message)

    def close(self) -> None:
        """The main worker has spoken for all; who is not known to have left is told at its Ping."""
        if not self.closed:
            self.training.change_state(RunState.CLOSED)
        for peer in self.left:
            self._send(peer, Closed())

    def _save(self, durable: bool) -> None:
        if self.training.ready:  # else there is nothing yet that could be lost
            self.out.append(Save(durable))

    def _send_finish(self, member: WorkerInfo) -> None:
        training = self.training
        new = training.ready and (member.version != training.version or training.weights.borrowed)
        weights = training.weights.vector if new else None
        self._send(member.peer, self._finish(member.worker == self.main, weights))

    def _finish(self, main: bool, weights: Vector | None = None) -> Finish:
        training = self.training
        return Finish(training.version, main, training.failure, weights, training.number)

    def _send(self, peer: bytes, message: FromServer) -> None:
        self.out.append(Send(peer, message))
