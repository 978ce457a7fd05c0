"""How far a run has come: counts, the mean loss, the last metrics. Time is an argument."""

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import Any

from karp.protocol import reports

REPORT_SECONDS = 1.0  # a report this often, and at the end of every epoch
EPOCH_SECONDS = 0.05  # epochs shorter than this share one


class Progress:
    """Sums up steps between two reports and over an epoch; `metrics` keeps what was logged last under each name."""

    def __init__(self, now: float) -> None:
        self.began = inf  # when the first step was opened, less the time that a restart has lost
        self.reported = now
        self.samples = self.samples_before = 0
        self.losses = self.weight = 0.0  # since the last report
        self.epoch_losses = self.epoch_weight = 0.0
        self.epoch_loss: float | None = None  # the mean over the samples of the last whole epoch
        self.interval_loss: float | None = None  # the mean loss that was reported last
        self.step_loss: float | None = None  # of the last step
        self.last: dict[str, tuple[int, float]] = {}
        self.ages: Counter[int] = Counter()  # staleness -> contributions, in a run that has any; since the last report
        self.all_ages: Counter[int] = Counter()  # and before

    def begin(self, now: float) -> None:
        """The first step is opened."""
        self.began = self.reported = now

    def seconds(self, now: float) -> float:
        """Return the seconds of training; 0 before the first step."""
        return round(max(0.0, now - self.began), 3)

    def step(self, loss: float, samples: int, weight: float) -> None:
        """Count a mean loss over so many samples, whose weights have this sum; without weights each counts 1."""
        self.samples += samples
        self.step_loss = loss
        self.losses += loss * weight
        self.weight += weight
        self.epoch_losses += loss * weight
        self.epoch_weight += weight

    def contributions(self, ages: Iterable[int]) -> None:
        """Contributions of this staleness are applied."""
        self.ages.update(ages)

    def due(self, now: float, epoch_ended: bool) -> bool:
        return now - self.reported >= (EPOCH_SECONDS if epoch_ended else REPORT_SECONDS)

    def end_epoch(self) -> None:
        if self.epoch_weight:  # in an asynchronous run the end of one epoch may wait for that of another
            self.epoch_loss = self.epoch_losses / self.epoch_weight
        self.epoch_losses = self.epoch_weight = 0.0

    def take(self, now: float, step: int, epoch: int, workers: int) -> reports.Progress:
        """A report of what has happened since the last one: the mean loss and the rate."""
        seconds = max(now - self.reported, 1e-9)
        if self.weight:  # several asynchronous steps may end with one contribution
            self.interval_loss = self.losses / self.weight
        report = reports.Progress(
            self.seconds(now),
            step,
            epoch,
            self.interval_loss,
            self.step_loss,
            round((self.samples - self.samples_before) / seconds, 1),
            workers,
            histogram(self.ages),
        )
        if self.ages:
            self.all_ages += self.ages
            self.ages.clear()
        self.reported, self.samples_before = now, self.samples
        self.losses = self.weight = 0.0
        return report

    def metrics(self, values: dict[str, float], order: int) -> None:
        """Keep these values, unless one of a later epoch or step is known under the same name."""
        for name, value in values.items():
            if order >= self.last.get(name, (-1, 0.0))[0]:
                self.last[name] = (order, value)

    def to_dict(self, now: float) -> dict[str, Any]:
        """For a checkpoint; `restore` takes it."""
        return {
            "samples": self.samples,
            "seconds": max(0.0, now - self.began),
            "epoch_losses": self.epoch_losses,
            "epoch_weight": self.epoch_weight,
            "loss": self.epoch_loss,
            "staleness": histogram(self.all_ages + self.ages),
            "metrics": [[name, order, value] for name, (order, value) in self.last.items()],
        }

    def restore(self, plain: dict[str, Any], now: float) -> None:
        self.samples = self.samples_before = int(plain["samples"])
        self.began, self.reported = now - float(plain["seconds"]), now
        self.epoch_losses, self.epoch_weight = float(plain["epoch_losses"]), float(plain["epoch_weight"])
        self.epoch_loss = None if plain["loss"] is None else float(plain["loss"])
        self.all_ages = Counter({int(age): int(count) for age, count in plain["staleness"].items()})
        self.last = {str(name): (int(order), float(value)) for name, order, value in plain["metrics"]}

    def summary(self, now: float) -> dict[str, Any]:
        """The totals of the run."""
        seconds = max(now - self.began, 1e-9)
        ages = self.all_ages + self.ages
        partial = self.epoch_losses / self.epoch_weight if self.epoch_weight else None
        return {
            "samples": self.samples,
            "seconds": round(seconds, 3),
            "samples_per_s": round(self.samples / seconds, 1),
            "epoch_loss": partial if self.epoch_loss is None else self.epoch_loss,
            "metrics": {name: value for name, (_, value) in self.last.items()},
        } | ({"staleness": histogram(ages)} if ages else {})


def histogram(ages: Counter[int]) -> dict[str, int]:
    """As JSON keeps it: {"0": 120, "1": 30}."""
    return {str(age): ages[age] for age in sorted(ages)}
