"""The server process: the protocol's state machine, the wire and the record in one loop.

It is started by a launcher and speaks with it in lines of JSON, over pipes that nobody else can reach and whose end
tells each of them that the other is gone:

    stdin     the first line: run, workers, run_dir, program, address, descriptor;
              then {"ended": 2, "status": 1, "detail": "…"} for a worker's process, at last {"close": status}
    stdout    one line per report, as in metrics.jsonl
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from karp import data
from karp.errors import KarpError, ProtocolError
from karp.protocol import Action, Report, Send, Server
from karp.record import Record, summarise
from karp.wire.sockets import ServerSocket

TICK_SECONDS = 0.25
LAUNCHER_GONE = 1


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

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.record = Record(Path(config["run_dir"]))
        self.server = Server(config["workers"], data.Plan, time.monotonic())
        self.socket = ServerSocket(config["descriptor"], config["address"], config["run"])
        self.status: int | None = None

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(peer, message):
                    self.socket.send(peer, message)
                case Report(kind, values):
                    if kind == "settings":
                        self.record.settings(values)
                    self.record.report(kind, values)
                    sys.stdout.write(json.dumps({"report": kind, **values}) + "\n")
                    sys.stdout.flush()

    def receive(self) -> None:
        """Everything that has arrived on the wire."""
        while (arrived := self.socket.receive()) is not None:
            peer, message = arrived
            now = time.monotonic()
            if isinstance(message, ProtocolError):
                self.perform(self.server.malformed(peer, str(message), now))
            else:
                self.perform(self.server.receive(peer, message, now))

    def obey(self, order: dict[str, Any]) -> None:
        """A line from the launcher."""
        if "close" in order:
            self.status = order["close"]
        else:
            ended = order["ended"], order["status"], order["detail"]
            self.perform(self.server.ended(*ended, time.monotonic()))

    def run(self, orders: Lines) -> int:
        """Serve until the launcher closes the run or is gone; returns the run's exit status."""
        poller = zmq.Poller()
        poller.register(self.socket.socket, zmq.POLLIN)
        poller.register(orders.descriptor, zmq.POLLIN)
        ticked = time.monotonic()
        while self.status is None:
            ready = dict(poller.poll(int(TICK_SECONDS * 1000)))
            if self.socket.socket in ready:
                self.receive()
            if orders.descriptor in ready:
                for order in orders.read():
                    self.obey(order)
                if orders.ended and self.status is None:
                    self.status = LAUNCHER_GONE
            if (now := time.monotonic()) - ticked >= TICK_SECONDS:
                self.perform(self.server.tick(now))
                ticked = now
        self.finish(self.status)
        return self.status

    def finish(self, status: int) -> None:
        settings, updater = self.server.settings, self.server.updater
        summary = summarise(self.server, self.config["program"], self.config["workers"], status)
        layout = settings.layout if settings is not None else None
        self.record.finish(summary, layout, updater.weights if updater is not None else None)
        self.socket.close()


def main() -> int:
    """`python -m karp.serve`, with the pipes of its launcher."""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as orders:  # unbuffered: the rest is for Lines
        config = json.loads(orders.readline())
    try:
        return Process(config).run(Lines(sys.stdin.fileno()))
    except KarpError as error:
        print(f"karp: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
