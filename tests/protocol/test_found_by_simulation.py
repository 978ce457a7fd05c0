"""What the simulated cluster (karp/simulate) has found in the machines, as single cases."""

from machines import Run, leases

from karp.protocol.messages import Closed, Done, Finish, Ping


def test_a_worker_whose_last_message_is_lost_is_let_go() -> None:
    """It asked for ever, and was told for ever that the run is over."""
    run = Run(2, epochs=1, shards=2)
    given = leases(run.join(0) + run.join(1))
    for _ in range(3):
        answers = run.contribute(0, given[0]) + run.contribute(1, given[1])
        given = leases(answers)
    assert [0, 1] == [int(peer) for peer, message in answers if isinstance(message, Finish)]
    run.send(b"0", Done())  # its Leave and that of worker 1 have not come
    answers = [message for _, message in run.send(b"1", Ping(3))]
    assert [Finish, Closed] == [type(message) for message in answers]
    assert answers[0].weights is not None  # nor, perhaps, what was sent to it
