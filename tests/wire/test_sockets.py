"""Both sockets, in one process: what travels without a copy stays what it was when it was sent."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from karp import optim
from karp.autograd import Value
from karp.parameters import Parameters
from karp.program import settings_of
from karp.protocol.messages import Contribution, Evaluation, Finish, FromServer, FromWorker, Lease, Welcome
from karp.protocol.tree import Node
from karp.protocol.worker import Worker
from karp.wire.listening import address_of, listen
from karp.wire.sockets import LARGE_BYTES, ServerSocket, WorkerSocket

SMALL, LARGE = LARGE_BYTES // 4 - 16, LARGE_BYTES // 4  # float32


class Pair:
    """A server's socket and a worker with its own, which has joined."""

    def __init__(self, size: int) -> None:
        parameters = Parameters({"weight": Value(np.zeros(size, np.float32))})
        self.machine = Worker(parameters.data, 0)
        descriptor = (listener := listen()).fileno()
        address = address_of(listener)
        self.server = ServerSocket(descriptor, address, "run")
        listener.detach()  # the server's socket closes it
        self.worker = WorkerSocket(address, "run", self.machine, parameters.layout)
        settings = settings_of(
            parameters, optim.SGD(lr=0.1), None,
            samples=8, data_sha256="", batch_size=4, epochs=1, shards=1, seed=0, threads=1, evaluate=True,
            steering=False, staleness=0, local_steps=1, codec=None, codec_weights=None,
        )  # fmt: skip
        self.peer, _ = self.send(self.machine.enter(settings, "host", 1, 0.0))
        self.deliver(Welcome(0, 1, False))

    def send(self, message: FromWorker) -> tuple[bytes, Any]:
        """From the worker to whoever holds the server's socket."""
        self.worker.send(message, 0)
        while True:
            self.server.wait(10.0, -1)
            if (arrived := self.server.receive()) is not None:
                return arrived[:2]

    def deliver(self, message: FromServer) -> None:
        """From the server to the worker's machine."""
        assert self.server.send(self.peer, message)
        arrived = self.worker.receive(10.0)
        assert arrived is not None
        self.machine.receive(*arrived, 0.0)

    def close(self) -> None:
        self.worker.close()
        self.server.close()


@pytest.fixture(params=[SMALL, LARGE])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.close()


def numbered(like: np.ndarray, first: int) -> np.ndarray:
    return np.arange(first, first + like.size, dtype=like.dtype)


def test_large_weights_are_read_where_they_arrive_and_stay_what_they_were(pair: Pair) -> None:
    own = pair.machine.weights
    weights = numbered(own, 1)
    pair.deliver(Lease(1, 0, 0, 1, 0, weights))
    weights += 1.0  # the update, which does not wait for the last worker to have read the message
    read = pair.machine.current
    assert numbered(own, 1).tobytes() == read.tobytes()
    assert (own.size == SMALL) == (read is own)
    assert read.flags.aligned

    pair.machine.task = None
    pair.deliver(Evaluation(2, 0, 1, weights))
    assert numbered(own, 2).tobytes() == pair.machine.current.tobytes()
    assert (own.size == LARGE) == (numbered(own, 1).tobytes() == read.tobytes())  # whoever looks at them still


def test_outside_of_the_loop_the_weights_are_the_workers_own(pair: Pair) -> None:
    own = pair.machine.weights
    pair.deliver(Lease(1, 0, 0, 1, 0, numbered(own, 1)))
    pair.worker.settle()
    assert pair.machine.current is own
    assert numbered(own, 1).tobytes() == own.tobytes()
    pair.deliver(Finish(1, True, "", numbered(own, 5), 1))
    assert pair.machine.current is own
    assert numbered(own, 5).tobytes() == own.tobytes()


def test_a_gradient_is_not_written_over_while_it_is_sent(pair: Pair) -> None:
    rooms = []
    for step in range(3):
        room = pair.worker.gradients
        assert room is not None
        room[:] = step
        rooms.append(room)
        pair.worker.send(Contribution(step, 0, [Node(0, 1, 0.0, room)], [], False), 0)
    for step in range(3):
        pair.server.wait(10.0, -1)
        arrived = pair.server.receive()
        assert arrived is not None
        assert isinstance(arrived[1], Contribution)
        assert [float(step)] == np.unique(arrived[1].nodes[0].vector).tolist()
