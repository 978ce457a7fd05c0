"""What a benchmark says: medians with the lowest and highest round, as text and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Figure:
    """The median of some rounds, their lowest and their highest."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        """Of one value per round.

        >>> Figure.of([3.0, 1.0, 2.0])
        Figure(middle=2.0, low=1.0, high=3.0)
        """
        every = list(values)
        return cls(median(every), min(every), max(every))


def ratio(over: Sequence[float], under: Sequence[float]) -> Figure:
    """How many times one is the other, round by round: what slows both for a while does not show.

    >>> ratio([2.0, 3.0, 6.0], [1.0, 2.0, 2.0])
    Figure(middle=2.0, low=1.5, high=3.0)
    """
    return Figure.of(a / b for a, b in zip(over, under, strict=True))


def short(number: float) -> str:
    """Three or four digits that count.

    >>> short(24583.2), short(671.28), short(35.123), short(1.2345)
    ('24,580', '671', '35.1', '1.23')
    """
    if number >= 1000:
        size = 10 ** (len(str(int(number))) - 4)
        return f"{round(number / size) * size:,}"
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def text(rows: Sequence[Sequence[str]]) -> str:
    """Lines with columns below each other, the first of them to the left.

    >>> print(text([["name", "steps/s"], ["karp", "9"]]))
    name  steps/s
    karp        9
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for row in rows
        for pairs in [list(zip(row, widths, strict=True))]
    )


def write_json(path: str, rows: Iterable[Mapping[str, object]]) -> None:
    """One object per line."""
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
