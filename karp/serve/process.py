"""The server process: the server's state machine, its sockets and its record in one loop.

A launcher starts it. The two exchange lines of JSON over pipes that no other process can reach, and that show each end
when the other is gone:

    stdin     the first line: a `Config` (serve/config.py); then {"ended": 2, "well": false} for a worker's process,
              {"released": [2, 3]} for all workers that are to get no task any more, {"fail": "…"} to give the run up,
              and at last {"close": status}
    stdout    one line per report, as in metrics.jsonl
"""

import contextlib
import json
import select
import sys
import time
from pathlib import Path
from typing import Any

import zmq

from karp import data, environment, faults
from karp.errors import KarpError, ProtocolError
from karp.monitor import streams
from karp.protocol.messages import Waiting
from karp.protocol.reports import Arrivals, Exchange, Failure, Listening, Report, to_line
from karp.protocol.server.actions import Action, Save, Send
from karp.protocol.server.machine import ALIVE_SECONDS, Server
from karp.protocol.server.summary import finished
from karp.record.directory import Record
from karp.record.kernels import kernels
from karp.serve.config import Config
from karp.serve.driver import Audience, conclude
from karp.serve.pipe import PipeLines
from karp.transport import segment
from karp.transport.keys import Keys
from karp.transport.server_end import ServerEnd
from karp.transport.shared_server import SharedServer
from karp.transport.zeromq_server import ServerSocket

TICK_SECONDS = 0.25
RESTLESS_SECONDS = 0.05  # between ticks, while a backup lease may be due soon
LAUNCHER_GONE = 1
DURABLE_SECONDS = 30.0  # for the last checkpoint to reach the disk
BATCH = 200  # the most messages that are handled before the pipe and the clock are read again


class LauncherPipe:
    """Writes reports to the launcher."""

    def report(self, report: Report) -> None:
        """Write a report as a line; arrivals are left out, as no viewer shows them."""
        if not isinstance(report, Arrivals):
            print(to_line(report), flush=True)


class ServerProcess:
    """The server's machine with its sockets, its record and its pipes."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.record = Record(Path(config.run_dir), config.resume, config.keep)
        trouble = segment.why_unavailable() if config.exchange == "auto" else ""
        shares = config.exchange == "auto" and not trouble
        shared = SharedServer(self.record.say) if shares else None
        if trouble:
            self.record.say(segment.not_shared("workers", trouble))
        self.server = Server(
            config.workers,
            data.Plan,
            time.monotonic(),
            incarnation=config.incarnation,
            save_seconds=config.save_seconds,
            skip=config.skip,
            memory=shared,
            same_kernels=config.same_kernels,
        )
        if faults.PLAN is not None:
            self.server.ranges.reach = lambda point, step: faults.reach(point, step=step)
        self.audience = Audience(self.server, self.record, config.launched or self.server.now, LauncherPipe())
        self.server.joining.resume(config.shards, config.changed)
        self.server.joining.launched = config.numbers
        self.compared = False  # whether its kernels have been compared with those of the first worker
        self.exchange_reported = False
        self.first_version = -1  # that of the weights when training began in this process
        keys = Keys.from_text(config.keys, environment.KEYS) if config.keys else None
        socket = ServerSocket(config.descriptor, config.address, config.run, config.incarnation, keys)
        self.end = ServerEnd(socket, shared, self.server.copy_borrowed)
        self.unreachable: list[bytes] = []  # peers to which a message could not be sent, to be dropped
        self.status: int | None = None
        if config.resume and (snapshot := self.record.newest_checkpoint()) is not None:
            self.audience.restore(snapshot)
            self.perform(self.server.tick(time.monotonic()))
        LauncherPipe().report(Listening(0.0, 0))

    def perform(self, actions: list[Action]) -> None:
        """Perform the machine's actions in order; a peer to which a message cannot be sent is dropped by `receive`."""
        for action in actions:  # `match` would take longer than all else here
            if isinstance(action, Send):
                if not self.end.send(action.peer, action.message):
                    self.unreachable.append(action.peer)
                if faults.PLAN is not None:
                    faults.reach("replied", step=self.server.version)
            elif isinstance(action, Save):
                self.audience.save()
                if action.durable:
                    self.wait_until_durable()
            else:
                self.audience.report(action)
        if self.record.writer.troubles:  # those that come during this are reported after the next event
            self.audience.report_troubles()

    def wait_until_durable(self) -> None:
        """Wait until the checkpoint is on the disk, for at most DURABLE_SECONDS; workers get a sign of life meanwhile.

        If that takes longer, tell the user and go on.
        """
        until = time.monotonic() + DURABLE_SECONDS
        while not self.record.writer.wait(ALIVE_SECONDS):
            for peer in self.server.members:
                self.end.send(peer, Waiting(""))
            if time.monotonic() > until:
                late = f"the last checkpoint is not on the disk after {DURABLE_SECONDS:.0f} s: the run ends without it"
                self.record.say(late)
                return

    def receive(self) -> None:
        """Handle the messages that have arrived, at most BATCH; if no more are there, drop the unreachable peers.

        A worker that has ended may have sent its last messages before that: they count.
        """
        version = self.server.version
        for _ in range(BATCH):
            arrived = self.end.receive()
            if arrived is None:
                if self.unreachable and not self.end.may_have_message:  # the socket has not been looked at
                    self.end.may_have_message = True
                    continue
                while self.unreachable:
                    self.perform(self.server.lost(self.unreachable.pop(), time.monotonic()))
                return
            peer, message, incarnation = arrived
            if self.end.unopened:
                self.free_slots()
            now = time.monotonic()
            if isinstance(message, ProtocolError):
                self.perform(self.server.malformed(peer, str(message), now))
            else:
                faults.reach("received", step=version)
                actions = self.server.receive(peer, message, incarnation, now)
                if (newest := self.server.version) != version:
                    faults.reach("applied", step=version)
                    version = newest
                self.perform(actions)

    def free_slots(self) -> None:
        """Free the slots in shared memory of workers that are gone, or that cannot open their slot."""
        self.end.free_slots({peer: member.worker for peer, member in self.server.members.items()})

    def handle_command(self, command: dict[str, Any]) -> None:
        """Handle a command from the launcher."""
        now = time.monotonic()
        if "close" in command:
            self.status = command["close"]
        elif "fail" in command:
            self.perform(self.server.fail(command["fail"], now))
        elif "released" in command:
            self.perform(self.server.release(command["released"], now))
        else:
            self.perform(self.server.ended(command["ended"], command["well"], now))

    def handle_commands(self, commands: PipeLines) -> None:
        """Handle the commands that have arrived; close the run if the launcher is gone."""
        for line in commands.read():
            self.handle_command(json.loads(line))
        if commands.ended and self.status is None:
            self.status = LAUNCHER_GONE

    def run(self, commands: PipeLines) -> None:
        """Serve until the launcher closes the run, or is gone."""
        self.end.socket.poller.register(commands.descriptor, zmq.POLLIN)
        ticked = time.monotonic()
        if select.select([commands.descriptor], [], [], 0)[0]:  # a worker that has ended may be replaced at once
            self.handle_commands(commands)
        while self.status is None:
            seconds = RESTLESS_SECONDS if self.server.restless else TICK_SECONDS
            has_command = self.end.wait(seconds, commands.descriptor)
            self.receive()
            if not self.exchange_reported and self.server.begun:
                self.report_exchange()
            if has_command:
                self.handle_commands(commands)
            if (now := time.monotonic()) - ticked >= seconds:
                self.perform(self.server.tick(now))
                ticked = now
                self.free_slots()
                self.report_rejected()
                if self.server.begun and not self.compared:
                    self.compare_kernels()
        self.finish(self.status)

    def report_exchange(self) -> None:
        """Report how the run exchanges gradients, once its first step is applied: only then a range can begin."""
        server, members = self.server, self.server.members
        if self.first_version < 0:
            self.first_version = server.version
        if server.version == self.first_version or not members:
            return
        self.exchange_reported = True
        sharing = sum(self.end.shares(peer) for peer in members)
        in_ranges = server.ranges.number > 0
        self.audience.report(Exchange(server.seconds, server.step, len(members), sharing, in_ranges))

    def compare_kernels(self) -> None:
        """Compare the server's kernels with the first worker's; call it once, when training has begun."""
        self.compared = True
        self.perform(self.server.computes_with(kernels(), time.monotonic()))

    def report_rejected(self) -> None:
        """Report the connections that were rejected since the last call."""
        for reason in self.end.socket.rejected.take_reasons():
            self.perform(self.server.connection_rejected(reason, time.monotonic()))

    def finish(self, status: int) -> None:
        """Handle the messages that have arrived, tell the workers, and write checkpoint, weights and summary.

        `status` is the exit status that the launcher has sent; it becomes 1 if the run has not come to its end.
        """
        server = self.server
        self.end.may_have_message = True  # so that whatever has arrived is received and counted
        self.receive()
        self.report_rejected()
        if not self.compared:
            self.compare_kernels()
        for action in server.closing(time.monotonic()):
            if isinstance(action, Send):
                self.end.send(action.peer, action.message)
        status = status or int(not finished(server))  # workers may end well before their run does
        facts = {"program": self.config.program, "command": self.config.command, "workers": self.config.workers}
        socket = self.end.socket
        traffic = {"bytes_received": socket.bytes_received, "bytes_sent": socket.bytes_sent}
        conclude(self.audience, facts | traffic, status)
        self.end.close()


def raise_descriptor_limit() -> None:
    """Raise the limit of open descriptors: idle connections use one each, and files must still be opened."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # this system has no such limit, or allows no more
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Serve a run over the pipes of its launcher; return the exit status of this process.

    That is 0 once the run is closed, however the run ended, and 2 if the server refuses to run (the launcher gets the
    reason as a Failure).
    """
    raise_descriptor_limit()
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as first_line:  # PipeLines reads what follows
        config = Config(**json.loads(first_line.readline()))
    with streams.command():  # when the launcher is gone, the commands end and the run is closed
        try:
            ServerProcess(config).run(PipeLines(sys.stdin.fileno()))
        except KarpError as error:
            LauncherPipe().report(Failure(0.0, 0, str(error)))
            return 2
    return 0  # the run is closed; its own exit status is in the summary
