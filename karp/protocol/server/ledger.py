"""The ledger: which shards of which steps have arrived, which are leased, and what comes next. It knows no array.

Each shard is entered once, whichever worker computed it. A step is complete when each of its shards has arrived or was
left out; steps are closed in order.

The bound on staleness decides only how many steps may be open. With a bound of s, step t is opened once t - s steps are
closed, so its gradients come from weights of the versions t - s to t. In an asynchronous run (bound None) updates are
single shards, and the steps are only the order in which shards are leased. An epoch ends there when its last shard has
arrived; before that, shards of the next epoch are leased (unless it waits for a score), but of none after it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from enum import Enum
from typing import Any

from karp.protocol.settings import Settings
from karp.protocol.steps import Steps
from karp.protocol.tree import merge_ranges

Ranges = list[tuple[int, int]]  # (start, stop) of shards


class Verdict(Enum):
    """The consequence of a node whose gradient is not finite."""

    DROPPED = "it may be a second copy of an earlier contribution, so it does not count"
    RETRIED = "its shards are leased once more"
    REFUSED = "the gradient of this shard is not finite for the second time"


class Arrived:
    """The shards of a step that have arrived, as sorted ranges.

    >>> arrived = Arrived(6)
    >>> arrived.add(1, 3), arrived.add(3, 4), arrived.add(0, 2)
    (True, True, False)
    >>> arrived.missing(0, 6), arrived.complete
    ([(0, 1), (4, 6)], False)
    """

    __slots__ = ("complete", "shards", "starts", "stops")

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.starts: list[int] = []  # the starts of the ranges, sorted; ranges neither overlap nor touch
        self.stops: list[int] = []
        self.complete = False

    def holds(self, start: int, stop: int) -> bool:
        """Return whether all of the shards start … stop-1 have arrived."""
        after = bisect_right(self.starts, start)
        return after > 0 and self.stops[after - 1] >= stop

    def add(self, start: int, stop: int) -> bool:
        """Enter the shards start … stop-1; return False, and change nothing, if one of them had arrived."""
        starts, stops = self.starts, self.stops
        after = bisect_left(starts, stop)  # the index of the first range that begins at `stop` or beyond
        low = stops[after - 1] if after else -1  # the end of the range before that
        if low > start:
            return False
        touches = after < len(starts) and starts[after] == stop
        if low == start:
            if touches:
                del starts[after]
                stop = stops.pop(after)
            stops[after - 1] = stop
        elif touches:
            starts[after] = start
        else:
            starts.insert(after, start)
            stops.insert(after, stop)
        self.complete = starts[0] == 0 and stops[0] == self.shards
        return True

    def missing(self, start: int, stop: int) -> Ranges:
        """Return the ranges of start … stop-1 that have not arrived, in order."""
        gaps, first = [], bisect_right(self.stops, start)
        for low, high in zip(self.starts[first:], self.stops[first:], strict=True):
            if low >= stop:
                break
            if start < low:
                gaps.append((start, low))
            start = high
        return [*gaps, (start, stop)] if start < stop else gaps


class Step:
    """An open step: which of its shards have arrived, which are to be leased, which had a gradient that is not finite.

    >>> step = Step(7, 5)
    >>> step.take_range(3), step.take_range(9), step.take_range(1)  # to lease
    ((0, 3), (3, 5), None)
    >>> step.lease_again(3, 5)
    >>> step.unleased
    [(3, 5)]
    """

    __slots__ = ("arrived", "entries", "left_out", "not_finite", "number", "shards", "unleased", "weight")

    def __init__(self, number: int, shards: int) -> None:
        self.number = number
        self.shards = shards
        self.arrived = Arrived(shards)
        self.unleased: Ranges = [(0, shards)] if shards else []  # sorted
        self.not_finite: dict[int, bytes] = {}  # shard -> the peer whose gradient of it was not finite
        self.left_out: dict[int, float] = {}  # shard that is left out -> its number of samples, or their weight
        self.weight = 0.0  # the sum of the step's sample weights; 0: not known yet, or samples have none
        self.entries: list[list[int]] = []  # [worker, version, start, stop] as entered, in a run with staleness

    @property
    def complete(self) -> bool:
        """Whether every shard has arrived or was left out."""
        return self.arrived.complete

    @property
    def fully_unleased(self) -> bool:
        """Whether all of its shards are to be leased, and every gradient so far was finite."""
        return not self.not_finite and self.unleased == [(0, self.shards)]

    @property
    def fully_leased(self) -> bool:
        """Whether all of its shards are leased for the first time, and none has arrived."""
        return not (self.unleased or self.arrived.starts or self.not_finite)

    @property
    def count_unleased(self) -> int:
        """The number of shards that are to be leased."""
        return sum(stop - start for start, stop in self.unleased)

    def take_range(self, shards: int) -> tuple[int, int] | None:
        """Remove the next range to lease, of at most so many shards, and return it; None if no shard is to be leased.

        A shard whose gradient was not finite comes as a range of its own.
        """
        if not self.unleased or not shards:
            return None
        start, stop = self.unleased[0]
        if shards >= stop - start and not self.not_finite:
            del self.unleased[0]
            return start, stop
        if self.not_finite:  # a shard whose gradient was not finite is leased alone, so that it can be named
            stop = next((shard for shard in range(start, stop) if shard in self.not_finite), stop)
            if stop == start:
                stop = start + 1
            if stop < self.unleased[0][1]:
                self.unleased[:1] = [(start, stop), (stop, self.unleased[0][1])]
        if stop - start <= shards:
            del self.unleased[0]
            return start, stop
        self.unleased[0] = (start + shards, stop)
        return start, start + shards

    def missing(self, start: int, stop: int) -> Ranges:
        """Return the ranges of start … stop-1 that have not arrived."""
        return self.arrived.missing(start, stop)

    def lease_again(self, start: int, stop: int) -> None:
        """Have the shards of a range that have not arrived leased again."""
        self.unleased = merge_ranges([*self.unleased, *self.missing(start, stop)])

    def enter(self, start: int, stop: int) -> bool:
        """Enter shards that have arrived; return False, and change nothing, if one of them had arrived before."""
        if not self.arrived.add(start, stop):
            return False
        if self.unleased:
            self._remove_unleased(start, stop)
        return True

    def reject(self, start: int, stop: int, peer: bytes, current: bool) -> Verdict:
        """Decide what to do about a node whose gradient is not finite.

        `current` says that its contribution answers the lease that its worker holds; otherwise it may be a second copy
        of an earlier contribution.
        """
        if not current:
            return Verdict.DROPPED
        if stop - start > 1 or start not in self.not_finite:
            self.not_finite |= dict.fromkeys(range(start, stop), peer)
            return Verdict.RETRIED
        return Verdict.REFUSED

    def leave_out(self, shard: int, weight: float) -> bool:
        """Leave out a shard of so many samples, or of this sum of weights; return False if it had arrived before."""
        self.left_out[shard] = weight
        return self.enter(shard, shard + 1)

    def restore(self, missing: Ranges) -> None:
        """Enter all shards except the missing ranges; raises ValueError for ranges unsorted or outside of the step."""
        at = 0
        for start, stop in [*missing, (self.shards, self.shards)]:
            if not at <= start <= stop <= self.shards:
                raise ValueError(f"shards {start} to {stop} of {self.shards}")
            if at < start:
                self.enter(at, start)
            at = stop

    def _remove_unleased(self, start: int, stop: int) -> None:
        """Remove shards that have arrived from those to be leased."""
        if any(low < stop and start < high for low, high in self.unleased):
            parts = [(low, min(high, start)) for low, high in self.unleased]
            parts += [(max(low, stop), high) for low, high in self.unleased]
            self.unleased = merge_ranges([(low, high) for low, high in parts if low < high])


class Ledger:
    """The open steps of a run and the evaluations that are due, from its first step to its last.

    Args:
        settings: those of the run.
        steps: the run's steps, with their epochs and shards.
    """

    def __init__(self, settings: Settings, steps: Steps) -> None:
        self.settings = settings
        self.steps = steps
        self.max_staleness = settings.staleness
        self.final = steps.steps_per_epoch * settings.epochs  # training is over after so many steps
        self.step = Step(0, 0)  # the oldest open step; all before it are closed
        self.open: dict[int, Step] = {}  # number -> step, oldest first; at least one as long as training goes on
        self.opened = 0  # all steps below this number have been opened
        self.evaluations: dict[int, int] = {}  # epoch -> version of its weights; due or leased, oldest first
        self.restore(0)

    def restore(self, opened: int, partly: Iterable[tuple[int, Ranges]] = ()) -> None:
        """Restore a ledger in which all steps below `opened` are closed, except those of which shards are missing.

        Raises ValueError for steps and shards that do not exist.
        """
        self.open.clear()
        for number, missing in partly:
            if not 0 <= number < opened <= self.final or number in self.open:
                raise ValueError(f"step {number} is not one of the {opened} that have been opened")
            step = self.open[number] = Step(number, self.steps.shards_of(number))
            step.restore([(int(start), int(stop)) for start, stop in missing])
        self.opened = opened
        self._find_oldest()

    def to_list(self) -> list[Any]:
        """Return the arguments of `restore` as plain types; only an asynchronous run keeps partly applied steps."""
        if self.max_staleness is not None:
            return [self.step.number]
        steps = self.open.values()
        gaps = ([step.number, [list(gap) for gap in step.missing(0, step.shards)]] for step in steps)
        return [self.opened, *gaps]

    def open_next(self) -> Step | None:
        """Open one more step and return it; None if the bound on staleness does not permit it yet."""
        if self.opened >= self._horizon():
            return None
        step = self.open[self.opened] = Step(self.opened, self.steps.shards_of(self.opened))
        self.opened += 1
        return step

    def _horizon(self) -> int:
        """Return the number of the first step that may not be opened yet; all below that number may."""
        first, per_epoch = self.step.number, self.steps.steps_per_epoch
        epoch_end = first - first % per_epoch + per_epoch
        horizon = epoch_end + per_epoch if self.max_staleness is None else first + self.max_staleness + 1
        return min(horizon, self.final, epoch_end if self.settings.wait_for_score else horizon)

    def close_oldest(self) -> None:
        """Close the oldest step, which is applied; the next open step becomes the oldest."""
        del self.open[self.step.number]
        self._find_oldest()

    def advance_in_place(self, steps: int) -> None:
        """Turn the only open step into that so many steps later, leased the same way, as those up to it are applied."""
        step = self.step
        del self.open[step.number]
        step.number += steps
        step.weight = 0.0
        self.open[step.number] = step
        self.opened += steps

    def close_complete(self, step: Step) -> None:
        """Close a step of an asynchronous run if it is complete and is not the oldest (`close_oldest` closes that)."""
        if step.complete and step is not self.step:
            del self.open[step.number]

    def _find_oldest(self) -> None:
        """Set `step` to the oldest open step; if none is open, open the next one, if there is one."""
        if self.open:
            self.step = next(iter(self.open.values()))
            return
        number = self.opened
        self.step = Step(number, self.steps.shards_of(number) if number < self.final else 0)
        if number < self.final:
            self.open[number] = self.step
            self.opened = number + 1

    @property
    def finished(self) -> bool:
        """Whether every step is closed."""
        return not self.open

    @property
    def done(self) -> bool:
        """Whether every step is closed and every score is known."""
        return not (self.open or self.evaluations)

    def ends_epoch(self, number: int) -> bool:
        """Return whether this step is the last of its epoch, or of the run."""
        return number + 1 == self.final or (number + 1) % self.steps.steps_per_epoch == 0

    @property
    def waits_for_score(self) -> bool:
        """Whether the next epoch has to wait for a score that is not known."""
        return self.settings.wait_for_score and bool(self.evaluations)

    def end_after(self, steps: int) -> None:
        """End training after so many steps, if it would not end earlier; drop the open steps beyond.

        An asynchronous run also completes the steps that are open.
        """
        self.final = min(self.final, max(steps, self.opened) if self.max_staleness is None else steps)
        for number in [number for number in self.open if number >= self.final]:
            del self.open[number]
        self.opened = min(self.opened, max(self.final, self.step.number))
        if self.finished:
            self.step = Step(self.final, 0)

    def end_now(self) -> None:
        """End training now: the steps that are closed are all, and the open ones are dropped."""
        self.final = self.opened = self.step.number
        self.open.clear()
        self.step = Step(self.final, 0)
