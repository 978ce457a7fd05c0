"""Fitted models for the tests, without any training: weights are drawn."""

from typing import Any

import numpy as np

from karp.tabular.columns.column_types import Category, Clock, ColumnType, Date, LeftOut, Number, Schema
from karp.tabular.columns.target import Target
from karp.tabular.model_file import Fitted
from karp.tabular.network.network import TabularNetwork
from karp.tabular.network.preprocessing import Preprocessing
from karp.tabular.network.recipe import Recipe

COLUMNS: tuple[ColumnType, ...] = (
    LeftOut("id", "it is text with 40 distinct values in 40 cells, more than half: names, ids or prose"),
    Number("age", gaps=True),
    Category("city", gaps=False, levels=("Bern", "Wil"), rare=False),
    Date("born", gaps=False, parts=("month",)),
    Clock("rises", gaps=False),
    Category("size", gaps=True, levels=("1", "2"), rare=True),
)
SPECIES = Target("species", "level", ("Adelie", "Gentoo", "Chin strap"))
PRICE = Target("price", "number")


def fitted(target: Target = SPECIES, columns: tuple[ColumnType, ...] = COLUMNS, **changes: Any) -> Fitted:
    """Return a model of these columns; `changes` are fields of its recipe."""
    rng = np.random.default_rng(0)
    schema = Schema(columns)
    preprocessing = Preprocessing.learn(rng.normal(size=(50, len(schema.numbers))), schema.numbers)
    score = "accuracy" if target.classes else "rmse"
    recipe = Recipe.default(target.task, rows=40, score=score, **{"layers": (8, 4), **changes})
    network = TabularNetwork(schema, preprocessing, len(target.classes) or 1, recipe)
    weights = {
        name: value.data + rng.normal(size=value.data.shape).astype(np.float32)
        for name, value in network.named_parameters()
    }
    count = len(target.classes)
    return Fitted(
        target, schema, preprocessing, recipe, 0.0 if count else 100.0, 1.0 if count else 10.0,
        (1 / count,) * count if count else (), "0f" * 32, {"train": 40, "validation": 10}, score,
        {"validation": {"karp": {score: 0.75}, "linear": {score: float("nan")}}}, weights,
    )  # fmt: skip


ROW = {"age": 31.5, "city": "Bern", "born": "2001-02-03", "rises": "7:30", "size": 2}
TABLE: dict[str, list[Any]] = {
    "species": ["Adelie", "Gentoo", "", "Chin strap", "Emperor"],
    "age": [31.5, None, 40, 2, 3],
    "city": ["Bern", "Wil", "Chur", "Bern", "Wil"],
    "born": ["2001-02-03", "2002-02-03", "", "2001-11-03", "2001-02-03"],
    "rises": ["7:30", "8:30", "9:30", "", "1:00"],
    "size": [2, 1, None, 7, 1],
    "more": [1, 2, 3, 4, 5],
}
