"""Where a run's directory is: as the program says it, as the launcher does, or a fresh one."""

import os
import time
from pathlib import Path

from karp.errors import RecordError, SettingError


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
