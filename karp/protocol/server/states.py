"""The states of a run and of its workers, as the server knows them, and their transitions.

    a run       JOINING --all workers are here--> TRAINING --every step is applied, every score known--> OVER
                OVER --the leader's program has ended--> CLOSED

    a worker    TRAINING --Stop--> STOPPED --Finish--> NOTIFIED --Leave--> LEFT
                TRAINING --Finish--> NOTIFIED
                TRAINING --it is to end, as fewer workers are asked for--> RELEASED --Stop--> STOPPED

From any state a run becomes OVER when it fails, and CLOSED when its server ends. From any state an interrupted worker
leaves a run that is OVER. A worker that is lost is forgotten, whatever its state; if it joins again it starts as
TRAINING.
"""

from enum import Enum
from typing import TypeVar


class RunState(Enum):
    """The state of a run."""

    JOINING = "it waits for its workers"
    TRAINING = "steps are leased and applied"
    OVER = "the weights are final; workers are told so and leave, the leader runs its code after the loop"
    CLOSED = "nobody has to wait for anything any more"


class WorkerState(Enum):
    """The state of a worker."""

    TRAINING = "it takes tasks"
    STOPPED = "its program has left the loop before the run was over"
    RELEASED = "it ends its task and gets no other; then its launcher ends its process"
    NOTIFIED = "it was told that the run is over"
    LEFT = "it has left its `with` block, and could replace the leader"


State = TypeVar("State", RunState, WorkerState)

TRANSITIONS: dict[RunState | WorkerState, tuple[RunState | WorkerState, ...]] = {
    RunState.JOINING: (RunState.TRAINING, RunState.OVER, RunState.CLOSED),
    RunState.TRAINING: (RunState.OVER, RunState.CLOSED),
    RunState.OVER: (RunState.CLOSED,),
    RunState.CLOSED: (),
    WorkerState.TRAINING: (WorkerState.STOPPED, WorkerState.RELEASED, WorkerState.NOTIFIED, WorkerState.LEFT),
    WorkerState.RELEASED: (WorkerState.STOPPED, WorkerState.NOTIFIED, WorkerState.LEFT),
    WorkerState.STOPPED: (WorkerState.NOTIFIED, WorkerState.LEFT),
    WorkerState.NOTIFIED: (WorkerState.LEFT,),
    WorkerState.LEFT: (),
}


def changed(state: State, to: State) -> State:
    """Return the new state; raise AssertionError if there is no transition from the old one to it.

    >>> changed(RunState.JOINING, RunState.TRAINING).name
    'TRAINING'
    >>> changed(RunState.CLOSED, RunState.TRAINING)
    Traceback (most recent call last):
    ...
    AssertionError: TRAINING cannot follow CLOSED
    """
    if to not in TRANSITIONS[state]:
        raise AssertionError(f"{to.name} cannot follow {state.name}")
    return to
