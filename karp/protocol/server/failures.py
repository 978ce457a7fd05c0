"""Programs that raise: once is tried on another worker, twice at the same place or for certain ends the run."""

from karp.protocol.messages import Failure
from karp.protocol.server.training import Training


class Failures:
    """Where programs of this training's workers have raised."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.places: set[tuple[int, int, int]] = set()  # (step, shard, epoch)

    def hear(self, worker: int, message: Failure) -> None:
        """A worker's program has raised. On another worker it may not, but at the same place once more it does."""
        where = (message.step, message.shard, message.epoch)
        place = f"at step {message.step}, shard {message.shard}" if message.shard >= 0 else "outside of its loop"
        if message.epoch >= 0:
            place = f"in the evaluation of epoch {message.epoch}"
        self.training.report("traceback", {"worker": worker, "traceback": message.traceback})
        if message.certain or where in self.places or message.shard == message.epoch == -1:
            self.training.fail(f"worker {worker} failed {place}: {message.error}")
        else:
            self.places.add(where)
            self.training.notice(f"worker {worker} failed {place} ({message.error}); another worker tries it")
