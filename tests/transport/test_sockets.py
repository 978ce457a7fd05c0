"""Both sockets, in one process: what travels without a copy stays what it was when it was sent."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from karp import optim
from karp.autograd import Value
from karp.parameters import Parameters
from karp.protocol.messages import Contribution, Evaluation, Finish, FromServer, Lease, Welcome
from karp.protocol.tree import Node
from karp.protocol.worker import Worker
from karp.trainer.inputs import settings_of
from karp.transport.buffers import LARGE_BYTES
from karp.transport.listening import address_of, listen
from karp.transport.server_end import ServerEnd
from karp.transport.worker_end import WorkerEnd
from karp.transport.zeromq_server import ServerSocket
from karp.transport.zeromq_worker import WorkerSocket

SMALL, LARGE = LARGE_BYTES // 4 - 16, LARGE_BYTES // 4  # float32
HUGE = 1 << 20  # more than lies in the buffers on the way


class Pair:
    """A server's socket and a worker with its own, which has joined."""

    def __init__(self, size: int) -> None:
        parameters = Parameters({"weight": Value(np.zeros(size, np.float32))})
        self.machine = Worker(parameters.data, 0)
        descriptor = (listener := listen()).fileno()
        address = address_of(listener)
        self.server = ServerEnd(ServerSocket(descriptor, address, "run"), None, pytest.fail)
        listener.detach()  # the server's socket closes it
        self.worker = WorkerEnd(WorkerSocket(address, "run"), self.machine, parameters.layout)
        settings = settings_of(
            parameters, optim.SGD(lr=0.1), None,
            samples=8, data_sha256="", batch_size=4, epochs=1, shards=1, seed=0, threads=1, evaluate=True,
            wait_for_score=False, staleness=0, local_steps=1, codec=None, codec_weights=None,
        )  # fmt: skip
        self.peer = b""
        self.worker.send(self.machine.request_join(settings, "host", 1, 0.0), 0)
        self.receive()
        self.deliver(Welcome(0, 1, False))

    def receive(self) -> Any:
        """What whoever holds the server's socket hears from the worker next."""
        for _ in range(100):  # an end of a wait is no promise
            self.server.wait(1.0, -1)
            if (arrived := self.server.receive()) is not None:
                self.peer = arrived[0]
                return arrived[1]
        raise AssertionError("nothing has come")

    def deliver(self, message: FromServer) -> None:
        """From the server to the worker's machine."""
        assert self.server.send(self.peer, message)
        self.hear()

    def hear(self) -> None:
        """The worker's machine gets the next message."""
        arrived = self.worker.receive(10.0)
        assert arrived is not None
        self.machine.task = None
        self.machine.receive(*arrived, 0.0)

    def close(self) -> None:
        self.worker.close()
        self.server.close()


@pytest.fixture(params=[SMALL, LARGE, HUGE])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.close()


def numbered(like: np.ndarray, first: int) -> np.ndarray:
    return np.arange(first, first + like.size, dtype=like.dtype)


def test_large_leased_weights_are_read_where_they_arrive(pair: Pair) -> None:
    own = pair.machine.weights
    pair.deliver(Lease(1, 0, 0, 1, 0, numbered(own, 1)))
    read = pair.machine.current
    assert numbered(own, 1).tobytes() == read.tobytes()
    if own.size == SMALL:
        assert read is own
    else:
        assert 0 == own.any()  # as they were
        assert (True, False) == (read.flags.aligned, read.flags.writeable)
    pair.deliver(Lease(2, 1, 0, 1, 1, numbered(own, 2)))
    assert numbered(own, 2).tobytes() == pair.machine.current.tobytes()
    assert own.size == SMALL or numbered(own, 1).tobytes() == read.tobytes()  # whoever looks at them still
    pair.deliver(Evaluation(3, 0, 2, numbered(own, 3)))
    assert numbered(own, 3).tobytes() == pair.machine.current.tobytes()


def test_weights_arrive_as_they_were_when_they_were_sent(pair: Pair) -> None:
    """An update does not wait for the last worker to have read the message."""
    weights = np.zeros_like(pair.machine.weights)
    for version in range(3):
        weights[:] = version
        assert pair.server.send(pair.peer, Lease(version + 1, version, 0, 1, version, weights))
    weights[:] = -1
    for version in range(3):
        pair.hear()
        assert [float(version)] == np.unique(pair.machine.current).tolist()


def test_outside_of_the_loop_the_weights_are_the_workers_own(pair: Pair) -> None:
    own = pair.machine.weights
    pair.deliver(Lease(1, 0, 0, 1, 0, numbered(own, 1)))
    pair.worker.release_weights()
    assert pair.machine.current is own
    assert numbered(own, 1).tobytes() == own.tobytes()
    pair.deliver(Finish(1, True, "", numbered(own, 5), 1))
    assert pair.machine.current is own
    assert numbered(own, 5).tobytes() == own.tobytes()


def test_a_gradient_is_not_written_over_while_it_is_sent(pair: Pair) -> None:
    for step in range(3):
        room = pair.worker.gradients
        assert room is not None
        room[:] = step
        pair.worker.send(Contribution(step, 0, [Node(0, 1, 0.0, room)], [], False), 0)
    for step in range(3):
        message = pair.receive()
        assert isinstance(message, Contribution)
        assert [float(step)] == np.unique(message.nodes[0].vector).tolist()
