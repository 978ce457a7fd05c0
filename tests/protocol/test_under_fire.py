"""What scripts/chaos.sh and scripts/fuzz.sh have found in the server's machine, as single cases."""

from machines import Run

from karp.protocol.messages import Join, Welcome


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
