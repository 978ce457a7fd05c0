"""The recipe: its defaults, what it refuses, plain data."""

import json
from dataclasses import replace
from typing import Any

import pytest

from karp import optim
from karp.errors import DataError, SettingError
from karp.tabular.network.recipe import Recipe, batch_size_for, epochs_for


def test_defaults_follow_task_rows_and_score() -> None:
    accuracy = Recipe.default("classification", rows=5000, score="accuracy")
    assert ("selu", 0.1, 0.02, 128) == (accuracy.activation, accuracy.smoothing, accuracy.rate, accuracy.batch_size)
    assert 0.0 == Recipe.default("classification", rows=5000, score="auc").smoothing
    numbers = Recipe.default("regression", rows=50_000, score="rmse")
    assert ("mish", 0.0, 0.02, 512) == (numbers.activation, numbers.smoothing, numbers.rate, numbers.batch_size)
    rows = (1, 1024, 1025, 8192, 8193, 30_000, 30_001, 100_000, 100_001)
    assert [64, 64, 128, 128, 256, 256, 512, 512, 1024] == [batch_size_for(each, "regression") for each in rows]
    assert [64, 64, 128, 128, 256, 256, 1024, 1024, 1024] == [batch_size_for(each, "classification") for each in rows]
    assert [200, 200, 100, 40, 16, 16, 32] == [epochs_for(rows, 64) for rows in (1, 64, 65, 275, 1024, 4096, 4097)]
    assert (256, 256, 256) == accuracy.layers
    several = Recipe.default("classification", rows=10, members=8)
    assert ((128, 128, 128), 0.03) == (several.layers, several.rate)


def test_shards_follow_the_batch_and_the_network() -> None:
    sizes = 64, 128, 255, 256, 512, 1024, 2048, 4096
    shards = [Recipe.default("classification", rows=10, batch_size=size).shards for size in sizes]
    assert [1, 1, 1, 2, 4, 4, 8, 8] == shards
    small = [Recipe.default("classification", rows=10, batch_size=size, layers=[64, 64]).shards for size in sizes]
    assert [1, 1, 1, 1, 1, 1, 2, 4] == small
    assert 1 == Recipe.default("classification", rows=10, batch_size=4096, layers=[]).shards
    assert 3 == Recipe.default("classification", rows=10, shards=3).shards


def test_overrides_are_fields_and_none_is_the_default() -> None:
    recipe = Recipe.default("regression", rows=10, epochs=3, members=None, layers=[8, 4], betas=[0.9, 0.99])
    assert (3, 1, (8, 4), (0.9, 0.99)) == (recipe.epochs, recipe.members, recipe.layers, recipe.betas)
    with pytest.raises(SettingError, match="the recipe has no 'epoch'; it has task, layers"):
        Recipe.default("regression", rows=10, epoch=3)


def test_the_schedule_ends_with_the_training() -> None:
    recipe = Recipe.default("classification", rows=100, epochs=3, batch_size=64)
    assert optim.Adam(optim.CosLog(0.02, 6), betas=(0.9, 0.95)) == recipe.optimizer(100)
    cosine = replace(recipe, schedule="cosine", weight_decay=0.02)
    assert optim.AdamW(optim.Cosine(0.02, 6), betas=(0.9, 0.95), weight_decay=0.02) == cosine.optimizer(100)
    assert optim.Adam(0.02, betas=(0.9, 0.95)) == replace(recipe, schedule="constant").optimizer(100)


def test_plain_data_are_exact() -> None:
    recipe = Recipe.default("classification", rows=1000, score="accuracy", dropout=0.1)
    assert recipe == Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    for other in (None, {}, {**recipe.to_dict(), "more": 1}):
        with pytest.raises(DataError, match="is no recipe"):
            Recipe.from_dict(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "sorting"), ("layers", None), ("layers", [0]), ("layers", "256"), ("activation", "step"), ("bins", 17),
        ("members", 0), ("epochs", 0), ("batch_size", 0), ("shards", 1000), ("rate", -1.0), ("rate", float("nan")),
        ("schedule", ["cosine"]), ("betas", [0.9]), ("betas", [0.9, 1.0]), ("smoothing", 1.0), ("dropout", "0.1"),
        ("weight_decay", None), ("scale_factor", 0.0), ("bias_factor", True), ("seed", -1),
    ],
)  # fmt: skip
def test_values_that_cannot_be_used_are_refused(field: str, value: Any) -> None:
    plain = Recipe.default("classification", rows=1000).to_dict()
    with pytest.raises(DataError, match=field):
        Recipe.from_dict({**plain, field: value})
