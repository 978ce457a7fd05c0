"""From raw columns to the inputs of a table's network, as nodes of a graph: what `converting.py` and `encoding.py` do.

Each column that the model uses is an input of one axis, the rows:

| the column         | its input                                       | missing                                   |
|--------------------|-------------------------------------------------|-------------------------------------------|
| number             | float64                                         | NaN; infinite numbers are missing, too    |
| date               | int64, Unix seconds in UTC                      | -2**63, as NumPy and pandas have a NaT    |
| time of day        | float64, seconds since midnight                 | NaN                                       |
| true and false,    | bool                                            | there is none                             |
| never missing      |                                                 |                                           |
| any other category | string, its level                               | the usual words: "", "nan", "None", "<NA>"|

A runtime has no null among strings: onnxruntime makes "None", "nan" and "<NA>" of Python's. In a graph no text can be
taken for a number as karp takes it, so each level has a list of spellings: of a number those with ".0" and with zeros
before it up to the length of the longest level, at least two, of true and false those in capitals. Any other
text is a level that training had not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from karp.export.graph import ML, ROWS, Graph, Operand, Tensor
from karp.tabular.columns.cell_text import COMMON_MISSING, Kind, cell
from karp.tabular.columns.column_types import (
    FIRST_LEVEL,
    MISSING,
    RARE,
    UNKNOWN,
    Category,
    Clock,
    Date,
    Number,
    Schema,
    listing,
)
from karp.tabular.network.encoding import Encoding
from karp.tabular.network.preprocessing import LIMIT, Preprocessing

NO_DATE = -(2**63)
_DAY = 86_400
_NOTES = {
    Number: "a number; NaN is missing",
    Clock: "a time of day in seconds since midnight; NaN is missing",
    Date: f"a date in Unix seconds, UTC; {NO_DATE} is missing",
}


def add_columns(graph: Graph, schema: Schema) -> dict[str, Tensor]:
    """Add an input for each column that the model uses, and return their tensors by name."""
    tensors = {}
    for column in schema.used:
        if isinstance(column, Category):
            dtype, note = (np.bool_, "") if is_truth(column) else (np.object_, _levels_note(column))
        else:
            dtype, note = (np.int64 if isinstance(column, Date) else np.float64), _NOTES[type(column)]
        tensors[column.name] = graph.input(column.name, dtype, [ROWS], note)
    return tensors


def is_truth(column: Category) -> bool:
    return column.levels == ("false", "true") and not column.gaps and not column.rare


def _levels_note(column: Category) -> str:
    return f"a text: {listing(map(repr, column.levels), 10)}; '' is missing"


def add_encoding(
    graph: Graph, schema: Schema, preprocessing: Preprocessing, encoding: Encoding, columns: dict[str, Tensor]
) -> tuple[Tensor | None, Tensor | None]:
    """Add what makes the dense inputs (rows, dense) and the row numbers (rows, gathered columns) of a first layer.

    Either is None where there are none.
    """
    dense: list[Operand] = []
    if schema.numbers:
        dense += _encoded_numbers(graph, _numbers(graph, schema, columns), preprocessing, encoding)
    gathered: list[Operand] = []
    categories = [column for column in schema.used if isinstance(column, Category)]
    for place, column in enumerate(categories):
        code = _code(graph, column, columns[column.name])
        values, rows = _tables(schema, encoding, place, FIRST_LEVEL + len(column.levels))
        if rows is None:
            dense.append(graph.node("Gather", values, code, axis=0))
        else:
            gathered.append(_column(graph, graph.node("Gather", rows, code, axis=0)))
    joined = [graph.node("Concat", *parts, axis=1) if parts else None for parts in (dense, gathered)]
    return joined[0], joined[1]


def _column(graph: Graph, tensor: Operand) -> Tensor:
    """Return (rows,) as (rows, 1)."""
    return graph.node("Unsqueeze", tensor, np.array([1]))


# --- numbers --------------------------------------------------------------------------------------------------------


def _numbers(graph: Graph, schema: Schema, columns: dict[str, Tensor]) -> Tensor:
    """Return all numbers as one tensor, float64 (rows, numbers), NaN where one is missing."""
    numbers: list[Tensor] = []
    for column in schema.used:
        if isinstance(column, Date):
            numbers += [_column(graph, number) for number in _date(graph, column, columns[column.name])]
        elif not isinstance(column, Category):
            numbers.append(_column(graph, columns[column.name]))
    return graph.node("Concat", *numbers, axis=1)


def _encoded_numbers(
    graph: Graph, numbers: Tensor, preprocessing: Preprocessing, encoding: Encoding
) -> Iterator[Tensor]:
    """Yield the dense inputs of numbers: the pieces of their bins, the numbers themselves, and where one is missing."""
    infinite = graph.node("IsInf", numbers, dtype=np.bool_)
    missing = graph.node("Or", graph.node("IsNaN", numbers, dtype=np.bool_), infinite)
    medians, scales = np.array(preprocessing.medians), np.array(preprocessing.scales)
    given = graph.node("Where", missing, medians, numbers, dtype=np.float64)
    scaled = graph.node("Div", graph.node("Sub", given, medians), np.where(scales == 0, 1.0, scales))
    scaled = graph.node("Clip", scaled, np.array(-LIMIT), np.array(LIMIT))
    if not scales.all():
        scaled = graph.node("Where", scales == 0, np.array(0.0), scaled, dtype=np.float64)
    x = graph.node("Cast", scaled, dtype=np.float32, to=1)
    if len(encoding.sources):
        pieces = graph.node("Gather", x, encoding.sources.astype(np.int64), axis=1)
        pieces = graph.node("Mul", graph.node("Sub", pieces, encoding.lows[:, 0]), encoding.slopes[:, 0])
        yield graph.node("Clip", pieces, np.array(0, np.float32), np.array(1, np.float32))
    third = graph.node("Mul", x, np.array(1 / 3, np.float32))
    root = graph.node("Sqrt", graph.node("Add", graph.node("Mul", third, third), np.array(1, np.float32)))
    yield graph.node("Div", x, root)
    if len(encoding.gaps):
        flags = graph.node("Gather", missing, encoding.gaps.astype(np.int64), axis=1)
        yield graph.node("Cast", flags, dtype=np.float32, to=1)


def _date(graph: Graph, column: Date, seconds: Tensor) -> Iterator[Tensor]:
    """Yield Unix seconds (rows,) and their calendar parts as float64, NaN where the date is missing."""
    missing = graph.node("Equal", seconds, np.array(NO_DATE), dtype=np.bool_)
    given = graph.node("Where", missing, np.array(0), seconds, dtype=np.int64)
    parts = _calendar_parts(graph, given) if column.parts else {}
    for values in (given, *(parts[part] for part in column.parts)):
        yield graph.node("Where", missing, np.array(np.nan), graph.cast(values, np.float64), dtype=np.float64)


def _calendar_parts(graph: Graph, seconds: Tensor) -> dict[str, Tensor]:
    """Return the calendar parts of Unix seconds, by integer arithmetic in a year that begins in March.

    In it the leap day is the last one, so five months have 153 days from whichever they begin, and 400 years 146,097.
    See H. Hinnant, "chrono-compatible low-level date algorithms".
    """

    def add(a: Tensor, b: Tensor | int) -> Tensor:
        return graph.node("Add", a, b if isinstance(b, Tensor) else np.array(b))

    def subtract(a: Tensor, b: Tensor) -> Tensor:
        return graph.node("Sub", a, b)

    def times(a: Tensor, factor: int) -> Tensor:
        return graph.node("Mul", a, np.array(factor))

    def quotient(a: Tensor, divisor: int) -> Tensor:  # of a number from 0, as ONNX rounds towards 0
        return graph.node("Div", a, np.array(divisor))

    def remainder(a: Tensor, divisor: int) -> Tensor:  # from 0 for any number
        return graph.node("Mod", a, np.array(divisor))

    def floored(a: Tensor, divisor: int) -> Tensor:
        whole = quotient(a, divisor)
        short = graph.node("Less", subtract(a, times(whole, divisor)), np.array(0), dtype=np.bool_)
        return subtract(whole, graph.node("Cast", short, dtype=np.int64, to=7))

    days = floored(seconds, _DAY)
    day = remainder(add(remainder(days, 146_097), 719_468), 146_097)  # of 400 years, from a first of March on
    leaps = subtract(quotient(day, 36_524), add(quotient(day, 1_460), quotient(day, 146_096)))
    year = quotient(add(day, leaps), 365)
    leap_days = subtract(quotient(year, 4), quotient(year, 100))
    day_of_year = subtract(day, add(times(year, 365), leap_days))
    month = quotient(add(times(day_of_year, 5), 2), 153)  # 0 is March
    first = quotient(add(times(month, 153), 2), 5)
    within = graph.cast(remainder(seconds, _DAY), np.float64)
    return {
        "month": add(remainder(add(month, 2), 12), 1),
        "day": add(subtract(day_of_year, first), 1),
        "weekday": remainder(add(remainder(days, 7), 3), 7),  # the first day was a Thursday
        "hour": graph.node("Div", within, np.array(3600.0)),
    }


# --- categories -----------------------------------------------------------------------------------------------------


def _code(graph: Graph, column: Category, given: Tensor) -> Operand:
    """Return the number of each cell's level, int64 (rows,); see `column_types.MISSING`."""
    if is_truth(column):
        return graph.node("Add", graph.cast(given, np.int64), np.array(FIRST_LEVEL))
    codes = spellings(column)
    return graph.node(
        "LabelEncoder", given, dtype=np.int64, domain=ML, keys_strings=list(codes), values_int64s=list(codes.values()),
        default_int64=RARE if column.rare else UNKNOWN,
    )  # fmt: skip


def spellings(column: Category) -> dict[str, int]:
    """Return the texts that an exported model knows in a category, and the number that each stands for.

    >>> spellings(Category("floor", True, ("1", "10"), rare=False))["01"]
    3
    """
    numbers = column.numbers()
    longest = max(2, *map(len, column.levels)) if column.levels else 2
    texts = [*COMMON_MISSING, " "]
    for level in column.levels:
        texts.append(level)
        kind = cell(level).kind
        if kind is Kind.NUMBER:
            texts += [level + ".0", "-" + level, f"-{level}.0", *map(level.zfill, range(len(level), longest + 1))]
        elif kind is not Kind.TEXT:
            texts += [level.upper(), level.title()]
    known = {}
    for text in texts:
        found = cell(text)
        code = numbers.get(found.level, MISSING) if found.kind else MISSING
        if code != MISSING or not found.kind:
            known[text] = code
    return known


def _tables(
    schema: Schema, encoding: Encoding, place: int, codes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Return what a category is encoded as, by its numbers: dense inputs (codes, its inputs), or row numbers (codes,).

    The encoding itself says it, of rows in which the other categories are of unknown levels, which count for nothing.
    """
    categories = np.full((codes, len(schema.categories)), UNKNOWN, np.int32)
    categories[:, place] = np.arange(codes)
    inputs = encoding(np.zeros((codes, len(schema.numbers)), np.float32), categories)
    feature = len(schema.numbers) + place
    dense, gathered = encoding.features[: encoding.dense], encoding.features[encoding.dense :]
    if not (gathered == feature).any():
        return inputs.dense[:, dense == feature], None
    assert inputs.rows is not None
    column = list(dict.fromkeys(gathered.tolist())).index(feature)
    return inputs.dense[:, :0], inputs.rows[:, column].astype(np.int64)
