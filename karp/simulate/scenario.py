"""What happens in one simulated run: its size, its network, its faults. A schedule and its seed say all of it."""

from dataclasses import dataclass, field, replace

from karp import optim
from karp.simulate.randomness import Chance

# Where a worker's process can be made to die, in the order in which a run passes them.
POINTS = (
    "joining",  # Join is sent
    "initial",  # it is asked for the weights, and has not sent them
    "lease",  # a lease has come, nothing of it is computed
    "computing",  # one shard of it is computed, others are not
    "sending",  # half-way through sending: the contribution is lost
    "sent",  # the contribution is sent, the reply has not come
    "evaluating",  # an evaluation has come and is not computed
    "scored",  # its score is sent, the reply has not come
    "finish",  # it knows that the run is over, and has not left its `with`
    "left",  # it has left, and what the main worker does then is not done
    "done",  # that is done, but not said
)


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker's process dies at one of POINTS, the first time it passes it at this step or later.

    `worker` -1: whichever passes first. `external` workers have no launcher that sees them end.
    """

    point: str
    worker: int = -1
    step: int = 0


@dataclass(frozen=True, slots=True)
class Strike:
    """After so many events of the run: one of the kinds below befalls a worker or the server.

    kill      the process of the worker is gone
    pause     it stands still for `seconds`
    cut       nothing passes between it and the server for `seconds`; `noticed`: the server learns of it
    leave     Ctrl-C: it takes part no longer
    come      one more worker joins, from elsewhere
    server    the server dies and is started again after `seconds`, from its snapshot number `back` before the newest
    corrupt   a message that cannot be right comes from the worker; `back` says which
    stranger  such a message comes from nobody known
    """

    kind: str
    event: int
    worker: int = 0
    seconds: float = 1.0
    noticed: bool = True
    back: int = 0


@dataclass(frozen=True, slots=True)
class Bad:
    """The program fails at this shard, the first `times` that it is computed (ALWAYS: every time).

    kind: 'nan' and 'inf' for the gradient, 'loss' for the loss, 'raise' for an exception.
    """

    kind: str
    step: int
    shard: int
    times: int = 1


ALWAYS = 1 << 30


@dataclass(frozen=True, slots=True)
class Schedule:
    """One simulated run. Times are seconds of the virtual clock."""

    seed: int = 0
    workers: int = 4
    shards: int = 4
    samples: int = 24
    batch_size: int = 8
    epochs: int = 2
    width: int = 5  # numbers in the model
    optimizer: optim.Optimizer = field(default_factory=lambda: optim.SGD(lr=0.05))
    evaluate: bool = False
    steering: bool = False
    skip: bool = False  # as --on-nonfinite skip
    staleness: int | None = 0  # the bound; None: asynchronous
    stop_at: tuple[int, int] | None = None  # (step, shard) at which the program calls trainer.stop()
    leave_at: tuple[int, int] | None = None  # (step, shard) after which it leaves its loop
    compute: float = 0.05  # for a shard
    spread: float = 0.1  # of that, as a share of it
    slow: tuple[tuple[int, float], ...] = ()  # (worker, times as long)
    slow_share: float = 0.0  # of all workers, chosen by chance; `slow_factor` times as long
    slow_factor: float = 10.0
    latency: float = 0.002  # of a message one way, on average; half of it is certain
    in_order: bool = True  # messages between two ends do not overtake each other
    loss: float = 0.0  # share of messages
    duplicate: float = 0.0
    calm: float = 20.0  # after this time messages are neither lost nor doubled
    crash: float = 0.0  # crashes of a worker per second and worker, until `calm`
    joined_late: tuple[tuple[int, float], ...] = ()  # (worker, seconds after the others)
    save_seconds: float = 0.2
    save_takes: float = 0.05  # until a checkpoint is on the disk
    restarts: int = 3  # of a worker, by the launcher
    seen_after: float = 0.5  # the launcher sees a process end, on average
    external: int = 0  # how many of the workers no launcher has started
    kills: tuple[Kill, ...] = ()
    strikes: tuple[Strike, ...] = ()
    bad: tuple[Bad, ...] = ()

    @property
    def steps(self) -> int:
        return -(-self.samples // self.batch_size) * self.epochs

    def shards_of(self, step: int) -> int:
        """Shards that exist in a step: fewer where its batch has fewer samples."""
        first = step % (self.steps // self.epochs) * self.batch_size
        return min(self.shards, self.batch_size, self.samples - first)


OPTIMIZERS: tuple[optim.Optimizer, ...] = (
    optim.SGD(lr=0.05),
    optim.SGD(lr=0.05, momentum=0.9),
    optim.Adam(lr=0.05),
)
STRIKES = ("kill", "pause", "cut", "leave", "come", "server", "corrupt", "stranger")
EVENTS = 250  # a small run has about so many


def draw(seed: int) -> Schedule:
    """The schedule with this number: a small run, with a handful of faults of any kind."""
    chance = Chance(seed, 0x5C4ED)
    batch_size = 1 + chance.below(12)
    workers = 1 + chance.below(6)
    schedule = Schedule(
        seed=seed,
        workers=workers,
        shards=1 + chance.below(9),
        samples=batch_size + chance.below(2 * batch_size + 1),
        batch_size=batch_size,
        epochs=1 + chance.below(3),
        optimizer=OPTIMIZERS[chance.below(len(OPTIMIZERS))],
        evaluate=chance.happens(0.5),
        compute=(0.01, 0.05, 0.5)[chance.below(3)],
        spread=chance.between(0.0, 0.5),
        latency=(0.0005, 0.01, 0.1)[chance.below(3)],
        in_order=chance.happens(0.5),
        loss=(0.0, 0.02, 0.15)[chance.below(3)],
        duplicate=(0.0, 0.02, 0.15)[chance.below(3)],
        save_seconds=(0.0, 0.2, 1.0)[chance.below(3)],
        save_takes=(0.0, 0.05, 0.5)[chance.below(3)],
        external=chance.below(workers + 1) if chance.happens(0.3) else 0,
        staleness=(0, 0, 0, 1, 3, None)[chance.below(6)],
    )
    schedule = replace(
        schedule,
        steering=schedule.evaluate and chance.happens(0.3),
        skip=chance.happens(0.3),
        slow=tuple((chance.below(workers), 2.0 + 18.0 * chance.uniform()) for _ in range(chance.below(2))),
        joined_late=tuple((chance.below(workers), chance.between(0.0, 5.0)) for _ in range(chance.below(3))),
        kills=tuple(draw_kill(schedule, chance) for _ in range(chance.below(3))),
        strikes=tuple(sorted((draw_strike(schedule, chance) for _ in range(chance.below(6))), key=lambda it: it.event)),
    )
    step = chance.below(schedule.steps)
    place = step, chance.below(schedule.shards_of(step))
    match chance.below(10):
        case 0:
            return replace(schedule, stop_at=place)
        case 1:
            return replace(schedule, leave_at=place)
        case 2 | 3:
            kind, often = ("nan", "inf", "loss", "raise")[chance.below(4)], chance.happens(0.4)
            return replace(schedule, bad=(Bad(kind, *place, ALWAYS if often else 1),))
    return schedule


def draw_kill(schedule: Schedule, chance: Chance) -> Kill:
    worker = chance.below(schedule.workers) if chance.happens(0.5) else -1
    return Kill(POINTS[chance.below(len(POINTS))], worker, chance.below(schedule.steps))


def draw_strike(schedule: Schedule, chance: Chance) -> Strike:
    return Strike(
        STRIKES[chance.below(len(STRIKES))],
        chance.below(EVENTS),
        chance.below(schedule.workers),
        chance.exponential(3.0),
        chance.happens(0.5),
        chance.below(3),
    )
