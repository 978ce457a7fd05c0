"""Sizes that do not go together, each said once; a shard whose gradient was not finite is leased as suspect."""

from typing import Any

import numpy as np
import pytest
from machines import LAYOUT, Run, gradient, leases, read_only, settings, weights

from karp.protocol import reports
from karp.protocol.messages import Contribution, Initial, Join, Lease
from karp.protocol.server import sizes
from karp.protocol.tree import Node


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"samples": 8}, []),
        ({"shards": 8}, []),
        ({"samples": 7}, ["batch_size is 8, but the data have 7 rows: each step has all of them, so an epoch is"]),
        ({"samples": 1, "shards": 1}, ["batch_size is 8, but the data have 1 row: each step has all of them"]),
        ({"shards": 9}, ["9 shards share the 8 rows of a batch, so 1 of them are empty: ask for fewer shards or"]),
        ({"samples": 3}, ["batch_size is 8, but the data have 3 rows", "4 shards share the 3 rows of a batch, so 1"]),
        ({"samples": 1 << 40, "batch_size": 1 << 40, "local_steps": 1}, []),
    ],
)
def test_batches_and_shards(changes: dict[str, Any], expected: list[str]) -> None:
    found = list(sizes.of_batches(settings(**changes)))
    assert expected == [text[: len(start)] for text, start in zip(found, expected, strict=True)]


@pytest.mark.parametrize(
    ("workers", "changes", "expected"),
    [
        (4, {}, []),
        (5, {}, ["5 workers share 4 shards, so 1 of them will have nothing to do: ask for more shards or fewer"]),
        (4, {"batch_size": 3}, ["4 workers share 3 shards, so 1 of them will have nothing to do"]),
        (1, {"shards": 100}, []),
    ],
)
def test_workers(workers: int, changes: dict[str, Any], expected: list[str]) -> None:
    found = list(sizes.of_workers(settings(**changes), workers))
    assert expected == [text[: len(start)] for text, start in zip(found, expected, strict=True)]


def notices(run: Run) -> list[str]:
    return [report.text for report in run.reported(reports.Notice)]


def test_they_are_said_once_for_all_workers_and_remarks_with_the_initial_weights() -> None:
    run = Run(2, samples=3, shards=2)
    for worker in range(2):
        answers = run.send(b"%d" % worker, Join(worker, run.settings, "host", 1))
        if any(getattr(message, "initial", False) for _, message in answers):
            for _ in range(2):  # as after a lost answer
                run.send(b"%d" % worker, Initial(read_only(weights()), ["column 3 is not scaled"]))
    starts = ["batch_size is 8, but the data have 3 rows", "column 3 is not scaled"]
    assert starts == [text[: len(start)] for text, start in zip(notices(run), starts, strict=True)]


def poisoned(run: Run, worker: int, lease: Lease, reason: str = "") -> list[tuple[bytes, Any]]:
    nodes = [Node(shard, shard + 1, 0.25, gradient(lease.step, shard)) for shard in range(lease.start, lease.stop)]
    for node in nodes:
        if node.start == 1 and node.vector is not None:
            node.vector[0] = np.nan
    nodes = [node._replace(vector=read_only(node.vector)) for node in nodes if node.vector is not None]
    return run.send(b"%d" % worker, Contribution(lease.step, lease.version, nodes, [], False, reason=reason))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("in row 17, array 1 is nan", "for the second time (in row 17, array 1 is nan);"), ("", "for the second time;")],
)
def test_a_shard_whose_gradient_was_not_finite_is_leased_alone_as_suspect(reason: str, expected: str) -> None:
    run = Run(1)
    (lease,) = leases(run.join(0)).values()
    assert (0, 4, False) == (lease.start, lease.stop, lease.suspect)
    (again,) = leases(poisoned(run, 0, lease)).values()
    assert (1, 2, True) == (again.start, again.stop, again.suspect)
    poisoned(run, 0, again, reason)
    assert f"{expected.rstrip(';')}; the weights are those of version 0" in run.server.failure
    assert LAYOUT.sha256(weights()) == LAYOUT.sha256(run.server.weights)


def test_where_a_shard_is_left_out_the_reason_is_said() -> None:
    run = Run(1, skip=True)
    (lease,) = leases(run.join(0)).values()
    (again,) = leases(poisoned(run, 0, lease)).values()
    answers = poisoned(run, 0, again, "in row 17, array 1 is nan")
    assert notices(run)[-1].endswith("(loss 0.25) again (in row 17, array 1 is nan): the shard is left out")
    (following,) = leases(answers).values()
    assert (1, False) == (following.step, following.suspect)
