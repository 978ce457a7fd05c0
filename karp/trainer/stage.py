"""The stages of a Trainer, and the calls that each permits.

    made --with--> entered --batches--> training --the with block is left--> left
                      |                                                       ^
                      +------------- the with block is left ------------------+

A Trainer is for one run, so it goes through the stages once. Any other call is a ProgramError that says what to do.
"""

from collections.abc import Mapping
from enum import Enum

from karp.errors import ProgramError


class Stage(Enum):
    """A stage of a Trainer."""

    MADE = 0
    ENTERED = 1
    TRAINING = 2  # from trainer.batches on
    LEFT = 3


AGAIN = "a Trainer is for one run, so make a new one, with karp.Trainer(…)"
INSIDE = "with karp.Trainer(…) as trainer:"

ENTER = {
    Stage.ENTERED: f"`with` was used twice for one Trainer, the second time inside of the first: {AGAIN}",
    Stage.TRAINING: f"`with` was used twice for one Trainer, the second time inside of the first: {AGAIN}",
    Stage.LEFT: f"`with` was used twice for one Trainer: {AGAIN}, for each `with`",
}
BATCHES = {
    Stage.MADE: f"trainer.batches was called outside of `with`: call it inside of `{INSIDE}`",
    Stage.TRAINING: "trainer.batches was called twice: epochs is an argument of Trainer, and one loop goes through all",
    Stage.LEFT: f"trainer.batches was called outside of `with`, which has been left: {AGAIN}",
}
ITERATE = {
    Stage.LEFT: "the batches of a Trainer were asked for after its `with` block: iterate over trainer.batches inside",
}
NOT_ITERATED = "trainer.batches was called, but not iterated over: for x, y in trainer.batches(…):"
NOT_GIVEN = (
    "was not given to trainer.backward: call trainer.backward(loss) once for each, as all count; to end the run, break"
    " or call trainer.stop()"
)
TWICE = "trainer.backward was called twice for one batch: add the losses and call it once"
OUTSIDE = "trainer.backward was called outside of the loop over trainer.batches"
LOG = {
    Stage.MADE: "trainer.log was called before trainer.batches: what is logged belongs to a run",
    Stage.ENTERED: "trainer.log was called before trainer.batches: what is logged belongs to a run",
    Stage.LEFT: "trainer.log was called after the `with` block: the record is closed, so log inside",
}
POSITION = {
    Stage.MADE: "trainer.step and trainer.epoch are known in the loop over trainer.batches, and after it",
    Stage.ENTERED: "trainer.step and trainer.epoch are known in the loop over trainer.batches, and after it",
}


def check(stage: Stage, wrong: Mapping[Stage, str]) -> None:
    """Raise ProgramError if a call is not permitted at this stage; `wrong` is the call's table of wrong stages."""
    if (reason := wrong.get(stage)) is not None:
        raise ProgramError(reason)
