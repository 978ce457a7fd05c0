"""The progress of a run: counts, mean losses, the last metrics. Time is an argument."""

from collections import Counter
from collections.abc import Iterable
from math import inf, nan
from typing import Any

from karp.protocol import reports

REPORT_SECONDS = 1.0  # between two reports of progress; one is made at the end of an epoch, too
EPOCH_SECONDS = 0.05  # but not sooner than this after the last


class Progress:
    """Sums of steps since the last report and over an epoch, and the last value of each metric."""

    def __init__(self, now: float) -> None:
        self.began = inf  # when the first step was opened; after a restart as if the time between had not passed
        self.ended = inf  # when training was over
        self.reported = now
        self.samples = self.samples_before = 0
        self.losses = self.weight = 0.0  # the sums since the last report
        self.epoch_losses = self.epoch_weight = 0.0
        self.epoch_sample_losses, self.epoch_samples = 0.0, 0
        self.loss_by_samples = nan  # of the last complete epoch, each step counted by its samples, not their weights
        self.epoch_loss: float | None = None  # the mean over the samples of the last complete epoch
        self.interval_loss: float | None = None  # the mean loss that was reported last
        self.step_loss: float | None = None  # the mean loss of the last step
        self.last: dict[str, tuple[int, float]] = {}  # metric -> (order, its last value)
        self.ages: Counter[int] = Counter()  # staleness -> contributions since the last report, in a run with staleness
        self.all_ages: Counter[int] = Counter()  # the same before the last report

    def begin(self, now: float) -> None:
        """Begin to count seconds, as the first step is opened."""
        self.began = self.reported = now

    def seconds(self, now: float) -> float:
        """Return the seconds of training until `now`: 0 before the first step; after the end they do not increase."""
        return round(max(0.0, min(now, self.ended) - self.began), 3)

    def end(self, now: float) -> None:
        """Stop the clock: training is over."""
        self.ended = min(now, self.ended)

    def step(self, loss: float, samples: int, weight: float) -> None:
        """Count an update: a mean loss over so many samples, whose weights have this sum; without weights each is 1."""
        self.samples += samples
        self.step_loss = loss
        self.losses += loss * weight
        self.weight += weight
        self.epoch_losses += loss * weight
        self.epoch_weight += weight
        self.epoch_sample_losses += loss * samples
        self.epoch_samples += samples

    def contributions(self, ages: Iterable[int]) -> None:
        """Count contributions that are applied, by their staleness."""
        self.ages.update(ages)

    def due(self, now: float, epoch_ended: bool) -> bool:
        """Return whether a report is due."""
        return now - self.reported >= (EPOCH_SECONDS if epoch_ended else REPORT_SECONDS)

    def end_epoch(self) -> None:
        """Keep the mean loss of the epoch that has ended, if it had any update, and begin to sum the next."""
        if self.epoch_weight:  # in an asynchronous run the end of one epoch may wait for that of another
            self.epoch_loss = self.epoch_losses / self.epoch_weight
            self.loss_by_samples = self.epoch_sample_losses / self.epoch_samples
        self.epoch_losses = self.epoch_weight = self.epoch_sample_losses = 0.0
        self.epoch_samples = 0

    def take(self, now: float, step: int, epoch: int, workers: int) -> reports.Progress:
        """Make a report of the steps since the last one, and begin to count the next."""
        seconds = max(now - self.reported, 1e-9)
        if self.weight:  # it is 0 if several asynchronous steps end with one contribution
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
        """Keep these values of metrics, unless one of a later step is known under the same name."""
        for name, value in values.items():
            if order >= self.last.get(name, (-1, 0.0))[0]:
                self.last[name] = (order, value)

    def to_dict(self, now: float) -> dict[str, Any]:
        """Return the argument of `restore` as plain types, for a checkpoint."""
        return {
            "samples": self.samples,
            "seconds": max(0.0, min(now, self.ended) - self.began),
            "epoch_losses": self.epoch_losses,
            "epoch_weight": self.epoch_weight,
            "epoch_sample_losses": self.epoch_sample_losses,
            "epoch_samples": self.epoch_samples,
            "loss": self.epoch_loss,
            "staleness": histogram(self.all_ages + self.ages),
            "metrics": [[name, order, value] for name, (order, value) in self.last.items()],
        }

    def restore(self, plain: dict[str, Any], now: float) -> None:
        """Restore the progress that `to_dict` returned; the seconds since then do not count as training."""
        self.samples = self.samples_before = int(plain["samples"])
        self.began, self.reported = now - float(plain["seconds"]), now
        self.epoch_losses, self.epoch_weight = float(plain["epoch_losses"]), float(plain["epoch_weight"])
        self.epoch_sample_losses = float(plain["epoch_sample_losses"])
        self.epoch_samples = int(plain["epoch_samples"])
        self.epoch_loss = None if plain["loss"] is None else float(plain["loss"])
        self.all_ages = Counter({int(age): int(count) for age, count in plain["staleness"].items()})
        self.last = {str(name): (int(order), float(value)) for name, order, value in plain["metrics"]}

    def summary(self, now: float) -> dict[str, Any]:
        """Return the totals of the run, for its summary; `epoch_loss` is None before the first update."""
        seconds = max(min(now, self.ended) - self.began, 1e-9)
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
    """Return the counts with texts as keys, as JSON needs them: {"0": 120, "1": 30}."""
    return {str(age): ages[age] for age in sorted(ages)}
