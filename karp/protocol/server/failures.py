"""Programs that raise: once is tried on another worker, twice at the same place or for certain ends the run."""

from karp.protocol import reports
from karp.protocol.messages import Failure
from karp.protocol.server.training import Training


class Failures:
    """Where programs of this training's workers have raised."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.places: set[tuple[int, int, int]] = set()  # (step, shard, epoch)
        self.step = -1  # of the last one
        self.errors: set[str] = set()  # that step's

    def hear(self, worker: int, message: Failure) -> None:
        """A worker's program has raised. On another worker it may not, but at the same place once more it does."""
        where = (message.step, message.shard, message.epoch)
        place = f"at step {message.step}, shard {message.shard}" if message.shard >= 0 else "outside of its loop"
        if message.epoch >= 0:
            place = f"in the evaluation of epoch {message.epoch}"
        if message.step != self.step:
            self.step, self.errors = message.step, set()
        repeated = message.error in self.errors  # as where all of a step's shards fail alike: it is said once
        self.errors.add(message.error)
        self.training.report(reports.Traceback, worker, message.traceback, repeated)
        if message.certain or where in self.places or message.shard == message.epoch == -1:
            self.training.fail(f"worker {worker} failed {place}: {message.error}")
        else:
            self.places.add(where)
            if not repeated:
                self.training.notice(f"worker {worker} failed {place} ({message.error}); another worker tries it")
