"""The server process: the protocol's state machine, the wire and the record in one loop.

It is started by a launcher and speaks with it in lines of JSON, over pipes that nobody else can reach and whose end
tells each of them that the other is gone:

    stdin     the first line: a `Config` (serve/config.py); then {"ended": 2, "well": false} for a worker's process,
              {"fail": "…"} to give the run up, and at last {"close": status}
    stdout    one line per report, as in metrics.jsonl
"""

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from karp import data, environment, faults
from karp.errors import KarpError, ProtocolError
from karp.monitor import streams
from karp.protocol.messages import Evaluation, FromServer, Lease, Waiting
from karp.protocol.server.actions import Action, Report, Send
from karp.protocol.server.machine import ALIVE_SECONDS, Server
from karp.protocol.server.snapshot import restore, take
from karp.record.directory import Record
from karp.record.kernels import kernels
from karp.serve.config import Config
from karp.serve.driver import conclude, finished
from karp.transport import segment
from karp.transport.keys import Keys
from karp.transport.shared_server import SharedServer
from karp.transport.zeromq_server import ServerSocket

TICK_SECONDS = 0.25
RESTLESS_SECONDS = 0.05  # between ticks, while a lease may soon have to be given again
LAUNCHER_GONE = 1
LASTING_SECONDS = 30.0  # for the last checkpoint to reach the disk
BATCH = 200  # messages taken before the pipe and the clock are looked at again


class Lines:
    """The lines that have arrived on a descriptor, without waiting for more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.rest = b""
        self.ended = False

    def read(self) -> Iterator[dict[str, Any]]:
        """Call when the descriptor is readable; `ended` tells that the other end is closed."""
        chunk = os.read(self.descriptor, 1 << 16)
        self.ended = not chunk
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


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
                faults.reach("replied", step=self.server.training.version)
            elif isinstance(action, Report):
                self.report(action.kind, action.values)
            else:
                self.record.save(take(self.server))
                if action.lasting:
                    self.outlast()
        for trouble in self.record.writer.take_troubles():
            self.report("notice", {"step": self.server.training.version, "text": trouble})

    def outlast(self) -> None:
        """Until the checkpoint is on the disk; whoever waits hears that this server lives."""
        until = time.monotonic() + LASTING_SECONDS
        while not self.record.writer.wait(ALIVE_SECONDS):
            for peer in self.server.members:
                self.socket.send(peer, Waiting(""))
            if time.monotonic() > until:
                late = f"the last checkpoint is not on the disk after {LASTING_SECONDS:.0f} s: the run ends without it"
                self.report("notice", {"step": self.server.training.version, "text": late})
                return

    def lend(self, peer: bytes, message: FromServer) -> None:
        """Before a worker is given work, and so writes into its slot again, keep what it has contributed there."""
        if self.shared is not None and isinstance(message, Lease | Evaluation):
            weights, slot = self.server.training.weights, self.shared.slots.get(peer)
            if slot is not None and weights.sums:
                weights.copy_borrowed(slot.segment.vector)

    def report(self, kind: str, values: dict[str, Any]) -> None:
        self.record.report(kind, values)
        if kind == "arrivals":  # nobody looks at these while the run goes on
            return
        sys.stdout.write(json.dumps({"report": kind, **values}) + "\n")
        sys.stdout.flush()

    def receive(self) -> None:
        """What has arrived on the wire."""
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
                step = self.server.training.version
                faults.reach("received", step=step)
                actions = self.server.receive(peer, message, incarnation, now)
                if self.server.training.version != step:
                    faults.reach("applied", step=step)
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

    def take_orders(self, orders: Lines) -> None:
        for order in orders.read():
            self.obey(order)
        if orders.ended and self.status is None:
            self.status = LAUNCHER_GONE

    def run(self, orders: Lines) -> None:
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
                if self.server.joining.begun and not self.compared:
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
        conclude(server, self.record, self.config.program, self.config.workers, status)
        for trouble in self.record.writer.take_troubles():
            print(json.dumps({"report": "notice", "step": server.training.version, "text": trouble}), flush=True)
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
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as orders:  # unbuffered: the rest is for Lines
        config = Config(**json.loads(orders.readline()))
    with streams.command():  # a launcher that is gone is seen at the end of the orders, and the run is closed then
        try:
            Process(config).run(Lines(sys.stdin.fileno()))
        except KarpError as error:
            print(json.dumps({"report": "failure", "step": -1, "failure": str(error)}), flush=True)
            return 2
    return 0  # it has closed the run, however that has ended
