"""Arguments of Trainer that a launcher may hand on: the program's word, the launcher's, or the default.

A launcher to whom none is given imports nothing here: that would take as long as all else before the start.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

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
    said = {name: text for name, text in given.items() if text is not None}
    if {"codec", "codec_weights"} & said.keys():
        from karp import codecs

        codecs.check("codec", said.get("codec"), codecs.GRADIENTS)
        codecs.check("codec_weights", said.get("codec_weights"), codecs.WEIGHTS)
    for name, read in (("local_steps", whole), ("staleness", staleness)):
        if name in said:
            read(said[name])
    return {f"KARP_{name.upper()}": text for name, text in said.items()}


def check_whole(**given: object) -> None:
    """Raise SettingError for what is no whole number, by its name."""
    for name, value in given.items():
        if type(value) is not int:
            raise SettingError(f"{name} is {value!r:.60}; it must be a whole number")


def whole(text: str) -> int:
    """A number of local steps; raises SettingError for what is none.

    >>> whole("8")
    8
    """
    from karp.protocol.settings import LIMITS

    most = LIMITS["local_steps"] - 1
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise SettingError(f"{text!r} is no number of local steps; it must be a whole number from 1 to {most}")
    return int(text)


def staleness(text: str) -> int | None:
    """A bound on staleness as the command line says it; raises SettingError for what is none.

    >>> staleness("2"), staleness("none")
    (2, None)
    """
    from karp.protocol.settings import STALENESS

    if text != ASYNCHRONOUS and not (text.isdecimal() and int(text) < STALENESS):
        wanted = f"a whole number from 0 to {STALENESS - 1}, or {ASYNCHRONOUS!r}: asynchronous"
        raise SettingError(f"staleness is {text!r}; it must be {wanted}")
    return None if text == ASYNCHRONOUS else int(text)
