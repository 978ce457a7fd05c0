"""A recorded run, repeated in one process: the record stands where the server would.

A contribution is a pure function of (weights at its version, step, shard, seed). So whatever a run's timing has chosen
is in the order in which contributions were applied and in the versions of their weights, and the record holds both. The
link below leases exactly what was applied, in that order, with the weights of the recorded version, and applies what
comes back. Old weights are kept for as long as a contribution ahead needs them. Nothing is evaluated.
"""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from karp.data import Plan
from karp.errors import DataError, RefusedError, RunError, SettingError
from karp.protocol.actions import Action
from karp.protocol.messages import (
    Contribution,
    Failure,
    Finish,
    FromServer,
    FromWorker,
    Initial,
    Join,
    Lease,
    Stop,
    Welcome,
)
from karp.protocol.rounds import steps_of
from karp.protocol.settings import Settings, Steps
from karp.protocol.step import Step
from karp.protocol.training import Training
from karp.protocol.tree import Node, Vector

FILE = "replay.json"
NEVER = float("inf")
LEFT_OUT = -1  # the version of a shard whose gradient was never finite


@dataclass(frozen=True, slots=True)
class Arrival:
    """The shards start … stop-1 of a step, made with the weights of a version, as they were applied."""

    step: int
    version: int
    start: int
    stop: int


def read(directory: Path) -> tuple[Settings, dict[str, Any], list[Arrival]]:
    """What a run was, its summary, and what was applied in which order.

    Raises DataError if the directory does not hold the record of a whole run.
    """
    if (directory / "settings.json").exists() and not (directory / "summary.json").exists():
        launched = (directory / "launch.json").exists()
        how = f": go on with it first (karp launch --resume {directory})" if launched else ""
        raise DataError(f"the run in {directory} has not ended{how}")
    try:
        settings = Settings.from_dict(json.loads((directory / "settings.json").read_text()))
        summary = json.loads((directory / "summary.json").read_text())
        steps, updates = int(summary["steps"]), int(summary["updates"])
        if type(summary["weights_sha256"]) is not str:
            raise ValueError("weights_sha256")
        path = directory / "arrivals.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{directory} does not hold the record of a run that has ended: {error!r}") from None
    plan = steps_of(Plan(settings.samples, settings.batch_size, settings.shards, settings.seed), settings.local_steps)
    found = list(arrivals(path, lines, settings.staleness, plan, updates))
    return settings, summary, found if settings.staleness != 0 else list(in_order(plan, steps, found))


def arrivals(path: Path, lines: list[str], bound: int | None, plan: Steps, updates: int) -> Iterator[Arrival]:
    """What the lines of a record say was applied; raises DataError, naming the line, for what cannot have been."""
    version, there = 0, set[tuple[int, int]]()
    for number, line in enumerate(lines, 1):
        try:
            step, of = json.loads(line)
            if bound:
                check(step == version, f"step {step} instead of {version}")
            before = len(there)
            for _, made_with, start, stop in of:
                check(0 <= start < stop <= plan.shards_of(step), f"shards {start} to {stop} of step {step}")
                shards = {(step, shard) for shard in range(start, stop)}
                check(there.isdisjoint(shards), f"shards {start} to {stop} of step {step} once more")
                oldest = 0 if bound is None else version - bound
                known = made_with == LEFT_OUT or (bound != 0 and max(0, oldest) <= made_with <= version)
                check(known, f"weights {made_with} where the run had {version}")
                there |= shards
                version += bound is None and made_with != LEFT_OUT
                yield Arrival(step, made_with, start, stop)
            if bound:
                check(len(there) - before == plan.shards_of(step), f"step {step} is not whole")
                version += 1
        except (TypeError, ValueError, SettingError) as error:
            raise DataError(f"{path}, line {number}, is damaged: {error}") from None
    if bound != 0 and version != updates:
        raise DataError(f"{path} is damaged: it ends after {version} of the run's {updates} updates")


def check(good: bool, what: str) -> None:
    """Raise ValueError unless it is good."""
    if not good:
        raise ValueError(what)


def in_order(plan: Steps, steps: int, left_out: list[Arrival]) -> Iterator[Arrival]:
    """What a run without staleness applies: every step with its own weights; only what was left out is recorded."""
    for number in range(steps):
        step = Step(number, plan.shards_of(number))
        for arrival in left_out:
            if arrival.step == number:
                yield arrival
                step.leave_out(arrival.start)
        yield from (Arrival(number, number, start, stop) for start, stop in step.missing(0, step.tree.shards))


class ReplayLink:
    """Leases what the record in `directory` says, and in the end writes down whether the weights are the same."""

    address = "the record"
    gradients = None
    overtaken = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings, self.summary, self.order = read(directory)
        self.last_use = {arrival.version: index for index, arrival in enumerate(self.order)}
        self.at = 0  # in the order
        self.versions: dict[int, Vector] = {}
        self.inbox: deque[FromServer] = deque()
        self.actions: list[Action] = []  # nobody performs them
        self.training = Training(Plan, 0.0, self.actions, save_seconds=NEVER)

    def settle(self) -> None:
        """The model's weights are its own."""

    def at_once(self, lease: Lease, node: Node) -> bool:
        """What follows is looked up in the record."""
        return False

    def send(self, message: FromWorker, incarnation: int) -> None:
        match message:
            case Join():
                self._join(message)
            case Initial():
                weights = message.weights.view()
                weights.flags.writeable = False  # the model goes through other versions than the training
                self.training.start_from(weights)
                self.training.begin(0)
                self._go_on()
            case Contribution():
                step = self.training.open[message.step]
                message.last = False  # the recorded run knows where it ended
                for index, node in enumerate(message.nodes):  # the next backward writes into the same vector
                    message.nodes[index] = node._replace(vector=None if node.vector is None else node.vector.copy())
                self.training.enter(b"", 0, message, step, True)
                self.at += 1
                self._go_on()
            case Stop() if self.at < len(self.order):
                raise RunError(
                    f"the program left its loop at step {self.training.step.number}, but the recorded run went on: it "
                    "is another program, or its workers left each by itself; a run to repeat ends by trainer.stop()"
                )
            case Failure():
                self.training.fail(message.error)

    def _join(self, message: Join) -> None:
        if differences := self.settings.differences(message.settings):
            raise RefusedError("this program differs from the recorded run's: " + "; ".join(differences))
        self.training.use(replace(self.settings, evaluate=False, steering=False))
        self.inbox.append(Welcome(0, self.settings.shards, True))

    def _go_on(self) -> None:
        """Apply what is complete, then lease what the record says was applied next."""
        training = self.training
        training.advance(0.0, 1)
        self.actions.clear()
        while not training.failure and self.at < len(self.order) and self.order[self.at].version == LEFT_OUT:
            arrival = self.order[self.at]
            step = self._step(arrival.step)
            for shard in range(arrival.start, arrival.stop):
                step.leave_out(shard)
            training.enter(b"", 0, Contribution(arrival.step, training.version, [], [], False), step, True)
            training.advance(0.0, 1)
            self.at += 1
        if training.failure:
            raise RunError(f"the run has failed: {training.failure}")
        assert training.updater is not None
        self._keep(training.version)
        if self.at == len(self.order):
            self.inbox.append(Finish(training.version, True, "", training.updater.weights, training.step.number))
            return
        arrival = self.order[self.at]
        self._step(arrival.step)
        if arrival.version not in self.versions:
            raise DataError(f"the record is damaged: step {arrival.step} was made with weights {arrival.version}")
        weights = self.versions[arrival.version]
        self.inbox.append(
            Lease(self.at + 1, arrival.step, arrival.start, arrival.stop, arrival.version, weights)
        )

    def _step(self, number: int) -> Step:
        """This step, opened if it has not been."""
        while number not in self.training.open:
            if self.training.opened > number or self.training.open_another() is None:
                raise DataError(f"the record is damaged: step {number} was not to come yet, or is over")
        return self.training.open[number]

    def _keep(self, version: int) -> None:
        """Keep weights that are needed once more, and no others."""
        for old in [old for old in self.versions if self.last_use[old] < self.at]:
            del self.versions[old]
        if version not in self.versions and self.last_use.get(version, -1) >= self.at:
            self.versions[version] = self.training.outgoing().copy()

    def receive(self, seconds: float) -> tuple[FromServer, int] | None:
        return self.inbox.popleft(), 0

    def close(self, status: int) -> None:
        """Write both hashes, unless the program has failed."""
        if status != 0 or self.training.updater is None:
            return
        found = self.settings.layout.sha256(self.training.updater.weights)
        plain = {
            "contributions": len(self.order),
            "weights_sha256": found,
            "recorded_sha256": self.summary.get("weights_sha256", ""),
            "equal": found == self.summary.get("weights_sha256"),
        }
        (self.directory / FILE).write_text(json.dumps(plain, indent=2) + "\n")
