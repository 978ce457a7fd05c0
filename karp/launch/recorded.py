"""The settings that a run's directory records, for a launch that resumes the run.

The server compares all settings with those of the workers. What the launcher can see by itself, it refuses before it
starts any process. It imports no NumPy, and so not `Settings`, but reads the file.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from karp.consistency import OPTIONS
from karp.errors import DataError, SettingError
from karp.launch.options import Options
from karp.record import files


class Recorded(NamedTuple):
    """The settings of a run by their names, as its settings.json has them; empty if that cannot be read."""

    settings: dict[str, Any]

    @classmethod
    def read(cls, directory: Path) -> "Recorded":
        """Read the settings; they are empty if the file is missing or damaged, which the server then reports."""
        try:
            plain = files.read_json(directory / "settings.json")
        except (OSError, ValueError):
            plain = {}
        return cls(plain if isinstance(plain, dict) else {})

    @property
    def shards(self) -> int:
        """The number of shards of a step; 0 if it is not known."""
        shards = self.settings.get("shards")
        return shards if type(shards) is int and shards > 0 else 0

    def check(self, directory: Path, options: Options, changes: dict[str, Any], changed: bool) -> None:
        """Raise SettingError if the run in this directory cannot go on with these changes, or with this program.

        `changed` permits a program file that has changed. Settings that are not known are not compared.
        """
        wanted = {option.name: option.parse(changes[option.name]) for option in OPTIONS if option.name in changes}
        if "threads" in changes:
            wanted["threads"] = changes["threads"]
        for name, value in wanted.items():
            if value != self.settings.get(name, value):
                flag = f"--{name.replace('_', '-')}"
                raise SettingError(
                    f"{flag} is {value!r}, but {self.settings[name]!r} in the run in {directory}: the bits depend on "
                    f"it, so a run goes on with what it began with; leave {flag} out, or begin another"
                )
        before, now = self.settings.get("program_sha256"), digest(Path(options.program))
        if before and now and before != now and not changed:
            raise SettingError(
                f"the program {options.program} has changed since the run in {directory} ran it; to go on with it as "
                f"it is now, pass --changed: karp launch --resume {directory} --changed"
            )


def options_of(directory: Path, changes: dict[str, Any]) -> tuple[Options, str]:
    """Return the options that the run in `directory` was launched with, and the working directory of that launch.

    `changes` (field of `Options` -> value) replace options. Raises SettingError if the options cannot be used with
    them, DataError if the directory holds no launch.json, or a damaged one.
    """
    try:
        options, cwd = Options.read(directory)
        options = options._replace(**changes)
        options.check()
    except SettingError:
        raise
    except (OSError, ValueError) as error:
        text = f"{directory} holds no run that `karp launch` can go on with ({error})"
        raise DataError(f"{text}: pass the --run-dir of one") from None
    return options, cwd


def enter(cwd: str) -> None:
    """Change to the directory in which a run was launched; raises DataError if that fails."""
    try:
        os.chdir(cwd)
    except (OSError, ValueError) as error:
        raise DataError(f"{cwd!r}, where the run was launched, cannot be entered: {error}") from None


def digest(program: Path) -> str:
    """Return the hex SHA-256 of a program's file, which the settings contain; '' if it is not a file."""
    import hashlib  # importing it takes longer than all else here

    return hashlib.sha256(program.read_bytes()).hexdigest() if program.is_file() else ""
