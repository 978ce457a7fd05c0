"""A fresh directory for a run that was given none."""

import time
from pathlib import Path

from karp.errors import RecordError


def fresh_directory(program: str) -> Path:
    """Make a folder under runs/, named by time and program, and return it."""
    return fresh(Path("runs"), f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(program).stem or 'run'}")


def fresh(parent: Path, name: str) -> Path:
    """Make a directory below `parent` and return it; a number is appended where the name is taken."""
    for number in range(1, 10_000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RecordError(f"the run directory {path} cannot be made: {error.strerror}; pass another") from None
        return path
    raise RecordError(f"{parent / name} and 9,999 more are taken: remove old runs")
