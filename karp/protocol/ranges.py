"""Ranges: steps that the server has granted to go by themselves, and that end among the workers in shared memory.

In an ordinary step every worker sends its contribution to the server, which adds them up, updates the weights and gives
the next leases. Where all leases of a step are held by workers that share the server's memory, the server opens a range
with them. As long as it is open, a lease moves on by itself:

    a worker        writes gradient and loss to its seat, then ARRIVED = step + 1, and looks at the other seats;
                    if all have arrived, it tries the lock. Holding the lock, if the range is open and the step current,
                    it adds up the gradients, updates the weights, and sets CURRENT = step + 1.
                    Otherwise it waits: if the step ends, it goes on with the same shards of the next; if the range is
                    closed before that, it sends the contribution, as in an ordinary step.
    the server      opens a range: RANGE = its number, STOPPED = 0; then the leases with this number are sent.
                    It closes a range: holding the lock, STOPPED = CURRENT + 1. Then it takes over what has ended.

A worker that cannot arrive (its gradient is not finite, it has logged something, ...) sends its contribution, and any
message makes the server close the range: nobody can end a step at which not all have arrived.

Weights and optimiser state lie in two copies: step t reads copy t % 2 and writes the other. So whatever a step has read
stays as it is until the next step is complete, and an update that was broken off is done again: by a worker that waits,
or by the server in an ordinary step. The kernel releases the lock of a process that dies. Whoever writes to the weights
in a range holds the lock and has found, holding it, that the range is open and the step current. So each step ends
once, and a worker that was away for longer than its range changes nothing when it comes back. Only a process that is
stopped while it holds the lock could still write: then the server goes on in other memory (`Memory.allocate`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from karp.optim import Optimizer, Updater
from karp.parameters import Layout
from karp.protocol.tree import Vector, middle

RING = 4096  # the most steps of a range: the losses of so many are kept
# The words of the board. STOPPED is 0 while the range is open, else 1 + the step at which it was closed. CURRENT is the
# version of the weights, also outside of ranges. The last two are the versions of the copies, or WRITING.
RANGE, STOPPED, CURRENT, VERSIONS = range(4)
BOARD_WORDS = VERSIONS + 2
WRITING = (1 << 64) - 1
# The words and numbers of a seat. ARRIVED is 1 + the step at which its worker has arrived. SECONDS increases.
ARRIVED = 0
LOSS, WEIGHT, SECONDS = range(3)


def no_fence() -> None:
    """Do nothing: the order of memory accesses needs no care within one thread."""


class Words(Protocol):
    """Shared memory of whole numbers from 0 to 2**64 - 1."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class Numbers(Protocol):
    """Shared memory of floats of 64 bits."""

    def __getitem__(self, index: int, /) -> float: ...

    def __setitem__(self, index: int, value: float, /) -> None: ...


class Board(NamedTuple):
    """The control words of a run's ranges, and a ring of numbers: the loss and the sample weights of each step.

    `fence` orders memory accesses: a write before it is visible before one after it.
    """

    words: Words
    losses: Numbers
    fence: Callable[[], None] = no_fence

    def write_losses(self, step: int, loss: float, weight: float) -> None:
        """Note the loss of a step that ends, and the sum of its sample weights (0: samples have none)."""
        at = step % RING * 2
        self.losses[at] = loss
        self.losses[at + 1] = weight

    def read_losses(self, step: int) -> tuple[float, float]:
        """Return the loss of a step of the last range, and the sum of its sample weights."""
        at = step % RING * 2
        return self.losses[at], self.losses[at + 1]


def local_board() -> Board:
    """Return a board in the memory of one process."""
    return Board([0] * BOARD_WORDS, [0.0] * (2 * RING))


class Seat(NamedTuple):
    """What a worker shows the others: where it has arrived, its loss, and its gradient of the shards start … stop-1."""

    words: Words
    numbers: Numbers
    vector: Vector
    start: int
    stop: int


class Lock(Protocol):
    """A lock between processes that is released when its holder dies."""

    def try_acquire(self) -> bool:
        """Acquire the lock and return True; return False if another process holds it."""

    def acquire(self) -> bool:
        """Acquire the lock and return True; return False if its holder is stopped, as it has held it for too long."""

    def release(self) -> None:
        """Release the lock, which this process holds."""


class Memory(Protocol):
    """Memory of the server that workers of this host share."""

    @property
    def board(self) -> Board:
        """The board in the memory that was allocated last."""

    @property
    def lock(self) -> Lock:
        """The lock of that memory."""

    def allocate(self, layout: Layout, vectors: int) -> list[list[Vector]] | None:
        """Allocate two copies of so many vectors; None if there is no memory for them.

        From then on no worker has a seat, and nothing is read of memory that was allocated before.
        """

    def seat(self, leases: Sequence[tuple[bytes, int, int]]) -> list[Seat] | None:
        """Tell workers of whose seats the next range is made: (peer, start, stop) in order of shards; return the seats.

        Return None, and change nothing, if a worker has no seat, or if they are too many.
        """

    def wake(self) -> None:
        """Wake the workers that sleep."""


class Copies:
    """Weights and optimiser state in two copies: version v lies in copy v % 2, and an update writes the other.

    Args:
        optimizer: the rule.
        vectors: of each copy the weights, then the optimiser's vectors in the order of their names.
        board: its words have the versions of the copies.
    """

    def __init__(self, optimizer: Optimizer, vectors: Sequence[Sequence[Vector]], board: Board) -> None:
        names = state_names(optimizer)
        self.updaters = [
            Updater(optimizer, weights, dict(zip(names, state, strict=True))) for weights, *state in vectors
        ]
        self.board = board

    def at(self, version: int) -> Updater:
        """Return the updater of the copy in which this version lies, or the next version but one."""
        return self.updaters[version % 2]

    def begin_write(self, version: int) -> None:
        """Mark the copy of this version as being written."""
        self.board.words[VERSIONS + version % 2] = WRITING
        self.board.fence()

    def end_write(self, version: int) -> None:
        """Mark the copy of this version as complete."""
        self.board.fence()
        self.board.words[VERSIONS + version % 2] = version
        self.board.fence()

    def holds(self, version: int) -> bool:
        """Return whether this version is complete and has not been overwritten."""
        return self.board.words[VERSIONS + version % 2] == version

    def update(self, version: int, *gradient: Vector) -> None:
        """Write the next version, made of this one by a gradient or by the sum of two, to the other copy."""
        source, target = self.updaters[version % 2], self.updaters[(version + 1) % 2]
        self.begin_write(version + 1)
        source.version = version
        target.update(*gradient, source=source)
        self.end_write(version + 1)

    def fill(self, version: int, weights: Vector, state: Mapping[str, Vector] | None) -> None:
        """Copy weights and state (None: zeros) of this version, which becomes the current one.

        Raises SettingError or ShapeError for a state that is not that of the optimiser.
        """
        updater = self.at(version)
        if state is not None:
            updater.check_state(state)
        self.begin_write(version)
        np.copyto(updater.weights, weights)
        for name, vector in updater.state.items():
            np.copyto(vector, 0 if state is None else state[name])
        self.end_write(version)
        self.make_current(version)

    def make_current(self, version: int) -> None:
        """Make this version the current one, outside of a range."""
        self.board.words[CURRENT] = version
        self.board.fence()


def state_names(optimizer: Optimizer) -> list[str]:
    """Return the names of an optimiser's vectors.

    >>> from karp.optim import SGD
    >>> state_names(SGD(0.1)), state_names(SGD(0.1, momentum=0.9))
    ([], ['momentum'])
    """
    return list(optimizer.state(np.empty(0, np.float32)))


class SeatSum:
    """The sum over the gradients and losses of seats, in the fixed tree (tree.py), for every step of a range.

    Gradients are only read; their sums lie in memory of this object. The last two halves are not added up, as an update
    does that piece by piece: `vectors` has the sum as one vector, or as two.

    >>> first = Seat([0], [1.0, 0.0, 0.0], np.full(2, 1.0), 0, 2)
    >>> second = Seat([0], [2.0, 0.0, 0.0], np.full(2, 2.0), 2, 3)
    >>> total = SeatSum([first, second], shards=3)
    >>> total.add_up(), [vector.tolist() for vector in total.vectors]
    (3.0, [[1.0, 1.0], [2.0, 2.0]])
    """

    def __init__(self, seats: Sequence[Seat], shards: int) -> None:
        self._numbers = [seat.numbers for seat in seats]
        self._places = {(seat.start, seat.stop): index for index, seat in enumerate(seats)}
        self._vectors = [seat.vector for seat in seats]
        self._free: list[Vector] = []  # memory for sums that is not in use
        self._owned: set[int] = set()  # the indices of the sums, whose memory is this object's
        self._joins: list[tuple[int, int]] = []  # the indices of two halves; the index of their sum is the next
        if (0, shards) in self._places:
            self._halves = [0]
        else:
            split = middle(0, shards)
            self._halves = [self._join(0, split), self._join(split, shards)]
        self.vectors = [self._vectors[index] for index in self._halves]

    def _join(self, start: int, stop: int) -> int:
        """Plan the sum over these shards, and return its index.

        Raises KeyError where the seats are not nodes of the tree.
        """
        if (start, stop) in self._places or stop - start == 1:
            return self._places[start, stop]
        split = middle(start, stop)
        left, right = self._join(start, split), self._join(split, stop)
        owned = [self._vectors[index] for index in (left, right) if index in self._owned]
        out = owned[0] if owned else self._free.pop() if self._free else np.empty_like(self._vectors[left])
        self._free += owned[1:]
        self._joins.append((left, right))
        self._vectors.append(out)
        self._owned.add(len(self._vectors) - 1)
        return len(self._vectors) - 1

    def add_up(self) -> float:
        """Add up what lies in the seats now: return the loss; the gradient is in `vectors`."""
        losses = [numbers[LOSS] for numbers in self._numbers]
        vectors = self._vectors
        for left, right in self._joins:
            np.add(vectors[left], vectors[right], out=vectors[len(losses)])
            losses.append(losses[left] + losses[right])
        return sum((losses[index] for index in self._halves), 0.0)


class Participant:
    """A worker's part in the ranges of its run, in one memory.

    Args:
        board, copies, lock: those of the memory.
        words, numbers: of the worker's own seat, which only the worker writes.
        reach: called with the points (`karp.faults`) that the worker reaches, and the step; None: nobody wants to know.
    """

    def __init__(
        self,
        board: Board,
        copies: Copies,
        lock: Lock,
        words: Words,
        numbers: Numbers,
        reach: Callable[[str, int], None] | None = None,
    ) -> None:
        self.board = board
        self.copies = copies
        self.lock = lock
        self.words = words
        self.numbers = numbers
        self.reach = reach
        self.range = 0  # the number of the range that it takes part in; 0: none
        self.end = 0  # the first step that does not end in the range
        self._seats: Sequence[Seat] = ()
        self._sum: SeatSum
        self._arrivals: list[Words] = []  # the words of the others

    def enter(self, number: int, end: int, seats: Sequence[Seat], shards: int) -> None:
        """Take part in a range; `seats` are all of it, in the order of their shards, of which a step has so many."""
        self.range, self.end = number, end
        if seats is not self._seats:
            self._sum, self._seats = SeatSum(seats, shards), seats
            self._arrivals = [seat.words for seat in seats if seat.words is not self.words]

    def leave(self) -> None:
        """Take part in no range, as this one is over for the worker: the lease is an ordinary one."""
        self.range = 0

    def arrive(self, step: int, loss: float, weight: float, seconds: float) -> bool | None:
        """Arrive at a step, whose gradient lies in the seat; end the step if all have arrived. Return `ended(step)`.

        `weight` is the sum of the step's sample weights, 0 where samples have none, `seconds` the time of computing.
        """
        numbers, fence = self.numbers, self.board.fence
        numbers[LOSS] = loss
        numbers[WEIGHT] = weight
        numbers[SECONDS] += seconds
        fence()
        self.words[ARRIVED] = step + 1
        fence()
        if self.reach is not None:
            self.reach("arrived", step)
        self.try_to_end(step)
        return self.ended(step)

    def try_to_end(self, step: int) -> bool:
        """End a step at which this worker has arrived and return True.

        Return False if others have not arrived, another process is at it, it is done, or the range is closed.
        """
        for words in self._arrivals:
            if words[ARRIVED] != step + 1:
                return False
        if not self.lock.try_acquire():
            return False
        try:
            words, board = self.board.words, self.board
            if words[RANGE] != self.range or words[STOPPED] or words[CURRENT] != step:
                return False
            if self.reach is not None:
                self.reach("ending", step)
            loss = self.add_up()
            self.copies.update(step, *self.gradients)
            board.write_losses(step, loss, self.numbers[WEIGHT])
            board.fence()
            if self.reach is not None:
                self.reach("updated", step)
            words[CURRENT] = step + 1
            board.fence()
            if self.reach is not None:
                self.reach("ended", step)
        finally:
            self.lock.release()
        return True

    def add_up(self) -> float:
        """Add up what lies in the seats: return the loss; the gradient is in `gradients`, one vector or two."""
        return self._sum.add_up()

    @property
    def gradients(self) -> list[Vector]:
        """The vectors whose sum is the gradient, once `add_up` has been called."""
        return self._sum.vectors

    def changed(self, step: int) -> bool:
        """Return whether `ended(step)` may now be known; to be asked again and again."""
        words = self.board.words
        return words[CURRENT] != step or words[STOPPED] != 0

    def ended(self, step: int) -> bool | None:
        """Return whether this step, at which the worker has arrived, has ended in the range; None: not known yet.

        False: the range was closed before that, so the worker has to send its contribution.
        """
        words, fence = self.board.words, self.board.fence
        current = words[CURRENT]  # the server changes CURRENT after STOPPED, and STOPPED after RANGE
        fence()
        stopped = words[STOPPED]
        fence()
        if words[RANGE] != self.range:  # the worker was away, so what the other words say is of a later range
            return False
        if stopped:
            return stopped > step + 1
        return True if current > step else None
