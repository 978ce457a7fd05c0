"""What each worker of a run is at, reported once a second; and whether one process would be faster.

The server knows nearly all of it: since when a worker has had its task, and how many shards have come back. How long it
has computed, the worker says with each contribution. The rest of the time in which it holds a lease its message was
under way, or waited for the server to take it: `sending`. An evaluation counts as computing.

    lease given                          contribution taken            next lease given
        |-- sending --|-- computing --|-- sending --|------ waiting ------|
"""

from karp.protocol import reports
from karp.protocol.messages import Evaluation, Lease
from karp.protocol.reports import Activity, WorkerStatus
from karp.protocol.server.leasing import Leasing
from karp.protocol.server.states import RunState
from karp.protocol.server.training import Training
from karp.protocol.server.workers import WorkerInfo

REPORT_SECONDS = 1.0  # between two reports, of up to so many workers; with more of them they are rarer
WORKERS_PER_SECOND = 100
WARM_SECONDS = 1.0  # of training, which do not count when the workers are compared with one process
COMPARE_SECONDS = 3.0  # of training, after which they are


class Roster:
    """The workers that have been in the run since its server was started."""

    def __init__(self, training: Training, leasing: Leasing, now: float) -> None:
        self.training = training
        self.leasing = leasing
        self.began = now  # of the time that the next report is about
        self.due_at = now + REPORT_SECONDS
        self.gone: dict[int, float] = {}  # worker -> when it was first missed
        self.compared = False
        self.totals = (0.0, 0.0, 0.0)  # since it was warm: seconds, those of all workers with a task, and computing
        self.samples = 0  # when it was warm

    def report(self, now: float) -> None:
        """Report what has happened since the last report; to be called when it is due."""
        began, self.began = self.began, now
        self.due_at = now + max(REPORT_SECONDS, len(self.leasing.known) / WORKERS_PER_SECOND)
        if self.training.state is not RunState.TRAINING:
            return
        members = [member for _, member in sorted(self.leasing.known.items())]
        if not self.compared:
            self._compare(now, now - began, members)
        self.training.report(reports.Workers, [self._status(member, began, now) for member in members])

    def _status(self, member: WorkerInfo, began: float, now: float) -> WorkerStatus:
        """Describe a worker, and begin to count afresh."""
        seconds, task, steps = max(now - began, 1e-9), member.task, self.training.steps
        here = self.leasing.members.get(member.peer) is member
        if here:
            self.gone.pop(member.worker, None)
        since = member.since if here else self.gone.setdefault(member.worker, now)
        running = now - member.since if here and task is not None else 0.0  # of a task that is not done
        leased = min(seconds, max(0.0, member.leased - member.counted + running))
        computing = min(leased, max(0.0, member.computed - member.counted + running))
        settings = self.training.settings
        assert settings is not None
        samples = member.shards * settings.samples / (steps.steps_per_epoch * settings.shards)
        member.shards, member.leased, member.computed, member.counted = 0, 0.0, 0.0, running
        lease = task if here and isinstance(task, Lease) else None
        return WorkerStatus(
            member.worker,
            member.host,
            activity(member) if here else Activity.GONE,
            self.training.progress.seconds(since),
            None if lease is None else [lease.step, lease.start, lease.stop],
            round(samples / seconds, 1),
            round(computing / seconds, 3),
            round(1.0 - leased / seconds, 3),
            round((leased - computing) / seconds, 3),
            None if lease is None else self.training.version - lease.version,
            member.restarts,
        )

    def _compare(self, now: float, seconds: float, members: list[WorkerInfo]) -> None:
        """Say once, after the first seconds of training, if one process would be faster, with both figures.

        One process makes no exchange and waits for nobody. So it takes as long as the workers compute, one after
        another, or less, as nobody takes its caches and cores and its batches may be larger. In a run that is in one
        process, all the time in which the worker has a task is computing.
        """
        progress = self.training.progress
        if progress.seconds(now) - seconds < WARM_SECONDS:
            self.samples = progress.samples
            return
        before, leased, computed = self.totals
        seconds += before
        leased += sum(member.leased for member in members)
        computed += sum(member.computed for member in members)
        self.totals = seconds, leased, computed
        if seconds < COMPARE_SECONDS:
            return
        self.compared = True
        samples, workers = progress.samples - self.samples, len(self.leasing.members)
        if 0.0 < computed < min(leased, seconds):
            assert self.training.settings is not None
            who = f"{workers} workers train" if workers != 1 else "1 worker trains"
            self.training.notice(
                f"{who} {samples / seconds:,.0f} samples/s; one process, without exchange, would train about "
                f"{samples / computed:,.0f}: run {self.training.settings.program} with python, not karp launch, "
                "when you begin anew"
            )


def activity(member: WorkerInfo) -> Activity:
    """Return what a worker of the run is at."""
    if member.task is None:
        return Activity.WAITING
    return Activity.EVALUATING if isinstance(member.task, Evaluation) else Activity.COMPUTING
