"""Reading from a run's record which contributions it has applied, and in which order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karp.data import Plan
from karp.errors import DataError
from karp.protocol.best import EPOCH
from karp.protocol.settings import Settings
from karp.protocol.steps import Steps, steps_of
from karp.record import files

LEFT_OUT = -1  # the version of a shard whose gradient was never finite


@dataclass(frozen=True, slots=True)
class Arrival:
    """Contributions that were applied: the shards start … stop-1 of a step, computed with weights of a version."""

    step: int
    version: int
    start: int
    stop: int


def read(directory: Path) -> tuple[Settings, dict[str, Any], list[Arrival]]:
    """Read the settings of a run, its summary, and its arrivals in the order in which they were applied.

    Raises DataError if the directory does not hold the complete record of a run that has ended, or that is damaged.
    """
    if (directory / "settings.json").exists() and not (directory / "summary.json").exists():
        launched = (directory / "launch.json").exists()
        how = f": go on with it first (karp launch --resume {directory})" if launched else ""
        raise DataError(f"the run in {directory} has not ended{how}")
    try:
        settings = Settings.from_dict(files.read_json(directory / "settings.json"))
        summary = files.read_json(directory / "summary.json")
        steps, updates = int(summary["steps"]), int(summary["updates"])
        if type(summary["weights_sha256"]) is not str:
            raise ValueError("weights_sha256")
        path = directory / "arrivals.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{directory} does not hold the record of a run that has ended: {error!r}") from None
    plan = steps_of(Plan(settings.samples, settings.batch_size, settings.shards, settings.seed), settings.local_steps)
    recorded = list(arrivals(path, lines, settings.staleness, plan, updates))
    return settings, summary, recorded if settings.staleness != 0 else list(in_order(plan, steps, recorded))


def best_epoch(settings: Settings, summary: dict[str, Any]) -> int | None:
    """Return the epoch whose weights a run has ended with; None if they are those of its last step.

    Raises DataError for a summary that is damaged.
    """
    best = summary.get("best")
    if best is None or settings.keep_best is None:
        return None
    epoch = best.get(EPOCH) if isinstance(best, dict) else None
    if type(epoch) is not int:
        raise DataError(f"the record is damaged: summary.json has {best!r:.60} for the best epoch")
    return epoch


def arrivals(path: Path, lines: list[str], bound: int | None, plan: Steps, updates: int) -> Iterator[Arrival]:
    """Yield the arrivals in the lines of arrivals.jsonl, of a run with this bound on staleness.

    Raises DataError, naming the line, for arrivals that the run cannot have had, or if the number of updates differs.
    """
    version, applied = 0, set[tuple[int, int]]()
    for number, line in enumerate(lines, 1):
        try:
            step, of = json.loads(line)
            if bound:
                check(step == version, f"step {step} instead of {version}")
            before = len(applied)
            for _, made_with, start, stop in of:
                check(0 <= start < stop <= plan.shards_of(step), f"shards {start} to {stop} of step {step}")
                shards = {(step, shard) for shard in range(start, stop)}
                check(applied.isdisjoint(shards), f"shards {start} to {stop} of step {step} once more")
                oldest = 0 if bound is None else version - bound
                known = made_with == LEFT_OUT or (bound != 0 and max(0, oldest) <= made_with <= version)
                check(known, f"weights {made_with} where the run had {version}")
                applied |= shards
                version += bound is None and made_with != LEFT_OUT
                yield Arrival(step, made_with, start, stop)
            if bound:
                check(len(applied) - before == plan.shards_of(step), f"step {step} is not whole")
                version += 1
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}, is damaged: {error}") from None
    if bound != 0 and version != updates:
        raise DataError(f"{path} is damaged: it ends after {version} of the run's {updates} updates")


def check(good: bool, what: str) -> None:
    """Raise ValueError with this text unless `good`."""
    if not good:
        raise ValueError(what)


def in_order(plan: Steps, steps: int, left_out: list[Arrival]) -> Iterator[Arrival]:
    """Yield the arrivals of the first `steps` steps of a run without staleness, in order.

    They follow from the plan: each step's shards, but for those that the record says were left out.
    """
    for number in range(steps):
        omitted = [arrival for arrival in left_out if arrival.step == number]
        yield from omitted
        at, shards = 0, plan.shards_of(number)
        for start, stop in [*sorted((arrival.start, arrival.stop) for arrival in omitted), (shards, shards)]:
            if at < start:
                yield Arrival(number, number, at, start)
            at = stop
