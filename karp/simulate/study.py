"""`karp simulate`: one large run on the virtual clock, and what it costs; or many small ones, and whether they hold.

A study trains the imaginary model (model.py) until its loss is down to the target or its steps are done, and reports
what one would measure on a real cluster: time to the target, staleness, messages, bytes, what was leased again. The
loss is that over the whole table, of the server's weights, after each step.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from karp import optim
from karp.errors import MissingError, SettingError
from karp.protocol.settings import LIMITS, SEEDS
from karp.simulate.cluster import Cluster
from karp.simulate.scenario import Schedule, draw

EPOCH_STEPS = 10  # the table has rows for so many steps
FOREVER = float("inf")
WIDTH = 16
TARGET = 0.02  # of the way from the first loss to the lowest is left, where no target is named
MOST_NUMBERS = 1 << 28  # of the table
BARS = 16  # lines of the curve in a terminal
COLUMNS = 48
BINS = 40  # bars of the staleness in a picture, at most
TOTALS = ("schedules", "events")  # that `hold` counts beside the faults
BLUE, GREY = "#1f5fa8", "#9a9a9a"


@dataclass(frozen=True, slots=True)
class Study:
    """What is to be simulated; times in seconds of the virtual clock."""

    workers: int = 100
    shards: int | None = None  # one for each worker
    steps: int = 100
    seed: int = 0
    rows: int = 8  # samples of a shard
    lr: float = 0.1
    momentum: float = 0.0
    staleness: int | None = 0
    compute: float = 0.1
    spread: float = 0.1
    latency: float = 0.002
    straggler: float = 0.0
    factor: float = 10.0
    loss: float = 0.0
    duplicate: float = 0.0
    crash: float = 0.0
    target: float | None = None

    def schedule(self) -> Schedule:
        """Raises SettingError for what cannot be simulated."""
        for name in ("straggler", "loss", "duplicate"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise SettingError(f"--{name} is {getattr(self, name)}; it must be a share: at least 0 and below 1")
        for name, most in {"compute": 1e6, "spread": 10.0, "latency": 1e6, "factor": 1e6}.items():
            if not 0.0 <= getattr(self, name) <= most:
                raise SettingError(f"--{name} is {getattr(self, name)}; it must be a number from 0 to {most:g}")
        if not 0.0 <= self.crash * self.compute <= 1.0:
            raise SettingError(f"--crash is {self.crash}; it must be from 0 to one in the time of a shard")
        if not 0 <= self.seed < SEEDS:
            raise SettingError(f"--seed is {self.seed}; it must be a whole number from 0 to 2**63 - 1")
        if self.target is not None and not math.isfinite(self.target):
            raise SettingError(f"--target is {self.target}; it must be a number")
        shards = self.workers if self.shards is None else self.shards
        if shards * self.rows * min(self.steps, EPOCH_STEPS) * WIDTH > MOST_NUMBERS or shards >= LIMITS["shards"]:
            raise SettingError(f"{shards} shards of {self.rows} rows make too large a table: take fewer")
        if min(self.workers, shards, self.steps, self.rows, self.factor) < 1 or self.compute == 0.0:
            raise SettingError("--workers, --shards, --steps, --rows, --factor must be at least 1, --compute above 0")
        batch_size, per_epoch = shards * self.rows, min(self.steps, EPOCH_STEPS)
        return Schedule(
            seed=self.seed,
            workers=self.workers,
            shards=shards,
            samples=batch_size * per_epoch,
            batch_size=batch_size,
            epochs=-(-self.steps // per_epoch),
            width=WIDTH,
            optimizer=optim.SGD(lr=self.lr, momentum=self.momentum),
            staleness=self.staleness,
            compute=self.compute,
            spread=self.spread,
            latency=self.latency,
            slow_share=self.straggler,
            slow_factor=self.factor,
            loss=self.loss,
            duplicate=self.duplicate,
            crash=self.crash,
            calm=FOREVER,
            restarts=1 << 30,
        )


@dataclass(slots=True)
class Outcome:
    """What a study has measured."""

    study: Study
    target: float
    least: float  # the lowest loss that there is
    curve: list[tuple[float, int, float]] = field(default_factory=list)  # (seconds, steps, loss)
    reached: tuple[float, int] | None = None  # (seconds, steps)
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a file."""
        settings = {name: getattr(self.study, name) for name in self.study.__slots__}
        reached = None if self.reached is None else {"seconds": self.reached[0], "steps": self.reached[1]}
        facts = {"target": self.target, "least": self.least, "reached": reached}
        return {"settings": settings, **facts, **self.figures, "curve": self.curve}


def run(study: Study, steps_done: Callable[[int, float], None] = lambda steps, loss: None) -> Outcome:
    """Simulate it; `steps_done` is told of every step, for a display."""
    cluster = Cluster(study.schedule(), check=False, limit=FOREVER)
    problem = cluster.problem
    first, least = problem.score(problem.initial), problem.least()
    outcome = Outcome(study, least + TARGET * (first - least) if study.target is None else study.target, least)
    outcome.curve.append((0.0, 0, first))
    def look() -> bool:
        """After every event of the server: a point of the curve for each step; whether to go on."""
        server = cluster.host.server
        if server is None or server.training.updater is None or not server.joining.begun:
            return True
        steps = server.training.step.number
        if study.staleness is None:  # a straggler holds a step up, not the updates by the others' shards
            steps = server.training.version // cluster.schedule.shards
        if steps > outcome.curve[-1][1]:
            seconds = cluster.clock.now - server.training.progress.began
            loss = problem.score(server.training.updater.weights)
            outcome.curve.append((seconds, steps, loss))
            steps_done(steps, loss)
            if loss <= outcome.target and outcome.reached is None:
                outcome.reached = seconds, steps
        return steps < study.steps and outcome.reached is None

    cluster.watch = look
    cluster.run()
    outcome.figures = figures(cluster, outcome)
    return outcome


def figures(cluster: Cluster, outcome: Outcome) -> dict[str, Any]:
    """What is counted in a run."""
    server, counts = cluster.host.server, cluster.network.counts
    assert server is not None
    seconds, steps, loss = outcome.curve[-1]
    progress, shards = server.training.progress, cluster.schedule.shards
    ages = Counter(progress.ages) + Counter(progress.all_ages)
    staleness = {age: ages[age] for age in sorted(ages)} if ages else {0: steps * shards}
    return {
        "seconds": seconds,
        "steps": steps,
        "loss": loss,
        "samples": progress.samples,
        "stragglers": len(cluster.slow),
        "crashes": cluster.happened["crash"],
        "staleness": staleness,
        "messages": {"up": counts["messages up"], "down": counts["messages down"]},
        "bytes": {"up": counts["bytes up"], "down": counts["bytes down"]},
        "lost": counts["messages lost"],
        "doubled": counts["messages doubled"],
        "leased_again": server.leasing.released,
        "dropped": server.training.dropped,
        "events": cluster.clock.events,
    }


def lines(outcome: Outcome) -> list[str]:
    """The outcome in words, one fact to a line."""
    study, found = outcome.study, outcome.figures
    shards = study.workers if study.shards is None else study.shards
    slow = f", {found['stragglers']} of them {study.factor:g} times as slow" if found["stragglers"] else ""
    steps, seconds = found["steps"], found["seconds"]
    if outcome.reached is None:
        reached = f"not reached in {steps} steps"
    else:
        reached = f"reached in {outcome.reached[0]:.2f} s, {outcome.reached[1]} steps"
    ages = found["staleness"]
    total = max(1, sum(ages.values()))
    mean = sum(age * number for age, number in ages.items()) / total
    up, down = found["messages"]["up"], found["messages"]["down"]
    return [
        f"workers       {study.workers:,}{slow}; {shards:,} shards of {study.rows} samples",
        f"loss          {outcome.curve[0][2]:.4g} to {found['loss']:.4g} (lowest {outcome.least:.4g})",
        f"target        {outcome.target:.4g}: {reached}",
        f"time          {seconds:.2f} s for {steps} steps, {seconds / max(1, steps):.4f} s each",
        f"staleness     {mean:.2f} on average, {max(ages)} at most",
        f"messages      {up:,} up, {down:,} down: {(up + down) / max(1, steps):,.0f} per step",
        f"bytes         {size(found['bytes']['up'])} up, {size(found['bytes']['down'])} down",
        f"leased again  {found['leased_again']:,} shards; {found['dropped']:,} came twice or too late",
        f"faults        {found['lost']:,} messages lost, {found['doubled']:,} doubled, {found['crashes']:,} crashes",
    ]


def size(count: float) -> str:
    """Bytes in words.

    >>> size(512), size(2_500_000)
    ('512 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, {"B": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{count:.3g} {unit}"


def bars(outcome: Outcome) -> list[str]:
    """The curve as lines of a terminal: the part of the way to the lowest loss that is left, on a log scale."""
    curve = outcome.curve
    places = [round(index * (len(curve) - 1) / (BARS - 1)) for index in range(BARS)]
    chosen = [curve[place] for place in places] if len(curve) > BARS else curve
    floor = min(outcome.target, curve[-1][2]) - outcome.least
    top = curve[0][2] - outcome.least
    if floor <= 0.0 or top <= floor:
        return []
    found = ["  seconds  step  loss"]
    for seconds, step, loss in chosen:
        excess = max(loss - outcome.least, floor)
        share = min(1.0, math.log(excess / floor) / math.log(top / floor)) if math.isfinite(excess) else 1.0
        found.append(f"{seconds:9.2f} {step:5d}  {loss:<9.4g} {'█' * max(1, round(share * COLUMNS))}")
    return found


def write(outcome: Outcome, path: str) -> None:
    """The outcome as JSON."""
    try:
        Path(path).write_text(json.dumps(outcome.to_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingError(f"--json {path} cannot be written: {error.strerror}") from None


def picture(outcome: Outcome, path: str) -> None:
    """The curve, and the staleness or the seconds of each step beside it, as a picture.

    Raises MissingError without matplotlib, SettingError for a path that cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter
    except ImportError:
        raise MissingError("--picture needs matplotlib: pip install 'karp[plot]', or leave it out") from None
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    seconds = [point[0] for point in outcome.curve]
    left.plot(seconds, [point[2] - outcome.least for point in outcome.curve], color=BLUE, linewidth=2)
    left.axhline(outcome.target - outcome.least, color=GREY, linestyle="--", linewidth=1)
    left.annotate("target", (0.0, outcome.target - outcome.least), (0, 4), textcoords="offset points", color=GREY)
    left.set(yscale="log", xlabel="seconds (virtual)", ylabel="loss above the lowest")
    left.yaxis.set_major_locator(LogLocator(10, (1.0, 2.0, 5.0)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter(NullFormatter())
    left.set_title(title(outcome), loc="left", fontsize=11)
    beside(outcome, right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=140)
    except (OSError, ValueError) as error:
        raise SettingError(f"--picture {path} cannot be written: {error}") from None


def title(outcome: Outcome) -> str:
    study, found = outcome.study, outcome.figures
    bound = "asynchronous" if study.staleness is None else f"staleness {study.staleness}"
    slow = f", {found['stragglers']:,} slow" if found["stragglers"] else ""
    return f"{study.workers:,} workers{slow}, {bound}"


def beside(outcome: Outcome, axes: Any) -> None:
    """The staleness of the contributions; where there is none, how long each step took."""
    ages = outcome.figures["staleness"]
    if max(ages) > 0:
        total = sum(ages.values())
        wide = 1 + max(ages) // BINS  # ages to one bar
        shares: Counter[int] = Counter()
        for age, number in ages.items():
            shares[age // wide] += number
        places = [wide * (index + 0.5) - 0.5 for index in shares]
        axes.bar(places, [100 * number / total for number in shares.values()], width=0.85 * wide, color=BLUE)
        axes.set(xlabel="staleness, in updates" if wide > 1 else "staleness, in steps", ylabel="% of contributions")
        if max(ages) <= 20:
            axes.set_xticks(range(max(ages) + 1))
        return
    times = [point[0] for point in outcome.curve]
    each = [after - before for before, after in pairwise(times)]
    axes.plot(range(1, len(times)), each, color=BLUE, linewidth=1.5)
    axes.set(xlabel="step", ylabel="seconds of the step", ylim=(0, None))


def hold(seeds: Iterable[int], done: Callable[[int], None] = lambda seed: None) -> Counter[str]:
    """Run the schedules of these numbers and check every invariant after every event; returns what has befallen them.

    Raises Violation for the first that does not hold.
    """
    happened: Counter[str] = Counter()
    for seed in seeds:
        cluster = Cluster(draw(seed))
        cluster.run()
        happened += cluster.happened
        happened["schedules"] += 1
        happened["events"] += cluster.clock.events
        done(seed)
    return happened
