"""What the server knows of a worker, and how it shares out work by it.

Who gets which shards never shows in the weights, so it may follow the clock. Workers of about the same pace get
shards in equal parts. One that has been several times slower than the others gets as many as it would finish in the
same time, perhaps none; after a while that is forgotten, so that a worker that was only held up comes back. A lease
that takes much longer than it should is given a second time to a worker that has nothing to do: the first copy counts.
"""

from dataclasses import dataclass
from heapq import heapify, heapreplace

from karp.protocol.messages import Evaluation, Lease
from karp.protocol.tree import in_words

SLOW = 2.0  # times the common pace: a lease is given again, a worker counts as slow
PATIENCE_SECONDS = 0.05  # no lease is given again sooner
FORGET = 10.0  # a worker counts as slow for so many times as long as the lease took that showed it


@dataclass(slots=True)
class Member:
    """A worker that has joined: what it holds and what it is at."""

    peer: bytes
    worker: int
    since: float  # when its task was given
    version: int = -1  # of the weights it holds; -1: none of the server's
    number: int = 0  # of its last task
    task: Lease | Evaluation | None = None
    doubled: bool = False  # its lease has been given a second time
    stopped: bool = False  # its program has left the loop
    told: bool = False  # that the run is over
    notice_at: float = 0.0
    pace: float = 0.0  # seconds per shard, where it was slow; 0: as the others
    slow_until: float = 0.0

    def doing(self, now: float) -> str:
        """'worker 2 (step 41, shards 0 to 1, since 3.2 s)'."""
        if isinstance(self.task, Lease):
            what = f"step {self.task.step}, {in_words(self.task.start, self.task.stop)}"
        elif self.task is not None:
            what = f"evaluation of epoch {self.task.epoch}"
        else:
            what = "its next message"
        return f"worker {self.worker} ({what}, since {now - self.since:.1f} s)"


class Pace:
    """The common pace, seconds per shard, and who falls behind it."""

    def __init__(self) -> None:
        self.seconds = 0.0  # 0: not known yet
        self.uneven_until = 0.0  # somebody counts as slow

    def measure(self, member: Member, lease: Lease, now: float) -> None:
        """A lease has come back."""
        seconds = (now - member.since) / (lease.stop - lease.start)
        if self.seconds == 0.0:
            self.seconds = seconds
        self.seconds += 0.1 * (min(seconds, SLOW * self.seconds) - self.seconds)
        if seconds > SLOW * self.seconds and now - member.since > PATIENCE_SECONDS:
            member.pace = seconds
            member.slow_until = now + FORGET * (now - member.since)
            self.uneven_until = max(self.uneven_until, member.slow_until)

    def even(self, now: float) -> bool:
        """Whether nobody counts as slow."""
        return now >= self.uneven_until

    def overdue_at(self, member: Member, lease: Lease) -> float:
        """When a lease has taken so long that it is to be given again; never, while no pace is known."""
        if self.seconds == 0.0:
            return float("inf")
        return member.since + max(PATIENCE_SECONDS, SLOW * self.seconds * (lease.stop - lease.start))

    def portions(self, members: list[Member], shards: int, now: float) -> list[int]:
        """How many of these shards each of the members gets, so that all of them end soonest.

        >>> fast, slow = Member(b"1", 1, 0.0), Member(b"2", 2, 0.0, pace=10.0, slow_until=99.0)
        >>> pace = Pace()
        >>> pace.seconds = 1.0
        >>> pace.portions([fast, slow], 4, now=0.0), pace.portions([fast, slow], 4, now=100.0)
        ([4, 0], [2, 2])
        """
        if all(now >= member.slow_until for member in members):
            size, more = divmod(shards, len(members))
            return [size + (index < more) for index in range(len(members))]
        paces = [member.pace if now < member.slow_until else self.seconds for member in members]
        portions = [0] * len(members)
        ends = [(pace, index) for index, pace in enumerate(paces)]  # of each, with one shard more
        heapify(ends)
        for _ in range(shards):
            _, first = ends[0]
            portions[first] += 1
            heapreplace(ends, ((portions[first] + 1) * paces[first], first))
        return portions
