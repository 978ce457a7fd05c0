"""What scripts/chaos.sh and scripts/fuzz.sh have found in the server's machine, as single cases."""

import numpy as np
import pytest
from machines import LAYOUT, Run, gradient, leases, read_only, weights

from karp.data import Plan
from karp.errors import SettingError
from karp.protocol import reports
from karp.protocol.messages import (
    FROM_SERVER,
    Closed,
    Contribution,
    Done,
    Failure,
    Finish,
    Initial,
    Join,
    Lease,
    Leave,
    Ping,
    Refusal,
    Waiting,
    Welcome,
    decode,
    encode,
)
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take
from karp.protocol.tree import Node


def test_a_worker_that_joins_takes_no_number_that_the_launcher_gives() -> None:
    """Else the launcher's word on its worker 0 would be taken for another, and that one's output for the run's."""
    run = Run(2)
    run.join(0)
    run.join(1)
    run.take(run.server.ended(0, False, 1.0))
    answers = run.send(b"7", Join(-1, run.settings, "elsewhere", 2))
    assert Welcome(2, 4, False) == answers[0][1]
    assert Welcome(0, 4, False) == run.join(0)[0][1]
    assert {0, 1, 2} == {member.worker for member in run.server.members.values()}


def test_nobody_waits_for_a_server_that_ends() -> None:
    """One that has joined late would wait for a minute."""
    run = Run(2)
    run.join(0)
    run.join(1)
    answers = run.take(run.server.closing(1.0))
    stopped = Finish(0, False, "it was stopped after step 0", None)
    assert [(b"0", stopped), (b"1", stopped)] == answers


def test_those_that_have_left_and_those_that_were_told_are_let_go() -> None:
    run = Run(1, epochs=1, shards=1)
    given = leases(run.join(0))
    while given:
        given = leases(run.contribute(0, given[0]))
    run.send(b"0", Leave([]))
    run.join(7)
    assert [(b"7", Closed()), (b"0", Closed())] == run.take(run.server.closing(1.0))


@pytest.mark.parametrize("stop", [3, 5, 1 << 47])
def test_a_contribution_with_one_node_that_is_none_is_refused_as_a_whole(stop: int) -> None:
    """Its good node would have completed the step, which then was never applied."""
    run = Run(1, epochs=1, shards=2)
    lease = leases(run.join(0))[0]
    good = read_only(gradient(0, 0) + gradient(0, 1))
    nodes = [Node(0, 2, 0.5, good), Node(1, stop, 0.5, good)]
    answers = run.send(b"0", Contribution(lease.step, lease.version, nodes, [], False))
    assert isinstance(answers[0][1], Refusal)
    assert [(0, 2)] == run.server.open_steps[0].missing(0, 2)
    again = leases(run.take(run.server.tick(0.5)))[0]
    assert 1 == leases(run.contribute(0, again))[0].step


def test_a_node_of_more_shards_than_there_are_takes_no_memory_even_where_it_is_not_finite() -> None:
    run = Run(1, epochs=1, shards=2)
    lease = leases(run.join(0))[0]
    bad = read_only(np.full(LAYOUT.size, np.nan, np.float32))
    run.send(b"0", Contribution(0, lease.version, [Node(0, 1 << 47, 0.5, bad)], [], False))
    assert {} == run.server.open_steps[0].not_finite


@pytest.mark.parametrize(
    ("changes", "vector"),
    [
        ({"version": -1}, None),
        ({"version": 4}, None),
        ({"final": 10**9}, None),
        ({"final": float("inf")}, None),
        ({"dropped": float("inf")}, None),
        ({"progress": {}}, None),
        ({}, np.zeros(1, np.float32)),
        ({}, np.zeros(LAYOUT.size, np.int8)),
        ({}, np.zeros((LAYOUT.size, 1), np.float32)),
    ],
)
def test_what_is_no_snapshot_of_a_server_is_refused(changes: dict[str, object], vector: np.ndarray | None) -> None:
    run = Run(1, epochs=1)
    run.join(0)
    plain, vectors = take(run.server)
    restore(Server(1, Plan, 0.0), (plain, vectors))
    with pytest.raises(SettingError):
        restore(Server(1, Plan, 0.0), (plain | changes, vectors if vector is None else vectors | {"weights": vector}))


def test_weights_that_come_twice_lose_no_lease() -> None:
    run = Run(2, epochs=1)
    run.join(0)
    run.join(1)
    run.send(b"0", Initial(read_only(weights())))  # it has a lease by now, and dies
    given = leases(run.take(run.server.lost(b"0", 1.0)) + run.take(run.server.tick(1.0)))
    given |= leases(run.contribute(1, Lease(1, 0, 2, 4, 0, None)))
    while given:
        given = leases(run.contribute(1, given[1]))
    assert 3 == run.version


def test_a_flood_of_nonsense_is_counted_and_leaves_few_lines() -> None:
    run = Run(1)
    run.join(0)
    for number in range(1000):
        if number % 2:
            run.take(run.server.malformed(b"stranger", "nonsense", 1.0))
        else:
            run.send(b"stranger", Failure(0, 0, -1, "E" * 10_000, "T" * 200_000))
    assert 1000 == run.counts["refused"]
    refused = run.reported(reports.Refused)
    assert "nonsense (512 messages refused so far)" == refused[-1].reason
    assert (10, []) == (len(refused), run.reported(reports.Traceback))


def test_every_answer_is_short_enough_to_be_read() -> None:
    run = Run(2)
    run.join(0)
    run.join(1)
    run.send(b"0", Failure(-1, -1, -1, "E" * 10_000, ""))
    ((_, finish),) = run.send(b"1", Ping(0))
    answers = [*run.take(run.server.malformed(b"1", "x" * 20_000, 1.0)), (b"1", finish)]
    assert ["Refusal", "Finish"] == [type(decode(*encode(answer), FROM_SERVER)).__name__ for _, answer in answers]


def test_a_worker_that_joins_when_the_main_one_is_gone_speaks_for_all() -> None:
    """Else it would wait for the main worker's end for ever."""
    run = Run(1, epochs=1, shards=1)
    given = leases(run.join(0))
    while given:
        given = leases(run.contribute(0, given[0]))
    run.send(b"0", Leave([]))
    run.take(run.server.ended(0, False, 1.0))
    finish = run.join(1)[-1][1]
    assert isinstance(finish, Finish)
    assert (True, 1) == (finish.main, run.main)


def test_a_main_worker_elsewhere_that_is_gone_is_found_out() -> None:
    """No launcher tells of it: the server learns it when it next sends to it."""
    run = Run(1, epochs=1, shards=1)
    given = leases(run.join(0))
    while given:
        given = leases(run.contribute(0, given[0]))
    run.send(b"0", Leave([]))
    assert [(b"0", Waiting(""))] == run.take(run.server.tick(5.0))
    run.send(b"0", Done())
    assert [] == run.take(run.server.tick(10.0))
