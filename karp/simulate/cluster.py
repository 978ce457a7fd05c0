"""A whole simulated run: server, workers, network, launcher and whatever befalls them."""

from collections import Counter
from collections.abc import Callable

from karp.protocol.messages import Contribution, FromServer, FromWorker, Initial
from karp.protocol.server.actions import Report
from karp.protocol.tree import Node
from karp.simulate.checker import Checker, Violation
from karp.simulate.network import Clock, Network
from karp.simulate.problem import Problem
from karp.simulate.randomness import Chance
from karp.simulate.scenario import Bad, Kill, Schedule, Strike
from karp.simulate.server_process import Host
from karp.simulate.worker_process import Process

DEAD_SECONDS = 6.0  # as in transport/zeromq.py: without a heartbeat for so long, a connection is gone
LIMIT_SECONDS = 900.0  # of the virtual clock; no small run takes so long, whatever happens to it
RESCUE_SECONDS = 30.0  # after which somebody starts a worker where none is left


class Cluster:
    """One run of a schedule; `run` returns when every process has ended.

    Args:
        schedule: what happens.
        check: whether all invariants are looked at after every event.
        limit: seconds of the virtual clock that the run may take.
    """

    def __init__(self, schedule: Schedule, check: bool = True, limit: float = LIMIT_SECONDS) -> None:
        self.schedule = schedule
        self.limit = limit
        self.chance = Chance(schedule.seed, 0xC1A57E)
        self.clock = Clock()
        self.network = Network(schedule, self.clock, self.chance)
        self.problem = Problem(schedule)
        self.processes: list[Process] = []
        self.peers: dict[bytes, Process] = {}
        self.living = 0
        self.kills: list[Kill] = list(schedule.kills)
        self.bad: dict[Bad, int] = {bad: bad.times for bad in schedule.bad}
        self.strikes: list[Strike] = list(schedule.strikes)
        self.happened: Counter[str] = Counter()
        self.restarts: Counter[int] = Counter()
        self.starting = 0  # processes that are announced
        self.spoken = 0  # main workers whose program has come to its end
        self.watch: Callable[[], bool] | None = None  # asked after every event whether to go on
        self.checker = Checker(self) if check else None
        self.host = Host(self)
        self._set_off()
        self.clock.after(RESCUE_SECONDS, self._rescue)

    def run(self) -> None:
        """Until every process has ended; raises Violation where an invariant does not hold."""
        clock, checker = self.clock, self.checker
        while self.living or self.starting or not self._over():
            if not clock.step() or clock.now > self.limit:
                raise Violation(self, f"the run has not ended after {clock.now:.0f} s")
            if self.watch is not None and not self.watch():
                return
            if checker is not None:
                checker.look()
            while self.strikes and self.strikes[0].event <= clock.events:
                self.strike(self.strikes.pop(0))
                if checker is not None:
                    checker.look()
        if checker is not None:
            checker.conclude()

    def _over(self) -> bool:
        """Whether nothing is left to do, with no process there."""
        server = self.host.server
        return bool(self.spoken or self.host.failed) or (server is not None and server.ending.over)

    def _set_off(self) -> None:
        late = dict(self.schedule.joined_late)
        some = round(self.schedule.slow_share * self.schedule.workers)
        self.slow = set(self.chance.generator.permutation(self.schedule.workers)[:some].tolist())
        for worker in range(self.schedule.workers):
            launched = worker < self.schedule.workers - self.schedule.external
            seconds = late.get(worker, 0.0) + self.chance.exponential(0.05)
            self.start_process(worker if launched else -1, seconds, self._pace_of(worker))

    def _pace_of(self, worker: int) -> float:
        return dict(self.schedule.slow).get(worker, self.schedule.slow_factor if worker in self.slow else 1.0)

    # Processes.

    def start_process(self, number: int, seconds: float, pace: float = 1.0) -> None:
        self.starting += 1
        self.clock.after(seconds, self._start, number, pace)

    def _start(self, number: int, pace: float) -> None:
        self.starting -= 1
        self.living += 1
        process = Process(self, number, pace)
        self.processes.append(process)
        self.peers[process.peer] = process
        if self.schedule.crash:
            self.clock.after(self.chance.exponential(1.0 / self.schedule.crash), self._crash, process)
        process.start()

    def _crash(self, process: Process) -> None:
        if self.clock.now < self.schedule.calm and process.alive and not process.left:
            self.happened["crash"] += 1
            process.end(-9)

    def process_ended(self, process: Process) -> None:
        """As the launcher: tell the server, start it again where that may help."""
        self.living -= 1
        launched = process.number >= 0
        quiet = 0.0 if self.chance.happens(0.5) else DEAD_SECONDS  # its host may be gone with it
        process.closed_at = self.clock.now + quiet
        if launched:
            self.clock.after(self.chance.exponential(self.schedule.seen_after), self._see_end, process)
            self.starting += 1  # as long as it is not known whether it is started again

    def _see_end(self, process: Process) -> None:
        self.starting -= 1
        self.host.ended(process.number, process.status == 0)
        done = process.left or process.status in (0, 130) or self.host.failed
        if not done and self.restarts[process.number] < self.schedule.restarts:
            self.restarts[process.number] += 1
            self.start_process(process.number, self.chance.exponential(0.3), process.pace)

    def _rescue(self) -> None:
        """A run without workers that can compute says so and waits for one; here one always comes."""
        server = self.host.server
        able = any(process.alive and process.in_loop for process in self.processes)
        if server is not None and not server.ending.over and not able and not self.starting:
            self.start_process(-1, 0.0)
        self.clock.after(RESCUE_SECONDS, self._rescue)

    def give_up(self) -> None:
        """The launcher ends what is left of a run that has failed."""
        for process in self.processes:
            process.end(-15)

    def compute_seconds(self, process: Process) -> float:
        schedule = self.schedule
        if not schedule.spread:
            return schedule.compute * process.pace
        return schedule.compute * process.pace * max(0.1, 1.0 + schedule.spread * self.chance.normal())

    # Messages.

    def send_up(self, process: Process, message: FromWorker) -> None:
        if self.clock.now < process.cut_until:
            self._cut(process)
            return
        incarnation = process.worker.incarnation
        self.network.send("up", process.peer, message, self.host.receive, process.peer, incarnation)

    def send_down(self, peer: bytes, message: FromServer) -> bool:
        """Send to a worker; False if its connection is known to be gone."""
        process = self.peers.get(peer)
        now = self.clock.now
        if process is None or now >= process.closed_at:
            return False
        if now < process.cut_until:
            self._cut(process)
            return not (process.cut_noticed and now >= process.cut_since + DEAD_SECONDS)
        incarnation = self.host.incarnation
        self.network.send("down", peer, message, process.happen, process.deliver, incarnation)
        return True

    def _cut(self, process: Process) -> None:
        self.network.counts["messages lost"] += 1

    def reported(self, report: Report) -> None:
        """A report of the server."""
        if report.kind == "failure":
            self.host.failed = self.host.failed or report.values["failure"]

    # What befalls them.

    def killed_at(self, process: Process, point: str, step: int | None) -> bool:
        server = self.host.server
        at = step if step is not None else 0 if server is None else server.training.version
        for kill in self.kills:
            if kill.point == point and kill.worker in (-1, process.number, process.worker.number) and at >= kill.step:
                self.kills.remove(kill)
                self.happened[point] += 1
                process.end(-9)
                return True
        return False

    def bad_at(self, step: int, shard: int) -> Bad | None:
        """What goes wrong with a computation of this shard."""
        for bad, times in self.bad.items():
            if (bad.step, bad.shard) == (step, shard) and times:
                self.bad[bad] = times - 1
                self.happened[bad.kind] += 1
                return bad
        return None

    def strike(self, strike: Strike) -> None:
        """One thing that befalls a worker or the server."""
        alive = [process for process in self.processes if process.alive]
        if strike.kind == "server":
            self.host.die(strike.seconds, strike.back)
        elif strike.kind == "come":
            self.happened["come"] += 1
            self.start_process(-1, 0.0)
        elif strike.kind == "stranger":
            self._corrupt(b"nobody", strike.back)
        elif alive:
            self._strike_worker(alive[strike.worker % len(alive)], strike)

    def _strike_worker(self, process: Process, strike: Strike) -> None:
        now = self.clock.now
        self.happened[strike.kind] += 1
        match strike.kind:
            case "kill":
                process.end(-9)
            case "pause":
                process.paused_until = max(process.paused_until, now + strike.seconds)
            case "cut":
                process.cut_since, process.cut_until = now, now + strike.seconds
                process.cut_noticed = strike.noticed
            case "leave":
                process.interrupt()
            case "corrupt":
                self._corrupt(process.peer, strike.back)

    def _corrupt(self, peer: bytes, which: int) -> None:
        """A message arrives that cannot be right."""
        server = self.host.server
        if server is None:
            return
        if which == 0 or server.training.updater is None:
            self.host.malformed(peer)
            return
        message = damaged(which, server.training.version, self.problem.plan.shards, self.problem)
        self.host.receive(peer, server.incarnation, message)


def damaged(which: int, version: int, shards: int, problem: Problem) -> FromWorker:
    """A contribution, or weights, that no worker sends."""
    vector = problem.layout.zeros() + 1
    kinds: list[FromWorker] = [
        Contribution(version, version, [Node(0, 1, 0.0, vector[1:])], [], False),  # another shape
        Contribution(version, version, [Node(0, 1, 0.0, vector.astype(float))], [], False),  # another type
        Contribution(version, version + 1, [Node(0, 1, 0.0, vector)], [], False),  # weights there are not
        Contribution(version, version, [Node(0, 1, 0.0, vector), Node(shards, shards + 1, 0.0, vector)], [], False),
        Contribution(version, version, [Node(1, 1 + 2 * shards, 0.0, vector)], [], False),  # no node of the tree
        Initial(vector * 7),  # weights that are not those of the run
        Initial(vector[1:]),
    ]
    return kinds[(which - 1) % len(kinds)]
