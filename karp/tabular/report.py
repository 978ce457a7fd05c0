"""What a user reads of a fit and of a model: short lines of at most 80 columns, each after a label."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from karp.tabular.columns.column_types import Category, ColumnType, Date, LeftOut, Number, Schema, listing
from karp.tabular.columns.target import Target
from karp.tabular.display import LABEL, shown_path
from karp.tabular.model_file import Fitted, Results
from karp.tabular.network.recipe import Recipe
from karp.tabular.scores import SCORES
from karp.text import counted

if TYPE_CHECKING:
    from karp.tabular.preparation.prepared import Counts

WIDTH, MOST_NAME = 80, 32
_TITLES = {"linear": "linear model", "majority": "majority", "mean": "mean"}
_PLURALS = {"category": "categories"}


def line(label: str, text: str) -> str:
    """Return a text under its label, wrapped; words that are longer than a line, such as paths, stay whole.

    >>> line("rows", "275 to train on, 69 to validate")
    'rows      275 to train on, 69 to validate'
    """
    wrapped = textwrap.wrap(
        text, WIDTH, initial_indent=f"{label:<{LABEL}}", subsequent_indent=" " * LABEL, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(wrapped)


def kind_of(column: ColumnType) -> str:
    """Return the type of a column in a word: number, category, date, clock, or left out."""
    return "left out" if isinstance(column, LeftOut) else type(column).__name__.lower()


def columns_line(schema: Schema) -> str:
    """Return how many columns there are of each type.

    >>> columns_line(Schema((Number("a", False), Number("b", False), LeftOut("id", "it is to be dropped"))))
    '2 numbers; 1 left out'
    """
    counts = Counter(map(kind_of, schema.columns))
    left_out = counts.pop("left out", 0)
    parts = [f"{count:,} {_PLURALS.get(kind, kind + 's') if count > 1 else kind}" for kind, count in counts.items()]
    return ", ".join(parts) + (f"; {left_out:,} left out" if left_out else "")


def target_line(target: Target) -> str:
    """Return what is predicted.

    >>> target_line(Target("species", "level", ("Adelie", "Gentoo")))
    'species: 2 classes (Adelie, Gentoo)'
    """
    if target.classes:
        return f"{target.name}: {len(target.classes):,} classes ({listing(target.classes)})"
    return f"{target.name}: a {'time of day' if target.kind == 'clock' else target.kind}"


def rows_line(counts: Counts) -> str:
    """Return how many rows of a table were read, and what they are for; notes say which others are left out."""
    return f"{counts.read:,} read: {counts.train:,} to train on, {counts.validation:,} to validate"


def scores_table(results: Results, score: str) -> list[str]:
    """Return a table of scores: a row for who predicts, a group of columns for each part of the data.

    The score that the best epoch was chosen by has a star.

    >>> print("\\n".join(scores_table({"test": {"karp": {"rmse": 2.5, "r2": 0.75}, "mean": {"rmse": 5.0}}}, "rmse")))
                         test
                      RMSE*        R²
    karp             2.5000    0.7500
    mean             5.0000
    """
    heads, rows = _score_cells(results, score)
    width = 10
    lines = [
        " " * 13 + " ".join(f"{part:^{len(heads) * width}}" for part in results),
        " " * 13 + " ".join("".join(f"{head:>{width}}" for head in heads) for _ in results),
    ]
    for who, parts in rows.items():
        lines.append(f"{who:<13}" + " ".join("".join(f"{cell:>{width}}" for cell in cells) for cells in parts))
    return [text.rstrip() for text in lines]


def _score_cells(results: Results, score: str) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Return the heads of a table of scores, and for who predicts the cells of each part of the data."""
    every = [row for part in results.values() for row in part.values()]
    names = [name for name in SCORES if any(name in row for row in every)]
    largest = max((row.get("rmse", 0.0) for row in every), default=0.0)
    rows = {
        _TITLES.get(who, who): [
            [number_text(name, part.get(who, {}).get(name), largest) for name in names] for part in results.values()
        ]
        for who in dict.fromkeys(who for part in results.values() for who in part)
    }
    return [SCORES[name].title + "*" * (name == score) for name in names], rows


def number_text(name: str, value: float | None, largest: float = 1.0) -> str:
    """Return a score as text; "" for one that is not there. The `largest` RMSE of a table has five digits.

    >>> number_text("r2", -1e-5), number_text("rmse", 9.87, 123.4), number_text("rmse", 123456.7, 123456.7)
    ('0.0000', '9.87', '123,457')
    """
    if value is None:
        return ""
    if not math.isfinite(value):
        return "–"
    if name != "rmse":
        return f"{value:z.4f}"  # -0.00001 is 0.0000
    if not 1e-4 < largest < 1e8:
        return f"{value:.4g}"
    return f"{value:,.{max(0, 4 - math.floor(math.log10(largest)))}f}"


def size_text(size: int) -> str:
    """Return a number of bytes, as 1.2 MB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:,.3g} {unit}" if unit != "bytes" else f"{size} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:,.3g} GB"


def recipe_line(recipe: Recipe) -> str:
    """Return a recipe in a line: the network, then its training."""
    shape = "-".join(map(str, recipe.layers)) or "linear"
    text = f"{shape} {recipe.activation}" if recipe.layers else shape
    if recipe.members > 1:
        text += f", {recipe.members} members"
    text += f", {counted(recipe.epochs, 'epoch')} of batches of {recipe.batch_size:,}"
    if recipe.smoothing:
        text += f", smoothing {recipe.smoothing:g}"
    return text


def show(fitted: Fitted, size: int, digest: str) -> list[str]:
    """Return the lines of `karp show`."""
    parameters = sum(array.size for array in fitted.weights.values())
    rows = ", ".join(f"{count:,} {_ROWS.get(part, part)}" for part, count in fitted.rows.items())
    lines = [
        line("predicts", target_line(fitted.target)),
        line("columns", columns_line(fitted.schema)),
        line("recipe", recipe_line(fitted.recipe)),
        line("rows", rows),
        line("weights", f"{parameters:,} numbers"),
        line("file", size_text(size)),
        line("sha256", digest),
        "",
        *scores_table(fitted.results, fitted.score),
        "",
    ]
    names = [_shortened(repr(column.name)[1:-1], MOST_NAME) for column in fitted.schema.columns]
    width = max(map(len, names))
    for column, name in zip(fitted.schema.columns, names, strict=True):
        text = f"{name:<{width}}  {kind_of(column):<8}  {_describe(column, fitted)}"
        lines.append(_shortened(text, WIDTH))
    return [text.rstrip() for text in lines]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


_ROWS = {"train": "to train on", "validation": "to validate"}


def _describe(column: ColumnType, fitted: Fitted) -> str:
    if isinstance(column, LeftOut):
        return column.reason
    gaps = ["with gaps"] if column.gaps else []
    if isinstance(column, Category):
        rare = ["and rare ones"] if column.rare else []
        return ", ".join([f"{len(column.levels)} levels ({listing(column.levels, 4)})", *rare, *gaps])
    place = fitted.preprocessing.names.index(column.name)
    median = fitted.preprocessing.medians[place]
    parts = [f"with {', '.join(column.parts)}"] if isinstance(column, Date) and column.parts else []
    return ", ".join([f"median {median:.6g}" if isinstance(column, Number) else _when(column, median), *parts, *gaps])


def _when(column: ColumnType, seconds: float) -> str:
    from karp.tabular.columns.cell_text import clock_level, date_level

    return f"median {(date_level if isinstance(column, Date) else clock_level)(round(seconds))}"


def plain_show(fitted: Fitted, size: int, digest: str) -> dict[str, Any]:
    """Return what `karp show --json` prints."""
    shapes: Mapping[str, Any] = {name: list(array.shape) for name, array in fitted.weights.items()}
    return {"bytes": size, "sha256": digest, "weights": shapes, **fitted.to_dict()}


def html(fitted: Fitted) -> str:
    """Return a model as HTML, for a notebook: what it is, and its table of scores."""
    left = "<th style='text-align: left'>"
    parts = ("predicts", target_line(fitted.target)), ("columns", columns_line(fitted.schema))
    facts = "".join(
        f"<tr>{left}{label}</th><td style='text-align: left'>{escape(text)}</td></tr>"
        for label, text in (*parts, ("recipe", recipe_line(fitted.recipe)))
    )
    heads, rows = _score_cells(fitted.results, fitted.score)
    parts_over = f"<th colspan='{len(heads)}' style='text-align: center'>"
    lines = [
        "<th></th>" + "".join(f"{parts_over}{escape(part)}</th>" for part in fitted.results),
        "<th></th>" + "".join(f"<th>{escape(head)}</th>" for head in heads) * len(fitted.results),
    ]
    for who, cells in rows.items():
        lines.append(f"{left}{escape(who)}</th>" + "".join(f"<td>{cell}</td>" for part in cells for cell in part))
    table = "".join(f"<tr>{cells}</tr>" for cells in lines)
    return f"<div><strong>karp model</strong><table>{facts}</table><table>{table}</table></div>"


def file_text(path: str, digest: str) -> str:
    """Return a file's path and the beginning of the SHA-256 of its content."""
    return f"{shown_path(path)}, sha256 {digest[:12]}"


def model_lines(path: str, digest: str) -> list[str]:
    """Return the lines that say where a model file is, and how to predict with it."""
    command = f"karp predict {shlex.quote(shown_path(path))} NEW.csv -o predicted.csv"
    return [line("model", file_text(path, digest)), line("predict", command)]
