"""Fault injection at named points of a run, for the tests and scripts/chaos.sh.

No user needs it. Where KARP_FAULT is not set, a point costs one comparison. The variable names faults, separated by
semicolons:

    worker 2: die computing step 41; server: pause applied step 10; worker: delay 0.2 sent time 3

A fault names its process (`worker` alone: any worker), the action and the point, and optionally the step from which on
it fires, and which time the point is reached in one process. The actions are `die` (SIGKILL), `pause` (SIGSTOP),
`delay SECONDS`, `raise` (a RuntimeError) and `full` (the OSError of a full disk). Each fault fires once in a run,
however often processes are restarted: it strikes the first process to create the file faults/NUMBER in the run's
directory, and the file says which process that was and when.

The points, where `reach` is called:

    worker   join         before it joins                       server   received   a message, not yet handled
             waiting      it has joined, or has sent                     applied    an update, before any reply
             leased       it has a lease, and has not begun              replied    one reply is sent, others are not
             computing    a gradient, not yet contributed                writing    half of a checkpoint is written
             half-sent    a part of the message is sent                  written    all of it is, not yet renamed
             sent         the whole message is sent                      renamed    old ones are not yet removed
             answered     a reply has arrived, not yet read
             evaluation   it has an evaluation to compute
             left         it has left the loop, not yet ended
             done         the program has ended

and of a step that ends in a range (`karp.protocol.ranges`):

    worker   arriving     its gradient is in the seat           server   closing    an open range, not yet
             arrived      it says so, and has not looked                 closed     nobody ends a step any more
             ending       it holds the lock
             half-ended   half of the next weights are written
             updated      all of them are, not yet current
             ended        they are current; it holds the lock

There is no point between the last contribution of a step and its update: only checkpoints outlive the process, so a
death there has the same effect as one at `received`.
"""

import errno
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from karp import environment
from karp.errors import SettingError

PLAN = environment.read(environment.FAULT) or None  # None outside of tests
FORM = (
    r"(?P<who>worker|server)(?: (?P<worker>\d+))?: (?P<action>die|raise|pause|full|delay)(?: (?P<seconds>\d*\.?\d+))? "
    r"(?P<point>[a-z-]+)(?: step (?P<step>\d+))?(?: time (?P<time>\d+))?"
)
SERVER_POINTS = {"received", "applied", "replied", "writing", "written", "renamed", "closing", "closed"}
BEFORE_SENDING = {"join", "waiting", "leased", "computing"}
IN_RANGES = {"arriving", "arrived", "ending", "half-ended", "updated", "ended"}
WORKER_POINTS = BEFORE_SENDING | IN_RANGES | {"half-sent", "sent", "answered", "evaluation", "left", "done"}


@dataclass(slots=True)
class Fault:
    """A fault of the plan; it fires when `countdown` reaches 0."""

    number: int
    worker: int  # -1 for any worker, and for the server
    action: str
    seconds: float
    point: str
    step: int
    countdown: int


_faults: list[Fault] | None = None  # those of the plan, once this process has reached a point


def parse(plan: str) -> list[Fault]:
    """Parse the text of KARP_FAULT, faults between semicolons; raises SettingError for a text that is not a fault.

    >>> parse("worker 2: delay 0.5 sent step 41")
    [Fault(number=0, worker=2, action='delay', seconds=0.5, point='sent', step=41, countdown=1)]
    """
    faults = []
    for number, text in enumerate(plan.split(";")):
        match = re.fullmatch(FORM, text.strip())
        points = SERVER_POINTS if match and match["who"] == "server" else WORKER_POINTS
        if match is None or match["point"] not in points or (match["action"] == "delay") != bool(match["seconds"]):
            raise SettingError(f"{environment.FAULT}: {text.strip()!r} is no fault; karp/faults.py says what is")
        worker, seconds = int(match["worker"] or -1), float(match["seconds"] or 0)
        step, countdown = int(match["step"] or -1), int(match["time"] or 1)
        faults.append(Fault(number, worker, match["action"], seconds, match["point"], step, countdown))
    return faults


def reach(point: str, *, step: int = -1) -> None:
    """Fire the faults that are planned for this point of the process, if any.

    Raises the error of a fault whose action is to raise one, SettingError for a KARP_FAULT that is no plan.
    """
    if PLAN is not None:
        _fire_at(PLAN, point, step)


def _fire_at(plan: str, point: str, step: int) -> None:
    """Fire the faults of a plan that are due at this point in this process."""
    global _faults
    if _faults is None:
        _faults = parse(plan)
    worker = environment.worker()
    for fault in _faults:
        if fault.point == point and step >= fault.step and fault.worker in (-1, worker):
            fault.countdown -= 1
            if fault.countdown == 0 and _claim(fault):
                _fire(fault)


def _claim(fault: Fault) -> bool:
    """Create the file of a fault in the run's directory; return False if the fault has fired in this run before."""
    folder = Path(environment.read(environment.RUN_DIR)) / "faults"
    folder.mkdir(exist_ok=True)
    try:
        with (folder / str(fault.number)).open("x") as file:
            file.write(f"{os.getpid()} {time.time()}\n")
    except FileExistsError:
        return False
    return True


def _fire(fault: Fault) -> None:
    """Do what a fault says: die, pause, wait, or raise a RuntimeError or the OSError of a full disk."""
    match fault.action:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "delay":
            time.sleep(fault.seconds)
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case _:
            raise RuntimeError(f"the fault {fault.number} of {environment.FAULT}")
