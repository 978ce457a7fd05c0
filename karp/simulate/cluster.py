"""A whole simulated run: the server, the workers, the network and the launcher on one clock."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from karp.limits import DEAD_SECONDS
from karp.protocol.messages import FromServer, FromWorker, Waiting
from karp.protocol.server.machine import Server
from karp.simulate.checker import Checker, Violation
from karp.simulate.fault_injector import FaultInjector
from karp.simulate.launcher import Launcher
from karp.simulate.network import Clock, Network
from karp.simulate.problem import Problem
from karp.simulate.randomness import Randomness
from karp.simulate.scenario import Scenario, draw_scenario
from karp.simulate.server_process import ServerProcess
from karp.simulate.worker_process import WorkerProcess

LIMIT_SECONDS = 900.0  # on the virtual clock; a small run ends earlier, whatever its faults
REINFORCE_SECONDS = 30.0  # between two looks whether a worker is left


class Cluster:
    """Run a scenario; `run` returns when every process has ended.

    Args:
        scenario: what happens.
        check: whether to check every invariant after every event.
        limit: seconds of the virtual clock that the run may take.
    """

    def __init__(self, scenario: Scenario, check: bool = True, limit: float = LIMIT_SECONDS) -> None:
        self.scenario = scenario
        self.limit = limit
        self.rng = Randomness(scenario.seed, 0xC1A57E)
        self.clock = Clock()
        self.network = Network(scenario, self.clock, self.rng)
        self.problem = Problem(scenario)
        self.injector = FaultInjector(self)
        self.processes: list[WorkerProcess] = []  # all processes that were ever started
        self.process_of: dict[bytes, WorkerProcess] = {}  # peer -> process
        self.alive_processes = 0
        self.pending_starts = 0  # processes that the launcher starts, or may restart
        self.leaders_ended = 0  # leaders whose program has run to its end
        self.go_on: Callable[[], bool] | None = None  # asked after every event; False ends the run
        self.checker = Checker(self) if check else None
        self.server_process = ServerProcess(self)
        self.shards_at_once = self._computes_at_once()
        self.slow_workers: set[int] = set()  # drawn at random, `slow_share` of all
        self.launcher = Launcher(self)
        self._start_workers()
        self.clock.call_later(REINFORCE_SECONDS, self._reinforce)

    @property
    def server(self) -> Server | None:
        """Return the server's machine; None while its process is down."""
        return self.server_process.server

    def run(self) -> None:
        """Run until every process has ended, or `go_on` returns False.

        Raises Violation if an invariant does not hold, or the run has not ended after `limit` seconds.

        NumPy's warnings are off: the checker looks at every number, and the figures of a study show a loss that is not
        finite. OpenBLAS 0.3.31 with AVX-512 also reads uninitialised memory in the product of a float32 matrix of 5
        columns and a vector: the result is right, and NumPy warns of an invalid value if the memory looks like one.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            self._run()

    def _computes_at_once(self) -> bool:
        """Return whether the shards of a lease can be computed in one event, which is 7 times fewer events with 8.

        Nothing happens between two shards, and each takes the same time.
        """
        scenario = self.scenario
        between = (*scenario.kills, *scenario.bad_shards, scenario.stop_at, scenario.leave_at)
        return self.checker is None and not scenario.compute_spread and not any(between)

    def _run(self) -> None:
        clock, checker = self.clock, self.checker
        while self.alive_processes or self.pending_starts or not self._is_over():
            if not clock.run_next() or clock.now > self.limit:
                raise Violation(self, f"the run has not ended after {clock.now:.0f} s")
            if self.go_on is not None and not self.go_on():
                return
            if checker is not None:
                checker.check_event()
            while self.injector.inject_next():
                if checker is not None:
                    checker.check_event()
        if checker is not None:
            checker.check_end()

    def _is_over(self) -> bool:
        """Return whether the run has ended or failed, so that it needs no more processes."""
        server = self.server
        ended = self.leaders_ended or self.server_process.failure or self.launcher.ended
        return bool(ended) or (server is not None and server.over)

    # The processes.

    def _start_workers(self) -> None:
        """Have the launcher start the server and its workers; start those without a launcher."""
        scenario = self.scenario
        count = round(scenario.slow_share * scenario.workers)
        self.slow_workers.update(self.rng.generator.permutation(scenario.workers)[:count].tolist())
        self.launcher.begin()
        for worker in range(scenario.workers - scenario.external, scenario.workers):
            self.start_first(worker, -1)

    def start_first(self, worker: int, number: int) -> None:
        """Start the first process of a worker of the scenario."""
        slowdown = dict(self.scenario.slow_workers).get(worker)
        if slowdown is None:
            slowdown = self.scenario.slow_factor if worker in self.slow_workers else 1.0
        delay = dict(self.scenario.late_joins).get(worker, 0.0)
        self.start_process(number, delay + self.rng.exponential(0.05), slowdown)

    def start_process(self, number: int, seconds: float, slowdown: float = 1.0) -> None:
        """Start a worker's process so many seconds from now; `number` is -1 for one without a launcher."""
        self.pending_starts += 1
        self.clock.call_later(seconds, self._start_now, number, slowdown)

    def _start_now(self, number: int, slowdown: float) -> None:
        self.pending_starts -= 1
        self.alive_processes += 1
        process = WorkerProcess(self, number, slowdown)
        self.processes.append(process)
        self.process_of[process.peer] = process
        self.injector.schedule_crash(process)
        process.start()

    def process_ended(self, process: WorkerProcess) -> None:
        """Close the connection of a process that has ended; its launcher sees the end a little later."""
        self.alive_processes -= 1
        closing_seconds = 0.0 if self.rng.bernoulli(0.5) else DEAD_SECONDS  # Its host may have died with it.
        process.closed_at = self.clock.now + closing_seconds
        if process.number >= 0:
            self.clock.call_later(self.rng.exponential(self.scenario.detection_seconds), self._launcher_sees, process)
            self.pending_starts += 1  # until the launcher has decided whether to restart it

    def _launcher_sees(self, process: WorkerProcess) -> None:
        self.pending_starts -= 1
        self.launcher.worker_ended(process)

    def _reinforce(self) -> None:
        """Start a worker if none is left: the server then waits until a worker joins, and here one always does."""
        server = self.server
        left = any(process.alive and process.in_block for process in self.processes)
        if server is not None and not server.over and not left and not self.pending_starts:
            self.start_process(-1, 0.0)
        self.clock.call_later(REINFORCE_SECONDS, self._reinforce)

    # What processes ask of their cluster.

    def compute_seconds(self, process: WorkerProcess) -> float:
        """Draw the time that a process takes to compute a shard or an evaluation."""
        scenario = self.scenario
        seconds = scenario.compute_seconds * scenario.local_steps * process.slowdown
        if not scenario.compute_spread:
            return seconds
        return seconds * max(0.1, 1.0 + scenario.compute_spread * self.rng.normal())

    def draw_seconds(self, mean: float) -> float:
        """Draw a time with this mean; in a study, whose figures are means, return the mean."""
        return mean if self.checker is None else self.rng.exponential(mean)

    def send_up(self, process: WorkerProcess, message: FromWorker) -> None:
        """Send a message from a worker to the server."""
        if self.clock.now < process.cut_until:
            self.network.counts["messages lost"] += 1
            return
        incarnation = process.worker.incarnation
        self.network.send("up", process.peer, message, self.server_process.receive, process.peer, incarnation)

    def send_down(self, peer: bytes, message: FromServer) -> bool:
        """Send a message to a worker; return False if the server knows that the connection is closed.

        True does not say that the message arrives.
        """
        process = self.process_of.get(peer)
        now = self.clock.now
        if process is None or now >= process.closed_at:
            return False
        if now < process.cut_until:
            self.network.counts["messages lost"] += 1
            return not (process.cut_noticed and now >= process.cut_since + DEAD_SECONDS)
        if not self.scenario.signs_of_life and isinstance(message, Waiting) and not message.reason:
            process.worker.heard = now  # all that the message does, without an event for it
            return True
        incarnation = self.server_process.incarnation
        self.network.send("down", peer, message, process.run_event, process.deliver, incarnation)
        return True


def check_many(seeds: Iterable[int]) -> tuple[int, Counter[str]]:
    """Run the scenarios with these seeds, checking every invariant after every event.

    Returns how many events there were, and how many faults of each kind. Raises Violation for the first invariant that
    does not hold, SettingError for a seed that no run can have.
    """
    events, faults = 0, Counter[str]()
    for seed in seeds:
        cluster = Cluster(draw_scenario(seed))
        cluster.run()
        events += cluster.clock.events
        faults += cluster.injector.counts
    return events, faults
