"""The calendar parts of dates: month, day, weekday and hour of Unix seconds, in UTC."""

from __future__ import annotations

import numpy as np

from karp.tabular.columns.cells import Floats

_DAY = 86_400


def calendar_parts(seconds: Floats) -> dict[str, Floats]:
    """Return each of `column_types.PARTS` of Unix seconds (n,); NaN where these are.

    >>> {part: values.tolist() for part, values in calendar_parts(np.array([1.5 * 86_400])).items()}
    {'month': [1.0], 'day': [2.0], 'weekday': [4.0], 'hour': [12.0]}
    """
    missing = np.isnan(seconds)
    given = np.where(missing, 0.0, seconds)
    days = np.floor(given / _DAY)
    dates = days.astype(np.int64).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    parts = {
        "month": months.astype(np.int64) % 12 + 1.0,
        "day": (dates - months.astype("datetime64[D]")).astype(np.int64) + 1.0,
        "weekday": (days + 3) % 7,  # the first day was a Thursday
        "hour": (given - days * _DAY) / 3600,
    }
    for values in parts.values():
        values[missing] = np.nan
    return parts
