"""Checks of the fields of a message: each returns the value, or raises a ValueError whose text is what is expected."""

from collections.abc import Callable

from karp.text import NAME_CHARACTERS, REASON_CHARACTERS

MOST_NUMBERS = 1_000  # in a score

Logs = list[tuple[int, str, float]]  # (shard, name, value); shard -1: logged outside of a shard


def whole(low: int) -> Callable[[object], int]:
    """Return a check for whole numbers from `low`, below 2^48."""
    def check(value: object) -> int:
        if type(value) is not int or not low <= value < 1 << 48:
            raise ValueError(f"a whole number of at least {low}")
        return value

    return check


from_minus_one, count, ordinal = whole(-1), whole(0), whole(1)


def number(value: object) -> float:
    if type(value) not in (int, float):
        raise ValueError("a number")
    return float(value)  # type: ignore[arg-type]


def seconds(value: object) -> float:
    if type(value) is not float or not 0.0 <= value < 1e9:
        raise ValueError("seconds, from 0")
    return value


def flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def text(limit: int) -> Callable[[object], str]:
    """Return a check for texts of at most so many characters."""
    def check(value: object) -> str:
        if type(value) is not str or len(value) > limit:
            raise ValueError(f"a text of at most {limit} characters")
        return value

    return check


def numbers(value: object) -> dict[str, float]:
    if type(value) is not dict or len(value) > MOST_NUMBERS:
        raise ValueError(f"a map of at most {MOST_NUMBERS} numbers")
    return {text(NAME_CHARACTERS)(name): number(item) for name, item in value.items()}


def nodes(value: object) -> list[tuple[int, int, float]]:
    if type(value) is not list:
        raise ValueError("a list of [start, stop, loss]")
    checked = []
    for item in value:
        if type(item) is not list or len(item) != 3:
            raise ValueError("a list of [start, stop, loss]")
        start, stop, loss = item
        if count(start) >= count(stop):
            raise ValueError("a list of [start, stop, loss] with start < stop")
        checked.append((start, stop, number(loss)))
    return checked


def logs(value: object) -> Logs:
    if type(value) is not list or any(type(item) not in (list, tuple) or len(item) != 3 for item in value):
        raise ValueError("a list of [shard, name, value]")
    return [(from_minus_one(shard), text(NAME_CHARACTERS)(name), number(item)) for shard, name, item in value]


def remarks(value: object) -> list[str]:
    if type(value) is not list or len(value) > 100:
        raise ValueError("a list of at most 100 texts")
    return [text(REASON_CHARACTERS)(item) for item in value]


def vectors(value: object) -> int:
    if type(value) is not int or value not in (0, 1):
        raise ValueError("0 or 1, the number of vectors that follow")
    return value


def amounts(value: object) -> list[float]:
    if type(value) is not list or any(type(item) is not float for item in value):
        raise ValueError("a list of numbers")
    return value
