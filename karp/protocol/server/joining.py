"""The beginning of a run: workers join, the first brings the settings, one sends the initial weights.

A run begins when all workers have joined, or when the deadline for joining has passed and some have.

The first worker's settings are the run's. A run that is resumed has them already. If it may go on with a changed
program, the first worker may bring another file with otherwise equal settings: `programs` says which ran when. One
worker at a time is asked for the initial weights, which are equal in all; if it is lost, the next one is asked. A
worker that joins later, or again, gets its number and takes part. The kernels of each are recorded and compared with
those of the first.
"""

from dataclasses import replace
from itertools import count
from typing import Any

from karp.errors import ProtocolError
from karp.limits import ANY_SHARDS
from karp.protocol import reports
from karp.protocol.kernels import Kernels, KernelUses
from karp.protocol.messages import Initial, Join, Waiting, Welcome
from karp.protocol.server import sizes
from karp.protocol.server.actions import Action, Save, Send
from karp.protocol.server.ending import Ending
from karp.protocol.server.leasing import NOTICE_SECONDS, Leasing
from karp.protocol.server.states import RunState, WorkerState
from karp.protocol.server.training import Training
from karp.protocol.server.workers import WorkerInfo
from karp.protocol.settings import Settings

JOIN_SECONDS = 60.0  # the run begins without the workers that have not joined by then

HINTS = {  # what to do about settings that differ
    "program_sha256": "a run goes on with the file that it began with, but for karp launch --resume DIR --changed",
    "weights_sha256": "every worker must make the same weights: give the model a seed",
    "data_sha256": "every worker must have the same data: give what is random in them a seed",
}


class Joining:
    """The workers that join, at the beginning of a run or later: checks them, numbers them, begins the run.

    The run begins when `workers` have joined. With `same_kernels`, workers with other kernels are refused.
    """

    def __init__(
        self,
        workers: int,
        training: Training,
        leasing: Leasing,
        ending: Ending,
        out: list[Action],
        now: float,
        same_kernels: bool,
    ) -> None:
        self.training = training
        self.leasing = leasing
        self.ending = ending
        self.out = out
        self.workers = self.launched = workers
        self.shards = workers  # the shards of a step, if the program leaves their number to the run
        self.may_change = False  # whether a run that is resumed may go on with a program file that has changed
        self.programs: list[tuple[int, str]] = []  # (step, SHA-256): from which step on which program file has run
        self.join_by = now + JOIN_SECONDS
        self.notice_at = now + NOTICE_SECONDS
        self.asked = b""  # the peer that was asked for the initial weights
        self.same_kernels = same_kernels
        self.kernel_uses = KernelUses()

    def known_number(self, peer: bytes, message: Join) -> int | None:
        """Check a Join; return None if its worker is to be added to the run.

        Otherwise return the number of the worker: it has been told that the run is over, or has left.

        Raises ProtocolError for a program that differs from the run's, and for other kernels if they must be the same.
        """
        if self.training.settings is None:
            self._adopt_settings(message.settings)
        assert self.training.settings is not None
        if self.may_change:
            self._change_program(self.training.settings, message.settings)
        if differences := self.training.settings.differences(message.settings):
            advice = [hint for name, hint in HINTS.items() if any(text.startswith(name) for text in differences)]
            raise ProtocolError("this program differs from the run's: " + "; ".join([*differences, *advice]))
        if self.same_kernels and (others := self.kernel_uses.differences(message.kernels)):
            raise ProtocolError(f"this worker on {message.host} computes with other kernels than the run's: {others}")
        member = self.leasing.members.get(peer)
        if member is None:
            member = self.ending.left_workers.get(peer)
            return None if member is None else member.worker
        return member.worker if member.state is WorkerState.NOTIFIED else None

    def _adopt_settings(self, settings: Settings) -> None:
        """Make the first worker's settings those of the run."""
        if settings.shards == ANY_SHARDS:
            settings = settings.with_shards(self.shards)
        self.training.use(settings)
        self.programs = [(0, settings.program_sha256)]
        self.training.report(reports.Settings, settings.to_dict())
        for text in [*sizes.of_batches(settings), *sizes.of_workers(settings, self.workers)]:
            self.training.notice(text)

    def resume(self, shards: int, changed: bool) -> None:
        """Prepare to resume a run of so many shards (0: not known); `changed` permits a changed program file."""
        self.shards, self.may_change = shards or self.workers, changed

    def restore(self, programs: Any) -> None:
        """Restore a run that has begun, in which these programs have run."""
        self.training.change_state(RunState.TRAINING)
        self.programs = [(int(step), str(digest)) for step, digest in programs]

    def _change_program(self, run: Settings, program: Settings) -> None:
        """Take over the program of the worker that joins, if it differs only in its file, and in evaluating or not."""
        evaluate = run.evaluate if run.wait_for_score else program.evaluate
        new = replace(run, program_sha256=program.program_sha256, evaluate=evaluate)
        if new.differences(program):
            return
        self.may_change = False  # further workers must have the same program
        if new == run:
            return
        self.training.settings = new
        if not new.evaluate:
            self.training.forget_evaluations()
        step = self.training.number
        self.programs.append((step, new.program_sha256))
        self.training.report(reports.Settings, new.to_dict())
        before, after = run.program_sha256[:12], new.program_sha256[:12]
        self.training.notice(f"the program has changed: from step {step} on it is {after} (SHA-256), before {before}")
        self.out.append(Save(durable=True))

    def add_worker(self, peer: bytes, message: Join, now: float) -> None:
        """Add a worker to the run: give it a number, and ask for the initial weights if no other worker is asked."""
        numbers, worker = self.ending.numbers, message.worker
        self.leasing.forget_division()
        if self.ending.is_leader(peer):
            worker = self.ending.leader
        if worker < 0 or numbers.get(worker, peer) != peer:  # numbers below `launched` are given by the launcher
            worker = next(number for number in count(self.launched) if number not in numbers)
        numbers[worker] = peer
        member = self.leasing.members[peer] = WorkerInfo(peer, worker, now, host=message.host)
        if (before := self.leasing.by_number.get(worker)) is not None:
            member.restarts = before.restarts + (before.peer != peer)
        self.leasing.by_number[worker] = member
        asked = self.needs_weights_from(peer)
        if asked:
            self.asked = peer
        self.welcome(peer, worker, asked)
        self.training.report(reports.Joined, worker, message.host, message.pid)
        self.compare(message.kernels, worker, f"worker {worker} on {message.host}")
        if self.training.over and self.ending.leader < 0 and not self.training.failure:
            self.ending.name_leader(worker)
        if not asked:
            self.leasing.mark_idle(member)
        if worker in self.leasing.released:
            self.leasing.release(member)

    def scale(self, peer: bytes, workers: int) -> None:
        """Report that the launcher is asked for so many workers, reserve numbers for new ones, and tell the peer.

        Raises ProtocolError if it cannot be: it starts none, or the run does not train.
        """
        if not self.launched:
            raise ProtocolError("this run's workers are started elsewhere: start or end them there")
        if self.training.state is not RunState.TRAINING:
            raise ProtocolError("the run is over" if self.training.over else "the run has not begun")
        first = max([self.launched, *(number + 1 for number in self.leasing.by_number)])
        self.launched = first + workers
        self.training.report(reports.Scale, workers, first)
        self.out.append(Send(peer, Waiting(f"the launcher to have {workers} workers")))

    def compare(self, kernels: Kernels, worker: int | None, who: str) -> None:
        """Record the kernels of a worker (None: of the server), and tell the user if they differ from the run's.

        With `same_kernels` the run fails instead. `who` names the process in the message.
        """
        differences = self.kernel_uses.differences(kernels)
        is_new = self.kernel_uses.add(kernels, worker)
        if is_new:
            self.training.report(reports.Kernels, worker, kernels.to_dict())
        if not differences:
            return
        what = f"{who} computes with other kernels than this run's: {differences}"
        if self.same_kernels:  # this is the server, as workers with other kernels have been refused
            self.training.fail(what)
        elif is_new:
            self.training.notice(
                f"{what}. So the bits of the weights depend on who computes what (karp launch --same-kernels refuses "
                "such workers)"
            )

    def welcome(self, peer: bytes, worker: int, asked: bool = False) -> None:
        """Send a worker its Welcome: its number, the shards of a step, and whether it is asked for initial weights."""
        assert self.training.settings is not None
        self.out.append(Send(peer, Welcome(worker, self.training.settings.shards, asked)))

    def needs_weights_from(self, peer: bytes) -> bool:
        """Return whether this peer is asked for the initial weights, or has to be, as no other worker is."""
        return not self.training.ready and (self.asked == peer or self.asked not in self.leasing.members)

    def initial(self, member: WorkerInfo, message: Initial) -> None:
        """Start from the initial weights of a worker, and report its remarks; ignore both if weights are known.

        Raises ProtocolError if these are not the weights that the settings name.
        """
        if not self.training.ready:
            self.training.weights.start_from(message.weights)
            for text in message.remarks:
                self.training.notice(text)
            member.version = -1 if self.training.weights.encoded else 0
        if member.task is None:
            self.leasing.mark_idle(member)

    def begin(self, now: float) -> None:
        """Begin training, if the weights and all workers are there; otherwise do nothing."""
        if self.training.ready and len(self.leasing.members) >= self.workers:
            self.training.change_state(RunState.TRAINING)
            self.training.progress.begin(now)
            self.training.report_begin(len(self.leasing.members))
            self.out.append(Save(durable=True))  # as workers will overwrite the initial weights

    def check_missing(self, now: float) -> None:
        """Tell the user from time to time which workers have not joined; after the deadline expect them no longer."""
        joined = len(self.leasing.members)
        missing = ", ".join(str(number) for number in range(self.workers) if number not in self.ending.numbers)
        text = f"{joined} of {self.workers} workers have joined; missing: worker {missing}; the run begins without"
        if now >= self.join_by and self.training.ready and joined:
            self.workers = joined
            self.training.notice(text)
        elif now >= self.notice_at:
            self.notice_at = now + NOTICE_SECONDS
            self.training.notice(f"{text} in {max(0.0, self.join_by - now):.0f} s")

    def describe_wait(self) -> str:
        """Describe why the run has not begun: how many workers have joined."""
        return f"{len(self.leasing.members)} of {self.workers} workers have joined; the run begins when all have"
