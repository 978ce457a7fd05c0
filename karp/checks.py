"""Checks of arguments: whole numbers, numbers in a range, switches.

A NumPy scalar counts as the number that it is, and so does an array without axes; a bool counts as none.
What comes back is Python's own type, so that it goes into messages and files, and promotes no float32.
"""

from __future__ import annotations

import numbers
import operator
from reprlib import repr as short  # an argument may be long; an error quotes a line of it

from karp.errors import SettingError

LARGEST_WHOLE = 1 << 53  # up to here a float holds every whole number
INFINITE = float("inf")


def integer(value: object) -> int | None:
    """Return `value` as a Python int if it is of an integer type, Python's or NumPy's; else None, also for a bool.

    >>> integer(2), integer(2.0), integer(True)
    (2, None, None)
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":  # some versions of NumPy index with it
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # it raises TypeError for what is no integer
    except TypeError:
        return None


def digits(text: str) -> int | str:
    """Return the whole number that a text spells; any other text as it is, for `whole` to refuse.

    >>> digits("42"), digits("-1"), digits("4.0")
    (42, '-1', '4.0')
    """
    return int(text) if text.isdecimal() and len(text) < 20 else text


def whole(name: str, value: object, low: int = 0, high: float = LARGEST_WHOLE, *, besides: str = "") -> int:
    """Return `value` as a Python int; raise SettingError, naming `name`, unless it is an integer from `low` to `high`.

    `besides` is a text for the error: the values that the caller takes besides whole numbers.

    >>> whole("Linear: inputs", 3.0, 1)
    Traceback (most recent call last):
    ...
    karp.errors.SettingError: Linear: inputs must be a whole number from 1, not 3.0
    """
    plain = integer(value)
    if plain is not None and low <= plain <= high:
        return plain
    limit = "" if high in (LARGEST_WHOLE, INFINITE) else f" to {high}"
    raise refusal(name, value, f"a whole number from {low}{limit}{besides}")


def number(name: str, value: object, low: float, high: float, *, below: bool = False) -> float:
    """Return `value` as a Python float in [low, high], or in [low, high) if `below`; raise SettingError otherwise."""
    wanted = f"a number from {low:g} to {'below ' if below else ''}{high:g}"
    if getattr(value, "shape", None) == () and not isinstance(value, numbers.Real):
        value = value.item()  # type: ignore[attr-defined]  # an array without axes, as npz files hold numbers
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise refusal(name, value, wanted)
    try:
        plain = float(value)
    except OverflowError:
        raise refusal(name, value, wanted) from None
    if not low <= plain <= high or (below and plain == high):  # a NaN fails the first comparison
        raise refusal(name, value, wanted)
    return plain + 0.0  # -0.0 becomes 0.0: as a factor, -0.0 would turn zeros negative


def switch(name: str, value: object) -> bool:
    """Return `value`, which must be True or False, as a Python bool; raise SettingError otherwise."""
    kind = type(value)
    if kind is bool or (kind.__module__ == "numpy" and kind.__name__.startswith("bool")):
        return bool(value)
    raise refusal(name, value, "True or False")


def refusal(name: str, value: object, wanted: str) -> SettingError:
    """Return the error for an argument that is not what is `wanted`."""
    return SettingError(f"{name} must be {wanted}, not {short(value)}")
