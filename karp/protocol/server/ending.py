"""The end of a run: a leader is named, every worker is notified that the run is over, and all leave.

(states.py draws the states.) Only the leader's output after the loop counts, so its name must survive the server: the
checkpoint that names it is on the disk before the leader learns of it, and a server that is restored from it waits for
the same leader, as long as that may live.
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
    """The end of a run: it names the leader, notifies the workers and waits until they leave."""

    def __init__(self, training: Training, leasing: Leasing, out: list[Action]) -> None:
        self.training = training
        self.leasing = leasing
        self.out = out
        self.leader = -1  # the number of the leader; -1 until it is named
        self.numbers: dict[int, bytes] = {}  # number -> peer, of all that have joined, also of those that have left
        self.left_workers: dict[bytes, WorkerInfo] = {}  # they have left their `with` block; one may be the leader

    @property
    def closed(self) -> bool:
        """Whether the leader's program has ended, or no worker has to wait for it."""
        return self.training.state is RunState.CLOSED

    def restore(self, main: int, peer: bytes) -> None:
        """Restore a leader that a checkpoint names, and that may be running its code after the loop."""
        self.training.change_state(RunState.OVER)
        self.leader = main
        self.numbers[main] = peer

    def is_leader(self, peer: bytes) -> bool:
        """Return whether this peer is the leader, which need not have joined since a checkpoint named it."""
        return peer == self.numbers.get(self.leader)

    def number_of(self, peer: bytes) -> int:
        """Return the number of a peer, which need not be in the run now; -1 if it has none."""
        return next((number for number, other in self.numbers.items() if other == peer), -1)

    def name_leader(self, worker: int) -> None:
        """Make this worker the leader, and write that to a durable checkpoint."""
        self.leader = worker
        self.training.report(reports.Main, worker)
        self._save(durable=True)

    def replace_leader(self) -> None:
        """Name another leader, as the leader died before its program's end; none if the run has failed.

        If no worker is left, the next one that joins becomes the leader.
        """
        self.leader = -1
        if self.training.failure:
            return
        if not self.numbers:
            self._save(durable=True)  # the next worker that joins becomes the leader
        else:
            worker, peer = min(self.numbers.items())
            self.name_leader(worker)
            if peer in self.leasing.members:  # it may not have the final weights yet
                self.notify_again(self.leasing.members[peer])
            else:
                self._send(peer, self._finish(main=True))

    def finish(self) -> None:
        """End training, name the leader, and notify the idle workers and those that left their loop early.

        Workers with a task are notified when they next send a message; if the run has failed, all are notified now,
        and there is no leader.
        """
        members, waiting = self.leasing.members, self.leasing.waiting
        failed = bool(self.training.failure)
        candidates = list((waiting if self.training.over and not failed else members).values())
        if not self.training.over:
            self.training.change_state(RunState.OVER)
            if not failed:
                self.training.finish()
            if members and not failed:
                staying = [member for member in members.values() if member.state is not WorkerState.RELEASED]
                self.name_leader(min(member.worker for member in staying or members.values()))
        for member in [member for member in candidates if member.state is not WorkerState.NOTIFIED]:
            if member.peer in waiting or member.state is WorkerState.STOPPED or failed:
                self.notify(member)

    def notify(self, member: WorkerInfo) -> None:
        """Tell a worker that the run is over."""
        member.change_state(WorkerState.NOTIFIED)
        self.leasing.waiting.pop(member.peer, None)
        self._send_finish(member)

    def notify_again(self, member: WorkerInfo) -> None:
        """Notify a worker once more that the run is over, with the weights, as Finish or the worker's Leave was lost.

        If the leader has ended, send Closed as well.
        """
        member.version = -1  # the weights may have been lost as well, so they are sent again
        self._send_finish(member)
        if self.closed:
            self._send(member.peer, Closed())

    def stop(self, member: WorkerInfo) -> None:
        """Handle a program that has left its loop: training ends with the oldest open step.

        If every worker has left its loop, nobody can complete that step: training ends at once, without the step.
        """
        training, leasing = self.training, self.leasing
        leasing.waiting.pop(member.peer, None)
        leasing.forget_division()
        if member.state is WorkerState.NOTIFIED:
            self.notify_again(member)
        elif member.state in (WorkerState.TRAINING, WorkerState.RELEASED):
            member.change_state(WorkerState.STOPPED)
            leasing.revoke(member)
            if training.over:
                self.notify(member)
            else:
                training.end_after(training.number + 1)
        if not training.over and all(other.state is WorkerState.STOPPED for other in leasing.members.values()):
            if not training.finished:
                training.notice(f"step {training.number} was left before its end by every worker: it is not applied")
            training.end_now()

    def leave(self, member: WorkerInfo, message: Leave) -> None:
        """Handle the Leave of a worker, which has left its `with` block."""
        del self.leasing.members[member.peer]
        self.leasing.waiting.pop(member.peer, None)
        member.change_state(WorkerState.LEFT)
        self.left_workers[member.peer] = member
        if member.worker == self.leader:
            self.log(message)
        self.training.report(reports.Left, member.worker)

    def log(self, message: Leave) -> None:
        """Record the numbers that the leader has logged after the loop."""
        if message.logs:
            self.training.log(message.logs, self.training.number)
            self._save(durable=False)

    def handle(self, peer: bytes, message: FromWorker) -> None:
        """Handle a message of a worker that has left: the leader's Done, or a Ping, to which the answer says who leads.

        Any other message is ignored.
        """
        is_leader = self.left_workers[peer].worker == self.leader
        if isinstance(message, Done) and is_leader:
            self.close()
        elif isinstance(message, Ping) and self.closed:
            self._send(peer, Closed())
        elif isinstance(message, Ping) and is_leader:
            self._send(peer, self._finish(main=True))
        elif isinstance(message, Ping):
            self._send(peer, Waiting("the main worker to end"))

    def handle_of_unknown(self, peer: bytes, message: Leave | Done) -> None:
        """Handle the last message of a worker unknown to this server, if a checkpoint has named it as the leader."""
        if not self.training.over or not self.is_leader(peer) or peer in self.leasing.members:
            return
        self.left_workers[peer] = WorkerInfo(peer, self.leader, 0.0, state=WorkerState.LEFT)
        if isinstance(message, Done):
            self.close()
        else:
            self.log(message)

    def close(self) -> None:
        """Close the run, as the leader has ended: send Closed to workers that have left; others get it on a Ping."""
        if not self.closed:
            self.training.report(reports.Closed)
        self._close()

    def _close(self) -> None:
        if not self.closed:
            self.training.change_state(RunState.CLOSED)
        for peer in self.left_workers:
            self._send(peer, Closed())

    def stop_all(self) -> None:
        """Stop every worker, as the server ends, and close the run."""
        training = self.training
        why = training.failure or f"it was stopped after step {training.version}"
        for member in self.leasing.members.values():
            stopped = Finish(training.version, False, why, None, training.number)
            self._send(member.peer, Closed() if member.state is WorkerState.NOTIFIED else stopped)
        self._close()

    def _save(self, durable: bool) -> None:
        if self.training.ready:  # before that there is nothing that could be lost
            self.out.append(Save(durable))

    def _send_finish(self, member: WorkerInfo) -> None:
        training = self.training
        # The weights of the best epoch are of no version that a worker may have.
        others = member.version != training.version or training.weights.borrowed or training.best is not None
        new = training.ready and others
        weights = training.weights.vector if new else None
        self._send(member.peer, self._finish(member.worker == self.leader, weights))

    def _finish(self, main: bool, weights: Vector | None = None) -> Finish:
        training = self.training
        return Finish(training.version, main, training.failure, weights, training.number)

    def _send(self, peer: bytes, message: FromServer) -> None:
        self.out.append(Send(peer, message))
