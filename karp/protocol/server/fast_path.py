"""The fast path of a run in one process: steps that are applied without a message.

Most steps of a run are an update and nothing else: no report or checkpoint is due, no epoch ends, nothing is wrong. In
one process both machines share the vectors and the lease. So such a step needs neither a contribution nor another
lease: its gradient is applied, and the lease moves on to the next step. The bits are the same. It pays because a step
of a small network takes 30 us to compute, and as long again with messages through both machines.
"""

import math

from karp.protocol.messages import Lease
from karp.protocol.server.leasing import Leasing
from karp.protocol.server.progress import REPORT_SECONDS
from karp.protocol.server.training import Training
from karp.protocol.tree import Node
from karp.protocol.vectors import no_overflow


class FastPath:
    """Applies steps without messages up to limits of step and time; any other event of the server resets the limits."""

    def __init__(self, training: Training, leasing: Leasing) -> None:
        self.training = training
        self.leasing = leasing
        self.limits_known = False  # whether the three limits below are valid
        self.end_step = -1  # steps below this one need only an update
        self.until = 0.0  # before this time no report or checkpoint is due
        self.samples = 0  # the samples of each of these steps
        self.at_work = False  # whether a step is being applied; it stays True if an exception interrupts that

    def forget_limits(self) -> None:
        """Reset the limits, as an event may have changed them."""
        self.limits_known = False

    def try_apply(self, peer: bytes, lease: Lease, node: Node, weight: float, now: float) -> bool:
        """Apply the sum over the lease's step if the step needs only an update; move the lease on and return True.

        `weight` is the sum of the step's sample weights; 0 where samples have none. Returns False, and has changed
        neither weights nor lease, if the step needs more or its sum may not be finite: then the contribution has to be
        sent.
        """
        if not self.limits_known:
            self._find_limits(peer, lease)
        if not (lease.step < self.end_step and now < self.until and node.vector is not None):
            return False
        if not (math.isfinite(node.loss) and no_overflow(node.vector)):
            return False
        training = self.training
        self.at_work = True
        training.weights.update(node.vector)
        training.ledger.advance_in_place()
        lease.step, lease.version = lease.step + 1, lease.version + 1
        training.progress.step(node.loss, self.samples, weight or self.samples)
        member = self.leasing.members[peer]
        member.shards += lease.stop
        member.task_ends(now, 0.0)
        self.at_work = False
        return True

    def _find_limits(self, peer: bytes, lease: Lease) -> None:
        """Find the limits up to which all steps have the same numbers of samples and shards, and need only an update.

        `end_step` is -1 if there is no such step.
        """
        self.limits_known, self.end_step = True, -1
        training, member = self.training, self.leasing.members.get(peer)
        ledger, progress, step = training.ledger, training.progress, training.ledger.step
        is_only_task = member is not None and member.task is lease and len(self.leasing.members) == 1
        weights = training.weights
        in_place = weights.memory is None and weights.whole_step_sum
        if not (is_only_task and step.fully_leased and in_place) or ledger.evaluations or training.failure:
            return
        per_epoch = training.steps.steps_per_epoch
        epoch_end = step.number - step.number % per_epoch + per_epoch
        self.end_step = min(epoch_end - 2, ledger.final - 1)
        self.until = min(training.save_at, progress.reported + REPORT_SECONDS)
        self.samples = training.steps.samples_of(step.number)
