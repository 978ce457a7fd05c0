"""TabM-mini of 8 members, 128 wide, trained as its authors' example does it: the tabm package has the network alone.

Numbers: gaps filled by the median, quantiles to a normal distribution. AdamW, rate 2e-3, decay 3e-4, batches of 256
rows, gradients clipped at 1, the mean of the members' losses; until 16 epochs in a row are no better on the validation
part, of whose best the weights are kept. Numbers are not embedded, as is the package's default: with piecewise-linear
embeddings in 16 dimensions a step takes up to three times as long (57 ms for the 74 numbers of KDD04).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.tables.sets import Score

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from torch import Tensor, nn

    from bench.tables.contestants import Columns

MEMBERS, WIDTH = 8, 128
BATCH, PATIENCE, RATE, DECAY, CLIP = 256, 16, 2e-3, 3e-4, 1.0
PREDICTED = 8192  # rows at a time


def fit(
    rows: DataFrame, target: Series, columns: Columns, score: Score, seed: int
) -> Callable[[DataFrame], NDArray[Any]]:
    """Train on four fifths of the rows, and return what predicts others."""
    import torch
    from sklearn.model_selection import train_test_split

    classes = None if score == "rmse" else np.unique(target)
    labels = target.to_numpy(np.float32) if classes is None else np.searchsorted(classes, target.to_numpy())
    stratify = None if classes is None else labels
    train, validation = train_test_split(np.arange(len(rows)), test_size=0.2, random_state=seed, stratify=stratify)
    torch.manual_seed(seed)
    encode = _Encoding(rows.iloc[train], columns, seed)
    mean, deviation = (0.0, 1.0) if classes is not None else (labels[train].mean(), labels[train].std() or 1.0)
    wanted = torch.from_numpy(labels if classes is not None else (labels - mean) / deviation)
    network = encode.network(1 if classes is None else len(classes))
    _train(network, encode(rows.iloc[train]), wanted[train], encode(rows.iloc[validation]), wanted[validation], score)

    def predict(others: DataFrame) -> NDArray[Any]:
        outputs = _outputs(network, encode(others), score)
        if classes is None:
            return outputs[:, 0] * deviation + mean
        return outputs[:, 1] if score == "auc" else classes[outputs.argmax(axis=1)]

    return predict


class _Encoding:
    """Numbers to a normal distribution, categories to numbers of levels, learnt on the training part."""

    def __init__(self, rows: DataFrame, columns: Columns, seed: int) -> None:
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OrdinalEncoder, QuantileTransformer

        self._numbers = [name for name in columns.numbers if rows[name].fillna(rows[name].median()).nunique() > 1]
        self._levels = columns.categories
        quantiles = max(min(len(rows) // 30, 1000), 10)
        noise = np.random.default_rng(seed).normal(0.0, 1e-5, (len(rows), len(self._numbers)))
        impute = SimpleImputer(strategy="median")
        normal = QuantileTransformer(
            n_quantiles=quantiles, output_distribution="normal", subsample=10**9, random_state=seed
        )
        # Noise spreads the quantiles of a value that occurs often, in units of the column's deviation.
        filled = impute.fit_transform(rows[self._numbers].to_numpy(float))
        normal.fit(filled + noise * filled.std(axis=0))
        self._scale = make_pipeline(impute, normal)
        self._encode = OrdinalEncoder(
            categories=list(self._levels.values()), handle_unknown="use_encoded_value",
            unknown_value=-1, encoded_missing_value=-1,
        ).fit(rows[list(self._levels)]) if self._levels else None  # fmt: skip

    def __call__(self, rows: DataFrame) -> tuple[Tensor, Tensor | None]:
        """Return numbers (n, k) and categories (n, c); 0 is an unknown or a missing level."""
        import torch

        numbers = torch.from_numpy(self._scale.transform(rows[self._numbers].to_numpy(float)).astype(np.float32))
        if self._encode is None:
            return numbers, None
        return numbers, torch.from_numpy(self._encode.transform(rows[list(self._levels)]).astype(np.int64) + 1)

    def network(self, outputs: int) -> nn.Module:
        """Return a network with random weights."""
        from tabm import TabM

        made: nn.Module = TabM.make(
            n_num_features=len(self._numbers), cat_cardinalities=[1 + len(each) for each in self._levels.values()],
            d_out=outputs, arch_type="tabm-mini", k=MEMBERS, d_block=WIDTH,
        )  # fmt: skip
        return made


def _train(
    network: nn.Module,
    inputs: tuple[Tensor, Tensor | None],
    wanted: Tensor,
    validation: tuple[Tensor, Tensor | None],
    validated: Tensor,
    score: Score,
) -> None:
    import torch
    from torch import nn

    loss = nn.functional.mse_loss if score == "rmse" else nn.functional.cross_entropy
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    best, weights, worse = -math.inf, copy.deepcopy(network.state_dict()), 0
    while worse < PATIENCE:
        network.train()
        for batch in torch.split(torch.randperm(len(wanted)), BATCH):
            optimizer.zero_grad()
            outputs = network(*(None if part is None else part[batch] for part in inputs)).flatten(0, 1)
            outputs = outputs[:, 0] if score == "rmse" else outputs
            loss(outputs, wanted[batch].repeat_interleave(MEMBERS)).backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
        value = _value(_outputs(network, validation, score), validated.numpy(), score)
        worse += 1
        if value > best:
            best, weights, worse = value, copy.deepcopy(network.state_dict()), 0
    network.load_state_dict(weights)


def _outputs(network: nn.Module, inputs: tuple[Tensor, Tensor | None], score: Score) -> NDArray[Any]:
    """Return the mean over the members of their probabilities, or of their numbers."""
    import torch

    network.eval()
    parts = []
    with torch.inference_mode():
        for place in range(0, len(inputs[0]), PREDICTED):
            outputs = network(*(None if part is None else part[place : place + PREDICTED] for part in inputs))
            parts.append((outputs if score == "rmse" else outputs.softmax(-1)).mean(1))
    array: NDArray[Any] = torch.cat(parts).numpy()
    return array


def _value(outputs: NDArray[Any], wanted: NDArray[Any], score: Score) -> float:
    """Return the validation score; the highest is best."""
    from bench.tables import scoring

    if score == "rmse":
        return -scoring.score(score, wanted, outputs[:, 0])
    return scoring.score(score, wanted, outputs[:, 1] if score == "auc" else outputs.argmax(axis=1))
