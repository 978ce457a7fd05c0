"""The server process: the protocol's state machine, the wire and the record in one loop.

It is started by a launcher and speaks with it in lines of JSON, over pipes that nobody else can reach and whose end
tells each of them that the other is gone:

    stdin     the first line: a `Config` (serve/config.py); then {"ended": 2, "well": false} for a worker's process,
              {"fail": "…"} to give the run up, and at last {"close": status}
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
from karp.protocol.messages import Evaluation, FromServer, Lease, Waiting
from karp.protocol.reports import Arrivals, Failure, Report, to_line
from karp.protocol.server.actions import Action, Send
from karp.protocol.server.machine import ALIVE_SECONDS, Server
from karp.protocol.server.snapshot import restore, take
from karp.record.directory import Record
from karp.record.kernels import kernels
from karp.serve.config import Config
from karp.serve.driver import Audience, conclude, finished
from karp.serve.pipe import PipeLines
from karp.transport import segment
from karp.transport.keys import Keys
from karp.transport.shared_server import SharedServer
from karp.transport.zeromq_server import ServerSocket

TICK_SECONDS = 0.25
RESTLESS_SECONDS = 0.05  # between ticks, while a lease may soon have to be given again
LAUNCHER_GONE = 1
LASTING_SECONDS = 30.0  # for the last checkpoint to reach the disk
BATCH = 200  # messages taken before the pipe and the clock are looked at again


class LauncherPipe:
    """Writes reports to the launcher."""

    def report(self, report: Report) -> None:
        """Write a line; not of arrivals, which nobody looks at while the run goes on."""
        if not isinstance(report, Arrivals):
            print(to_line(report), flush=True)


class Process:
    """Everything the server process holds."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.record = Record(Path(config.run_dir), config.resume, config.keep)
        trouble = segment.why_unavailable() if config.exchange == "auto" else ""
        shares = config.exchange == "auto" and not trouble
        self.shared = SharedServer(self.record.say) if shares else None
        self.unopened = self.shared.unopened if self.shared is not None else {}
        if trouble:
            self.record.say(segment.not_shared("workers", trouble))
        self.server = Server(
            config.workers,
            data.Plan,
            time.monotonic(),
            incarnation=config.incarnation,
            save_seconds=config.save_seconds,
            skip=config.skip,
            memory=self.shared,
            same_kernels=config.same_kernels,
        )
        self.audience = Audience(self.server, self.record, LauncherPipe())
        self.server.joining.resume(config.shards, config.changed)
        self.compared = False  # its kernels with those of the first worker
        keys = Keys.from_text(config.keys, environment.KEYS) if config.keys else None
        self.socket = ServerSocket(
            config.descriptor, config.address, config.run, config.incarnation, keys, self.shared
        )
        self.status: int | None = None
        if config.resume and (snapshot := self.record.newest_checkpoint()) is not None:
            restore(self.server, snapshot)
            if config.incarnation == 0:
                self.record.save(take(self.server))  # without the workers of the earlier launch
            self.perform(self.server.tick(time.monotonic()))

    def perform(self, actions: list[Action]) -> None:
        """Do what the machine says; a peer that turns out to be gone is one more event."""
        for action in actions:  # no `match`, which takes longer than the rest
            if isinstance(action, Send):
                self.lend(action.peer, action.message)
                if not self.socket.send(action.peer, action.message):
                    self.perform(self.server.lost(action.peer, time.monotonic()))
                if faults.PLAN is not None:
                    faults.reach("replied", step=self.server.version)
            elif isinstance(action, Report):
                self.audience.report(action)
            else:
                self.record.save(take(self.server))
                if action.lasting:
                    self.outlast()
        if self.record.writer.troubles:  # what comes while they are taken is said after the next event
            self.audience.report_troubles()

    def outlast(self) -> None:
        """Until the checkpoint is on the disk; whoever waits hears that this server lives."""
        until = time.monotonic() + LASTING_SECONDS
        while not self.record.writer.wait(ALIVE_SECONDS):
            for peer in self.server.members:
                self.socket.send(peer, Waiting(""))
            if time.monotonic() > until:
                late = f"the last checkpoint is not on the disk after {LASTING_SECONDS:.0f} s: the run ends without it"
                self.record.say(late)
                return

    def lend(self, peer: bytes, message: FromServer) -> None:
        """Before a worker is given work, and so writes into its slot again, keep what it has contributed there."""
        if self.shared is not None and isinstance(message, Lease | Evaluation):
            weights, slot = self.server.training.weights, self.shared.slots.get(peer)
            if slot is not None and weights.sums:
                weights.copy_borrowed(slot.segment.vector)

    def receive(self) -> None:
        """What has arrived on the wire."""
        version = self.server.version
        for _ in range(BATCH):
            arrived = self.socket.receive()
            if arrived is None:
                return
            peer, message, incarnation = arrived
            if self.unopened:
                self.forget()
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

    def forget(self) -> None:
        """Free the memory of workers that are here no more, or work without it."""
        if self.shared is None:
            return
        without: dict[str, list[str]] = {}
        for peer in list(self.shared.slots):
            member = self.server.members.get(peer)
            why = self.shared.unopened.pop(peer, "")
            if member is None or why:
                self.shared.forget(peer)
            if member is not None and why:
                without.setdefault(why, []).append(str(member.worker))
        for why, workers in without.items():
            who = f"worker{'s' * (len(workers) > 1)} {', '.join(workers)}"
            self.record.say(segment.not_shared(who, why))

    def obey(self, order: dict[str, Any]) -> None:
        """A line from the launcher."""
        now = time.monotonic()
        if "close" in order:
            self.status = order["close"]
        elif "fail" in order:
            self.perform(self.server.fail(order["fail"], now))
        else:
            self.perform(self.server.ended(order["ended"], order["well"], now))

    def take_orders(self, orders: PipeLines) -> None:
        for line in orders.read():
            self.obey(json.loads(line))
        if orders.ended and self.status is None:
            self.status = LAUNCHER_GONE

    def run(self, orders: PipeLines) -> None:
        """Serve until the launcher closes the run or is gone."""
        self.socket.poller.register(orders.descriptor, zmq.POLLIN)
        ticked = time.monotonic()
        if select.select([orders.descriptor], [], [], 0)[0]:  # before anybody joins for a worker that has ended
            self.take_orders(orders)
        while self.status is None:
            seconds = RESTLESS_SECONDS if self.server.restless else TICK_SECONDS
            ordered = self.socket.wait(seconds, orders.descriptor)
            self.receive()
            if ordered:
                self.take_orders(orders)
            if (now := time.monotonic()) - ticked >= seconds:
                self.perform(self.server.tick(now))
                ticked = now
                self.forget()
                self.count_strangers()
                if self.server.begun and not self.compared:
                    self.compare_kernels()
        self.finish(self.status)

    def compare_kernels(self) -> None:
        """Not before there is something to compare with: then nobody waits for this."""
        self.compared = True
        self.perform(self.server.computes_with(kernels(), time.monotonic()))

    def count_strangers(self) -> None:
        """Those who have been turned away at the door."""
        for reason in self.socket.rejected.take_reasons():
            self.perform(self.server.stranger(reason, time.monotonic()))

    def finish(self, status: int) -> None:
        """Leave a checkpoint, the weights and the summary."""
        server = self.server
        self.socket.may_have_message = True  # so that whatever has arrived is received and counted
        self.receive()
        self.count_strangers()
        if not self.compared:
            self.compare_kernels()
        for action in server.closing(time.monotonic()):
            if isinstance(action, Send):
                self.socket.send(action.peer, action.message)
        status = status or int(not finished(server))  # workers may end well before their run does
        conclude(self.audience, self.config.program, self.config.workers, status)
        self.socket.close()


def more_descriptors() -> None:
    """Idle strangers take one each: have as many as may be, so that files can still be opened."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on this system, or no more
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Serve a run, with the pipes of its launcher; returns the exit status of this process."""
    more_descriptors()
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as orders:  # unbuffered: the rest is for PipeLines
        config = Config(**json.loads(orders.readline()))
    with streams.command():  # a launcher that is gone is seen at the end of the orders, and the run is closed then
        try:
            Process(config).run(PipeLines(sys.stdin.fileno()))
        except KarpError as error:
            LauncherPipe().report(Failure(0.0, 0, str(error)))
            return 2
    return 0  # it has closed the run, however that has ended
