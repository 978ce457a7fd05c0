"""The contract between launcher and program: environment variables, all of them named here.

Whatever can start a process on a host (a launcher, Slurm, Kubernetes, a shell) can start a worker:

    KARP_SERVER     the address of the run's server; unset: the program trains in one process
    KARP_RUN        the run's name; KARP_KEYS its keys, where the server is beyond this machine
    KARP_WORKER     the worker's number, from 0; left out, the server gives one
    KARP_RUN_DIR    the run's directory; also of a run in one process
    KARP_THREADS, KARP_STALENESS, KARP_LOCAL_STEPS, KARP_CODEC, KARP_CODEC_WEIGHTS
                    arguments of Trainer that the launcher hands on: they are the program's, the launcher's, or the
                    defaults; also in one process
    KARP_KERNELS    the kernels that OpenBLAS is to use; `kernel_variables` gives the variables that go with it
    KARP_REPLAY     the directory of the run to be repeated
    KARP_LEASH      a descriptor that closes when the launcher is gone
    KARP_FAULT      a fault at a named point (faults.py)
    KARP_TAKEN      which process has taken the variables above, and what they were

A program may start others: a teacher, a script that prepares the data, workers of a pool. They inherit its environment,
but are no part of its run. So a process that takes part in a run writes KARP_TAKEN, and `own` ignores a variable with
the value that another process has taken. One that has been set since, for the child, counts. The program itself can
read all of the variables, and may replace its process by `os.exec*`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from karp.checks import digits, whole
from karp.consistency import OPTIONS, Option
from karp.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path

SERVER, RUN, WORKER, RUN_DIR, THREADS = "KARP_SERVER", "KARP_RUN", "KARP_WORKER", "KARP_RUN_DIR", "KARP_THREADS"
# OpenBLAS reads the second, and NumPy the third, when it is loaded.
KERNELS, CORETYPE, DISABLED_FEATURES = "KARP_KERNELS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"
KEYS, REPLAY, LEASH, FAULT, TAKEN = "KARP_KEYS", "KARP_REPLAY", "KARP_LEASH", "KARP_FAULT", "KARP_TAKEN"
KINDS = (  # OpenBLAS's kernels by what their CPUs can do; what NumPy has for newer CPUs alone: from 2.4 on, and before
    ("core2 nehalem sandybridge barcelona bulldozer piledriver steamroller", "X86_V3", "AVX F16C FMA3 AVX2"),
    ("haswell zen excavator", "X86_V4", "AVX512F AVX512CD AVX512_KNL AVX512_KNM AVX512_SKX"),
    ("skylakex cooperlake sapphirerapids", "AVX512_ICL AVX512_SPR", "AVX512_CLX AVX512_CNL AVX512_ICL"),
)
OPTION_VARIABLES = {option.name: f"KARP_{option.name.upper()}" for option in OPTIONS}
HANDED_ON = (FAULT, *OPTION_VARIABLES.values())  # those that whoever starts a worker hands on from its own environment
NAMES = (SERVER, RUN, WORKER, RUN_DIR, THREADS, KERNELS, KEYS, REPLAY, LEASH, *HANDED_ON)


def own() -> dict[str, str]:
    """Return KARP_* variables that are meant for this process, and not those inherited from one that has taken them."""
    variables = {name: os.environ[name] for name in NAMES if os.environ.get(name)}
    if not variables or TAKEN not in os.environ:
        return variables
    import json

    try:
        taken = dict(json.loads(os.environ[TAKEN]))
    except (TypeError, ValueError):
        return variables
    if taken.get("process") == os.getpid():
        return variables
    return {name: value for name, value in variables.items() if taken.get(name) != value}


def read(name: str) -> str:
    """Return the value of a variable that is meant for this process; '' if there is none."""
    return own().get(name, "") if name in os.environ else ""


def take(*names: str) -> None:
    """Take this process's KARP_* variables: write KARP_TAKEN, so that child processes ignore what they inherit.

    Nothing is written unless one of the variables `names` is set, and was not inherited from a process that took it.
    """
    if not any(name in os.environ for name in names):
        return
    variables = own()
    if any(name in variables for name in names):
        import json

        os.environ[TAKEN] = json.dumps({"process": os.getpid(), **variables})


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Hide a variable from what this block runs in this process."""
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def of_child(given: Mapping[str, str], *handed_on: str) -> dict[str, str]:
    """Return the environment of a child process: the variables given, and of this process's own those `handed_on`."""
    others = {name: value for name, value in os.environ.items() if name not in (*NAMES, TAKEN)}
    return others | {name: value for name, value in own().items() if name in handed_on} | dict(given)


def threads() -> int:
    """Return the number of BLAS threads that KARP_THREADS sets; 1 if it is not set. Raises what `number` raises."""
    return number(THREADS, 1)


def worker() -> int:
    """Return the number of this worker, from KARP_WORKER; -1 if it is not set. Raises what `number` raises."""
    return number(WORKER, -1)


def number(name: str, default: int) -> int:
    """Return the whole number in a variable; `default` if it is not set. Raises SettingError for any other text."""
    text = read(name)
    return whole(f"the environment variable {name}", digits(text)) if text else default


def agreed(option: Option, given: Any, left_out: Any = None) -> Any:
    """Return the value of a consistency option that the program or the launcher gives, or its default.

    `given` is the program's value, and equals `left_out` if it gives none. Raises SettingError for an impossible value,
    and if both give one and they differ.
    """
    variable = OPTION_VARIABLES[option.name]
    text = read(variable)
    if not text:
        return option.default if given is left_out else option.check(given)
    handed_on = option.parse(text)
    if given is not left_out and given != handed_on:
        raise SettingError(
            f"{option.name} is {given!r:.60} in the program, but {variable} (karp launch {option.flag}) says "
            f"{handed_on!r}: give only one of them, or the same"
        )
    return handed_on


def consistency_variables(given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment variables that hand consistency options to a program; `given` has their texts by name.

    Raises SettingError for an impossible value.

    >>> consistency_variables({"staleness": "none", "codec": None})
    {'KARP_STALENESS': 'none'}
    """
    texts = [(option, text) for option in OPTIONS if (text := given.get(option.name)) is not None]
    for option, text in texts:
        option.parse(text)
    return {OPTION_VARIABLES[option.name]: text for option, text in texts}


def kernel_variables(kernels: str) -> dict[str, str]:
    """Return the environment variables that have OpenBLAS use these kernels, from a process's start on.

    NumPy is to leave out what it has for newer CPUs, which gives other bits. OpenBLAS ignores a name that it does not
    know, so the program compares the kernels with those in use.

    >>> kernel_variables("Haswell")["OPENBLAS_CORETYPE"], kernel_variables("")
    ('Haswell', {})
    """
    if not kernels:
        return {}
    from importlib.metadata import version

    variables = {KERNELS: kernels, CORETYPE: kernels}
    numpy = version("numpy").split(".")  # on all hosts: another would have other bits
    column = 1 if (int(numpy[0]), int(numpy[1])) >= (2, 4) else 2
    for number, (names, *_) in enumerate(KINDS):
        if kernels.lower() in names.split():
            variables[DISABLED_FEATURES] = " ".join(kind[column] for kind in KINDS[number:])
    return variables


def given_consistency() -> dict[str, str | None]:
    """Return all consistency options by name, as the environment's texts; None for an option that it does not set."""
    return {name: read(variable) or None for name, variable in OPTION_VARIABLES.items()}


def given_directory(argument: str | os.PathLike[str] | None) -> "Path | None":
    """Return the run's directory as the program's argument or KARP_RUN_DIR names it; None if neither does.

    Raises SettingError if that is no path, or if both are given and differ.
    """
    from pathlib import Path

    handed_on = read(RUN_DIR)
    try:
        given = os.fspath(handed_on if argument is None else argument)
        if not isinstance(given, str) or "\0" in given:
            raise TypeError
    except TypeError:
        raise SettingError(f"run_dir is {argument!r:.60}; it must be the path of a directory") from None
    if handed_on and Path(given).resolve() != Path(handed_on).resolve():
        raise SettingError(
            f"run_dir is {given!r} in the program, but {RUN_DIR} (karp launch --run-dir) says "
            f"{handed_on!r}: give only one of them, or the same"
        )
    return Path(given) if given else None
