"""Steps of which nothing is to be said: in one process they are taken at once, without a message.

Most steps of a run are an update and nothing else: no report is due and no checkpoint, no epoch ends, nothing is wrong.
Where both machines are in one process, they share the vectors and the lease; then such a step takes neither a
contribution nor another lease: its gradient is applied, and the lease moves on to the next step. What comes of it is
the same to the bit. It is worth a room of its own because a step of a small network takes 30 us to compute, and as long
again to be carried through both machines.
"""

import math

from karp.protocol.messages import Lease
from karp.protocol.server.leasing import Leasing
from karp.protocol.server.progress import REPORT_SECONDS
from karp.protocol.server.training import Training
from karp.protocol.tree import Node
from karp.protocol.vectors import no_overflow


class FastPath:
    """Takes steps at once while they are calm; whatever else happens to the server, it forgets how long that is."""

    def __init__(self, training: Training, leasing: Leasing) -> None:
        self.training = training
        self.leasing = leasing
        self.known = False  # whether what follows is
        self.before = -1  # steps below this one are calm
        self.until = 0.0  # up to this time
        self.samples = 0  # and have so many samples each
        self.at_work = False  # on a step; stays True if an exception breaks that off

    def forget(self) -> None:
        """Something has happened."""
        self.known = False

    def try_apply(self, peer: bytes, lease: Lease, node: Node, weight: float, now: float) -> bool:
        """The sum over the whole step of this lease, from the only worker there is, in this process.

        `weight` is the sum of the step's sample weights; 0 where samples have none.

        If all it takes is an update, that is done and the lease moves on to the next step. If there is more to it,
        nothing is done, and the contribution is to be sent.
        """
        if not self.known:
            self._look(peer, lease)
        if not (lease.step < self.before and now < self.until and node.vector is not None):
            return False
        if not (math.isfinite(node.loss) and no_overflow(node.vector)):
            return False
        training = self.training
        self.at_work = True
        training.weights.update(node.vector)
        training.ledger.repeat_step()
        lease.step, lease.version = lease.step + 1, lease.version + 1
        training.progress.step(node.loss, self.samples, weight or self.samples)
        member = self.leasing.members[peer]
        member.shards += lease.stop
        member.task_ends(now, 0.0)
        self.at_work = False
        return True

    def _look(self, peer: bytes, lease: Lease) -> None:
        """For how long, from here on, each step is followed by one with as many samples and shards, and by no more."""
        self.known, self.before = True, -1
        training, member = self.training, self.leasing.members.get(peer)
        ledger, progress, step = training.ledger, training.progress, training.ledger.step
        alone = member is not None and member.task is lease and len(self.leasing.members) == 1
        weights = training.weights
        in_place = weights.memory is None and weights.whole_step_sum
        if not (alone and step.fully_leased and in_place) or ledger.evaluations or training.failure:
            return
        per_epoch = training.steps.steps_per_epoch
        epoch_end = step.number - step.number % per_epoch + per_epoch
        self.before = min(epoch_end - 2, ledger.final - 1)
        self.until = min(training.save_at, progress.reported + REPORT_SECONDS)
        self.samples = training.steps.samples_of(step.number)
