"""The supervisor: the launcher's policy as a state machine without I/O, the third beside the server's and the worker's.

It takes events (a process has ended, a report, an interrupt, a tick of the clock passed in as a number) and returns
actions (start, tell, say, stop, end with this status). Whoever has the processes performs them: the launcher with those
of this host (this_host.py) or of a Ray cluster (ray.py), and a simulated cluster (simulate/launcher.py). Workers that
were started elsewhere join and leave without it. A process is named by its worker's number, the server's by SERVER.

The phases of a run, and what leads from one to the next:

    phase     event                                             next
    RUNNING   the leader's process ends with 0, or the run is   OVER
              closed and the leader was started elsewhere
    RUNNING   a worker ends with an error before or after its   FAILED     tell the server
              training, or dies once too often and none is left
    RUNNING   the server reports a failure                      FAILED
    RUNNING   another worker's process ends                     RUNNING    start it again, or go on without it
    RUNNING   more or fewer workers are asked for               RUNNING    start them, or release them and stop them
    RUNNING   the server's process ends                         RUNNING    start it again
              … with status 2, or once too often                STOPPING   stop the workers
    OVER      LAST_SECONDS have passed                          OVER       stop the workers that are left
    OVER      as RUNNING in all else, but a worker that dies is not started again
    FAILED    GRACE_SECONDS have passed, or the server's        FAILED     stop the workers; nothing is started
              process ends
    RUNNING, OVER, FAILED
              every worker's process has ended                  CLOSING    tell the server to close the run
              an interrupt, or a process cannot be started      STOPPING   stop the workers
    STOPPING  every worker's process has ended                  CLOSING    tell the server to close the run
    CLOSING   the server's process ends                         ENDED
              … without a summary, and the run is no failure    REOPENED   start it again, to close the run
              CLOSE_SECONDS have passed                         CLOSING    kill it
    REOPENED  as CLOSING, but the server is not started again

In every phase but ENDED a first interrupt is answered; what a second one does is up to whoever has the processes, as it
cannot wait for a machine that is at work. After ENDED nothing is done any more.
"""

import signal
from typing import TYPE_CHECKING

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
from karp.launch.states import OPEN, Phase, Process, Progress, describe_end, scaled
from karp.text import counted

if TYPE_CHECKING:
    from karp.protocol.reports import Report

GRACE_SECONDS = 3.0  # for the other workers to end by themselves after a failure
LAST_SECONDS = 30.0  # for the other workers to end by themselves after the leader
NAME_SECONDS = 5.0  # after so long, a message names the processes that have not ended
CLOSE_SECONDS = 60.0  # for the server to write what is left
SERVER = -1  # the server's process, where workers' processes have the numbers of their workers
REFUSED = 2  # the exit status of a server that refuses to run: a restart cannot help


class Supervisor:
    """Decide what is done about the processes of one run, from their start to the exit status.

    Args:
        workers: how many workers it starts.
        max_restarts: how often each of them, and the server, is started again.
        elsewhere: workers started elsewhere can carry the run by themselves: it does not end with those started here.
    """

    def __init__(self, workers: int, max_restarts: int, elsewhere: bool = False) -> None:
        self.wanted = workers
        self.numbers = workers  # those below are given by the launcher, or were before its workers were scaled
        self.max_restarts = max_restarts
        self.elsewhere = elsewhere
        self.phase = Phase.RUNNING
        self.since = 0.0  # when the phase OVER, FAILED, CLOSING or REOPENED began
        self.status = 0
        self.interrupted = self.failed = False
        self.published = False  # the server's address is in the run's directory
        self.closed = False  # the server has said that the leader's program has ended
        self.named = False  # a message has named the processes that have not ended in this phase
        self.leader = -1  # the worker that is the leader, once the server has named it
        self.processes: dict[int, Process] = {}  # worker -> its newest process; only that may be running
        self.endings: dict[int, bool] = {}  # worker -> whether its last process ended with 0, for a restarted server
        self.server = ""  # the server's process in messages; '' while it does not run
        self.server_starts = 0
        self.killed_server = False
        self.traceback: Report | None = None  # the last one that a worker reported

    # Events.

    def begin(self) -> list[Action]:
        """Start the server and the workers."""
        return [*self._start_server(), *(self._start_worker(worker, 0) for worker in range(self.wanted))]

    def started(self, process: int, name: str) -> None:
        """Note that a process has been started, and how messages name it: "process 4711"."""
        if process == SERVER:
            self.server, self.killed_server = name, False
        else:
            self.processes[process].name = name

    def trouble(self, text: str, now: float) -> list[Action]:
        """Give the run up, as an action cannot be performed: a process that cannot be started."""
        self.status = 1
        actions: list[Action] = [Say(text)]
        if self.phase in (Phase.CLOSING, Phase.REOPENED):
            return actions if self.server else [*actions, *self._end()]
        return actions if self.phase is Phase.ENDED else [*actions, *self.stop(now)]

    def interrupt(self, number: int, now: float) -> list[Action]:
        """Handle SIGINT (Ctrl-C) or SIGTERM: the run ends in good order."""
        if self.phase is Phase.ENDED:
            return []
        self.interrupted, self.status = True, 128 + number
        closing = self.phase in (Phase.CLOSING, Phase.REOPENED)
        what = f"the server ({self.server}) is writing what is left" if closing else "the run stops"
        return [Say(f"interrupted: {what} (once more: at once)"), *self.stop(now)]

    def stop(self, now: float) -> list[Action]:
        """Stop every worker, and then close the run; do nothing if that is under way."""
        if self.phase not in OPEN:
            return []
        self.phase = Phase.STOPPING
        return [*self._stop_workers(), *self._close_if_all_ended(now)]

    def exited(self, worker: int, status: int, now: float, how: str = "") -> list[Action]:
        """Note with which status a worker's process has ended; `ended` follows when the reports until then are read.

        `how` says it in words, if the status does not: "was lost with its node".
        """
        process = self.processes[worker]
        process.status, process.how = status, how
        return self._close_if_all_ended(now) if self.phase is Phase.STOPPING else []

    def ended(self, worker: int, now: float) -> list[Action]:
        """Handle the end of a worker's process: tell the server, then restart it, go on without it or fail the run.

        A worker is restarted if it died in training, but not more than `max_restarts` times.
        """
        process = self.processes[worker]
        if self.phase not in OPEN or process.ended or process.status is None:
            return []
        process.ended = True
        succeeded = self.endings[worker] = process.status == 0
        actions: list[Action] = [Tell({"ended": worker, "well": succeeded})]
        if succeeded and worker == self.leader and self.phase is Phase.RUNNING:
            self._enter(Phase.OVER, now)
        if not (succeeded or self.phase is Phase.FAILED or process.dismissed or process.released):
            actions += self._replace(worker, process, now)
        return [*actions, *self._close_if_all_ended(now)]

    def server_ended(self, status: int, summary: bool, now: float, how: str = "") -> list[Action]:
        """Handle the end of the server's process, with this exit status; `summary`: it has written summary.json.

        Before the run is closed it is restarted from its newest checkpoint, if that can help.
        """
        name, self.server = self.server, ""
        match self.phase:
            case Phase.RUNNING | Phase.OVER:
                return self._restart_server(how or describe_end(status), status, now)
            case Phase.FAILED:
                return self._stop_workers()
            case Phase.CLOSING if name:
                died = status != 0 and not self.killed_server
                if died and not summary and self.status == 0 and self.server_starts <= self.max_restarts:
                    self._enter(Phase.REOPENED, now)
                    said = "the server died before it had closed the run: it is started again to do so"
                    return [Say(said), *self._start_server(), Tell({"close": self.status})]
                return self._end()
            case Phase.REOPENED:
                return self._end()
        return []

    def tick(self, now: float) -> list[Action]:
        """Handle the passing of time: name processes that have not ended, and stop those that have had their time."""
        waited = now - self.since
        match self.phase:
            case Phase.FAILED:
                stopped = self._stop_workers() if waited > GRACE_SECONDS else []
                return [*stopped, *self._close_if_all_ended(now)]
            case Phase.OVER:
                return [*self._stop_remaining(waited), *self._close_if_all_ended(now)]
            case Phase.CLOSING | Phase.REOPENED if self.server and not self.killed_server:
                return self._wait_for_server(waited)
        return []

    def report(self, report: "Report", now: float) -> list[Action]:
        """Note the news of the processes in a report, and show the report; a traceback only if the run fails by it."""
        from karp.protocol import reports  # imported here, so that the processes start first

        actions: list[Action] = []
        match report:
            case reports.Settings():
                actions += self._publish(report.settings["threads"])  # it has the run's directory for itself now
            case reports.Listening():
                return self._publish(0) if self.elsewhere else []
            case reports.Traceback():
                self.traceback = report
                if process := self._open_process(report.worker):
                    process.repeats = report.repeated
                return []
            case reports.Joined():
                self.endings.pop(report.worker, None)  # that was the end of an earlier process
                self._note(report.worker, Progress.JOINED)
            case reports.Left():
                self._note(report.worker, Progress.LEFT)
            case reports.Scale():
                actions += self._scale(report.workers, report.first)
            case reports.Released():
                actions += self._stop_released(report.worker)
            case reports.Main():
                self.leader = report.worker
            case reports.Closed():
                self.closed = True
                if self.phase is Phase.RUNNING and self._open_process(self.leader) is None:
                    self._enter(Phase.OVER, now)
            case reports.Failure():
                self.status = 1
                self._fail(now)
                if self.traceback is not None and " failed " in report.failure:
                    actions.append(Show(self.traceback))
        return [*actions, Show(report)]

    # What is known at the end.

    def succeeded(self, worker: int) -> bool:
        """Return whether the worker's program has ended well; of one started elsewhere, the server says so."""
        return self.processes[worker].status == 0 if worker in self.processes else self.closed

    def output_of(self, leader: int, trained: bool) -> int:
        """Return the worker whose output is the run's, which the server has named its leader.

        If it has named none (-1: the server died at the end, or no worker trained), the first worker that ended well
        takes its place; -1 if there is none.
        """
        if leader >= 0:
            return leader
        joined = [worker for worker, process in self.processes.items() if process.progress or not trained]
        return min(filter(self.succeeded, joined), default=-1)

    # Policy.

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase, self.since, self.named = phase, now, False

    def _publish(self, threads: int) -> list[Action]:
        if self.published or self.failed:
            return []
        self.published = True
        return [Publish(threads)]

    def _fail(self, now: float) -> None:
        """Note that the run has failed; its workers have GRACE_SECONDS, unless they are being stopped already."""
        self.failed = True
        if self.phase in (Phase.RUNNING, Phase.OVER):
            self._enter(Phase.FAILED, now)

    def _start_server(self) -> list[Action]:
        """Start or restart the server, and tell it which workers' processes have ended so far."""
        self.server_starts += 1
        tell = [Tell({"ended": worker, "well": succeeded}) for worker, succeeded in self.endings.items()]
        released = self._released()
        return [StartServer(self.server_starts - 1), *tell, *([Tell({"released": released})] if released else [])]

    def _start_worker(self, worker: int, restarts: int) -> Action:
        self.processes[worker] = Process(restarts)
        return StartWorker(worker, restarts)

    def _scale(self, workers: int, first: int) -> list[Action]:
        """Have so many workers: start more, with numbers that are free or from `first` on, or release the last ones.

        One that is released ends its task before it is stopped; one that has not been started is stopped at once.
        """
        if self.phase is not Phase.RUNNING:
            return []
        surplus, new = scaled(self.processes, workers, first)
        for worker in surplus:
            self.processes[worker].released = True
        self.numbers = max([self.numbers, *(worker + 1 for worker in new)])
        what = f"{len(surplus)} end when their tasks are done" if surplus else f"{len(new)} more start"
        said = Say(f"{counted(workers, 'worker')} asked for: {what}")
        stops = [stop for worker in surplus if not self.processes[worker].name for stop in self._stop_released(worker)]
        started = [self._start_worker(worker, 0) for worker in new]
        return [said, Tell({"released": self._released()}), *started, *stops]

    def _stop_released(self, worker: int) -> list[Action]:
        """Stop a worker that is to end, now that it has no task; do nothing if that is under way."""
        process = self._open_process(worker)
        if process is None or not process.released or process.dismissed:
            return []
        process.dismissed = True
        return [Stop([worker])]

    def _released(self) -> list[int]:
        """Return the numbers of the workers that are to end and have not."""
        return [worker for worker, process in self.processes.items() if process.released and not process.ended]

    def _restart_server(self, how: str, status: int, now: float) -> list[Action]:
        """Restart the server from its newest checkpoint; give the run up if it has died too often or refuses to run."""
        if self.server_starts > self.max_restarts or status == REFUSED:
            self.status = 1
            lost = Quote(SERVER, f"the server {how}; what it printed last", f"the server {how}")
            return [lost, *self.stop(now)]
        count = f"{self.server_starts} of {self.max_restarts}"
        restarted = f"the server {how}; it is started again from its newest checkpoint ({count})"
        return [Say(restarted), *self._start_server()]

    def _replace(self, worker: int, process: Process, now: float) -> list[Action]:
        """Restart a worker whose process has died, go on without it, or fail the run."""
        status = process.status or 0
        how = f"worker {worker} {process.how or describe_end(status)}"
        others = [other for other in self.processes.values() if other is not process and other.status in (None, 0)]
        stands_in = process.restarts > 0 and any(other.progress for other in others)  # for one that had worked
        left = process.progress is Progress.LEFT
        if status > 0 and (left or not (process.progress or stands_in)):
            return self._give_up(worker, f"{how} {'after' if left else 'before'} its training", now)
        if self.phase is Phase.OVER or (left and others):
            return [Say(f"{how} after the run")]
        if process.restarts < self.max_restarts:
            count = f"{process.restarts + 1} of {self.max_restarts}"
            said = [] if process.repeats else [Say(f"{how}: it is started again ({count})")]
            return [*said, self._start_worker(worker, process.restarts + 1)]
        if self.elsewhere or any(not other.ended for other in self.processes.values()):
            return [Say(f"{how} once more: the run goes on without it")]
        memory = ", as by a system that runs out of memory" * (status == -signal.SIGKILL)
        return self._give_up(worker, f"{how} once more{memory}, and no other is left", now)

    def _give_up(self, worker: int, failure: str, now: float) -> list[Action]:
        """Fail the run for this reason, and show the last lines that the worker printed."""
        self.status = 1
        self._fail(now)
        return [Quote(worker, f"what worker {worker} printed last"), Tell({"fail": failure})]

    def _stop_workers(self) -> list[Action]:
        """Stop the workers that run and that have not been told to stop."""
        running = [worker for worker, process in self.processes.items() if process.runs and not process.dismissed]
        for worker in running:
            self.processes[worker].dismissed = True
        return [Stop(running)] if running else []

    def _stop_remaining(self, waited: float) -> list[Action]:
        """Stop the workers that have not ended LAST_SECONDS after the leader; name them before that."""
        remaining = {worker: process for worker, process in self.processes.items() if process.runs}
        count = len(remaining)
        if remaining and waited > LAST_SECONDS:
            said = f"{count} of them had not ended and {'is' if count == 1 else 'are'} stopped"
            stopped = self._stop_workers()
            return [Say(said), *stopped] if stopped else []
        if remaining and waited > NAME_SECONDS and not self.named:
            self.named = True
            names = ", ".join(f"worker {worker} ({process.name})" for worker, process in remaining.items())
            left = LAST_SECONDS - NAME_SECONDS
            return [Say(f"the run is over; waiting for {names} to end, for {left:.0f} s more at most")]
        return []

    def _wait_for_server(self, waited: float) -> list[Action]:
        """Kill a server that has not closed the run in CLOSE_SECONDS; name it before that."""
        who = f"the server ({self.server})"
        if waited >= CLOSE_SECONDS:
            self.killed_server = True
            said = f"{who} has not ended in {CLOSE_SECONDS:.0f} s and is killed; what it has written stands"
            return [Say(said), KillServer()]
        if waited > NAME_SECONDS and not self.named:
            self.named, left = True, CLOSE_SECONDS - NAME_SECONDS
            return [Say(f"waiting for {who} to write what is left, for {left:.0f} s more at most")]
        return []

    def _close_if_all_ended(self, now: float) -> list[Action]:
        """Have the server close the run if no worker's process is left; without a server the run ends.

        One that has not been started yet, as there is no room for it, is waited for only while the run needs workers.
        """
        stopping, needed = self.phase is Phase.STOPPING, self.phase is Phase.RUNNING
        for process in self.processes.values():
            if process.runs if stopping else not process.ended and (needed or process.name):
                return []
        if self.elsewhere and self.phase is Phase.RUNNING:
            return []
        self._enter(Phase.CLOSING, now)
        return [Tell({"close": self.status})] if self.server else self._end()

    def _end(self) -> list[Action]:
        self._enter(Phase.ENDED, 0.0)
        return [End(self.status)]

    def _open_process(self, worker: int) -> Process | None:
        """Return the worker's process if its end has not been handled yet."""
        process = self.processes.get(worker)
        return None if process is None or process.ended else process

    def _note(self, worker: int, progress: Progress) -> None:
        if process := self._open_process(worker):
            process.progress = max(process.progress, progress)
