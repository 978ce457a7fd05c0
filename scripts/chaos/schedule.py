"""What is done to a run: a pure function of a seed.

Every kind of fault is a card of a deck. A round deals the whole deck, shuffled, three cards to a schedule: the twelve
schedules of a round hold every kind; up to two more are drawn at random. A fault is either named in KARP_FAULT and
strikes at a point of the code (karp/faults.py), or comes from outside when the run has passed a step: a signal to the
launcher, the server or a worker, or a worker that joins.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

BEFORE_SENDING = ["join", "waiting", "leased", "computing"]
WORKER_DEATHS = [*BEFORE_SENDING, "half-sent", "sent", "answered", "evaluation", "left", "done"]
SERVER_DEATHS = ["received", "applied", "replied", "writing", "written", "renamed"]
NAMED = (
    [f"worker dies {point}" for point in WORKER_DEATHS]
    + ["worker raises computing", "worker raises evaluation", "worker pauses leased"]
    + ["worker delays leased", "worker delays sent"]
    + [f"server dies {point}" for point in SERVER_DEATHS]
    + ["server raises received", "server pauses applied", "server delays replied", "disk full writing"]
)
OUTSIDE = [
    "kill worker",
    "kill server",
    "kill launcher, resume",
    "interrupt, resume",
    "interrupt twice, resume",
    "terminate, resume",
    "join",
    "join, leave",
    "stop worker",
    "stop server",
    "stop launcher",
]
KINDS = NAMED + OUTSIDE
ENDS_LAUNCH = {"kill launcher, resume", "interrupt, resume", "interrupt twice, resume", "terminate, resume"}
CARDS = 3  # of a deck, to each schedule
HANDS = -(-len(KINDS) // CARDS)  # schedules of a round
NO_STEP = {"join", "left", "done"}  # points that belong to no step
ACTIONS = {"dies": "die", "raises": "raise", "pauses": "pause", "delays": "delay", "full": "full"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is done, at `step` or later: `plan` for KARP_FAULT, or from outside."""

    kind: str
    step: int
    plan: str = ""
    seconds: float = 0.0  # how long what is stopped stays so; after the step, from outside
    workers: int = 0  # to resume with
    choice: float = 0.0  # which of those that are there, from 0 to 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run and what is done to it."""

    seed: int
    optimizer: str
    workers: int
    checkpoint_every: float
    keep: int
    exchange: str  # with the workers on this host
    faults: list[Fault] = field(default_factory=list)

    @property
    def plan(self) -> str:
        """The value of KARP_FAULT, '' for none."""
        return "; ".join(fault.plan for fault in self.faults if fault.plan)


def draw(seed: int, steps: int) -> Schedule:
    """The schedule of a seed, for a run of so many steps.

    >>> rounds = [kind.kind for seed in range(HANDS) for kind in draw(seed, 200).faults]
    >>> set(rounds) == set(KINDS), draw(7, 200) == draw(7, 200)
    (True, True)
    """
    deck = KINDS.copy()
    random.Random(f"deck {seed // HANDS}").shuffle(deck)
    hand = seed % HANDS
    kinds = deck[hand * CARDS : (hand + 1) * CARDS]
    chance = random.Random(f"schedule {seed}")
    kinds += chance.choices(KINDS, k=chance.randrange(3))
    workers = chance.randint(1, 4)
    faults = [fault(kind, chance, workers, steps) for kind in kinds]
    faults.sort(key=lambda one: one.step)
    optimizer, every, keep = chance.choice(["sgd", "adam"]), chance.choice([0, 0.02, 0.1]), chance.choice([1, 2, 5])
    return Schedule(seed, optimizer, workers, every, keep, chance.choice(["auto", "zeromq"]), faults)


def fault(kind: str, chance: random.Random, workers: int, steps: int) -> Fault:
    """One fault of a kind, at a step of the run's first four fifths."""
    step = chance.randrange(1, steps * 4 // 5)
    seconds = round(chance.choice([0.1, 0.5, 2.0, 7.0]) if chance.random() < 0.3 else chance.uniform(0.1, 1.0), 2)
    if kind in NAMED:
        return Fault(kind, step, plan=plan(kind, step, chance, workers), seconds=seconds)
    if kind.startswith("stop "):
        return Fault(kind, step, seconds=seconds, choice=chance.random())
    return Fault(kind, step, seconds=chance.uniform(0, 0.05), workers=chance.randint(1, 5), choice=chance.random())


def plan(kind: str, step: int, chance: random.Random, workers: int) -> str:
    """A kind as KARP_FAULT names it: 'worker 2: die computing step 41'."""
    who, verb, point = ("server", "full", "writing") if kind == "disk full writing" else kind.split()
    if who == "worker" and point not in ("evaluation", *NO_STEP) and chance.random() < 0.7:
        who = f"worker {chance.randrange(workers)}"
    action = ACTIONS[verb] + (f" {chance.uniform(0.05, 0.8):.2f}" if verb == "delays" else "")
    where = point if point in NO_STEP else f"{point} step {step}"
    return f"{who}: {action} {where}" + (f" time {chance.randint(1, 4)}" if point in ("received", "replied") else "")
