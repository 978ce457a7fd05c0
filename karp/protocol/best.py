"""The best epoch of a run: which of the scored epochs it is, and how a program names the score that decides.

The rule is pure in (score, epoch), so it does not depend on the order in which scores arrive: evaluations of several
epochs may be under way at once. A NaN is never best; an infinite score is a number like any other.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from karp.checks import refusal
from karp.text import NAME_CHARACTERS, is_name

MODES = ("max", "min")  # whether the greatest or the least score is best
TIES = ("last", "first")  # which of the epochs with the best score counts
EPOCH = "epoch"  # the summary has the number of the best epoch under this name, beside the score


class Best(NamedTuple):
    """An epoch, counted from 0, and its score."""

    epoch: int
    score: float


def choose(best: Best | None, other: Best, mode: str, ties: str) -> Best | None:
    """Return the better of the best epoch so far, if there is one, and another that is scored.

    >>> choose(Best(3, 0.9), Best(2, 0.9), "max", "last"), choose(Best(3, 0.9), Best(2, 0.9), "max", "first")
    (Best(epoch=3, score=0.9), Best(epoch=2, score=0.9))
    >>> choose(None, Best(0, math.nan), "min", "last")
    """
    if math.isnan(other.score):
        return best
    if best is None:
        return other
    if other.score == best.score:
        return other if (other.epoch > best.epoch) == (ties == "last") else best
    return other if (other.score > best.score) == (mode == "max") else best


def check(keep_best: object, mode: object, ties: object) -> dict[str, Any]:
    """Return the three settings by their names; raise SettingError for one that cannot be."""
    if keep_best is not None and not (isinstance(keep_best, str) and is_name(keep_best) and keep_best != EPOCH):
        wanted = f"None or the name of a score: a text of 1 to {NAME_CHARACTERS} characters on one line, not {EPOCH!r}"
        raise refusal("keep_best", keep_best, wanted)
    for name, value, choices in (("mode", mode, MODES), ("ties", ties, TIES)):
        if not isinstance(value, str) or value not in choices:
            raise refusal(name, value, " or ".join(map(repr, choices)))
    return {"keep_best": keep_best, "mode": mode, "ties": ties}


def missing(keep_best: str, scores: Iterable[str]) -> str:
    """Return the error for scores among which there is none of this name."""
    names = ", ".join(repr(name) for name in scores) or "nothing"
    return f"keep_best is {keep_best!r}, but evaluate has returned {names:.500}: keep_best must name one of its numbers"
