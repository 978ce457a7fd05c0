"""`karp worker`: this process becomes one more worker of a run that is under way, started by hand."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from karp import environment
from karp.errors import DataError, LostError, SettingError
from karp.launch.credentials import resolve, variables_for
from karp.launch.options import Options
from karp.launch.processes import WORKER_MAIN
from karp.launch.program import exists
from karp.launch.recorded import enter, options_of
from karp.limits import setting
from karp.record.server_address import published

WAIT_SECONDS = 0.2  # between two looks for the server

Found = TypeVar("Found")


def join(
    run_dir: str | None,
    server: str | None,
    keys: str | None,
    changes: dict[str, Any],
    program: str | None,
    arguments: list[str],
    wait: float = 0.0,
) -> NoReturn:
    """Run a program as a worker of the run in a directory, or of the server at an address, in place of this process.

    `changes` are threads, kernels and consistency options; program, arguments and options that are not given are as the
    run's directory has them. A server that has not begun is waited for, `wait` seconds at most.

    Raises SettingError for arguments that cannot be used, DataError if no run is under way in the directory.
    """
    if not 0 <= wait < float("inf"):
        raise SettingError(f"--wait is {wait}; it must be a number of seconds from 0")
    until = time.monotonic() + wait
    run, worker_keys, cwd, known = "", "", "", Options("", [], 1, **changes)
    directory = None if run_dir is None else Path(run_dir).resolve()
    if directory is not None:
        address, run, worker_keys = patiently(lambda: published(directory), until)
        server = address if server is None else server
        known, cwd = options_of(directory, changes)
    if server is None or (run_dir is None and program is None):
        raise SettingError(
            "karp worker needs --run-dir DIR, or --server ADDRESS and the run's PROGRAM; see karp worker --help"
        )
    patiently(lambda: resolve(server), until)
    variables = known.consistency_variables() | environment.kernel_variables(known.kernels)
    variables |= variables_for(server, keys, setting("threads", known.threads))
    if run:  # so that a server which now has this address, but serves another run, is not taken for this one
        variables[environment.RUN] = run
    if directory is not None:
        variables[environment.RUN_DIR] = str(directory)
    if worker_keys and keys is None:
        variables[environment.KEYS] = worker_keys
    if program is None:
        program, arguments = known.program, known.arguments
        enter(cwd)
    if not exists(program):
        raise SettingError(f"there is no program {program!r}: pass the path of a Python file")
    line = [sys.executable, WORKER_MAIN, program, *arguments]  # this process is the program's from here on
    os.execve(sys.executable, line, environment.of_child(variables, *environment.HANDED_ON))


def patiently(look: Callable[[], Found], until: float) -> Found:
    """Return what `look` finds; while it finds no run or no host, look again until this time."""
    while True:
        try:
            return look()
        except (DataError, LostError):
            if time.monotonic() >= until:
                raise
        time.sleep(WAIT_SECONDS)
