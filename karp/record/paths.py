"""Where a run's directory is: as the program says it, as the launcher does, or a fresh one."""

import time
from pathlib import Path

from karp.errors import RecordError


def fresh_directory(program: str) -> Path:
    """A new folder under runs/, named by time and program."""
    return fresh(Path("runs"), f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(program).stem or 'run'}")


def fresh(parent: Path, name: str) -> Path:
    """A directory below `parent` that this call has made; a number is appended where the name is taken."""
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
