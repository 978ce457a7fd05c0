"""Models for other runtimes: ONNX files, and weights under torch's names.

    onnx     a model of `karp.fit`, a module or an estimator as an ONNX file (extra `onnx`)
    torch    their weights as a state dict of torch, in a safetensors file
"""

from __future__ import annotations

import os
from typing import Any

from karp.errors import SettingError


def onnx(model: Any, path: str | os.PathLike[str], *, inputs: int | None = None) -> None:
    """Write a model as an ONNX file, which onnxruntime and others run without karp.

    Args:
        model: one of three.

            - What `karp.fit` and `karp.load` return. Each column that it uses is an input, raw (`columns.py` has the
              table of their types); the outputs are `label` (rows,) and `probabilities` (rows, classes), or `value`
              (rows,) where a number is predicted.
            - A `karp.nn.Module`. Its input is `x` (rows, inputs), in the dtype of its parameters, its output `output`;
              for a classifier these are the logits.
            - A fitted estimator with scikit-learn's attributes (`coefs_`, `out_activation_`). Its input is `X` (rows,
              features), in the dtype of `coefs_`, and the outputs are as above. One with a recipe is its `model_`.
        path: where the file is written, whole or not at all.
        inputs: how many numbers a row has, for a module other than an `MLP`, or a `Sequential` that begins with a
            `Linear`.

    Raises:
        SettingError: it is no such model, or has an operation without a form in ONNX.
        MissingError: the package onnx is not installed.
        RecordError: the file cannot be written.
    """
    from karp.export import models
    from karp.nn.module import Module
    from karp.tabular.model import Model

    model = getattr(model, "model_", model)  # of an estimator with a recipe
    if isinstance(model, Model):
        models.write_table_model(model, path)
    elif isinstance(model, Module):
        models.write_module(model, path, inputs)
    elif hasattr(model, "coefs_"):
        models.write_estimator(model, path)
    else:
        raise SettingError(f"{type(model).__name__} has no ONNX form: pass a model of karp.fit, a karp.nn.Module or a "
                           "fitted estimator")  # fmt: skip


def torch(model: Any, path: str | os.PathLike[str]) -> None:
    """Write the weights of a model as a state dict of torch, in a safetensors file that says so (`"format": "pt"`).

    torch loads it by `module.load_state_dict(safetensors.torch.load_file(path))`; torch itself is not needed here.

    Args:
        model: one of four.

            - A `karp.nn.Module`. `MLP` and `Sequential` become a `torch.nn.Sequential` of Linear, LayerNorm, activation
              and Dropout, in which each of these has a number, an activation inside a `Linear` its own. Other modules
              keep their names, and are transposed where they are a `Linear`.
            - What `karp.fit` and `karp.load` return: a Sequential of Linear and activation, whose inputs are
              `model.encode(rows)` and whose outputs are logits, or standardised numbers.
            - A fitted estimator with scikit-learn's `coefs_`: likewise. One with a recipe is its `model_`.
            - The path of a run's weights. They keep their names, `layers.0.weight` for those of an `MLP`.
        path: where the file is written, whole or not at all.

    Raises:
        SettingError: it is no such model, or one with members, for which torch has no module; or a file's matrix has no
            bias, so that it may be a Linear or an Embedding.
        DataError: a file cannot be read.
        RecordError: the file cannot be written.
    """
    from karp.export.torch_layout import write_torch

    write_torch(getattr(model, "model_", model), path)
