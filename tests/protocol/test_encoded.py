"""Runs whose gradients, or weights, travel in a short form: the same bits whoever computes what."""

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import LAYOUT, Run, gradient, leases, read_only, weights

from karp import codecs, optim
from karp.data import Plan
from karp.protocol import reports
from karp.protocol.messages import Contribution, Evaluation, Lease, Refusal
from karp.protocol.tree import Node, TreeSum
from karp.protocol.worker import Worker

PLAN = Plan(20, 8, 4, 0)
MODES = [("float16", None), ("bfloat16", "bfloat16"), ("int8", "float16"), (None, "bfloat16")]


def gradient_at(vector: np.ndarray, step: int, shard: int) -> np.ndarray:
    """A gradient that depends on every bit of the weights."""
    found: np.ndarray = gradient(step, shard) + vector * np.float32(0.1)
    return found


def reference(codec: str | None, codec_weights: str | None) -> np.ndarray:
    """The final weights, computed without any server."""
    updater = optim.Updater(optim.SGD(lr=0.5), weights())
    for step in range(6):
        held = updater.weights
        if codec_weights is not None:
            held = codecs.decode(codec_weights, codecs.encode(codec_weights, held), held.size, held.dtype)
        tree = TreeSum(PLAN.shards_of(step))
        for shard in range(tree.shards):
            vector = gradient_at(held, step, shard)
            if codec is not None:
                vector = codecs.decode(codec, codecs.encode(codec, vector, 0, step, shard), vector.size, vector.dtype)
            tree.add(Node(shard, shard + 1, 0.0, vector))
        updater.update(tree.nodes[0].vector)
    return updater.weights


def train(count: int, choose: Any, seen: list[Any], **changes: Any) -> tuple[Run, list[Worker]]:
    """A whole run with so many workers, their messages handed over in any order."""
    run = Run(count, **changes)
    workers = {b"%d" % number: Worker(weights(), number) for number in range(count)}
    mail: deque[tuple[bytes, Any]] = deque()
    for peer, worker in workers.items():
        mail.append((peer, worker.request_join(run.settings, "host", 1, 0.0)))
    while mail:
        mail.rotate(-choose(len(mail)))
        peer, message = mail.popleft()
        for to, answer in run.send(peer, message):
            assert not isinstance(answer, Refusal), answer
            worker = workers[to]
            reply = worker.receive(answer, 0, 0.0)
            task = worker.task
            if isinstance(task, Lease):
                buffer = LAYOUT.zeros()
                for shard in range(task.start, task.stop):
                    buffer[:] = gradient_at(worker.weights, task.step, shard)
                    worker.computed(buffer, 0.25, PLAN.shards_of(task.step))
                reply = worker.contribution()
            elif isinstance(task, Evaluation):
                seen.append((task.epoch, worker.weights.tobytes()))
                reply = worker.scored({"a": 1.0})
            if reply is not None:
                mail.append((to, reply))
    assert run.over
    return run, list(workers.values())


@pytest.mark.parametrize(("codec", "codec_weights"), MODES)
@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 5), random=st.randoms())
def test_the_bits_do_not_depend_on_workers_and_order(
    codec: str | None, codec_weights: str | None, count: int, random: Any
) -> None:
    seen: list[Any] = []
    run, workers = train(count, random.randrange, seen, codec=codec, codec_weights=codec_weights, evaluate=True)
    expected = reference(codec, codec_weights).tobytes()
    assert expected == run.weights.tobytes()
    assert [expected] * count == [worker.weights.tobytes() for worker in workers]  # in full
    assert [0, 1] == sorted(epoch for epoch, _ in seen)
    assert (1, expected) in seen


def test_a_contribution_carries_each_shard_by_itself() -> None:
    run = Run(1, codec="int8")
    worker = Worker(weights(), 0)
    (_, welcome), *_ = run.send(b"0", worker.request_join(run.settings, "host", 1, 0.0))
    ((_, lease),) = run.send(b"0", worker.receive(welcome, 0, 0.0))
    worker.receive(lease, 0, 0.0)
    for shard in range(4):
        worker.computed(gradient(0, shard), 0.25, 4)
    message = worker.contribution()
    assert isinstance(message, Contribution)
    assert [(0, 1), (1, 2), (2, 3), (3, 4)] == [node[:2] for node in message.nodes]
    assert {("uint8", LAYOUT.size + 4)} == {(node.vector.dtype.name, node.vector.size) for node in message.nodes}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (Node(0, 1, 0.0, gradient(0, 0)), r"\(32,\) float32, but one as int8 is \(36,\) uint8"),
        (Node(0, 1, 0.0, np.zeros(32, np.uint8)), r"\(32,\) uint8, but one as int8 is \(36,\) uint8"),
        (Node(0, 2, 0.0, np.zeros(36, np.uint8)), "a sum over shards 0 to 1, but here each comes by itself"),
    ],
)
def test_what_is_in_another_form_is_refused(node: Node, reason: str) -> None:
    run = Run(1, codec="int8")
    lease = leases(run.join(0))[0]
    ((_, refusal),) = run.send(b"0", Contribution(0, lease.version, [node], [], False))
    assert isinstance(refusal, Refusal)
    import re

    assert re.search(reason, refusal.reason)
    assert weights().tobytes() == run.weights.tobytes()


def test_what_is_not_finite_is_found_behind_a_codec() -> None:
    run = Run(1, codec="float16", shards=1)
    lease = leases(run.join(0))[0]
    bad = gradient(0, 0)
    bad[3] = np.nan
    node = Node(0, 1, 0.0, read_only(codecs.encode("float16", bad)))
    run.send(b"0", Contribution(0, lease.version, [node], [], False))
    assert "the gradient of step 0, shard 0 from worker 0 is not finite" in run.reported(reports.Notice)[-1].text
    assert weights().tobytes() == run.weights.tobytes()
