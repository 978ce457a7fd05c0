"""Faults at named points of a run, for the tests and scripts/chaos.sh: no user sets this, and unset it costs one check.

The environment variable KARP_FAULT names them, separated by semicolons:

    worker 2: die computing step 41; server: pause applied step 10; worker: delay 0.2 sent time 3

who (`worker` alone: any of them), what happens, at which point, and, where wanted, from which step on and the how
manieth time in one process. Each fires once in a run, however often its processes are started again: the first to make
the file faults/NUMBER in the run's directory is struck, and the file says which process that was and when.

The points, where `reach` is called:

    worker   join         before it joins                       server   received   a message, not yet looked at
             waiting      it has joined, or has sent                     applied    an update, before any reply
             leased       and has not begun                              replied    one reply is sent, others are not
             computing    a gradient, not yet contributed                writing    half of a checkpoint is written
             half-sent    the head or the vector is, not the rest        written    it is whole, not yet renamed
             sent         all is handed over                             renamed    and old ones are not yet removed
             answered     a reply has arrived, not yet read
             evaluation   it is to evaluate
             left         the loop, and the rest of the program comes
             done         the program is through

There is no point between the last contribution of a step and its update: nothing outlives the process but checkpoints,
so a death there is a death at `received`.
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

PLAN = environment.read(environment.FAULT) or None  # None, except in tests
FORM = re.compile(
    r"(?P<who>worker|server)(?: (?P<worker>\d+))?: (?P<action>die|raise|pause|full|delay)(?: (?P<seconds>\d*\.?\d+))? "
    r"(?P<point>[a-z-]+)(?: step (?P<step>\d+))?(?: time (?P<time>\d+))?"
)
SERVER_POINTS = {"received", "applied", "replied", "writing", "written", "renamed"}
BEFORE_SENDING = {"join", "waiting", "leased", "computing"}
WORKER_POINTS = BEFORE_SENDING | {"half-sent", "sent", "answered", "evaluation", "left", "done"}


@dataclass(slots=True)
class Fault:
    """One of the plan; `left` counts down to the time it fires."""

    number: int
    worker: int  # -1: any, or the server
    action: str
    seconds: float
    point: str
    step: int
    left: int


_faults: list[Fault] | None = None  # of this process, once a point has been reached


def parse(plan: str) -> list[Fault]:
    """The faults of a plan; raises SettingError for what is none.

    >>> parse("worker 2: delay 0.5 sent step 41")
    [Fault(number=0, worker=2, action='delay', seconds=0.5, point='sent', step=41, left=1)]
    """
    found = []
    for number, text in enumerate(plan.split(";")):
        match = FORM.fullmatch(text.strip())
        points = SERVER_POINTS if match and match["who"] == "server" else WORKER_POINTS
        if match is None or match["point"] not in points or (match["action"] == "delay") != bool(match["seconds"]):
            raise SettingError(f"{environment.FAULT}: {text.strip()!r} is no fault; karp/faults.py says what is")
        worker, seconds = int(match["worker"] or -1), float(match["seconds"] or 0)
        step, left = int(match["step"] or -1), int(match["time"] or 1)
        found.append(Fault(number, worker, match["action"], seconds, match["point"], step, left))
    return found


def reach(point: str, *, step: int = -1) -> None:
    """The process is at this point; what is planned for it happens."""
    if PLAN is not None:
        _strike(PLAN, point, step)


def _strike(plan: str, point: str, step: int) -> None:
    global _faults
    if _faults is None:
        _faults = parse(plan)
    me = environment.worker()
    for fault in _faults:
        if fault.point == point and step >= fault.step and fault.worker in (-1, me):
            fault.left -= 1
            if fault.left == 0 and _first(fault):
                _act(fault)


def _first(fault: Fault) -> bool:
    """Whether this fault has not fired in this run before."""
    folder = Path(environment.read(environment.RUN_DIR)) / "faults"
    folder.mkdir(exist_ok=True)
    try:
        with (folder / str(fault.number)).open("x") as file:
            file.write(f"{os.getpid()} {time.time()}\n")
    except FileExistsError:
        return False
    return True


def _act(fault: Fault) -> None:
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
