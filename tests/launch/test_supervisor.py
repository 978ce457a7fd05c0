"""The supervisor: events in, actions out; laws that hold whatever happens to the processes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.launch.actions import (
    Action,
    End,
    KillServer,
    Publish,
    Quote,
    Say,
    Show,
    StartServer,
    StartWorker,
    Stop,
    Tell,
)
from karp.launch.states import Phase, describe_end
from karp.launch.supervisor import (
    CLOSE_SECONDS,
    GRACE_SECONDS,
    LAST_SECONDS,
    NAME_SECONDS,
    SERVER,
    Supervisor,
)
from karp.protocol.reports import (
    Closed,
    Failure,
    Joined,
    Left,
    Listening,
    Main,
    Notice,
    Released,
    Report,
    Scale,
    Settings,
    Traceback,
)

SETTINGS = Settings(0.0, 0, {"threads": 2})
CLOSED = [Tell({"close": 0})]


def begun(workers: int = 2, max_restarts: int = 3, joined: bool = True, **options: Any) -> Supervisor:
    """A run whose processes have been started, and have joined."""
    supervisor = Supervisor(workers, max_restarts, **options)
    assert [StartServer(0), *(StartWorker(worker, 0) for worker in range(workers))] == supervisor.begin()
    supervisor.started(SERVER, "process 1")
    for worker in range(workers):
        supervisor.started(worker, f"process {10 + worker}")
        if joined:
            supervisor.report(Joined(0.0, 0, worker, "host", 10 + worker), 0.0)
    return supervisor


def end(supervisor: Supervisor, worker: int, status: int, now: float = 0.0) -> list[Action]:
    return [*supervisor.exited(worker, status, now), *supervisor.ended(worker, now)]


def told(worker: int, well: bool) -> Tell:
    return Tell({"ended": worker, "well": well})


def leave(supervisor: Supervisor, *workers: int) -> None:
    for worker in workers:
        supervisor.report(Left(0.0, 9, worker), 0.0)


def test_a_run_that_ends_well() -> None:
    supervisor = begun()
    supervisor.report(Main(0.0, 8, 0), 0.0)
    assert [told(1, True)] == end(supervisor, 1, 0)
    assert Phase.RUNNING is supervisor.phase
    assert [told(0, True), *CLOSED] == end(supervisor, 0, 0)
    assert [End(0)] == supervisor.server_ended(0, True, 0.0)
    assert (Phase.ENDED, 0) == (supervisor.phase, supervisor.output_of(0, trained=True))
    assert [] == [*supervisor.tick(1e9), *supervisor.interrupt(2, 1e9), *supervisor.stop(1e9)]


@pytest.mark.parametrize("repeated", [False, True])
def test_a_restart_is_said_but_for_an_error_that_another_worker_has_had_at_the_same_step(repeated: bool) -> None:
    supervisor = begun()
    assert [] == supervisor.report(Traceback(0.0, 3, 0, "…", repeated), 0.0)
    said = [] if repeated else [Say("worker 0 ended with exit status 1: it is started again (1 of 3)")]
    assert [told(0, False), *said, StartWorker(0, 1)] == end(supervisor, 0, 1)


def test_a_worker_that_ends_with_an_error_before_it_has_joined_fails_the_run() -> None:
    supervisor = begun(joined=False)
    failure = "worker 1 ended with exit status 3 before its training"
    quote = Quote(1, "what worker 1 printed last")
    assert [told(1, False), quote, Tell({"fail": failure})] == end(supervisor, 1, 3)
    assert (Phase.FAILED, 1) == (supervisor.phase, supervisor.status)
    assert [told(0, False), Tell({"close": 1})] == end(supervisor, 0, -15)  # it is not started again


def test_one_that_is_killed_before_it_has_joined_is_started_again() -> None:
    assert StartWorker(1, 1) in end(begun(joined=False), 1, -9)


def test_a_worker_that_cannot_begin_again_is_tried_again_where_others_train() -> None:
    supervisor = begun(max_restarts=1)
    end(supervisor, 1, 1)
    supervisor.started(1, "process 20")
    assert [told(1, False), Say("worker 1 ended with exit status 1 once more: the run goes on without it")] == end(
        supervisor, 1, 1
    )


@pytest.mark.parametrize(("status", "more"), [(3, ""), (-9, ", as by a system that runs out of memory")])
def test_the_run_fails_with_the_last_worker(status: int, more: str) -> None:
    supervisor = begun(workers=1, max_restarts=0)
    failure = f"worker 0 {describe_end(status)} once more{more}, and no other is left"
    closing = [Tell({"fail": failure}), Tell({"close": 1})]
    assert [told(0, False), Quote(0, "what worker 0 printed last"), *closing] == end(supervisor, 0, status)


def test_the_run_goes_on_without_its_last_worker_where_others_may_come_from_elsewhere() -> None:
    supervisor = begun(workers=1, max_restarts=0, elsewhere=True)
    assert Say("worker 0 was killed by SIGKILL once more: the run goes on without it") in end(supervisor, 0, -9)
    assert Phase.RUNNING is supervisor.phase


def test_a_worker_that_has_left_and_dies_harms_nobody_unless_it_was_the_last() -> None:
    supervisor = begun()
    leave(supervisor, 0, 1)
    assert [told(1, False), Say("worker 1 was killed by SIGKILL after the run")] == end(supervisor, 1, -9)
    assert StartWorker(0, 1) in end(supervisor, 0, -9)  # so that the program's end is gone through


def test_two_that_die_at_once_know_of_each_other() -> None:
    supervisor = begun()
    leave(supervisor, 0, 1)
    for worker in (0, 1):
        supervisor.exited(worker, -9, 0.0)
    assert StartWorker(0, 1) in supervisor.ended(0, 0.0)


def test_a_program_that_fails_after_its_training_fails_the_run() -> None:
    supervisor = begun()
    leave(supervisor, 0)
    assert Tell({"fail": "worker 0 ended with exit status 1 after its training"}) in end(supervisor, 0, 1)


def test_workers_are_named_and_then_stopped_when_the_leader_has_ended() -> None:
    supervisor = begun(workers=3)
    supervisor.report(Main(0.0, 8, 0), 0.0)
    end(supervisor, 0, 0, now=100.0)
    assert Phase.OVER is supervisor.phase
    assert [] == supervisor.tick(100.0 + NAME_SECONDS)
    names = "worker 1 (process 11), worker 2 (process 12)"
    waiting = Say(f"the run is over; waiting for {names} to end, for 25 s more at most")
    assert [waiting] == supervisor.tick(100.1 + NAME_SECONDS)
    assert [] == supervisor.tick(100.2 + NAME_SECONDS)
    stopped = [Say("2 of them had not ended and are stopped"), Stop([1, 2])]
    assert stopped == supervisor.tick(100.1 + LAST_SECONDS)
    assert [] == supervisor.tick(100.2 + LAST_SECONDS)
    assert [told(1, False)] == end(supervisor, 1, -15)
    assert [told(2, False), *CLOSED] == end(supervisor, 2, -9)


def test_workers_have_a_while_to_end_after_a_failure() -> None:
    supervisor = begun()
    supervisor.report(Traceback(0.0, 3, 0, "…", False), 0.0)
    failure = Failure(0.0, 3, "worker 0 failed at step 3, shard 0: …")
    assert [Show(Traceback(0.0, 3, 0, "…", False)), Show(failure)] == supervisor.report(failure, 50.0)
    assert [told(0, False)] == end(supervisor, 0, 1, now=50.0)
    assert [] == supervisor.tick(50.0 + GRACE_SECONDS)
    assert [Stop([1])] == supervisor.tick(50.1 + GRACE_SECONDS)
    assert [told(1, False), Tell({"close": 1})] == end(supervisor, 1, -15)
    assert [End(1)] == supervisor.server_ended(0, True, 0.0)


def test_the_server_is_started_again_and_told_who_has_ended() -> None:
    supervisor = begun(max_restarts=1)
    end(supervisor, 1, 0)
    again = "the server was killed by SIGKILL; it is started again from its newest checkpoint (1 of 1)"
    assert [Say(again), StartServer(1), told(1, True)] == supervisor.server_ended(-9, False, 0.0)
    supervisor.started(SERVER, "process 2")
    how = "the server was killed by SIGKILL"
    assert [Quote(SERVER, f"{how}; what it printed last", how), Stop([0])] == supervisor.server_ended(-9, False, 0.0)
    assert [End(1)] == supervisor.exited(0, -15, 0.0)


def test_an_end_of_an_earlier_process_is_not_told() -> None:
    supervisor = begun()
    end(supervisor, 1, -9)
    supervisor.started(1, "process 20")
    supervisor.report(Joined(0.0, 0, 1, "host", 20), 0.0)
    assert [StartServer(1)] == supervisor.server_ended(-9, False, 0.0)[1:]


def test_a_server_that_refuses_is_not_started_again() -> None:
    supervisor = begun()
    supervisor.report(Failure(0.0, 0, "another run is writing to runs/a"), 0.0)
    assert [Stop([0, 1])] == supervisor.server_ended(2, False, 0.0)
    assert [told(0, False)] == end(supervisor, 0, -15)
    assert [told(1, False), End(1)] == end(supervisor, 1, -15)


def test_ctrl_c_stops_the_workers_and_then_closes_the_run() -> None:
    supervisor = begun()
    assert [Say("interrupted: the run stops (once more: at once)"), Stop([0, 1])] == supervisor.interrupt(2, 0.0)
    assert [] == supervisor.exited(0, 0, 0.0)
    assert [Tell({"close": 130})] == supervisor.exited(1, -15, 0.0)
    assert [End(130)] == supervisor.server_ended(0, True, 0.0)
    assert (True, True, False) == (supervisor.interrupted, supervisor.succeeded(0), supervisor.succeeded(1))


def test_a_server_that_hangs_is_named_and_killed() -> None:
    supervisor = begun(workers=1)
    end(supervisor, 0, 0, now=10.0)
    writing = "the server (process 1) is writing what is left"
    assert [Say(f"interrupted: {writing} (once more: at once)")] == supervisor.interrupt(15, 11.0)
    named = Say("waiting for the server (process 1) to write what is left, for 55 s more at most")
    assert [named] == supervisor.tick(10.1 + NAME_SECONDS)
    killed = Say("the server (process 1) has not ended in 60 s and is killed; what it has written stands")
    assert [killed, KillServer()] == supervisor.tick(10.0 + CLOSE_SECONDS)
    assert [] == supervisor.tick(20.0 + CLOSE_SECONDS)
    assert [End(143)] == supervisor.server_ended(-9, False, 0.0)


def test_a_server_that_dies_while_it_closes_the_run_is_started_once_more() -> None:
    supervisor = begun(workers=1)
    end(supervisor, 0, 0)
    died = Say("the server died before it had closed the run: it is started again to do so")
    assert [died, StartServer(1), told(0, True), *CLOSED] == supervisor.server_ended(-9, False, 0.0)
    supervisor.started(SERVER, "process 2")
    assert [End(0)] == supervisor.server_ended(-9, False, 0.0)


@pytest.mark.parametrize("incarnation", [0, 1])
def test_a_process_that_cannot_be_started_ends_the_run(incarnation: int) -> None:
    supervisor = begun(workers=1) if incarnation else Supervisor(1, 3)
    supervisor.server_ended(-9, False, 0.0) if incarnation else supervisor.begin()
    stopped = [Stop([0])] if incarnation else [End(1)]
    assert [Say("the log cannot be written"), *stopped] == supervisor.trouble("the log cannot be written", 0.0)
    assert [End(1)] == (supervisor.exited(0, -15, 0.0) or [End(1)])


def test_nobody_is_invited_to_a_run_that_has_failed_before_its_first_worker_joined() -> None:
    supervisor = begun(joined=False)
    failure = Failure(0.0, 0, "worker 1 ended with exit status 1 before its training")
    assert [Show(failure)] == supervisor.report(failure, 0.0)
    assert [Show(SETTINGS)] == supervisor.report(SETTINGS, 0.0)


def test_the_address_is_published_once() -> None:
    supervisor = begun()
    assert [Publish(2), Show(SETTINGS)] == supervisor.report(SETTINGS, 0.0)
    assert [Show(SETTINGS)] == supervisor.report(SETTINGS, 0.0)


def test_without_a_leader_the_first_that_ended_well_is_shown() -> None:
    supervisor = begun(workers=3, joined=False)
    supervisor.report(Joined(0.0, 0, 2, "host", 12), 0.0)
    for worker in range(3):
        supervisor.exited(worker, int(worker == 0), 0.0)
    assert (2, 1, 7) == (
        supervisor.output_of(-1, trained=True), supervisor.output_of(-1, trained=False), supervisor.output_of(7, True)
    )  # fmt: skip


def test_a_run_whose_workers_are_elsewhere_is_open_at_once_and_ends_when_it_is_closed() -> None:
    supervisor = begun(workers=0, elsewhere=True)
    assert [Publish(0)] == supervisor.report(Listening(0.0, 0), 0.0)
    assert [Show(SETTINGS)] == supervisor.report(SETTINGS, 0.0)
    assert [] == supervisor.tick(1e6)
    supervisor.report(Main(0.0, 8, 3), 0.0)
    supervisor.report(Closed(0.0, 8), 0.0)
    assert CLOSED == supervisor.tick(1e6)
    assert [End(0)] == supervisor.server_ended(0, True, 1e6)
    assert supervisor.succeeded(3)


def test_a_run_whose_workers_are_elsewhere_ends_when_it_has_failed() -> None:
    supervisor = begun(workers=0, elsewhere=True)
    supervisor.report(Failure(0.0, 3, "worker 1 failed at step 3, shard 0: …"), 0.0)
    assert [Tell({"close": 1})] == supervisor.tick(0.1)


def test_the_end_of_a_leader_that_was_started_elsewhere_is_waited_for_no_longer_than_that_of_another() -> None:
    supervisor = begun(workers=1)
    supervisor.report(Main(0.0, 8, 3), 0.0)
    supervisor.report(Closed(0.0, 8), 50.0)
    assert Phase.OVER is supervisor.phase
    assert Stop([0]) in supervisor.tick(50.1 + LAST_SECONDS)


def test_that_of_an_own_leader_is_when_its_process_ends() -> None:
    supervisor = begun()
    supervisor.report(Main(0.0, 8, 0), 0.0)
    supervisor.report(Closed(0.0, 8), 50.0)
    assert Phase.RUNNING is supervisor.phase


def scaled(supervisor: Supervisor, workers: int, first: int) -> list[Action]:
    """What is done when so many workers are asked for, but for what is said."""
    actions = supervisor.report(Scale(0.0, 4, workers, first), 0.0)
    return [action for action in actions if not isinstance(action, Say | Show)]


def test_fewer_workers_end_when_they_are_released_and_more_are_started() -> None:
    supervisor = begun(workers=3)
    assert [Tell({"released": [1, 2]})] == scaled(supervisor, 1, 3)
    released = Released(0.0, 5, 2)
    assert [Stop([2]), Show(released)] == supervisor.report(released, 0.0)
    assert [Show(released)] == supervisor.report(released, 0.0)
    assert [told(2, False)] == end(supervisor, 2, -15)
    assert [Tell({"released": [1]}), StartWorker(2, 0), StartWorker(6, 0)] == scaled(supervisor, 3, 6)
    assert [Tell({"released": [1]})] == scaled(supervisor, 3, 12)
    assert 7 == supervisor.numbers
    restarted = supervisor.server_ended(-9, False, 0.0)
    assert Tell({"released": [1]}) in restarted
    assert [told(1, False)] == end(supervisor, 1, -9)  # it is not started again


def test_a_worker_that_waits_for_room_is_not_started_when_fewer_are_asked_for() -> None:
    supervisor = Supervisor(2, 3)
    supervisor.begin()
    supervisor.started(0, "process 1")
    assert [Tell({"released": [1]}), Stop([1])] == scaled(supervisor, 1, 2)


def test_no_worker_is_started_when_the_run_is_over() -> None:
    supervisor = begun()
    supervisor.report(Main(0.0, 8, 0), 0.0)
    end(supervisor, 0, 0)
    assert [] == scaled(supervisor, 5, 2)


class Hands:
    """Processes that die, report and hang as a list of numbers says, and in the end do what they are asked."""

    def __init__(self, workers: int, max_restarts: int, elsewhere: bool) -> None:
        self.supervisor = Supervisor(workers, max_restarts, elsewhere)
        self.now = 0.0
        self.running: set[int] = set()
        self.stopped: set[int] = set()  # processes that are to end, and have not
        self.handled: list[int] = []  # have exited, and their reports are still to be read
        self.starts = self.workers = 0
        self.ends: list[int] = []
        self.perform(self.supervisor.begin())

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            assert [] == self.ends, f"{action} after the end"
            match action:
                case StartServer():
                    self.start(SERVER)
                case StartWorker(worker, restarts):
                    self.workers += restarts == 0
                    self.start(worker)
                case Tell(command) if "close" in command:
                    assert self.running <= {SERVER}  # every worker has ended
                    self.stopped |= self.running
                case Stop(workers):
                    assert set(workers) <= self.running
                    self.stopped |= set(workers)
                case KillServer():
                    assert SERVER in self.running
                case End(status):
                    assert set() == self.running
                    assert (self.supervisor.status, Phase.ENDED) == (status, self.supervisor.phase)
                    self.ends.append(status)

    def start(self, process: int) -> None:
        assert process not in self.running
        self.starts += 1
        self.running.add(process)
        self.supervisor.started(process, "process")

    def end(self, process: int, status: int) -> None:
        self.running.discard(process)
        self.stopped.discard(process)
        if process == SERVER:
            self.perform(self.supervisor.server_ended(status, status == 0, self.now))
        else:
            self.perform(self.supervisor.exited(process, status, self.now))
            self.handled.append(process)

    def handle(self) -> None:
        while self.handled:
            self.perform(self.supervisor.ended(self.handled.pop(0), self.now))

    def happen(self, kind: int, number: int) -> None:
        """One event, of a kind and with a number that may be anything."""
        worker = number % self.supervisor.wanted
        reports: list[Report] = [
            Joined(0.0, 0, worker, "host", 1), Left(0.0, 0, worker), Main(0.0, 0, worker), Failure(0.0, 0, "failed"),
            Closed(0.0, 0), SETTINGS, Traceback(0.0, 0, worker, "…", bool(number % 2)), Notice(0.0, 0, "…"),
            Scale(0.0, 0, 1 + number % 5, 10 * (1 + len(self.supervisor.processes))), Released(0.0, 0, worker),
        ]  # fmt: skip
        processes = sorted(self.running)
        if kind == 0 and processes:
            self.end(processes[number % len(processes)], (0, 1, -9, 2)[number % 4])
        elif kind == 1:
            self.handle()
        elif kind == 2:
            self.now += number
            self.perform(self.supervisor.tick(self.now))
        elif kind == 3:
            self.perform(self.supervisor.interrupt(2 if number % 2 else 15, self.now))
        elif kind == 4:
            self.perform(self.supervisor.trouble("a log cannot be written", self.now))
        else:
            self.perform(self.supervisor.report(reports[number % len(reports)], self.now))

    def finish(self) -> None:
        """Let the processes end: those that are stopped first, then by themselves."""
        for _ in range(200):
            self.handle()
            if self.ends:
                return
            process = min(self.stopped or self.running, default=None)
            if process is not None:
                self.end(process, 0)
            else:
                self.perform(self.supervisor.stop(self.now))


EVENTS = st.lists(st.tuples(st.sampled_from((0, 0, 1, 1, 2, 3, 4, 5, 5, 5)), st.integers(0, 40)), max_size=40)


@given(st.integers(1, 4), st.integers(0, 2), st.booleans(), EVENTS)
def test_a_run_ends_once_with_all_it_has_started_stopped(
    workers: int, max_restarts: int, elsewhere: bool, events: list[tuple[int, int]]
) -> None:
    hands = Hands(workers, max_restarts, elsewhere)
    for kind, number in events:
        if not hands.ends:
            hands.happen(kind, number)
    hands.finish()
    assert (1, Phase.ENDED) == (len(hands.ends), hands.supervisor.phase)
    assert hands.starts <= (hands.workers + 1) * (max_restarts + 1) + 1
    if hands.supervisor.interrupted or hands.supervisor.failed:
        assert 0 != hands.ends[0]
