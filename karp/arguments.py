"""Arguments of Trainer that a launcher may hand on: the program's word, the launcher's, or the default."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from karp import codecs
from karp.errors import SettingError

MODES = ("staleness", "local_steps", "codec", "codec_weights")  # those that are also options of the command line
ASYNCHRONOUS = "none"  # as karp launch --staleness and KARP_STALENESS say it


def from_environment(name: str, default: int) -> int:
    """A whole number that the launcher has handed on."""
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise SettingError(f"the environment variable {name} is {text!r}; it must be a whole number") from None


def agreed(name: str, given: Any, read: Callable[[str], Any], left_out: Any = None) -> Any:
    """What the program gives, or the launcher by the environment variable KARP_<NAME>; `left_out` if neither does.

    Raises SettingError if both do and they differ.
    """
    variable = f"KARP_{name.upper()}"
    text = os.environ.get(variable, "")
    if not text:
        return given
    handed_on = read(text)
    if given is not left_out and given != handed_on:
        raise SettingError(
            f"{name} is {given!r} in the program, but {variable} (karp launch --{name.replace('_', '-')}) says "
            f"{handed_on!r}: give only one of them, or the same"
        )
    return handed_on


def variables(given: Mapping[str, str | None]) -> dict[str, str]:
    """The environment variables that hand these arguments on, by their names as in MODES.

    Raises SettingError for a value that cannot be used.

    >>> variables({"staleness": "none", "codec": None})
    {'KARP_STALENESS': 'none'}
    """
    codecs.check("codec", given.get("codec"), codecs.GRADIENTS)
    codecs.check("codec_weights", given.get("codec_weights"), codecs.WEIGHTS)
    for name, read in (("local_steps", whole), ("staleness", staleness)):
        text = given.get(name)
        if text is not None:
            read(text)
    return {f"KARP_{name.upper()}": text for name, text in given.items() if text is not None}


def whole(text: str) -> int:
    """A whole number of at least 1; raises SettingError for anything else.

    >>> whole("8")
    8
    """
    if not text.isdecimal() or int(text) < 1:
        raise SettingError(f"{text!r} is no number of steps; it must be a whole number of at least 1")
    return int(text)


def staleness(text: str) -> int | None:
    """A bound on staleness as the command line says it; raises SettingError for what is none.

    >>> staleness("2"), staleness("none")
    (2, None)
    """
    if text != ASYNCHRONOUS and not text.isdecimal():
        raise SettingError(f"staleness is {text!r}; it must be a whole number, or {ASYNCHRONOUS!r}: asynchronous")
    return None if text == ASYNCHRONOUS else int(text)
