"""The file of results: a line of JSON for each set, split and contestant, added as soon as it is there."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from bench.contest import FailedError


class Key(NamedTuple):
    """What a result is of."""

    set: str
    split: int
    contestant: str
    whole: bool  # whether all rows but the test rows were trained on, for time
    epochs: int | None  # that were asked for


@dataclass(frozen=True)
class Result:
    """A line: the score on the test rows, and the seconds from the file to the model."""

    set: str
    split: int
    contestant: str
    whole: bool
    epochs: int | None
    rows: int  # trained on, its validation part included
    test_rows: int
    score: float
    seconds: float
    version: str  # of the contestant's package

    @property
    def key(self) -> Key:
        """What the result is of."""
        return Key(self.set, self.split, self.contestant, self.whole, self.epochs)


class Results:
    """The results in a file, the last of a key in its place.

    A line that was cut short when the bench was killed is removed; raises FailedError for a file of other content.
    """

    def __init__(self, path: Path) -> None:
        """Read the file; there need not be one."""
        self._path = path
        self._results: dict[Key, Result] = {}
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                result = Result(**json.loads(line))
            except (ValueError, TypeError) as reason:
                raise FailedError(f"{path}, line {number} is no result: {reason}; give another file") from None
            self._results[result.key] = result
        if whole != text:
            os.truncate(path, len(whole))

    def __contains__(self, key: Key) -> bool:
        """Whether there is a result of this key."""
        return key in self._results

    def add(self, result: Result) -> None:
        """Append a line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(json.dumps(asdict(result)).encode() + b"\n")
        self._results[result.key] = result

    def of(self, table: str, contestant: str, *, whole: bool, epochs: int | None) -> dict[int, Result]:
        """Return the results of a contestant on a set, by split."""
        return {
            result.split: result
            for key, result in sorted(self._results.items(), key=lambda pair: pair[0].split)
            if (key.set, key.contestant, key.whole, key.epochs) == (table, contestant, whole, epochs)
        }
