"""Steps of several global batches, for runs whose workers take local steps.

Step t of a run with H local steps is a round of H neighbouring global batches of one epoch; the epoch's last round may
be shorter. Shard s of the step is shard s of each of its batches that has one, so every sample is used once per epoch,
and a shard's share is that of its samples among those of the whole round.

    batches of an epoch   0 1 2 3 4 5 6        H = 3
    steps                 |--0--|--1--|2
"""

from typing import Protocol


class Steps(Protocol):
    """The part of the sampling plan (`data.Plan`) that the server uses: an epoch's steps, their shards and samples.

    The plan is an argument of the server, because it draws random permutations and this room draws no random numbers.
    """

    @property
    def steps_per_epoch(self) -> int: ...

    def samples_of(self, step: int) -> int: ...

    def samples_in(self, step: int, shard: int, stop: int | None = None) -> int: ...

    def shards_of(self, step: int) -> int: ...

    def share(self, step: int, shard: int) -> float: ...


class Rounds:
    """Steps that are rounds of at most `local_steps` steps of a plan.

    >>> from karp.data import Plan
    >>> rounds = Rounds(Plan(samples=10, batch_size=4, shards=3, seed=0), local_steps=2)
    >>> rounds.steps_per_epoch, [list(rounds.batches(step, 0)) for step in range(3)], list(rounds.batches(1, 2))
    (2, [[0, 1], [2], [3, 4]], [])
    >>> rounds.samples_of(0), rounds.samples_in(0, 0), rounds.share(0, 0), rounds.shards_of(1)
    (8, 4, 0.5, 2)
    """

    def __init__(self, plan: Steps, local_steps: int) -> None:
        self.plan = plan
        self.local_steps = local_steps
        self.steps_per_epoch = -(-plan.steps_per_epoch // local_steps)

    def batches(self, step: int, shard: int) -> range:
        """Return the numbers of those global batches of a step that have this shard; an empty range if none has."""
        epoch, number = divmod(step, self.steps_per_epoch)
        first = number * self.local_steps
        last = min(first + self.local_steps, self.plan.steps_per_epoch) - 1
        start = epoch * self.plan.steps_per_epoch
        in_last = shard < self.plan.shards_of(start + last)  # only the last batch of an epoch may have fewer shards
        return range(start + first, start + last + in_last)

    def samples_of(self, step: int) -> int:
        return sum(self.plan.samples_of(batch) for batch in self.batches(step, 0))

    def samples_in(self, step: int, shard: int, stop: int | None = None) -> int:
        shards = range(shard, shard + 1 if stop is None else stop)
        return sum(self.plan.samples_in(batch, shard) for shard in shards for batch in self.batches(step, shard))

    def shards_of(self, step: int) -> int:
        return self.plan.shards_of(self.batches(step, 0)[0])

    def share(self, step: int, shard: int) -> float:
        """Return the share of the round's samples that are in `shard`."""
        return self.samples_in(step, shard) / self.samples_of(step)


def steps_of(plan: Steps, local_steps: int) -> Steps:
    """Return the steps of a run on this plan: those of the plan, or rounds of them."""
    return plan if local_steps == 1 else Rounds(plan, local_steps)
