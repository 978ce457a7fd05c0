"""A worker's session with its server: all messages from the first to the last."""

import atexit
import os
import socket
import sys
import time
import traceback

from karp import environment, faults
from karp.errors import KarpError, ProgramError, RecordError
from karp.monitor import streams
from karp.monitor.terminal import Display
from karp.protocol.messages import HOST, Done, FromWorker
from karp.protocol.settings import Settings
from karp.protocol.worker import PING_SECONDS, Worker
from karp.record.kernels import kernels
from karp.text import sendable
from karp.trainer.inputs import status_of
from karp.trainer.interrupts import Terminated
from karp.trainer.link import Link

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # the folder of karp's own files


class Session:
    """Sends the messages of a worker over a link, and passes the server's answers to the worker's machine.

    A worker that was started by hand prints when it has joined and left; of others the launcher shows that.
    """

    def __init__(self, worker: Worker, link: Link) -> None:
        self.worker = worker
        self.link = link
        by_hand = environment.read(environment.SERVER) and not environment.read(environment.LEASH)
        self.display = Display(streams.for_progress() if by_hand else None)
        self.joined = not by_hand  # whether the user knows, or need not know, that it has joined

    def join(self, settings: Settings, remarks: list[str]) -> None:
        """Send the request to join the run of these settings; the remarks on the data are for the run's user."""
        faults.reach("join")
        host = sendable(socket.gethostname(), HOST)
        self.send(self.worker.request_join(settings, host, os.getpid(), time.monotonic(), kernels(), remarks))

    def send(self, message: FromWorker) -> None:
        self.link.send(message, self.worker.incarnation)

    def wait_for_task(self) -> None:
        """Handle messages until there is a task, or the run is over; raises what `Worker.receive` and `tick` raise."""
        while self.worker.task is None and self.worker.over is None:
            self.handle_next()

    def handle_next(self) -> None:
        """Wait for the next message and handle it; if none comes, remind the server."""
        worker, link = self.worker, self.link
        faults.reach("waiting", step=worker.version)
        arrived = link.receive(PING_SECONDS)
        faults.reach("answered", step=worker.version)
        now = time.monotonic()
        reply = worker.tick(now, link.address, link.diagnosis) if arrived is None else worker.receive(*arrived, now)
        if not self.joined and worker.joining is None:
            self.joined = True
            self.display.say(f"joined the run at {link.address} as worker {worker.number}")
        if reply is not None:
            self.send(reply)

    def wait_for_leader(self) -> None:
        """Handle messages until this worker is the leader, or the leader has ended; the run must be over."""
        worker = self.worker
        while worker.over is not None and not worker.over.main and not worker.closed:
            self.handle_next()

    def close(self, error: BaseException | None) -> None:
        """Close the link, as the program goes on with this error; what then fails is a note on it, if there is one."""
        try:
            self.link.close(status_of(error))
        except RecordError as lost:
            if error is None:
                raise
            error.add_note(f"karp: {lost}")

    def leave(self, error: BaseException | None, launched: bool) -> None:
        """Leave the run, as the program leaves its `with` block with this error, or with None.

        Without an error: end the run if it is not over, and send Leave; a launched program sends Done when it exits.
        With an interrupt: send Leave only, and others compute what this worker had. With any other error: report the
        failure, unless the run is over.
        """
        over = self.worker.over is not None
        if error is None:
            if not over:
                self._stop_run()
            self.send(self.worker.leave())
            self.display.say("left the run, which has ended")
            faults.reach("left")
            if launched:
                atexit.register(self._send_done, os.getpid())
        elif isinstance(error, KeyboardInterrupt | Terminated):
            self.send(self.worker.leave())
            self.display.say("left the run; what this worker was at goes to others")
        elif not over:
            line = "".join(traceback.format_exception_only(error)).strip()
            self.send(self.worker.failed(line, text_of(error), certain=isinstance(error, ProgramError)))

    def _stop_run(self) -> None:
        """End the run for every worker after the current step, and wait until it is over."""
        for message in self.worker.stop():
            self.send(message)
        self.wait_for_task()

    def _send_done(self, process: int) -> None:
        """Close the link as the program exits; before that send Done, if this worker is the leader and ends well."""
        if os.getpid() != process:  # this process is a fork of the worker's
            return
        faults.reach("done")
        if self.worker.over is not None and self.worker.over.main and getattr(sys, "last_value", None) is None:
            self.send(Done())
        self.link.close(0)


def text_of(error: BaseException) -> str:
    """Return the text of an exception with its traceback; for a KarpError without the calls inside karp."""
    shown = traceback.TracebackException.from_exception(error)
    if isinstance(error, KarpError):
        while len(shown.stack) > 1 and shown.stack[-1].filename.startswith(PACKAGE):
            shown.stack.pop()
    return "".join(shown.format())
