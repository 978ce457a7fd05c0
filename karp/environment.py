"""Arguments of Trainer that a launcher may hand on: the program's word, the launcher's, or the default.

A launcher to whom none is given imports nothing here: that would take as long as all else before the start.
"""

import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from karp.errors import SettingError
from karp.transport import keys

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


def given_directory(argument: str | os.PathLike[str] | None) -> Path | None:
    """The run's directory as the program's argument or KARP_RUN_DIR names it; None if neither does.

    Raises SettingError if both are given and differ.
    """
    handed_on = os.environ.get("KARP_RUN_DIR")
    if argument is not None and handed_on and Path(argument).resolve() != Path(handed_on).resolve():
        raise SettingError(
            f"run_dir is {os.fspath(argument)!r} in the program, but KARP_RUN_DIR (karp launch --run-dir) says "
            f"{handed_on!r}: give only one of them, or the same"
        )
    given = argument if argument is not None else handed_on
    return Path(given) if given else None


def environment_of(server: str, directory: str | None, threads: int, program: str) -> dict[str, str]:
    """The variables of a worker that joins the run of this server.

    Raises SettingError for an address, keys or a program that cannot be.
    """
    match = re.fullmatch(r"tcp://(.+):(\d{1,5})", server)
    if match is None or not 1 <= int(match[2]) < 1 << 16:
        raise SettingError(f"--server is {server!r}; it must be tcp://HOST:PORT, with a port from 1 to 65535")
    try:
        socket.getaddrinfo(match[1].strip("[]"), int(match[2]))
    except (OSError, UnicodeError) as error:
        raise SettingError(f"--server is {server!r}, but there is no such host: {error}") from None
    if not Path(program).is_file():
        raise SettingError(f"there is no program {program!r}: pass the path of a Python file")
    found = {"KARP_SERVER": server, "KARP_THREADS": str(threads)}
    if directory is not None:
        found["KARP_KEYS"] = keys.read(Path(directory)).for_worker().to_text()
    return found
