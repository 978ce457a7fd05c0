"""The link of a run in one process: the server's state machine, called directly, with a display and a record."""

import shlex
import time
from collections import deque
from pathlib import Path
from typing import Any

from karp.data import Plan
from karp.errors import ProgramError, RecordError
from karp.monitor import streams
from karp.monitor.terminal import Display
from karp.optim import OptimizerState
from karp.protocol.messages import Failure, FromServer, FromWorker, Lease, Leave
from karp.protocol.reports import Traceback
from karp.protocol.server.actions import Save, Send
from karp.protocol.server.machine import Server
from karp.protocol.tree import Node
from karp.record.directory import Record
from karp.record.kernels import kernels
from karp.record.launched import Launched, command_line
from karp.serve.driver import Audience, conclude


class LocalLink:
    """The server's state machine in this process, with a display, and a record if it has a directory."""

    address = "this process"
    diagnosis = ""
    gradients = None
    copies = ()
    overtaken = False
    peer = b"local"

    def __init__(
        self,
        directory: Path | None,
        program: str,
        show: bool,
        launched: tuple[Launched, str] | None = None,
        optimizer_state: OptimizerState | None = None,
    ) -> None:
        self.program = program
        self.record = None if directory is None else Record(directory)
        self.can_go_on = self.record is not None and launched is not None
        if self.record is not None and launched is not None:
            options, cwd = launched
            self.record.keep_launched(options, cwd)
        self.display = Display(streams.for_progress() if show else None)
        self.server = Server(1, Plan, time.monotonic())
        self.server.training.initial_state = optimizer_state
        self.audience = Audience(self.server, self.record, self.server.now, self.display)
        self.inbox: deque[FromServer] = deque()
        self.at_work = False  # whether the machine handles a message; it stays True if an exception interrupts it

    def release_weights(self) -> None:
        """Do nothing: the worker's weights lie in its own vector."""

    def try_apply(self, lease: Lease, node: Node, weight: float) -> bool:
        """End a step in a range (`karp.protocol.server.ranges`); return False if it needs messages."""
        return self.server.ranges.try_to_end(self.peer, lease, node, weight, time.monotonic())

    def send(self, message: FromWorker, incarnation: int) -> None:
        """Handle a worker's message at once; the answers are in `inbox` then.

        Raises ProgramError if an exception has interrupted the server's machine before, except for Failure and Leave.
        """
        if isinstance(message, Failure) and self.record is not None:
            self.record.report(Traceback(self.server.seconds, self.server.step, 0, message.traceback, False))
        if self.intact:
            self.at_work = True
            self._perform(message, incarnation)
            self.at_work = False
        elif not isinstance(message, Failure | Leave):
            raise ProgramError(
                "the run was broken off in the middle of a step, by an exception that a handler of the program raised: "
                "it cannot go on in this process, only from its newest checkpoint"
            )

    @property
    def intact(self) -> bool:
        """Whether the machine's state is valid: no exception has interrupted it while it handled a message."""
        return not (self.at_work or self.server.ranges.at_work)

    def _perform(self, message: FromWorker, incarnation: int) -> None:
        """Pass a message to the server's machine, and perform the actions that it returns."""
        now = time.monotonic()
        if isinstance(message, Failure):  # no other worker can try the shard
            actions = self.server.fail(f"the program failed: {message.error}", now)
        else:
            actions = self.server.receive(self.peer, message, incarnation, now)
        for action in actions:
            if isinstance(action, Send):
                self.inbox.append(action.message)
            elif isinstance(action, Save):
                self.audience.save()
            else:
                self.audience.report(action)

    def receive(self, seconds: float) -> tuple[FromServer, int] | None:
        return self.inbox.popleft(), self.server.incarnation

    def close(self, status: int) -> None:
        """Write the run's last files and show its results; raises RecordError, naming files that cannot be written."""
        self.server.computes_with(kernels(), time.monotonic())  # records that the server uses its worker's kernels
        facts = {"program": self.program, "command": command_line(), "workers": 1}
        summary = conclude(self.audience, facts, status, self.intact)
        directory = None if self.record is None else self.record.path
        self.display.conclude(summary, directory, failed=bool(summary["failure"] or summary.get("missing")))
        self._say_how_to_resume(summary)
        if missing := summary.get("missing"):
            names = ", ".join(missing)
            raise RecordError(
                f"not all files of the run are in {directory}: {names} cannot be written; the model has the "
                "weights, to be saved elsewhere"
            )

    def _say_how_to_resume(self, summary: dict[str, Any]) -> None:
        """Print how to resume a run that was stopped before its end, or interrupted within an update.

        Nothing is printed for a run that has finished or failed. Without a display, standard error gets the line,
        unless there is no record either: such a run is a part of something else, which says itself what has ended.
        """
        silent = self.record is None and self.display.stream is None
        if self.intact and (summary["finished"] or summary["failure"] or not summary["exit"] or silent):
            return
        if self.record is None:
            go_on = "no launcher can go on with it, as it keeps no record"
        elif self.can_go_on:
            go_on = shlex.join(["karp", "launch", "--resume", str(self.record.path.absolute()), "-n", "1"])
        else:
            go_on = "no launcher can go on with it, as it is not the first training of a program file"
        what = f"stopped after step {summary.get('steps', 0)}"
        if not self.intact:
            left = "nothing is left of it" if self.record is None else "what is left is the newest checkpoint"
            what = f"broken off in the middle of a step: {left}"
        display = self.display if self.display.stream is not None else Display(streams.for_progress())
        display.say(f"{what}; {'to go on: ' * self.can_go_on}{go_on}")
