"""Replay: a recorded run, repeated in one process, with the record in the place of the server.

A contribution is a pure function of (weights at its version, step, shard, seed). So all that depended on timing is the
order in which contributions were applied and the versions of their weights, and the record holds both. The link below
leases the shards that were applied, in that order, with the weights of the recorded version, and applies the
contributions. Old weights are kept for as long as a later contribution needs them. Nothing is evaluated: where the run
has kept its best epoch, the record says which that was.
"""

import math
from collections import deque
from dataclasses import replace
from pathlib import Path

from karp.data import Plan
from karp.errors import DataError, RecordError, RefusedError, RunError
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
from karp.protocol.server.actions import Action
from karp.protocol.server.ledger import Step
from karp.protocol.server.training import Training
from karp.protocol.steps import steps_of
from karp.protocol.tree import Node, Vector
from karp.record import files
from karp.record.arrivals import LEFT_OUT, best_epoch, read
from karp.trainer.dataset import weighting_of

FILE = "replay.json"
NEVER = float("inf")


class ReplayLink:
    """A link that leases shards in the order of the record in `directory`, and compares the final weights with it.

    Raises DataError if the directory does not hold the complete record of a run that has ended.
    """

    address = "the record"
    diagnosis = ""
    gradients = None
    copies = ()
    overtaken = False

    def __init__(self, directory: Path, sample_weights: Vector | None) -> None:
        self.directory = directory
        self.settings, self.summary, self.order = read(directory)
        self.best = best_epoch(self.settings, self.summary)
        settings = self.settings
        plan = Plan(settings.samples, settings.batch_size, settings.shards, settings.seed, settings.block)
        self.weigh = weighting_of(sample_weights, plan, steps_of(plan, settings.local_steps)).weigh
        self.last_use = {arrival.version: index for index, arrival in enumerate(self.order)}
        self.at = 0  # the index of the next arrival
        self.versions: dict[int, Vector] = {}  # version -> weights that are needed again
        self.inbox: deque[FromServer] = deque()
        self.actions: list[Action] = []  # actions of the training, which are not performed
        self.training = Training(Plan, 0.0, self.actions, save_seconds=NEVER)

    def release_weights(self) -> None:
        """Do nothing: the worker's weights lie in its own vector."""

    def try_apply(self, lease: Lease, node: Node, weight: float) -> bool:
        """Return False: the record decides which shards are leased next."""
        return False

    def send(self, message: FromWorker, incarnation: int) -> None:
        """Handle a worker's message as the server of the recorded run did; messages that change no weights do nothing.

        Raises RefusedError for a program with other settings, RunError if the program fails, or stops before the end
        of the record, and DataError for a damaged record.
        """
        match message:
            case Join():
                self._join(message)
            case Initial():
                weights = message.weights.view()
                weights.flags.writeable = False  # the model gets weights of other versions than the training's
                self.training.weights.start_from(weights)
                self._go_on()
            case Contribution():
                step = self.training.ledger.open[message.step]
                message.last = False  # the record says where the run ended
                for index, node in enumerate(message.nodes):  # the next backward writes into the same vector
                    message.nodes[index] = node._replace(vector=None if node.vector is None else node.vector.copy())
                self.training.accept(b"", 0, message, step, True)
                self.at += 1
                self._go_on()
            case Stop() if self.at < len(self.order):
                raise RunError(
                    f"the program left its loop at step {self.training.number}, but the recorded run went on: it "
                    "is another program, or its workers left each by itself; a run to repeat ends by trainer.stop()"
                )
            case Failure():
                self.training.fail(message.error)

    def _join(self, message: Join) -> None:
        if differences := self.settings.differences(message.settings):
            raise RefusedError("this program differs from the recorded run's: " + "; ".join(differences))
        self.training.use(replace(self.settings, evaluate=self.best is not None, wait_for_score=False))
        if self.best is not None:
            self.training.end_after(int(self.summary["steps"]))  # an epoch that ended early was evaluated, too
        self.inbox.append(Welcome(0, self.settings.shards, True))

    def _go_on(self) -> None:
        """Apply steps that are complete, then lease the shards that were applied next in the recorded run."""
        training = self.training
        self._advance()
        while not training.failure and self.at < len(self.order) and self.order[self.at].version == LEFT_OUT:
            arrival = self.order[self.at]
            step = self._step(arrival.step)
            for shard in range(arrival.start, arrival.stop):
                weight = 0.0 if self.weigh is None else self.weigh(step.number, shard, shard + 1)
                training.leave_out(step, shard, weight)
            training.accept(b"", 0, Contribution(arrival.step, training.version, [], [], False), step, True)
            self._advance()
            self.at += 1
        if training.failure:
            raise RunError(f"the run has failed: {training.failure}")
        self._keep(training.version)
        if self.at == len(self.order):
            if self.best is not None:
                if training.best is None:
                    raise DataError(f"the record is damaged: epoch {self.best}, the best of the run, never ends")
                training.finish()
            self.inbox.append(Finish(training.version, True, "", training.weights.vector, training.number))
            return
        arrival = self.order[self.at]
        self._step(arrival.step)
        if arrival.version not in self.versions:
            raise DataError(f"the record is damaged: step {arrival.step} was made with weights {arrival.version}")
        weights = self.versions[arrival.version]
        self.inbox.append(
            Lease(self.at + 1, arrival.step, arrival.start, arrival.stop, arrival.version, weights)
        )

    def _advance(self) -> None:
        """Apply the steps that are complete; of epochs that end, keep the weights of the best."""
        training = self.training
        training.advance(0.0, 1)
        for epoch in list(training.ledger.evaluations):
            score = 0.0 if epoch == self.best else math.nan
            training.score(epoch, {training.weights.settings.keep_best or "": score}, last=False)
        self.actions.clear()

    def _step(self, number: int) -> Step:
        """Return the step of this number, opened if it has not been; raise DataError if the record cannot have it."""
        ledger = self.training.ledger
        while number not in ledger.open:
            if ledger.opened > number or ledger.open_next() is None:
                raise DataError(f"the record is damaged: step {number} was not to come yet, or is over")
        return ledger.open[number]

    def _keep(self, version: int) -> None:
        """Keep the weights of this version if a later contribution needs them, and drop those that none needs."""
        for old in [old for old in self.versions if self.last_use[old] < self.at]:
            del self.versions[old]
        if version not in self.versions and self.last_use.get(version, -1) >= self.at:
            self.versions[version] = self.training.weights.outgoing().copy()

    def receive(self, seconds: float) -> tuple[FromServer, int] | None:
        return self.inbox.popleft(), 0

    def close(self, status: int) -> None:
        """Write replay.json, with both hashes of the weights, unless the program has failed or never began.

        Raises RecordError if the file cannot be written.
        """
        if status != 0 or not self.training.ready:
            return
        repeated = self.settings.layout.sha256(self.training.weights.vector)
        plain = {
            "contributions": len(self.order),
            "weights_sha256": repeated,
            "recorded_sha256": self.summary.get("weights_sha256", ""),
            "equal": repeated == self.summary.get("weights_sha256"),
        }
        try:
            files.write_json(self.directory / FILE, plain)
        except OSError as error:
            raise RecordError(f"{self.directory / FILE} cannot be written: {files.reason(error)}") from None
