"""Numbers in text: recognising them, advice for text that is none, and numbers that a dtype cannot hold.

Decimals are rounded to the dtype, as everywhere. A whole number is often an identifier or a time and no measurement, so
it is held exactly or refused: in float32 the Unix times 1700000000 and 1700000060 are one number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = (
    *("NA", "N/A", "#N/A", "<NA>", "nan", "+nan", "-nan", "NaT", "None", "null", "(null)", "\\N", "?"),
    *("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "1.#IND", "-1.#IND", "1.#QNAN", "1.#INF", "-1.#INF"),
    *("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!"),
)
"""Texts that stand for a missing value, in capitals or not: those of pandas, R, databases, UCI, C and Excel."""

_FOLDED = frozenset(text.casefold() for text in MISSING)
_FILL = "it stands for a missing value: fill it, or remove the row"

# Patterns of text that is no number, and what to do: first numbers with signs or separators that NumPy does not read.
_DECORATED = (
    (r"[-+]?\d{1,3}([.,' \xa0\u202f]\d{3})+([.,]\d+)?|[-+]?\d*,\d+(e[-+]?\d+)?",
     "write it with a decimal point, and with nothing between the thousands"),
    (r"[\u2010-\u2015\u2212]\s*[\d.,]+", "write a minus as '-'"),
    (r"[-+]?[^\w\s.+<>=~#-]{1,3}\s*[-+]?\d[\d.,]*|[-+]?\d[\d.,]*\s*[^\w\s.,+-]{1,3}|\([\d.,]+\)",
     "write the number alone, without a sign of percent or currency"),
)  # fmt: skip
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_OTHERS = (
    (r"true|false|yes|no|on|off", "write 1 and 0"),
    (r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([ t].*)?|\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[ap]m)?"
     rf"|\d{{1,2}}[-/. ]+{_MONTH}[-/., ]+\d{{2,4}}|{_MONTH}[-/. ]+\d{{1,2}},?[-/. ]+\d{{2,4}}",
     "turn dates and times into numbers first, such as days since the first"),
    (r"[-+]?[\d.]+d[-+]?\d+", "write the exponent with e"),
    (r"[-+]?0x[\da-f]+|[-+]?[\d.]+_[\d_.]+", "write it in plain decimal digits"),
)  # fmt: skip
_ADVICE = tuple((re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in _DECORATED + _OTHERS)


def is_number(text: str) -> bool:
    """Return whether a text is a finite number for NumPy's parser, so not Python's 1_000 or ١٢."""
    try:
        return text.isascii() and "_" not in text and abs(float(text)) < float("inf")
    except ValueError:
        return False


def integer(text: str) -> int | None:
    """Return the integer that a text such as 3 or 3.0 stands for; None if it is none."""
    if not is_number(text):
        return None
    try:
        return int(text)
    except ValueError:
        return int(float(text)) if float(text).is_integer() else None


def rounded(numbers: Iterable[str], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return texts of numbers as an array, rounded to `dtype`; infinite where they are beyond it.

    Raises ValueError for a text that is no number.
    """
    with np.errstate(over="ignore"):
        return np.array([float(number) for number in numbers]).astype(dtype)


REPAIR = "repair it, remove the row, or turn a column of text into numbers first"


def advise(text: str, otherwise: str = REPAIR) -> str:
    """Return the advice for a text that is no number; `otherwise` if its kind is not recognised.

    >>> advise("1,5"), advise("NA")[:33]
    ('write it with a decimal point, and with nothing between the thousands', 'it stands for a missing value: fi')
    """
    if text.casefold() in _FOLDED:
        return _FILL
    return next((advice for pattern, advice in _ADVICE if pattern.fullmatch(text)), otherwise)


def is_decorated(text: str) -> bool:
    """Return whether a text is a number with a decimal comma, thousands separators, or a percent or currency sign."""
    return any(pattern.fullmatch(text) for pattern, _ in _ADVICE[: len(_DECORATED)])


def integers_below(dtype: np.dtype[Any]) -> float:
    """Return the number up to which `dtype` holds all integers: 2**24 in float32, 2**53 in float64."""
    return float(2.0 ** (np.finfo(dtype).nmant + 1))


def lost_digits(text: str, dtype: np.dtype[Any]) -> str:
    """Describe the loss if `dtype` cannot hold a number that has digits alone; "" if nothing is lost, or for others.

    The number must not be infinite in `dtype`.

    >>> lost_digits("16777216", np.dtype(np.float32)), lost_digits("16777217.0", np.dtype(np.float32))
    ('', '')
    >>> lost_digits("16777217", np.dtype(np.float32))
    '16777217 is a whole number that float32 cannot hold (it would become 16777216)'
    """
    digits = text.lstrip("+-").lstrip("0")
    if digits.isdigit() and int(digits) != abs(becomes := int(dtype.type(float(text)))):
        return f"{text} is a whole number that {dtype} cannot hold (it would become {becomes})"
    return ""


def merged(numbers: NDArray[np.float64], dtype: np.dtype[Any]) -> tuple[int, str] | None:
    """Find two numbers of different whole parts that `dtype` rounds to one; return the second's index and a message.

    Returns None if there are none. From 2**53 on numbers with a point or an exponent count as measurements, which are
    rounded.

    >>> merged(np.array([1700000000.25, 1700000060.5]), np.dtype(np.float32))
    (1, '1700000060.5 and 1700000000.25 are two whole numbers, and would be one in float32')
    """
    size = np.abs(numbers)
    places = np.flatnonzero((size >= integers_below(dtype)) & (size < 2.0**53))
    values = numbers[places]
    order = np.argsort(values.astype(dtype), kind="stable")
    values, places = values[order], places[order]
    equal = values[1:].astype(dtype) == values[:-1].astype(dtype)
    hits = np.flatnonzero(equal & (np.trunc(values[1:]) != np.trunc(values[:-1])))
    if hits.size == 0:
        return None
    hit = hits[places[hits + 1].argmin()]  # the first in the file
    loss = f"{float(values[hit + 1])} and {float(values[hit])} are two whole numbers, and would be one in {dtype}"
    return int(places[hit + 1]), loss
