"""The scenario of a real run: its settings and its faults, a pure function of a seed.

Every kind of fault is a card of a deck. A round deals the whole deck, shuffled, three cards to a scenario: its
seventeen scenarios hold every kind; up to two more are drawn at random. A fault is either named in KARP_FAULT and
happens at a point of the code (karp/faults.py), or comes from outside when the run has passed a step: a signal to the
launcher, the server or a worker, or a worker that joins.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

BEFORE_SENDING = ["join", "waiting", "leased", "computing"]
WORKER_DEATHS = [*BEFORE_SENDING, "half-sent", "sent", "answered", "evaluation", "left", "done"]
IN_RANGES = ["arriving", "arrived", "ending", "half-ended", "updated", "ended"]
SERVER_DEATHS = ["received", "applied", "replied", "writing", "written", "renamed", "closing", "closed"]
NAMED = (
    [f"worker dies {point}" for point in WORKER_DEATHS + IN_RANGES]
    + [f"worker pauses {point}" for point in IN_RANGES]
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
CARDS = 3  # of a deck, to each scenario
HANDS = -(-len(KINDS) // CARDS)  # scenarios of a round
NO_STEP = {"join", "left", "done"}  # points that belong to no step
ACTIONS = {"dies": "die", "raises": "raise", "pauses": "pause", "delays": "delay", "full": "full"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Inject a fault at this step or later, by KARP_FAULT if there is a `plan`, else from outside."""

    kind: str
    step: int
    plan: str = ""
    seconds: float = 0.0  # that a process stays stopped; for other faults from outside, the delay after the step
    workers: int = 0  # to resume with
    choice: float = 0.0  # from 0 to 1: which of the processes that live


@dataclass(frozen=True, slots=True)
class Scenario:
    """Describe a run and its faults."""

    seed: int
    optimizer: str
    workers: int
    checkpoint_every: float
    keep: int
    exchange: str  # with the workers on this host
    faults: list[Fault] = field(default_factory=list)

    @property
    def plan(self) -> str:
        """Return the value of KARP_FAULT, '' for none."""
        return "; ".join(fault.plan for fault in self.faults if fault.plan)


def draw_scenario(seed: int, steps: int) -> Scenario:
    """Return the scenario with this seed, for a run of so many steps.

    >>> kinds = {fault.kind for seed in range(HANDS) for fault in draw_scenario(seed, 200).faults}
    >>> kinds == set(KINDS), draw_scenario(7, 200) == draw_scenario(7, 200)
    (True, True)
    """
    deck = KINDS.copy()
    random.Random(f"deck {seed // HANDS}").shuffle(deck)
    hand = seed % HANDS
    kinds = deck[hand * CARDS : (hand + 1) * CARDS]
    rng = random.Random(f"schedule {seed}")
    kinds += rng.choices(KINDS, k=rng.randrange(3))
    workers = rng.randint(1, 4)
    faults = [draw_fault(kind, rng, workers, steps) for kind in kinds]
    faults.sort(key=lambda fault: fault.step)
    optimizer, every, keep = rng.choice(["sgd", "adam"]), rng.choice([0, 0.02, 0.1]), rng.choice([1, 2, 5])
    return Scenario(seed, optimizer, workers, every, keep, rng.choice(["auto", "zeromq"]), faults)


def draw_fault(kind: str, rng: random.Random, workers: int, steps: int) -> Fault:
    """Return a fault of this kind, at a step of the run's first four fifths."""
    step = rng.randrange(1, steps * 4 // 5)
    seconds = round(rng.choice([0.1, 0.5, 2.0, 7.0]) if rng.random() < 0.3 else rng.uniform(0.1, 1.0), 2)
    if kind in NAMED:
        return Fault(kind, step, plan=draw_plan(kind, step, rng, workers), seconds=seconds)
    if kind.startswith("stop "):
        return Fault(kind, step, seconds=seconds, choice=rng.random())
    return Fault(kind, step, seconds=rng.uniform(0, 0.05), workers=rng.randint(1, 5), choice=rng.random())


def draw_plan(kind: str, step: int, rng: random.Random, workers: int) -> str:
    """Return a fault as KARP_FAULT names it, such as 'worker 2: die computing step 41'."""
    who, verb, point = ("server", "full", "writing") if kind == "disk full writing" else kind.split()
    if who == "worker" and point not in ("evaluation", *NO_STEP) and rng.random() < 0.7:
        who = f"worker {rng.randrange(workers)}"
    action = ACTIONS[verb] + (f" {rng.uniform(0.05, 0.8):.2f}" if verb == "delays" else "")
    where = point if point in NO_STEP else f"{point} step {step}"
    return f"{who}: {action} {where}" + (f" time {rng.randint(1, 4)}" if point in ("received", "replied") else "")
