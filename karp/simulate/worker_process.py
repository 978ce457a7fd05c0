"""A worker's process: the real worker machine, driven as trainer.py drives it, on the virtual clock.

What the Trainer does with blocking calls is spread over events here. While the program computes, messages wait in the
inbox, as they wait in a socket. A process that is paused does nothing at all, and what would have happened to it
happens when it goes on.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from karp.errors import KarpError
from karp.protocol.messages import Done, FromServer, FromWorker, Initial, Lease, Leave
from karp.protocol.worker import PING_SECONDS, Worker
from karp.simulate.scenario import Bad

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster

LISTENS = PING_SECONDS + 0.001  # a poll ends a little late
MAIN_SECONDS = 1.5  # what the main worker's program does after its loop


class Process:
    """One process, from its start to its end; a worker that is started again gets another.

    Args:
        number: of the worker, as the launcher says it; -1: no launcher has started it.
        pace: how many times as long as the others it takes to compute.
    """

    __slots__ = (
        "alive", "busy", "closed_at", "cluster", "cut_noticed", "cut_since", "cut_until", "in_loop", "inbox",
        "joined", "left", "number", "pace", "paused_until", "peer", "status", "timing", "until", "worker",
    )  # fmt: skip

    def __init__(self, cluster: "Cluster", number: int, pace: float) -> None:
        self.cluster = cluster
        self.number = number
        self.pace = pace
        self.peer = b"process %d" % len(cluster.processes)
        self.worker = Worker(cluster.problem.initial.copy(), number)
        self.inbox: deque[tuple[FromServer, int]] = deque()
        self.busy = False  # computing: what arrives waits
        self.in_loop = True  # over trainer.batches
        self.left = False  # its `with` block
        self.alive = True
        self.status = 0  # that it ended with; -9: killed
        self.closed_at = float("inf")  # from then on sending to it fails
        self.paused_until = self.cut_since = self.cut_until = 0.0
        self.cut_noticed = False
        self.until = 0.0  # it listens until then
        self.timing = False  # an event is announced that looks at `until`

    def start(self) -> None:
        self.send(self.worker.enter(self.cluster.problem.settings, "host", 1, self.cluster.clock.now))
        if not self.dies("joining"):
            self.proceed()

    # Things that happen to it.

    def happen(self, action: Callable[..., None], *arguments: Any) -> None:
        """An event of this process: nothing if it is dead, later if it stands still."""
        if not self.alive:
            return
        if self.cluster.clock.now < self.paused_until:
            self.cluster.clock.at(self.paused_until, self.happen, action, *arguments)
            return
        action(*arguments)

    def deliver(self, incarnation: int, message: FromServer) -> None:
        """A message has arrived."""
        self.inbox.append((message, incarnation))
        if not self.busy:
            self.proceed()

    def soon(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self.cluster.clock.after(seconds, self.happen, action, *arguments)

    def end(self, status: int) -> None:
        """The process ends."""
        if self.alive:
            self.alive, self.status = False, status
            self.inbox.clear()
            self.cluster.process_ended(self)

    def dies(self, point: str, step: int | None = None) -> bool:
        """Whether the schedule has it killed here."""
        return bool(self.cluster.kills) and self.cluster.killed_at(self, point, step)

    # The program, as trainer.py runs it.

    def proceed(self) -> None:
        """Go on until there is something to wait for."""
        while self.alive and not self.busy:
            worker = self.worker
            if self.in_loop and worker.over is not None:
                self._leave()
            elif self.in_loop and worker.task is not None:
                self._begin_task()
            elif not self.in_loop and (worker.closed or (worker.over is not None and worker.over.main)):
                self._finish()
            elif self.inbox:
                self._hear(*self.inbox.popleft())
            else:
                self._listen()
                return

    def _hear(self, message: FromServer, incarnation: int) -> None:
        try:
            reply = self.worker.receive(message, incarnation, self.cluster.clock.now)
        except KarpError as error:
            self._raised(error)
            return
        self._reply(reply)

    def _reply(self, reply: FromWorker | None) -> None:
        if reply is not None and not (isinstance(reply, Initial) and self.dies("initial")):
            self.send(reply)

    def _listen(self) -> None:
        self.until = self.cluster.clock.now + LISTENS
        if not self.timing:
            self.timing = True
            self.cluster.clock.at(self.until, self.happen, self._silence)

    def _silence(self) -> None:
        """Perhaps nothing has come for as long as a worker listens."""
        self.timing = False
        now = self.cluster.clock.now
        if self.busy:
            return
        if now < self.until:
            self.timing = True
            self.cluster.clock.at(self.until, self.happen, self._silence)
            return
        try:
            reply = self.worker.tick(now, "the server")
        except KarpError as error:
            self._raised(error)
            return
        self._reply(reply)
        self.proceed()

    def _raised(self, error: Exception) -> None:
        """An exception leaves the `with` block and ends the process."""
        if self.worker.over is None:
            self.send(self.worker.failed(repr(error), f"Traceback …\n{error!r}"))
        self.end(1)

    def _begin_task(self) -> None:
        task = self.worker.task
        self.busy = True
        if isinstance(task, Lease):
            if not self.dies("lease", task.step):
                self.soon(self.cluster.compute_seconds(self), self._compute)
        elif not self.dies("evaluating"):
            self.soon(self.cluster.compute_seconds(self), self._evaluate)

    def _compute(self) -> None:
        """The current shard is computed."""
        worker, cluster = self.worker, self.cluster
        lease, shard = worker.task, worker.shard
        assert isinstance(lease, Lease)
        if cluster.checker is not None:
            cluster.checker.computes(self, lease)
        gradient, loss = cluster.problem.gradient(worker.weights, lease.step, shard)
        bad = cluster.bad_at(lease.step, shard) if cluster.bad else None
        if bad is not None and bad.kind == "raise":
            self._raised(ValueError("the program raises here"))
            return
        if bad is not None:
            loss = spoil(gradient, loss, bad)
        worker.computed(gradient, loss, cluster.problem.plan.shards_of(lease.step))
        if cluster.schedule.stop_at == (lease.step, shard):
            worker.last = True
        if cluster.schedule.leave_at == (lease.step, shard):
            self.busy = False
            for message in worker.stop():
                self.send(message)
            self.proceed()
        elif worker.shard < lease.stop:
            if not self.dies("computing", lease.step):
                self.soon(cluster.compute_seconds(self), self._compute)
        else:
            self._contribute(lease.step)

    def _contribute(self, step: int) -> None:
        message = self.worker.contribution()
        self.busy = False
        if self.dies("sending", step):
            return
        self.send(message)
        if not self.dies("sent", step):
            self.proceed()

    def _evaluate(self) -> None:
        worker, cluster = self.worker, self.cluster
        if cluster.checker is not None:
            cluster.checker.computes(self, worker.task)
        message = worker.scored({"loss": cluster.problem.score(worker.weights)})
        self.busy = False
        self.send(message)
        if not self.dies("scored"):
            self.proceed()

    def _leave(self) -> None:
        """The loop has ended: leave the `with` block."""
        self.in_loop = False
        if self.cluster.checker is not None:
            self.cluster.checker.finished(self)
        if self.dies("finish"):
            return
        self.send(self.worker.leave())
        self.left = True
        self.dies("left")

    def _finish(self) -> None:
        """The rest of the program: the main worker does something, the others end."""
        assert self.worker.over is not None
        if not self.worker.over.main:
            self.end(0)
            return
        self.busy = True
        self.soon(MAIN_SECONDS, self._speak)

    def _speak(self) -> None:
        """The main worker's program has come to its end."""
        if not self.dies("done"):
            self.cluster.spoken += 1
            self.send(Done())
            self.end(0)

    def interrupt(self) -> None:
        """Ctrl-C in a worker: it leaves in good order."""
        if not self.left:
            self.send(Leave([]))
        self.end(130)

    def send(self, message: FromWorker) -> None:
        self.cluster.send_up(self, message)


def spoil(gradient: Any, loss: float, bad: Bad) -> float:
    """What is not finite, in the gradient or in the loss that is returned."""
    if bad.kind == "loss":
        return float("nan")
    gradient[0] = float(bad.kind)
    return loss
