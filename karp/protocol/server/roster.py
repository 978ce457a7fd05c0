"""The report of all workers, made once a second, and the notice that one process would be faster.

The server measures how long a worker holds a task and how many shards it contributes. Each contribution says how long
the worker has computed. For the remaining time of a lease its messages were under way, or waited to be read: `sending`.
An evaluation counts as computing.

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

REPORT_SECONDS = 1.0  # between two reports
WORKERS_PER_SECOND = 100  # with more workers the reports are rarer, so that they describe so many per second
WARM_SECONDS = 1.0  # the first seconds of training, which the comparison with one process leaves out
COMPARE_SECONDS = 3.0  # the seconds of training after those that are compared


class Roster:
    """Reports on the workers that have been in the run since its server was started."""

    def __init__(self, training: Training, leasing: Leasing, now: float) -> None:
        self.training = training
        self.leasing = leasing
        self.began = now  # when the time began that the next report describes
        self.due_at = now + REPORT_SECONDS
        self.gone_since: dict[int, float] = {}  # worker -> when it was first reported as gone
        self.compared = False  # whether the workers have been compared with one process
        # The totals since WARM_SECONDS: seconds, the workers' seconds with a task, and their seconds computing.
        self.totals = (0.0, 0.0, 0.0)
        self.samples = 0  # the samples up to WARM_SECONDS

    def report(self, now: float) -> None:
        """Report on each worker since the last report, in training only; call it once `due_at` has passed."""
        began, self.began = self.began, now
        self.due_at = now + max(REPORT_SECONDS, len(self.leasing.by_number) / WORKERS_PER_SECOND)
        if self.training.state is not RunState.TRAINING:
            return
        members = [member for _, member in sorted(self.leasing.by_number.items())]
        if not self.compared:
            self._compare(now, now - began, members)
        self.training.report(reports.Workers, [self._status(member, began, now) for member in members])

    def _status(self, member: WorkerInfo, began: float, now: float) -> WorkerStatus:
        """Return the status of a worker in the time since the last report, and set its counters back to zero."""
        seconds, task, steps = max(now - began, 1e-9), member.task, self.training.steps
        is_member = self.leasing.members.get(member.peer) is member
        if is_member:
            self.gone_since.pop(member.worker, None)
        since = member.since if is_member else self.gone_since.setdefault(member.worker, now)
        running = now - member.since if is_member and task is not None else 0.0  # seconds of a task that is not done
        leased = min(seconds, max(0.0, member.leased - member.counted + running))
        computing = min(leased, max(0.0, member.computed - member.counted + running))
        settings = self.training.settings
        assert settings is not None
        samples = member.shards * settings.samples / (steps.steps_per_epoch * settings.shards)
        member.shards, member.leased, member.computed, member.counted = 0, 0.0, 0.0, running
        lease = task if is_member and isinstance(task, Lease) else None
        return WorkerStatus(
            member.worker,
            member.host,
            activity(member) if is_member else Activity.GONE,
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
        """Tell the user once, after the first seconds of training, if one process would be faster, with both figures.

        One process sends nothing and waits for no other. So it takes at most the time that all workers compute, and
        less if caches and cores are then free or its batches are larger. The user of a run in one process is never told
        this, as there all the time in which the worker has a task counts as computing.
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
                f"{who} {samples / seconds:,.0f} samples/s; {reports.ONE_PROCESS} about {samples / computed:,.0f}: "
                f"run {self.training.settings.program} with python, not karp launch, when you begin anew"
            )


def activity(member: WorkerInfo) -> Activity:
    """Return what a worker does now: it waits, evaluates or computes."""
    if member.task is None:
        return Activity.WAITING
    return Activity.EVALUATING if isinstance(member.task, Evaluation) else Activity.COMPUTING
