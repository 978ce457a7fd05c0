"""What one cell says: nothing, a number, true or false, a date, a time of day, or other text.

Theory of operation. CSV has no types, and no reader infers them safely, so every cell arrives as text and is recognised
here, by itself: what a column is follows from how many cells of each kind it has (`column_types.py`). Blanks around a
text do not count.

| kind     | texts                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| missing  | nothing, "-", "--", ".", "n.a.", or a word of `karp.data.MISSING` but for infinity, in capitals or not |
| number   | what Python's float takes, in ASCII and without "_": 7, +5, 1., .5, 1e-3, 00012                        |
| infinite | inf and infinity with or without a sign, 1.#INF, and numbers beyond float64 such as 1e400              |
| truth    | true and false, in capitals or not                                                                    |
| date     | 2024-05-31 or 2024/5/31, also with a time behind a blank or T: 17:30, 17:30:59, 17:30:59.25, and then  |
|          | Z, +02:00 or +0200; without these it is UTC                                                           |
| clock    | 17:30, 17:30:59, 17:30:59.25                                                                          |
| text     | everything else: 0x1F, 1_000, 1,5, $3, 5 %, 31.05.2024 and 05/31/2024 (which is the month?)             |

The value of a number is the number, of true and false 1 and 0, of a date its Unix seconds, of a clock the seconds since
midnight. In a category each cell has a **level**: its text without blanks around it, but a number is written in one way
(01, 1, 1.0 and 1e0 are the level "1"), and so are true and false. Thus a column means the same in CSV, where it may be
1.0, as in Parquet, where it is 1.
"""

from __future__ import annotations

import re
from datetime import date
from enum import IntEnum
from typing import NamedTuple

from karp.data import MISSING

EXACT = 2.0**53
"""From here on float64 does not hold every whole number."""


class Kind(IntEnum):
    """The kinds of cells."""

    MISSING = 0
    NUMBER = 1
    INFINITE = 2
    TRUTH = 3
    DATE = 4
    CLOCK = 5
    TEXT = 6


class Cell(NamedTuple):
    """A cell: its kind, its value (NaN for a kind without), and its level, the text for it in a category."""

    kind: Kind
    value: float
    level: str


_NAN = float("nan")
_MISSING, _NUMBER, _INFINITE, _TRUTH, _DATE, _CLOCK, _TEXT = Kind  # Python 3.11 looks up an enum's members slowly
_INFINITE_WORDS = {word.casefold() for word in MISSING if "inf" in word.casefold()}
MISSING_WORDS = frozenset({"", "-", "--", ".", "n.a."} | {word.casefold() for word in MISSING} - _INFINITE_WORDS)
"""The texts of a missing cell, case-folded and without blanks around them."""
COMMON_MISSING = tuple(sorted({"NaN", "Nan", *MISSING_WORDS, *map(str.upper, MISSING_WORDS), *(set(MISSING) - {
    word for word in MISSING if word.casefold() in _INFINITE_WORDS})}))  # fmt: skip
"""The usual spellings of a missing cell; a subset of all."""
_LONGEST_WORD = max(map(len, MISSING_WORDS | _INFINITE_WORDS))
_TIME = r"(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
_CLOCK_TEXT = re.compile(_TIME, re.ASCII)
_DATE_TEXT = re.compile(
    r"(\d{4})([-/])(\d{1,2})\2(\d{1,2})(?:[T ](?:" + _TIME + r")\s?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII | re.IGNORECASE
)
_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()


def cell(text: str) -> Cell:
    """Recognise a cell by its text, without blanks around it; a text that is nothing else is of the kind TEXT.

    >>> cell(" 1.50 "), cell("n/a").kind.name, cell("1970-01-02 00:00:01").value
    (Cell(kind=<Kind.NUMBER: 1>, value=1.5, level='1.5'), 'MISSING', 86401.0)
    """
    text = text.strip()
    if len(text) <= _LONGEST_WORD:
        folded = text.casefold()
        if folded in MISSING_WORDS:
            return Cell(_MISSING, _NAN, "")
        if folded in _INFINITE_WORDS:
            return Cell(_INFINITE, _NAN, "-inf" if text[0] == "-" else "inf")
        if folded in ("true", "false"):
            return Cell(_TRUTH, float(folded == "true"), folded)
    if not text[0].isalpha() and text.isascii() and "_" not in text:
        try:
            value = float(text)
        except ValueError:
            pass
        else:
            if abs(value) == float("inf"):
                return Cell(_INFINITE, _NAN, "-inf" if value < 0 else "inf")
            return Cell(_NUMBER, value, _number_level(text, value))
        if (seconds := _unix_seconds(text)) is not None:
            return Cell(_DATE, seconds, text)
        if match := _CLOCK_TEXT.fullmatch(text):
            clock = _clock_seconds(*match.groups())
            if clock is not None:
                return Cell(_CLOCK, clock[0] + clock[1], text)
    return Cell(_TEXT, _NAN, text)


def number_level(value: float) -> str:
    """Return the level of a number: whole ones without a point, others as Python writes them.

    >>> number_level(3.0), number_level(-0.0), number_level(0.1)
    ('3', '0', '0.1')
    """
    return str(int(value)) if value.is_integer() else repr(value)


def date_level(seconds: float) -> str:
    """Return the level of a date that is given as Unix seconds, as ISO 8601 has it.

    >>> date_level(86_400.0), date_level(86_401.5)
    ('1970-01-02', '1970-01-02 00:00:01.5')
    """
    days, rest = divmod(seconds, _DAY)
    day = date.fromordinal(_EPOCH + int(days)).isoformat() if _in_calendar(days) else f"day {int(days)}"
    return f"{day} {clock_level(rest)}" if rest else day


def clock_level(seconds: float) -> str:
    """Return the level of a time of day that is given as seconds since midnight.

    >>> clock_level(61.0)
    '00:01:01'
    """
    whole = int(seconds)
    fraction = f"{seconds - whole:.9f}".rstrip("0")[1:] if seconds > whole else ""
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{fraction.rstrip('.')}"


def _in_calendar(days: float) -> bool:
    return 1 <= _EPOCH + days <= date.max.toordinal()


def _number_level(text: str, value: float) -> str:
    """Return the level of a number; a whole number too large for float64 to be exact keeps its digits."""
    digits = text.lstrip("+-")
    return str(int(text)) if abs(value) >= EXACT and digits.isdigit() else number_level(value)


def _clock_seconds(hour: str, minute: str, second: str | None, fraction: str | None) -> tuple[int, float] | None:
    """Return the whole seconds since midnight and their fraction; None if there is no such time."""
    parts = int(hour), int(minute), int(second or 0)
    if parts[0] > 23 or parts[1] > 59 or parts[2] > 59:
        return None
    return parts[0] * 3600 + parts[1] * 60 + parts[2], int(fraction) / 10 ** len(fraction) if fraction else 0.0


def _unix_seconds(text: str) -> float | None:
    """Return the Unix seconds of a date; None if the text is not a date."""
    match = _DATE_TEXT.fullmatch(text)
    if match is None:
        return None
    year, _, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        seconds = (date(int(year), int(month), int(day)).toordinal() - _EPOCH) * _DAY
    except ValueError:
        return None
    if hour is None:
        return float(seconds)
    clock = _clock_seconds(hour, minute, second, fraction)
    if clock is None:
        return None
    if zone and zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if hours > 23 or minutes > 59:
            return None
        seconds -= (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
    return float(seconds + clock[0]) + clock[1]
