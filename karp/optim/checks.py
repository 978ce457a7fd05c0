"""Numbers of optimisers and schedules: checked once, where they are made, whoever makes them."""

from __future__ import annotations

from reprlib import repr as short
from typing import Any

import numpy as np

from karp.errors import SettingError

LARGEST_RATE = 1e6  # beyond it float32 weights only overflow
SMALLEST_EPS = 1e-20  # below it eps, scaled by a bias correction, may vanish in float32, and 0 / 0 is a NaN
MOST_STEPS = 1 << 53  # whole numbers a float can hold


def number(owner: object, field: str, low: float, high: float, *, below: bool = False) -> None:
    """Make ``owner.field`` a Python float in [low, high], or in [low, high) if ``below``.

    A plain float matters: it leaves float32 vectors float32, where a ``np.float64`` would promote them.
    """
    value = getattr(owner, field)
    set_field(owner, field, as_number(owner, field, value, low, high, below=below))


def as_number(
    owner: object, field: str, value: object, low: float, high: float, *, below: bool = False
) -> float:
    """``value`` as a Python float within the range, or a SettingError that names ``field``."""
    wanted = f"a number from {low:g} to {'below ' if below else ''}{high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise refusal(owner, field, value, wanted)
    try:
        plain = float(value)
    except OverflowError:
        raise refusal(owner, field, value, wanted) from None
    if not low <= plain <= high or (below and plain == high):  # a NaN fails the first
        raise refusal(owner, field, value, wanted)
    return plain + 0.0  # -0.0 would turn the zeros of the weights negative


def steps(owner: object, field: str) -> None:
    """Make ``owner.field`` a Python int of at least 1."""
    value = getattr(owner, field)
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool) and 1 <= value <= MOST_STEPS
    if not fits:
        raise refusal(owner, field, value, "a whole number of steps from 1")
    set_field(owner, field, int(value))


def switch(owner: object, field: str) -> None:
    """Refuse anything but True and False."""
    if not isinstance(getattr(owner, field), bool):
        raise refusal(owner, field, getattr(owner, field), "True or False")


def set_field(owner: object, field: str, value: Any) -> None:
    """Set a field of a frozen dataclass, from its own ``__post_init__``."""
    object.__setattr__(owner, field, value)


def refusal(owner: object, field: str, value: object, wanted: str) -> SettingError:
    """The error for a field whose value is not what is ``wanted``."""
    return SettingError(f"{type(owner).__name__}: {field} must be {wanted}, not {short(value)}")
