"""Directories for new runs: creating one where the user names none, and checking that a named one is unused."""

import time
from pathlib import Path

from karp.errors import RecordError
from karp.record import launched
from karp.record.files import reason

PREPARED = "prepared"  # a folder with prepared tables; gone when the run has ended well
RUN_FILES = ("metrics.jsonl", "arrivals.jsonl", "settings.json", "weights.safetensors", "summary.json", "checkpoints")


def check_unused(directory: Path) -> None:
    """Raise RecordError, saying what to do, if the directory holds a file of a run, or cannot be read."""
    try:
        files = [name for name in RUN_FILES if (directory / name).exists()]
    except OSError as error:
        raise RecordError(f"the run directory {directory} cannot be used: {reason(error)}; pass another") from None
    if not files:
        return
    if files[0] != RUN_FILES[0]:
        raise RecordError(f"{directory} holds {files[0]}, as of an earlier run: pass another directory, or remove it")
    go_on = f", or go on with it: karp launch --resume {directory}" if (directory / launched.FILE).exists() else ""
    raise RecordError(f"{directory} holds a run already: pass another directory{go_on}")


def fresh_directory(program: str) -> Path:
    """Create a directory under runs/, named by time and program, and return it; raises RecordError if that fails."""
    return fresh(Path("runs"), f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(program).stem or 'run'}")


def fresh(parent: Path, name: str) -> Path:
    """Create a directory in `parent` and return it; a number is appended if the name is taken.

    Raises RecordError if that fails, or if the name is taken with every number below 10,000.
    """
    for number in range(1, 10_000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RecordError(f"the run directory {path} cannot be made: {reason(error)}; pass another") from None
        return path
    raise RecordError(f"{parent / name} and 9,999 more are taken: remove old runs")
