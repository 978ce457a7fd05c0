"""`karp replay DIR`: running a recorded run's program again, in one process, along its record (trainer/replay.py)."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from karp.consistency import OPTIONS
from karp.environment import REPLAY, THREADS, consistency_variables, kernel_variables, of_child
from karp.errors import DataError, RecordError
from karp.launch.options import Options
from karp.launch.processes import THREAD_VARIABLES, WORKER_MAIN
from karp.launch.program import exists
from karp.protocol.kernels import KernelUse
from karp.protocol.settings import Settings
from karp.record import files
from karp.record.arrivals import read
from karp.record.kernels import kernels
from karp.trainer.replay import FILE


def replay(run_dir: str, program: str | None, arguments: list[str]) -> int:
    """Repeat the run in a directory, print both hashes of the weights, and return 0 if they are equal, else 1.

    If the program fails, return its exit status instead. `program` and its arguments are needed for a run whose
    launch.json is missing. Raises DataError for a run that cannot be repeated, RecordError if its directory cannot be
    written to.
    """
    directory = Path(run_dir).resolve()
    settings, summary, order = read(directory)
    options, cwd = launched(directory, program, arguments)
    threads = str(settings.threads)
    variables = {REPLAY: str(directory), THREADS: threads, **dict.fromkeys(THREAD_VARIABLES, threads)}
    variables |= variables_of(settings) | kernel_variables(options.kernels)
    if not exists(str(Path(cwd, options.program))):
        raise DataError(f"there is no program {options.program!r} in {cwd}: name it: karp replay {run_dir} PROGRAM")
    try:
        (directory / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"{directory / FILE} cannot be written: {files.reason(error)}") from None
    line = [sys.executable, WORKER_MAIN, options.program, *options.arguments]
    process = subprocess.run(line, cwd=cwd, env=of_child(variables), check=False)
    if process.returncode != 0:
        return process.returncode if process.returncode > 0 else 128 - process.returncode
    try:
        outcome = files.read_json(directory / FILE)
    except (OSError, ValueError):
        raise DataError(f"{options.program} ended without training: it has no loop over trainer.batches") from None
    print(f"karp: {len(order)} contributions of {summary['steps']} steps applied again, in the recorded order")
    print(f"karp: recorded weights {outcome['recorded_sha256']}")
    print(f"karp: repeated weights {outcome['weights_sha256']}: {'equal' if outcome['equal'] else 'NOT equal'}")
    if not outcome["equal"]:
        print(f"karp: {explain_difference(summary)}")
    return 0 if outcome["equal"] else 1


def explain_difference(summary: dict[str, Any]) -> str:
    """Explain, as far as the kernels tell, why the repeated weights differ from the recorded ones."""
    try:
        uses = [KernelUse.from_dict(use) for use in summary["kernels"]]
        others = [differences for use in uses if (differences := use.kernels.differences(uses[0].kernels))]
        differences = kernels().differences(uses[0].kernels)
    except (LookupError, TypeError, ValueError):
        return "the same bits need the same NumPy, BLAS and kind of CPU, and summary.json does not say what the run had"
    if others:
        return f"the run was computed with several kernels, so it cannot be repeated: {'; '.join(others)}"
    if differences:
        return f"here are other kernels than the run's: {differences}"
    return "the kernels are the run's, so the program or what it reads has changed"


def variables_of(settings: Settings) -> dict[str, str]:
    """Return the environment variables that hand the run's consistency options to the program."""
    return consistency_variables({option.name: option.text(getattr(settings, option.name)) for option in OPTIONS})


def launched(directory: Path, program: str | None, arguments: list[str]) -> tuple[Options, str]:
    """Return the options that the run was started with, and the working directory it was started in.

    With `program`, these are that program and its arguments, in the current directory. Raises DataError if the run's
    launch.json cannot be read.
    """
    if program is not None:
        return Options(program, arguments, 1), str(Path.cwd())
    try:
        return Options.read(directory)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{directory} does not say which program was run ({error}); name it: karp replay {directory} PROGRAM"
        ) from None
