"""The description of a simulated run: its sizes, its network, its faults. One scenario is one history.

`draw_scenario` makes a small scenario full of faults from a seed; `karp simulate` makes a large one from its options.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

from karp import optim
from karp.checks import whole
from karp.data import Plan
from karp.limits import SEEDS
from karp.protocol.best import MODES, TIES
from karp.protocol.tree import is_node
from karp.simulate.randomness import Randomness

# The points at which a worker's process can be killed, in the order in which a run passes them.
POINTS = (
    "joining",  # Join is sent.
    "initial",  # The server has asked for the weights, and they are not sent.
    "lease",  # A lease has arrived, and none of its shards is computed.
    "computing",  # One shard of the lease is computed, others are not.
    "sending",  # The contribution is being sent, and is lost.
    "sent",  # The contribution is sent, and the reply has not arrived.
    "evaluating",  # An evaluation has arrived, and is not computed.
    "scored",  # The score is sent, and the reply has not arrived.
    "finish",  # The worker knows that the run is over, and is still in its `with` block.
    "left",  # The worker has left its `with` block, and the leader's code after it has not run.
    "done",  # The leader's code after the block has run, and the server does not know.
)


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a worker's process the first time it passes one of POINTS at this step or a later one.

    `worker` -1 stands for the first process that passes.
    """

    point: str
    worker: int = -1
    step: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Inject a fault of one of these kinds when the run has had `event` events.

    kill      The worker's process dies.
    pause     The worker's process stands still for `seconds`.
    cut       No message passes between the worker and the server for `seconds`; the server sees the connection close
              if `noticed`.
    leave     The worker is interrupted (Ctrl-C) and leaves.
    come      One more worker joins that no launcher has started.
    scale     The launcher is asked for `workers` workers.
    server    The server dies, and is restarted after `seconds` from the checkpoint `back` places before the newest.
    corrupt   A malformed message arrives from the worker; `variant` says which.
    stranger  A malformed message arrives from a peer that has never joined; `variant` says which.
    """

    kind: str
    event: int
    worker: int = 0
    seconds: float = 1.0
    noticed: bool = True
    back: int = 0
    variant: int = 0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class BadShard:
    """Make the program fail at one shard, the first `times` times that it is computed (ALWAYS: every time).

    `kind` is 'nan' or 'inf' for a gradient that is not finite, 'loss' for such a loss, 'raise' for an exception.
    """

    kind: str
    step: int
    shard: int
    times: int = 1


ALWAYS = 1 << 30


@dataclass(frozen=True, slots=True)
class Scenario:
    """Describe one simulated run. Times are in seconds of the virtual clock."""

    seed: int = 0
    workers: int = 4
    shards: int = 4
    samples: int = 24
    batch_size: int = 8
    epochs: int = 2
    width: int = 5  # parameters of the model
    optimizer: optim.Optimizer = field(default_factory=lambda: optim.SGD(lr=0.05))
    evaluate: bool = False
    wait_for_score: bool = False  # The next epoch waits for the score of the last.
    keep_best: str | None = None  # the score, one of SCORES, of which the best epoch is kept
    mode: str = "max"
    ties: str = "last"
    skip: bool = False  # as --on-nonfinite skip
    staleness: int | None = 0  # the bound; None: asynchronous
    backups: bool = True  # whether leases that are overdue get backups
    local_steps: int = 1  # global batches of a step; `compute_seconds` are those of a shard of one of them
    stop_at: tuple[int, int] | None = None  # (step, shard) at which the program calls trainer.stop()
    leave_at: tuple[int, int] | None = None  # (step, shard) after which the program leaves its loop
    compute_seconds: float = 0.05  # for a shard, on average
    compute_spread: float = 0.1  # standard deviation, as a share of the average
    slow_workers: tuple[tuple[int, float], ...] = ()  # (worker, factor by which its computations take longer)
    slow_share: float = 0.0  # share of all workers, drawn at random, that are slower by `slow_factor`
    slow_factor: float = 10.0
    latency: float = 0.002  # a message's average time one way; half of it is constant
    signs_of_life: bool = True  # What only says that the server lives is a message, and no note of the worker's.
    in_order: bool = True  # Messages between two peers do not overtake each other.
    loss_rate: float = 0.0  # share of messages that are lost
    duplicate_rate: float = 0.0  # share of messages that arrive twice
    crash_rate: float = 0.0  # crashes per second of each worker
    faults_until: float = 20.0  # Afterwards no message is lost or duplicated and no worker crashes.
    late_joins: tuple[tuple[int, float], ...] = ()  # (worker, seconds that it starts after the others)
    save_seconds: float = 0.2  # between two checkpoints
    write_seconds: float = 0.05  # until a checkpoint is on the disk, on average
    restarts: int = 3  # the most restarts of a worker by the launcher
    restart_seconds: float = 0.3  # until a process that is started again joins, on average
    detection_seconds: float = 0.5  # until the launcher sees that a process has ended, on average
    shared: bool = False  # Server and workers are on one host and share memory, in which steps end in ranges.
    ending_seconds: float = 0.0005  # that a worker takes to end a step there, on average
    waking_seconds: float = 0.0002  # until a worker that waits there sees that, on average
    message_seconds: float = 0.0  # that a message takes the server, which handles one at a time
    adding_seconds: float = 0.0  # that adding a gradient takes the server
    update_seconds: float = 0.0  # that updating the weights takes the server
    external: int = 0  # workers that no launcher has started: nobody sees them end or restarts them
    kills: tuple[Kill, ...] = ()
    faults: tuple[Fault, ...] = ()  # in the order of their events
    bad_shards: tuple[BadShard, ...] = ()

    def plan(self) -> Plan:
        """Return the sampling plan of the run."""
        return Plan(self.samples, self.batch_size, self.shards, self.seed)

    @property
    def steps(self) -> int:
        """Return the number of steps of all epochs."""
        return self.plan().steps_per_epoch * self.epochs


OPTIMIZERS: tuple[optim.Optimizer, ...] = (
    optim.SGD(lr=0.05),
    optim.SGD(lr=0.05, momentum=0.9),
    optim.Adam(lr=0.05),
)
FAULT_KINDS = ("kill", "pause", "cut", "leave", "come", "server", "corrupt", "stranger")
SCORES = ("loss", "rank")  # of an epoch's evaluation: of its weights, and a number with ties and some that are none
RANGE_POINTS = (
    "arriving",  # The gradient is in the seat, and the worker has not said so.
    "arrived",  # It has.
    "ending",  # It holds the lock, and half of the next weights are written.
    "ended",  # The step has ended, and no other worker knows.
)
EVENTS = 250  # A small run has about this many.


def draw_scenario(seed: int) -> Scenario:
    """Return the small scenario with this seed, with a handful of faults of any kind.

    Raises SettingError for a seed that is not from 0 to 2**63 - 1.
    """
    check_seed(seed)
    rng = Randomness(seed, 0x5C4ED)
    scenario = _with_best_epoch(_with_program_failure(_with_faults(_draw_cluster(seed, rng), rng), rng), rng)
    return _with_scaling(_with_shared_memory(scenario, Randomness(seed, 0x5A4ED)), Randomness(seed, 0x5CA1E))


def check_seed(seed: int) -> None:
    """Raise SettingError for a seed that no run can have."""
    whole("--seed", seed, 0, SEEDS - 1)


# The order in which these four draw is part of what a seed means: a draw that is moved changes every scenario.


def _draw_cluster(seed: int, rng: Randomness) -> Scenario:
    """Return a scenario with random sizes, times and network, without faults of workers or the server."""
    batch_size = 1 + rng.integer(12)
    workers = 1 + rng.integer(6)
    return Scenario(
        seed=seed,
        workers=workers,
        shards=1 + rng.integer(9),
        samples=batch_size + rng.integer(2 * batch_size + 1),
        batch_size=batch_size,
        epochs=1 + rng.integer(3),
        optimizer=rng.choice(OPTIMIZERS),
        evaluate=rng.bernoulli(0.5),
        compute_seconds=rng.choice((0.01, 0.05, 0.5)),
        compute_spread=rng.uniform(0.0, 0.5),
        latency=rng.choice((0.0005, 0.01, 0.1)),
        in_order=rng.bernoulli(0.5),
        loss_rate=rng.choice((0.0, 0.02, 0.15)),
        duplicate_rate=rng.choice((0.0, 0.02, 0.15)),
        save_seconds=rng.choice((0.0, 0.2, 1.0)),
        write_seconds=rng.choice((0.0, 0.05, 0.5)),
        external=rng.integer(workers + 1) if rng.bernoulli(0.3) else 0,
        staleness=rng.choice((0, 0, 0, 1, 3, None)),
    )


def _with_faults(scenario: Scenario, rng: Randomness) -> Scenario:
    """Return the scenario with slow and late workers, kills and faults added at random."""
    workers = scenario.workers
    return replace(
        scenario,
        wait_for_score=scenario.evaluate and rng.bernoulli(0.3),
        skip=rng.bernoulli(0.3),
        slow_workers=tuple((rng.integer(workers), 2.0 + 18.0 * rng.random()) for _ in range(rng.integer(2))),
        late_joins=tuple((rng.integer(workers), rng.uniform(0.0, 5.0)) for _ in range(rng.integer(3))),
        kills=tuple(_draw_kill(scenario, rng) for _ in range(rng.integer(3))),
        faults=tuple(sorted((_draw_fault(workers, rng) for _ in range(rng.integer(6))), key=lambda fault: fault.event)),
    )


def _draw_kill(scenario: Scenario, rng: Randomness) -> Kill:
    worker = rng.integer(scenario.workers) if rng.bernoulli(0.5) else -1
    return Kill(rng.choice(POINTS), worker, rng.integer(scenario.steps))


def _draw_fault(workers: int, rng: Randomness) -> Fault:
    kind, event, worker = rng.choice(FAULT_KINDS), rng.integer(EVENTS), rng.integer(workers)
    seconds, noticed, number = rng.exponential(3.0), rng.bernoulli(0.5), rng.integer(3)
    return Fault(kind, event, worker, seconds, noticed, back=number, variant=number)


def _with_program_failure(scenario: Scenario, rng: Randomness) -> Scenario:
    """Return the scenario, in four of ten cases with a program that stops, leaves or fails at a random shard."""
    step = rng.integer(scenario.steps)
    place = step, rng.integer(scenario.plan().shards_of(step))
    match rng.integer(10):
        case 0:
            return replace(scenario, stop_at=place)
        case 1:
            return replace(scenario, leave_at=place)
        case 2 | 3:
            kind, always = rng.choice(("nan", "inf", "loss", "raise")), rng.bernoulli(0.4)
            return replace(scenario, bad_shards=(BadShard(kind, *place, ALWAYS if always else 1),))
    return scenario


def _with_shared_memory(scenario: Scenario, rng: Randomness) -> Scenario:
    """Return the scenario, in four of ten cases with memory that is shared, more steps and faults within ranges."""
    if not rng.bernoulli(0.4):
        return scenario
    fitting = [workers for workers in range(1, 7) if _has_ranges(workers, scenario.shards)]
    workers = rng.choice(fitting)
    longer = replace(
        scenario,
        shared=True,
        staleness=0,
        workers=workers,
        external=min(scenario.external, workers),
        samples=scenario.samples * (2 + rng.integer(6)),
        evaluate=scenario.evaluate and (scenario.wait_for_score or bool(scenario.keep_best) or rng.bernoulli(0.5)),
        compute_seconds=rng.choice((0.001, 0.01, 0.05)),
        latency=rng.choice((0.0005, 0.002, 0.01)),
        loss_rate=rng.choice((0.0, 0.0, 0.02)),
        save_seconds=rng.choice((0.2, 1.0, 10.0)),
        ending_seconds=rng.choice((0.0005, 0.01, 0.1)),
    )
    kills = [Kill(rng.choice(RANGE_POINTS), -1, rng.integer(longer.steps)) for _ in range(rng.integer(4))]
    pauses = [_draw_pause(workers, rng) for _ in range(rng.integer(4))]
    faults = sorted([*longer.faults, *pauses], key=lambda fault: fault.event)
    return replace(
        longer,
        kills=longer.kills + tuple(kills),
        faults=tuple(faults),
        stop_at=longer.stop_at and _existing(longer, *longer.stop_at),
        leave_at=longer.leave_at and _existing(longer, *longer.leave_at),
        bad_shards=tuple(replace(bad, shard=_existing(longer, bad.step, bad.shard)[1]) for bad in longer.bad_shards),
    )


def _with_scaling(scenario: Scenario, rng: Randomness) -> Scenario:
    """Return the scenario, in three of ten cases with other numbers of workers that are asked for as it goes on."""
    if not rng.bernoulli(0.3):
        return scenario
    scales = [Fault("scale", rng.integer(2 * EVENTS), workers=1 + rng.integer(8)) for _ in range(1 + rng.integer(3))]
    faults = sorted([*scenario.faults, *scales], key=lambda fault: fault.event)
    return replace(scenario, faults=tuple(faults))


def _existing(scenario: Scenario, step: int, shard: int) -> tuple[int, int]:
    """Return a (step, shard) of the scenario: this one, or the last shard of the step."""
    return step, min(shard, scenario.plan().shards_of(step) - 1)


def _draw_pause(workers: int, rng: Randomness) -> Fault:
    return Fault("pause", rng.integer(4 * EVENTS), rng.integer(workers), rng.exponential(1.0))


def _has_ranges(workers: int, shards: int) -> bool:
    """Return whether so many workers of the same speed get leases that are nodes of the tree."""
    size, more = divmod(shards, workers)
    bounds = [worker * size + min(worker, more) for worker in range(workers + 1)]
    return all(is_node(start, stop, shards) for start, stop in pairwise(bounds) if start < stop)


def _with_best_epoch(scenario: Scenario, rng: Randomness) -> Scenario:
    """Return the scenario, in half of those that evaluate with more epochs, of which the best is kept."""
    if not (scenario.evaluate and rng.bernoulli(0.5)):
        return scenario
    epochs, keep_best = scenario.epochs + rng.integer(3), rng.choice(SCORES)
    return replace(scenario, epochs=epochs, keep_best=keep_best, mode=rng.choice(MODES), ties=rng.choice(TIES))
