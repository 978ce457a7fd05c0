"""A run in one process: the server's state machine, called directly, with its record and its display."""

import time
from collections import deque
from pathlib import Path
from typing import Any

from karp.data import Plan
from karp.errors import RecordError
from karp.protocol.messages import Failure, FromServer, FromWorker, Lease
from karp.protocol.server.actions import Report, Send
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import take
from karp.protocol.tree import Node
from karp.record.directory import Record
from karp.record.kernels import kernels
from karp.serve.driver import conclude


class LocalLink:
    """The server's state machine in this process, with its record and its display."""

    address = "this process"
    trouble = ""
    gradients = None
    overtaken = False
    peer = b"local"

    def __init__(self, directory: Path, program: str, show: bool) -> None:
        from karp.monitor import streams
        from karp.monitor.terminal import Display
        self.program = program
        self.record = Record(directory)
        self.display = Display(streams.for_progress() if show else None)
        self.server = Server(1, Plan, time.monotonic())
        self.inbox: deque[FromServer] = deque()

    def settle(self) -> None:
        """The model's weights are its own."""

    def at_once(self, lease: Lease, node: Node) -> bool:
        """Most steps: an update and no message, as both machines share their vectors and the lease."""
        return self.server.fast_path.try_apply(self.peer, lease, node, time.monotonic())

    def send(self, message: FromWorker, incarnation: int) -> None:
        now = time.monotonic()
        if isinstance(message, Failure):  # there is no other worker to try it
            self.record.report("traceback", {"worker": 0, "traceback": message.traceback})
            actions = self.server.fail(f"the program failed: {message.error}", now)
        else:
            actions = self.server.receive(self.peer, message, incarnation, now)
        for action in actions:
            if isinstance(action, Send):
                self.inbox.append(action.message)
            elif isinstance(action, Report):
                self._report(action.kind, action.values)
            else:
                self.record.save(take(self.server))

    def _report(self, kind: str, values: dict[str, Any]) -> None:
        self.record.report(kind, values)
        self.display.show(kind, values)
        for trouble in self.record.writer.take_troubles():
            self._report("notice", {"step": self.server.training.version, "text": trouble})

    def receive(self, seconds: float) -> tuple[FromServer, int] | None:
        return self.inbox.popleft(), self.server.incarnation

    def close(self, status: int) -> None:
        """End the run; raises RecordError, naming them, if files of it cannot be written."""
        self.server.computes_with(kernels(), time.monotonic())  # as its worker, but for the record
        summary = conclude(self.server, self.record, self.program, 1, status)
        for trouble in self.record.writer.take_troubles():
            self.display.say(trouble)
        self.display.conclude(summary, self.record.path)
        if missing := summary.get("missing"):
            names = ", ".join(missing)
            raise RecordError(
                f"not all files of the run are in {self.record.path}: {names} cannot be written; the model has the "
                "weights, to be saved elsewhere"
            )
