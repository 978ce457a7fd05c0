"""Checks of the fields of optimisers and schedules, made once, in their ``__post_init__``; each raises SettingError."""

from __future__ import annotations

from typing import Any

from karp import checks
from karp.errors import SettingError

LARGEST_RATE = 1e6  # beyond it float32 weights only overflow
SMALLEST_EPS = 1e-20  # below it eps, scaled by a bias correction, may vanish in float32, and 0 / 0 is a NaN


def number(owner: object, field: str, low: float, high: float, *, below: bool = False) -> None:
    """Check that ``owner.field`` is a number in [low, high], or in [low, high) if ``below``; make it a Python float.

    A plain float matters: it leaves float32 vectors float32, where a ``np.float64`` would promote them.
    """
    set_field(owner, field, as_number(owner, field, getattr(owner, field), low, high, below=below))


def as_number(
    owner: object, field: str, value: object, low: float, high: float, *, below: bool = False
) -> float:
    """Return ``value`` as a Python float within the range; raise SettingError, naming ``field``, otherwise."""
    return checks.number(f"{type(owner).__name__}: {field}", value, low, high, below=below)


def steps(owner: object, field: str, high: int = checks.LARGEST_WHOLE, *, lowest: int = 1) -> None:
    """Check that ``owner.field`` is a whole number from ``lowest`` to ``high``, and make it a Python int."""
    set_field(owner, field, checks.whole(f"{type(owner).__name__}: {field}", getattr(owner, field), lowest, high))


def switch(owner: object, field: str) -> None:
    """Check that ``owner.field`` is True or False, and make it a Python bool."""
    set_field(owner, field, checks.switch(f"{type(owner).__name__}: {field}", getattr(owner, field)))


def set_field(owner: object, field: str, value: Any) -> None:
    """Set a field of a frozen dataclass, from its own ``__post_init__``."""
    object.__setattr__(owner, field, value)


def refusal(owner: object, field: str, value: object, wanted: str) -> SettingError:
    """Return the error for a field whose value is not what is ``wanted``."""
    return checks.refusal(f"{type(owner).__name__}: {field}", value, wanted)
