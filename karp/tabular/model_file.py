"""The model file: weights, recipe, preprocessing, types, names and classes in one safetensors file.

Theory of operation. The tensors are the network's parameters under their names; all else is JSON in the file's
metadata, under one key, as safetensors writes several in an order that changes from call to call. A SHA-256 over both
tells a damaged file. Nothing in it depends on when, where or with how many workers the model was trained, and nothing
is a row of the data, so one table and one recipe give one file, byte by byte.

    {"format": 1, "sha256": "…", "model": {"karp": "0.1.0", "target": …, "columns": […], "preprocessing": …, …}}

A later karp reads this format as it stands: what it adds is another field, which this format has not, or the next
number.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karp import __version__
from karp.errors import DataError
from karp.record.files import reason, replacing
from karp.tabular.columns.column_types import Schema
from karp.tabular.columns.target import Target
from karp.tabular.network.preprocessing import Preprocessing
from karp.tabular.network.recipe import Recipe
from karp.tabular.scores import names_of

ENTRY = "karp"  # the metadata's key
FORMAT = 1
Weights = dict[str, NDArray[Any]]
Results = dict[str, dict[str, dict[str, float]]]  # part of the data -> who predicts -> score -> number


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no one truth of being equal
class Fitted:
    """A fitted model as plain data.

    Attributes:
        target: what is predicted; `schema` has the types of the other columns.
        preprocessing: of the numbers.
        recipe: all choices that the network and its training follow.
        mean, deviation: of the training rows' targets; 0 and 1 for classes. The network predicts standardised numbers.
        shares: the share of each class among the training rows; () for numbers.
        fingerprint: of the prepared table; `rows` counts its rows, by part.
        score: what the best epoch was chosen by.
        results: the scores of the model, and of those that it is compared with, by part.
        weights: the network's parameters.
    """

    target: Target
    schema: Schema
    preprocessing: Preprocessing
    recipe: Recipe
    mean: float
    deviation: float
    shares: tuple[float, ...]
    fingerprint: str
    rows: dict[str, int]
    score: str
    results: Results
    weights: Weights

    def to_dict(self) -> dict[str, Any]:
        """Return all but the weights as plain data for JSON."""
        return {
            "karp": __version__,
            "target": self.target.to_dict(),
            "columns": self.schema.to_list(),
            "preprocessing": self.preprocessing.to_dict(),
            "recipe": self.recipe.to_dict(),
            "mean": self.mean,
            "deviation": self.deviation,
            "shares": list(self.shares),
            "fingerprint": self.fingerprint,
            "rows": self.rows,
            "score": self.score,
            "results": plain_results(self.results),
        }

    @classmethod
    def from_dict(cls, plain: object, weights: Weights) -> Fitted:
        """Return the model from plain data and weights; raise DataError for what `to_dict` does not write."""
        if not isinstance(plain, dict) or _CHECKS.keys() - plain.keys():
            raise DataError(f"{plain!r:.80} is no model: it lacks a field")
        for name, check in _CHECKS.items():
            if not check(plain[name]):
                raise DataError(f"{plain[name]!r:.80} cannot be the {name} of a model")
        model = cls(
            Target.from_dict(plain["target"]),
            Schema.from_list(plain["columns"]),
            Preprocessing.from_dict(plain["preprocessing"]),
            Recipe.from_dict(plain["recipe"]),
            **{name: plain[name] for name in ("mean", "deviation", "fingerprint", "rows", "score")},
            shares=tuple(plain["shares"]),
            results=results_of(plain["results"]),
            weights=weights,
        )
        if model.preprocessing.names != model.schema.numbers:
            raise DataError("its preprocessing is not that of its columns")
        if len(model.shares) != len(model.target.classes) or model.score not in names_of(model.target.task):
            raise DataError("its shares of classes or its score are not those of its target")
        return model


def _is_number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _are_results(value: object) -> bool:
    parts = value.values() if isinstance(value, dict) else [None]
    rows = [row for part in parts for row in (part.values() if isinstance(part, dict) else [None])]
    numbers = [number for row in rows for number in (row.values() if isinstance(row, dict) else [""])]
    return all(number is None or isinstance(number, float) for number in numbers)


_CHECKS = {
    "target": lambda value: True,  # its own `from_dict` checks it, and so for the next three
    "columns": lambda value: True,
    "preprocessing": lambda value: True,
    "recipe": lambda value: True,
    "mean": _is_number,
    "deviation": lambda value: _is_number(value) and value > 0,
    "shares": lambda value: isinstance(value, list) and all(_is_number(share) and 0 <= share <= 1 for share in value),
    "fingerprint": lambda value: isinstance(value, str),
    "rows": lambda value: isinstance(value, dict) and all(type(count) is int for count in value.values()),
    "score": lambda value: isinstance(value, str),
    "results": _are_results,
}


def plain_results(results: Results) -> dict[str, Any]:
    """Return results as plain data for JSON, which has no NaN: a score that is not defined is None."""
    return _map_numbers(results, lambda number: number if math.isfinite(number) else None)


def results_of(plain: Mapping[str, Any]) -> Results:
    """Return results from what `plain_results` returned."""
    return _map_numbers(plain, lambda number: math.nan if number is None else number)


def _map_numbers(results: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {
        name: _map_numbers(value, change) if isinstance(value, Mapping) else change(value)
        for name, value in results.items()
    }


def to_bytes(model: Fitted) -> bytes:
    """Return the content of a model's file."""
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(array) for name, array in model.weights.items()}  # it ignores strides
    return save(weights, metadata={ENTRY: _entry(model.to_dict(), weights)})


def write(path: str | os.PathLike[str], model: Fitted) -> str:
    """Write a model's file, whole or not at all; return the SHA-256 of its content. Raises OSError if that fails."""
    content = to_bytes(model)
    with replacing(Path(path)) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def read(path: str | os.PathLike[str]) -> Fitted:
    """Read a model's file; raise DataError if it cannot be read, is damaged, or is no model file of this karp."""
    return from_bytes(read_bytes(path), path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a model's file; raise DataError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"the model file {os.fspath(path)!r} cannot be read: {reason(error)}") from None


def from_bytes(content: bytes, path: str | os.PathLike[str]) -> Fitted:
    """Return the model of a file's content; raise DataError, naming the path, if it is damaged, or none of this karp.

    The metadata is read here, as the library gives that of paths alone: a file begins with the length of its header,
    eight bytes, and the header is JSON.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    where = f"the model file {os.fspath(path)!r}"
    try:
        weights = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:  # of dtypes that NumPy lacks
        raise DataError(f"{where} is damaged, or no model file: {error}") from None
    text = header.get("__metadata__", {}).get(ENTRY)
    try:
        plain = json.loads(text or "null")
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict) or type(plain.get("format")) is not int:
        raise DataError(f"{where} is none: `karp fit` writes such files")
    if plain["format"] != FORMAT:
        raise DataError(f"{where} has the format {plain['format']}, and this karp, {__version__}, reads the format "
                        f"{FORMAT}: use the version of karp that wrote it, or a later one")  # fmt: skip
    if text != _entry(plain.get("model"), weights):
        raise DataError(f"{where} is damaged: its content does not match its hash; copy or train it again")
    try:
        return Fitted.from_dict(plain["model"], weights)
    except DataError as error:
        raise DataError(f"{where} cannot be used: {error}") from None


def _entry(plain: object, weights: Weights) -> str:
    """Return the entry of the metadata: a model's plain data, with a hash over them and the weights."""
    digest = hashlib.sha256(json.dumps(plain).encode())
    for name in sorted(weights):
        array = weights[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return json.dumps({"format": FORMAT, "sha256": digest.hexdigest(), "model": plain})
