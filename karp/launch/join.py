"""`karp worker`: this process becomes one more worker of a run that is under way, started by hand."""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from karp import environment
from karp.errors import SettingError
from karp.launch.credentials import variables_for
from karp.launch.options import Options
from karp.launch.processes import WORKER_MAIN
from karp.launch.program import exists
from karp.launch.recorded import enter, options_of
from karp.limits import setting
from karp.record.server_address import published


def join(
    run_dir: str | None,
    server: str | None,
    keys: str | None,
    changes: dict[str, Any],
    program: str | None,
    arguments: list[str],
) -> NoReturn:
    """Run a program as a worker of the run in a directory, or of the server at an address, in place of this process.

    `changes` are threads and consistency options; program, arguments and options that are not given are as the run's
    directory has them.

    Raises SettingError for arguments that cannot be used, DataError if no run is under way in the directory.
    """
    run, worker_keys, cwd, known = "", "", "", Options("", [], 1, **changes)
    if run_dir is not None:
        directory = Path(run_dir).resolve()
        address, run, worker_keys = published(directory)
        server = address if server is None else server
        known, cwd = options_of(directory, changes)
    if server is None or (run_dir is None and program is None):
        raise SettingError(
            "karp worker needs --run-dir DIR, or --server ADDRESS and the run's PROGRAM; see karp worker --help"
        )
    variables = known.consistency_variables() | variables_for(server, keys, setting("threads", known.threads))
    if run:  # so that a server which now has this address, but serves another run, is not taken for this one
        variables[environment.RUN] = run
    if worker_keys and keys is None:
        variables[environment.KEYS] = worker_keys
    if program is None:
        program, arguments = known.program, known.arguments
        enter(cwd)
    if not exists(program):
        raise SettingError(f"there is no program {program!r}: pass the path of a Python file")
    others = (environment.RUN_DIR, environment.FAULT, *environment.OPTION_VARIABLES.values())
    line = [sys.executable, WORKER_MAIN, program, *arguments]
    os.execve(sys.executable, line, environment.of_child(variables, *others))  # this process is the program's now
