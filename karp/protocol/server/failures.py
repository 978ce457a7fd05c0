"""Programs that raise: another worker tries the shard; a second failure at the same point ends the run."""

from karp.protocol import reports
from karp.protocol.messages import Failure
from karp.protocol.server.training import Training


class Failures:
    """The failures of the workers' programs, by step, shard and epoch."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.points: set[tuple[int, int, int]] = set()  # (step, shard, epoch) at which a program has failed
        self.step = -1  # the step of the last failure
        self.errors: set[str] = set()  # the errors of the step `self.step`

    def handle(self, worker: int, message: Failure) -> None:
        """Report that a worker's program has raised, and leave the shard or evaluation to another worker.

        Fail the run if the error is certain, is the second one at this point, or was raised outside of the loop.
        """
        point = (message.step, message.shard, message.epoch)
        place = f"at step {message.step}, shard {message.shard}" if message.shard >= 0 else "outside of its loop"
        if message.epoch >= 0:
            place = f"in the evaluation of epoch {message.epoch}"
        if message.step != self.step:
            self.step, self.errors = message.step, set()
        repeated = message.error in self.errors  # where all shards of a step fail alike, the user is told once
        self.errors.add(message.error)
        self.training.report(reports.Traceback, worker, message.traceback, repeated)
        if message.certain or point in self.points or message.shard == message.epoch == -1:
            self.training.fail(f"worker {worker} failed {place}: {message.error}")
        else:
            self.points.add(point)
            if not repeated:
                self.training.notice(f"worker {worker} failed {place} ({message.error}); another worker tries it")
