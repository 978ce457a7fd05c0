"""A fit that a launcher's workers do: all that they need beside the prepared table, as a file in the run's directory.

    DIR/prepared/   the prepared table, which the launcher removes when the run has ended well
    DIR/fit.json    the job; its path is the argument of program.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from karp.errors import DataError
from karp.record import files
from karp.tabular.model_file import Results, plain_results, results_of
from karp.tabular.network.recipe import Recipe

FILE = "fit.json"
PROGRAM = str(Path(__file__).with_name("program.py"))


class Job(NamedTuple):
    """A job: the manifest of the prepared table, the recipe, what decides, what to compare with, where the model goes.

    `test` is a file to score the model on, and `weight` the column of its weights.
    """

    manifest: str
    output: str
    recipe: Recipe
    score: str
    beside: Results
    test: str | None = None
    weight: str | None = None

    def write(self, path: Path) -> None:
        """Write the job; raises OSError if that fails."""
        files.write_json(path, self._asdict() | {"recipe": self.recipe.to_dict(), "beside": plain_results(self.beside)})

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read a job; raise DataError if it cannot be read."""
        try:
            plain: Mapping[str, Any] = files.read_json(path)
            checked = {"recipe": Recipe.from_dict(plain["recipe"]), "beside": results_of(plain["beside"])}
            return cls(**{**plain, **checked})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} cannot be used ({files.reason(error)}): fit again") from None


def launch_arguments(directory: Path) -> list[str]:
    """Return the program and its arguments with which the job in a directory is launched."""
    return [PROGRAM, str(directory / FILE)]

