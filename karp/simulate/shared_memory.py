"""Memory that the simulated server shares with its workers, and a worker's part in the ranges there.

What real workers do in spins and sleeps is events here: a worker that waits looks again when another one has ended the
step, when the server wakes it, and now and then. Ending a step takes a while. If the worker is paused or killed
meanwhile, half of the next weights are written, and it holds the lock, or held it. A memory that the server has left,
or died with, stays as it is for those that use it; what happens there counts for nothing.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from karp.parameters import Layout
from karp.protocol.messages import Lease
from karp.protocol.ranges import ARRIVED, CURRENT, RANGE, STOPPED, Board, Copies, Participant, Seat, local_board
from karp.protocol.tree import Vector
from karp.protocol.vectors import no_overflow
from karp.protocol.worker import PING_SECONDS
from karp.transport.shared_worker import RANGE_SECONDS
from karp.transport.worker_end import RANGE_WAITS

if TYPE_CHECKING:
    from karp.simulate.cluster import Cluster
    from karp.simulate.worker_process import WorkerProcess

LOOK_SECONDS = 0.002  # until a worker that waits looks whether another one has died while it ended the step
WAIT_SECONDS = RANGE_WAITS * PING_SECONDS  # a worker that has waited for so long sends its contribution


class Memory:
    """What `allocate` has made: the board, the copies, the slots, and the lock."""

    def __init__(self, layout: Layout, vectors: int) -> None:
        self.board: Board = local_board()
        self.vectors = [[layout.zeros() for _ in range(vectors)] for _ in range(2)]
        self.slots: dict[bytes, Seat] = {}
        self.table: list[Seat] = []  # the seats of the newest range
        self.holder: WorkerProcess | None = None  # of the lock
        self.parts: list[Part] = []  # of the workers that wait
        self.served = True  # the server uses it


class SharedMemory:
    """The server's side: the memory that it uses, and the lock there."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.memory: Memory | None = None

    @property
    def board(self) -> Board:
        assert self.memory is not None
        return self.memory.board

    @property
    def lock(self) -> "SharedMemory":
        return self

    def allocate(self, layout: Layout, vectors: int) -> list[list[Vector]]:
        self.leave()
        self.memory = Memory(layout, vectors)
        return self.memory.vectors

    def leave(self) -> None:
        """Use the memory no longer: the server has died, or goes on in another."""
        if self.memory is not None:
            self.memory.served = False
            self.wake()

    def seat(self, leases: Sequence[tuple[bytes, int, int]]) -> list[Seat] | None:
        memory = self.memory
        assert memory is not None
        if not all(peer in memory.slots for peer, _, _ in leases):
            return None
        memory.table = [memory.slots[peer]._replace(start=start, stop=stop) for peer, start, stop in leases]
        return memory.table

    def wake(self) -> None:
        assert self.memory is not None
        for part in self.memory.parts:
            part.look_later(self.cluster.rng.exponential(LOOK_SECONDS))

    def try_acquire(self) -> bool:
        return self.acquire()

    def acquire(self) -> bool:
        """Acquire the lock; a worker that holds it ends its step first, unless it is paused: then return False."""
        assert self.memory is not None
        holder = self.memory.holder
        if holder is not None and holder.alive:
            if self.cluster.clock.now < holder.paused_until:
                return False
            assert holder.part is not None
            holder.part.end_step()
        return True

    def release(self) -> None:
        """Do nothing: within an event of the server nobody else acquires the lock."""


class Part:
    """A worker's part in the ranges of one memory."""

    def __init__(self, process: "WorkerProcess", memory: Memory) -> None:
        self.process = process
        self.cluster = process.cluster
        self.memory = memory
        settings = self.cluster.problem.settings
        self.copies = Copies(settings.applied, memory.vectors, memory.board)
        self.seat = memory.slots[process.peer] = Seat([0], [0.0] * 3, settings.layout.zeros(), 0, 0)
        self.participant = Participant(memory.board, self.copies, self, self.seat.words, self.seat.numbers)
        self.step = -1  # the step at which the worker waits; -1: it does not
        self.ending = False  # it holds the lock and ends the step
        self.until = 0.0  # it takes part in its range until then
        self.waits_until = 0.0

    def try_acquire(self) -> bool:
        """Return False: the worker ends a step in two events, not in `Participant.try_to_end`."""
        return False

    acquire = try_acquire

    def release(self) -> None:
        """Do nothing, as `try_acquire` does."""

    def enter(self, lease: Lease) -> None:
        """Take part in the range of a lease that has arrived, if that is still the newest."""
        board, memory = self.memory.board, self.memory
        seats = [seat for seat in memory.table if seat.words is self.seat.words]
        if not memory.served or board.words[RANGE] != lease.range or not seats:
            lease.range = 0
            return
        shards = self.cluster.problem.plan.shards_of(lease.step)
        self.participant.enter(lease.range, lease.end, memory.table, shards)
        self.until = self.cluster.clock.now + RANGE_SECONDS

    def computes_here(self) -> bool:
        """Return whether the worker computes on the server's memory."""
        return any(np.may_share_memory(self.process.worker.current, copy[0]) for copy in self.memory.vectors)

    @property
    def overtaken(self) -> bool:
        """Whether the weights that the worker computes on have been overwritten."""
        return self.computes_here() and not self.copies.holds(self.process.worker.version)

    def arrive(self) -> bool:
        """Arrive at the lease's step, and wait; return False if the worker has to send its contribution."""
        worker, lease, now = self.process.worker, self.process.worker.task, self.cluster.clock.now
        assert isinstance(lease, Lease)
        if not lease.range or lease.step >= lease.end or now >= self.until:
            return False
        node = worker.offer_sum(lease)
        if node is None or node.vector is None:
            return False
        if not (math.isfinite(node.loss) and no_overflow(node.vector)):
            worker.withdraw_offer(lease)
            return False
        np.copyto(self.seat.vector, node.vector)
        self.step, self.waits_until = lease.step, now + WAIT_SECONDS
        self.memory.parts.append(self)
        if self.process.killed_at("arriving", lease.step):
            return True
        self.participant.arrive(lease.step, node.loss, 0.0, 0.0)
        if not self.process.killed_at("arrived", lease.step):
            self.look_later(0.0)
        return True

    def look_later(self, seconds: float) -> None:
        """Schedule that the worker looks at the board."""
        self.process.call_later(seconds, self._look, self.step)

    def _look(self, step: int) -> None:
        """Look whether the step has ended or can be ended; otherwise wait on, or send the contribution."""
        if step != self.step or step < 0 or self.ending:
            return
        ended = self.participant.ended(step)
        if ended is None and self.memory.served:
            if self._begin_to_end(step):
                return
            if self.cluster.clock.now < self.waits_until:
                self.look_later(LOOK_SECONDS if self.cluster.clock.now < self.waits_until - WAIT_SECONDS / 2 else 1.0)
                return
        self.step = -1
        self.memory.parts.remove(self)
        if ended and self.memory.served:
            self.process.step_ended(self.copies.at(step + 1).weights)
        else:
            self.participant.leave()
            self.process.range_closed()

    def _begin_to_end(self, step: int) -> bool:
        """Begin to end the step, if all have arrived and the lock is free; return whether the worker is at it now."""
        memory, words = self.memory, self.memory.board.words
        if any(seat.words[ARRIVED] != step + 1 for seat in memory.table):
            return False
        if memory.holder is not None and memory.holder.alive:
            return False
        if words[RANGE] != self.participant.range or words[STOPPED] or words[CURRENT] != step:
            return False
        memory.holder, self.ending = self.process, True
        self.copies.begin_write(step + 1)
        for vector in memory.vectors[(step + 1) % 2]:
            vector[: len(vector) // 2] = np.nan
        if not self.process.killed_at("ending", step):
            self.process.call_later(self.cluster.draw_seconds(self.cluster.scenario.ending_seconds), self.end_step)
        return True

    def end_step(self) -> None:
        """End the step that the worker has begun to end; it does not look again whether it may."""
        step, memory = self.step, self.memory
        if not self.ending:
            return
        self.ending = False
        loss = self.participant.add_up()
        self.copies.update(step, *self.participant.gradients)
        memory.board.write_losses(step, loss, 0.0)
        memory.board.words[CURRENT] = step + 1
        memory.holder = None
        if memory.served and self.cluster.checker is not None:
            self.cluster.checker.ended_in_range(step, self.copies.at(step + 1).weights)
        if self.process.killed_at("ended", step):
            return
        for part in memory.parts:
            part.look_later(self.cluster.draw_seconds(self.cluster.scenario.waking_seconds))
