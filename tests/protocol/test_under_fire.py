"""What scripts/chaos.sh and scripts/fuzz.sh have found in the server's machine, as single cases."""

from machines import Run, leases

from karp.protocol.messages import Closed, Finish, Join, Leave, Welcome


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
