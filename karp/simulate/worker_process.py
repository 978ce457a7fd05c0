"""A worker's process: the real worker machine, driven as the Trainer drives it, on the virtual clock.

What the Trainer does in blocking calls is spread over events here. While the program computes, messages wait in the
inbox, as they wait in a socket. A process that is paused does nothing; its events happen when it goes on.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from karp.errors import KarpError
from karp.protocol.messages import Done, Evaluation, FromServer, FromWorker, Initial, Lease, Leave, Welcome
from karp.protocol.tree import Vector
from karp.protocol.worker import PING_SECONDS, Worker
from karp.simulate.scenario import BadShard
from karp.simulate.shared_memory import Part

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster

POLL_SECONDS = PING_SECONDS + 0.001  # A poll ends a little late.
SIGINT = -2  # as an exit status
LEADER_SECONDS = 1.5  # the time that the leader's code after the loop takes


class WorkerProcess:
    """Run one process from its start to its end; a worker that is restarted gets another process.

    Args:
        number: of the worker, as its launcher numbers it; -1 if no launcher has started it.
        slowdown: the factor by which its computations take longer than those of the others.
    """

    __slots__ = (
        "alive", "busy", "closed_at", "cluster", "cut_noticed", "cut_since", "cut_until", "in_block", "inbox", "number",
        "part", "paused_until", "peer", "poll_until", "slowdown", "status", "timer_set", "worker",
    )  # fmt: skip

    def __init__(self, cluster: "Cluster", number: int, slowdown: float) -> None:
        self.cluster = cluster
        self.number = number
        self.slowdown = slowdown
        self.peer = b"process %d" % len(cluster.processes)
        self.worker = Worker(cluster.problem.initial.copy(), number)
        self.inbox: deque[tuple[FromServer, int]] = deque()  # (message, incarnation of the server that sent it)
        self.part: Part | None = None  # in the ranges of the memory that it shares with the server
        self.busy = False  # The program computes, and messages wait in the inbox.
        self.in_block = True  # The program has not left its loop and the `with` block around it.
        self.alive = True
        self.status = 0  # the exit status; minus the signal if the process was killed
        self.closed_at = float("inf")  # the time from which on the server sees that the connection is closed
        self.paused_until = self.cut_since = self.cut_until = 0.0
        self.cut_noticed = False
        self.poll_until = 0.0
        self.timer_set = False  # An event that compares the clock with `poll_until` is scheduled.

    def start(self) -> None:
        """Join the run."""
        self.send(self.worker.request_join(self.cluster.problem.settings, "host", 1, self.cluster.clock.now))
        if not self.killed_at("joining"):
            self.proceed()

    # Events of the process.

    def run_event(self, action: Callable[..., None], *arguments: Any) -> None:
        """Run an event of this process: not at all if it is dead, later if it is paused."""
        if not self.alive:
            return
        if self.cluster.clock.now < self.paused_until:
            self.cluster.clock.call_at(self.paused_until, self.run_event, action, *arguments)
            return
        action(*arguments)

    def call_later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Schedule an event of this process."""
        self.cluster.clock.call_later(seconds, self.run_event, action, *arguments)

    def deliver(self, incarnation: int, message: FromServer) -> None:
        """Put a message that has arrived into the inbox."""
        self.inbox.append((message, incarnation))
        if not self.busy:
            self.proceed()

    def end(self, status: int) -> None:
        """End the process with this exit status, unless it has ended."""
        if self.alive:
            self.alive, self.status = False, status
            self.inbox.clear()
            self.cluster.process_ended(self)

    def interrupt(self) -> None:
        """End the process as SIGINT does: leave the run, if the program is in its block.

        A worker without a launcher ends with status 130, one of a launcher by the signal.
        """
        if self.in_block:
            self.send(Leave([]))
        self.end(SIGINT if self.number >= 0 else 130)

    def killed_at(self, point: str, step: int | None = None) -> bool:
        """Kill the process if the scenario says so at this point and `step`; return whether it was killed."""
        injector = self.cluster.injector
        return bool(injector.kills) and injector.kill_at(self, point, step)

    def send(self, message: FromWorker) -> None:
        """Send a message to the server."""
        self.cluster.send_up(self, message)

    # The program, as the Trainer runs it.

    def proceed(self) -> None:
        """Run the program until it computes, has to wait for a message, or has ended."""
        while self.alive and not self.busy:
            worker = self.worker
            if self.in_block and worker.over is not None:
                self._leave()
            elif self.in_block and worker.task is not None:
                self._begin_task()
            elif not self.in_block and (worker.closed or (worker.over is not None and worker.over.main)):
                self._run_code_after_block()
            elif self.inbox:
                self._receive(*self.inbox.popleft())
            else:
                self._poll()
                return

    def _receive(self, message: FromServer, incarnation: int) -> None:
        if isinstance(message, Lease) and message.range:
            message = replace(message)  # a lease moves on in its range, and another copy of the message may arrive
        try:
            reply = self.worker.receive(message, incarnation, self.cluster.clock.now)
        except KarpError as error:
            self._fail(error)
            return
        if isinstance(message, Welcome):
            memory = self.cluster.server_process.invitation
            self.part = None if memory is None else Part(self, memory)
        if isinstance(self.worker.task, Lease) and self.worker.task is message:
            if self.part is None:
                self.worker.task.range = 0
            elif message.range:
                self.part.enter(message)
        self._send_reply(reply)

    def _send_reply(self, reply: FromWorker | None) -> None:
        if reply is not None and not (isinstance(reply, Initial) and self.killed_at("initial")):
            self.send(reply)

    def _poll(self) -> None:
        """Wait for a message, for as long as a worker polls its socket."""
        self.poll_until = self.cluster.clock.now + POLL_SECONDS
        self._set_timer()

    def _set_timer(self) -> None:
        if not self.timer_set:
            self.timer_set = True
            self.cluster.clock.call_at(self.poll_until, self.run_event, self._timer)

    def _timer(self) -> None:
        """Let the worker's machine tick if nothing has arrived until the end of the poll; before it, wait on.

        Sends the machine's reply; the process ends if the tick raises a KarpError.
        """
        self.timer_set = False
        now = self.cluster.clock.now
        if self.busy:
            return
        if now < self.poll_until:
            self._set_timer()
            return
        try:
            reply = self.worker.tick(now, "the server")
        except KarpError as error:
            self._fail(error)
            return
        self._send_reply(reply)
        self.proceed()

    def _fail(self, error: Exception) -> None:
        """End the process with status 1, as by an exception that leaves the `with` block; the server is told."""
        if self.worker.over is None:
            self.send(self.worker.failed(repr(error), f"Traceback …\n{error!r}"))
        self.end(1)

    def _begin_task(self) -> None:
        task = self.worker.task
        self.busy = True
        if isinstance(task, Lease):
            if not self.killed_at("lease", task.step):
                self._compute_later()
        elif not self.killed_at("evaluating"):
            self.call_later(self.cluster.compute_seconds(self), self._evaluate)

    def _compute_later(self) -> None:
        cluster = self.cluster
        if cluster.shards_at_once:
            lease = self.worker.task
            assert isinstance(lease, Lease)
            seconds = cluster.compute_seconds(self) * (lease.stop - lease.start)
            self.call_later(seconds, self._compute_all)
        else:
            self.call_later(cluster.compute_seconds(self), self._compute)

    def _compute_all(self) -> None:
        """Compute all shards of the lease, in one event as nothing can happen between them."""
        lease = self.worker.task
        assert isinstance(lease, Lease)
        sums = self.cluster.problem.sums(lease.start, lease.stop)
        if sums is not None:
            self.worker.sums, self.worker.shard = sums, lease.stop
        while self.worker.shard < lease.stop:
            self._compute_gradient(lease, self.worker.shard)
        self._contribute(lease.step)

    def _compute(self) -> None:
        """Compute the lease's current shard, then stop or leave if the scenario says so, go on, or contribute."""
        worker, scenario = self.worker, self.cluster.scenario
        lease, shard = worker.task, worker.shard
        assert isinstance(lease, Lease)
        if not self._compute_gradient(lease, shard):
            return
        if scenario.stop_at == (lease.step, shard):
            worker.last = True
        if scenario.leave_at == (lease.step, shard):
            self.busy = False
            for message in worker.stop():
                self.send(message)
            self.proceed()
        elif worker.shard < lease.stop:
            if not self.killed_at("computing", lease.step):
                self._compute_later()
        else:
            self._contribute(lease.step)

    def _compute_gradient(self, lease: Lease, shard: int) -> bool:
        """Give the worker's machine the gradient of a shard; return False if the program raises instead."""
        worker, cluster = self.worker, self.cluster
        if cluster.checker is not None and not self.overtaken:
            cluster.checker.before_task(self, lease)
        gradient, loss = cluster.problem.gradient(worker.current, lease.step, shard)
        bad_shard = cluster.injector.bad_shard_at(lease.step, shard)
        if bad_shard is not None and bad_shard.kind == "raise":
            self._fail(ValueError("the program raises here"))
            return False
        if bad_shard is not None:
            loss = make_not_finite(gradient, loss, bad_shard)
        worker.computed(gradient, loss, cluster.problem.plan.shards_of(lease.step))
        return True

    @property
    def overtaken(self) -> bool:
        """Whether the weights that the worker computes on have been overwritten in the server's memory."""
        return self.part is not None and self.part.overtaken

    def step_ended(self, weights: Vector) -> None:
        """Go on with the next step of the range, whose weights lie in the server's memory."""
        lease = self.worker.task
        assert isinstance(lease, Lease)
        lease.step, lease.version = lease.step + 1, lease.version + 1
        self.worker.current = weights.view()
        self.worker.current.flags.writeable = False
        self.worker.version = lease.version
        self._begin_task()

    def range_closed(self) -> None:
        """Send the contribution, as the range was closed before the step has ended."""
        lease = self.worker.task
        assert isinstance(lease, Lease)
        lease.range = 0
        self.worker.withdraw_offer(lease)
        self._contribute(lease.step)

    def _contribute(self, step: int) -> None:
        if self.part is not None and self.part.arrive():
            return
        if self.overtaken:
            self.worker.discard(last=False)
        message = self.worker.contribution()
        self.busy = False
        if self.killed_at("sending", step):
            return
        self.send(message)
        if not self.killed_at("sent", step):
            self.proceed()

    def _evaluate(self) -> None:
        worker, cluster = self.worker, self.cluster
        assert isinstance(worker.task, Evaluation)
        if cluster.checker is not None:
            cluster.checker.before_task(self, worker.task)
        message = worker.scored(cluster.problem.scores(worker.current, worker.task.epoch))
        self.busy = False
        self.send(message)
        if not self.killed_at("scored"):
            self.proceed()

    def _leave(self) -> None:
        """Leave the loop, which has ended, and the `with` block."""
        if self.cluster.checker is not None:
            self.cluster.checker.check_final_weights(self)
        if self.killed_at("finish"):
            return
        self.send(self.worker.leave())
        self.in_block = False
        self.killed_at("left")

    def _run_code_after_block(self) -> None:
        """Run the rest of the program: the leader's takes a while, the others' processes end."""
        assert self.worker.over is not None
        if not self.worker.over.main:
            self.end(0)
            return
        self.busy = True
        self.call_later(LEADER_SECONDS, self._end_leader)

    def _end_leader(self) -> None:
        if not self.killed_at("done"):
            self.cluster.leaders_ended += 1
            self.send(Done())
            self.end(0)


def make_not_finite(gradient: Vector, loss: float, bad_shard: BadShard) -> float:
    """Put a number that is not finite into the gradient or the loss; return the loss."""
    if bad_shard.kind == "loss":
        return float("nan")
    gradient[0] = float(bad_shard.kind)
    return loss
