"""`karp fit`: prepare a table in a run's directory, and launch karp's own program on it (`program.py`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from karp.errors import RecordError, SettingError
from karp.launch import start
from karp.launch.options import Options
from karp.record.files import is_stream
from karp.record.paths import check_unused, fresh_directory
from karp.record.prepared_tables import lock_prepared, remove_leftovers
from karp.tabular.console import Console
from karp.tabular.display import FitDisplay
from karp.tabular.fit import check_output, make_ready, write_job
from karp.tabular.job import launch_arguments
from karp.trainer.interrupts import raising


def fit_file(source: str, output: Path, run_dir: str | None, test: str | None, **options: Any) -> int:
    """Fit a model to a file, write it to `output`, and return the exit status; 0 means that the file is there.

    `options` are the further arguments of `fit.make_ready`. Raises what that raises, before any worker is started.
    """
    if run_dir == "":
        raise SettingError("--run-dir is empty: pass a directory, or leave it out")
    output = output.absolute()
    check_output(output, source, options["validation"], test)
    directory = Path(run_dir) if run_dir is not None else fresh_directory(source)
    check_unused(directory)
    console = Console(sys.stderr)
    console.notes(remove_leftovers([directory] if run_dir is not None else directory.parent.iterdir()))
    directory = directory.absolute()
    with lock_prepared(directory, made=run_dir is None or not directory.exists()):
        with raising(script=True):  # until the launcher has its own handlers
            ready = make_ready(source, console, test=test, directory=directory, **options)
            job = ready.job(str(output), None if test is None else str(Path(test).absolute()), options["weight"])
            write_job(job, directory)
        program, *arguments = launch_arguments(directory)
        workers = ready.workers
        del ready, job
        status = start.launch(Options(program, arguments, workers), str(directory), FitDisplay(sys.stderr))
    if status == 0 and not (output.is_file() or is_stream(output)):
        raise RecordError(f"the model file {output} is not there: somebody has removed it")
    return status
