"""The workers as the server knows them, and the allocation of shards by their throughput.

The weights do not depend on which worker computes a shard, so the allocation may depend on the clock. Workers of about
the same speed get equal numbers of shards. A worker that has been several times slower than the others gets as many
shards as it can finish in the same time, perhaps none. It counts as slow only for a while, so that a worker that was
delayed once gets shards again. If a lease takes much longer than expected, an idle worker gets a backup lease, and the
first contribution that arrives counts.
"""

from dataclasses import dataclass
from heapq import heapify, heapreplace

from karp.protocol.messages import Evaluation, Lease
from karp.protocol.server.states import WorkerState, changed
from karp.protocol.tree import in_words

SLOW = 2.0  # if a lease takes so many times the usual seconds, it gets a backup and its worker counts as slow
PATIENCE_SECONDS = 0.05  # no backup lease is given sooner than this
FORGET = 10.0  # a worker counts as slow for so many times the seconds of the slow lease


@dataclass(slots=True)
class WorkerInfo:
    """A worker that has joined: its weights' version, its task and its speed."""

    peer: bytes
    worker: int
    since: float  # when its task was given, or its last task ended
    version: int = -1  # the version of the weights that it holds; -1: none of the server's
    number: int = 0  # the number of its last task
    task: Lease | Evaluation | None = None
    backed_up: bool = False  # whether a backup of its lease has been given
    state: WorkerState = WorkerState.TRAINING
    notice_at: float = 0.0
    pace: float = 0.0  # seconds per shard while it counts as slow; 0: the usual seconds
    slow_until: float = 0.0
    host: str = ""
    restarts: int = 0  # the number of earlier processes with its number
    shards: int = 0  # the shards that it has contributed since the last report of workers
    leased: float = 0.0  # the seconds in which it had a task, since that report
    computed: float = 0.0  # the seconds in which it has computed, as its contributions say, since that report
    counted: float = 0.0  # the seconds of its current task that the last report has counted already

    def change_state(self, to: WorkerState) -> None:
        """Change the state of the worker."""
        self.state = changed(self.state, to)

    def task_ends(self, now: float, computed: float) -> None:
        """Add the time of its task, which ends now, to its totals; `computed` is the part spent computing, 0: all."""
        seconds = now - self.since
        self.leased += seconds
        self.computed += computed or seconds
        self.since = now

    def describe_task(self, now: float) -> str:
        """Describe the worker and its task: 'worker 2 (step 41, shards 0 to 1, since 3.2 s)'."""
        if isinstance(self.task, Lease):
            task = f"step {self.task.step}, {in_words(self.task.start, self.task.stop)}"
        elif self.task is not None:
            task = f"evaluation of epoch {self.task.epoch}"
        else:
            task = "its next message"
        return f"worker {self.worker} ({task}, since {now - self.since:.1f} s)"


class Throughput:
    """Measures how long a shard usually takes, and allocates shards to workers by it."""

    def __init__(self) -> None:
        self.seconds = 0.0  # the time that a shard usually takes; 0: not known yet
        self.uneven_until = 0.0  # until this time some worker counts as slow

    def measure(self, member: WorkerInfo, shards: int, lease_seconds: float, now: float) -> None:
        """Update the usual seconds of a shard by a lease of so many; a much slower worker counts as slow."""
        seconds = lease_seconds / shards
        if self.seconds == 0.0:
            self.seconds = seconds
        self.seconds += 0.1 * (min(seconds, SLOW * self.seconds) - self.seconds)
        if seconds > SLOW * self.seconds and lease_seconds > PATIENCE_SECONDS:
            member.pace = seconds
            member.slow_until = now + FORGET * lease_seconds
            self.uneven_until = max(self.uneven_until, member.slow_until)

    def even(self, now: float) -> bool:
        """Return whether no worker counts as slow."""
        return now >= self.uneven_until

    def overdue_at(self, member: WorkerInfo, lease: Lease) -> float:
        """Return the time from which this lease is overdue; infinity while it is unknown how long a shard takes."""
        if self.seconds == 0.0:
            return float("inf")
        return member.since + max(PATIENCE_SECONDS, SLOW * self.seconds * (lease.stop - lease.start))

    def allocate(self, members: list[WorkerInfo], shards: int, now: float) -> list[int]:
        """Return the number of shards for each worker, chosen so that the last of them ends as soon as possible.

        >>> fast, slow = WorkerInfo(b"1", 1, 0.0), WorkerInfo(b"2", 2, 0.0, pace=10.0, slow_until=99.0)
        >>> throughput = Throughput()
        >>> throughput.seconds = 1.0
        >>> throughput.allocate([fast, slow], 4, now=0.0), throughput.allocate([fast, slow], 4, now=100.0)
        ([4, 0], [2, 2])
        """
        if all(now >= member.slow_until for member in members):
            size, more = divmod(shards, len(members))
            return [size + (index < more) for index in range(len(members))]
        paces = [member.pace if now < member.slow_until else self.seconds for member in members]
        portions = [0] * len(members)
        ends = [(pace, index) for index, pace in enumerate(paces)]  # when each would end with one more shard
        heapify(ends)
        for _ in range(shards):
            _, first = ends[0]
            portions[first] += 1
            heapreplace(ends, ((portions[first] + 1) * paces[first], first))
        return portions
