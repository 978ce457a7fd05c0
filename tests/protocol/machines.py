"""The two machines joined by plain calls, for the tests that drive them event by event."""

from typing import Any, TypeVar

import numpy as np

from karp import optim
from karp.data import Plan
from karp.parameters import Layout
from karp.protocol.messages import Contribution, Initial, Join, Lease
from karp.protocol.reports import Report
from karp.protocol.server.actions import Save, Send
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import take
from karp.protocol.settings import Settings
from karp.protocol.tree import Node
from karp.protocol.vectors import Snapshot

Kind = TypeVar("Kind", bound=Report)
LAYOUT = Layout({"weight": (3, 2), "bias": (2,)}, "float32")


def weights() -> np.ndarray:
    vector = LAYOUT.zeros()
    LAYOUT.views(vector)["weight"][:] = np.arange(6).reshape(3, 2)
    return vector


def settings(**changes: Any) -> Settings:
    plain = {
        "program": "digits.py",
        "program_sha256": "",
        "layout": LAYOUT.to_dict(),
        "weights_sha256": LAYOUT.sha256(weights()),
        "optimizer": optim.to_dict(optim.SGD(lr=0.5)),
        "samples": 20,
        "data_sha256": "d",
        "batch_size": 8,
        "epochs": 2,
        "shards": 4,
        "seed": 0,
        "threads": 1,
        "evaluate": False,
        "wait_for_score": False,
    }
    return Settings.from_dict(plain | changes)


def gradient(step: int, shard: int) -> np.ndarray:
    """A gradient that is a pure function of its name."""
    rng = np.random.default_rng([step, shard])
    vector = LAYOUT.zeros()
    for view in LAYOUT.views(vector).values():
        view[:] = rng.normal(size=view.shape)
    return vector


class Run:
    """A server and what it has said; `now` is moved by the test."""

    def __init__(
        self, workers: int, same_kernels: bool = False, skip: bool = False, save_seconds: float = 10.0, **changes: Any
    ) -> None:
        self.settings = settings(**changes)
        self.server = Server(workers, Plan, 0.0, same_kernels=same_kernels, skip=skip, save_seconds=save_seconds)
        self.now = 0.0
        self.actions: list[Any] = []
        self.reports: list[Report] = []
        self.saved: list[Snapshot] = []

    def take(self, actions: list[Any]) -> list[tuple[bytes, Any]]:
        """The messages among these actions; everything is kept."""
        self.actions += actions
        self.reports += [action for action in actions if not isinstance(action, Send | Save)]
        self.saved += [take(self.server) for action in actions if isinstance(action, Save)]
        return [(action.peer, action.message) for action in actions if isinstance(action, Send)]

    def send(self, peer: bytes, message: Any) -> list[tuple[bytes, Any]]:
        return self.take(self.server.receive(peer, message, self.server.incarnation, self.now))

    def join(self, worker: int, **changes: Any) -> list[tuple[bytes, Any]]:
        """A worker joins and, if asked, sends the weights; returns every message that follows."""
        return self.join_as(Join(worker, settings(**changes) if changes else self.settings, "host", 1))

    def join_as(self, message: Join) -> list[tuple[bytes, Any]]:
        """The same with this message."""
        peer = b"%d" % message.worker
        answers = self.send(peer, message)
        if any(getattr(message, "initial", False) for _, message in answers):
            answers += self.send(peer, Initial(read_only(weights())))
        return answers

    def contribute(self, worker: int, lease: Lease, last: bool = False) -> list[tuple[bytes, Any]]:
        """The worker computes every shard of its lease."""
        nodes = [
            Node(shard, shard + 1, 0.25, read_only(gradient(lease.step, shard)))
            for shard in range(lease.start, lease.stop)
        ]
        return self.send(b"%d" % worker, Contribution(lease.step, lease.version, nodes, [], last))

    @property
    def version(self) -> int:
        return self.server.version

    @property
    def step(self) -> int:
        return self.server.step

    @property
    def weights(self) -> np.ndarray:
        vector = self.server.weights
        assert vector is not None
        return vector

    @property
    def failure(self) -> str:
        return self.server.failure

    @property
    def over(self) -> bool:
        return self.server.over

    @property
    def main(self) -> int:
        return self.server.ending.leader

    @property
    def counts(self) -> dict[str, int]:
        return self.server.counts

    @property
    def kernels(self) -> list[dict[str, Any]]:
        """The kernels of the summary, with those that computed with each."""
        return self.server.joining.kernel_uses.summary()["kernels"]

    @property
    def totals(self) -> dict[str, Any]:
        """What the summary says at the end of the run's first second."""
        return self.server.training.progress.summary(1.0)

    def reported(self, kind: type[Kind]) -> list[Kind]:
        return [report for report in self.reports if isinstance(report, kind)]


def read_only(vector: np.ndarray) -> np.ndarray:
    """As a vector that has come over a wire."""
    return np.frombuffer(vector.tobytes(), vector.dtype)


def leases(answers: list[tuple[bytes, Any]]) -> dict[int, Lease]:
    """Worker -> the lease among these messages."""
    return {int(peer): message for peer, message in answers if isinstance(message, Lease)}
