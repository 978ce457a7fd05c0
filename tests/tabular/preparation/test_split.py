"""The split: to the row in small classes, by probability in large ones, the same however the rows are read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.tabular.preparation import split as module
from karp.tabular.preparation.row_keys import PART, row_keys
from karp.tabular.preparation.split import Split


def split_of(classes: np.ndarray, share: float, sizes: list[int], seed: int = 0) -> tuple[Split, np.ndarray]:
    """Return the split of rows that are read in batches of these sizes in turn, and which rows it takes."""
    keys = row_keys(seed, PART, 0, len(classes))
    split = Split(int(classes.max()) + 1, share)
    start = 0
    while start < len(classes):
        stop = start + sizes[start % len(sizes)]
        split.add(classes[start:stop], keys[start:stop])
        start = stop
    split.finish()
    return split, split.is_validation(classes, keys)


@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.001, 0.999), st.integers(0, 2**63 - 1),
    st.lists(st.integers(1, 50), min_size=1, max_size=3),
)  # fmt: skip
def test_each_class_has_its_share_to_the_row(counts: list[int], share: float, seed: int, sizes: list[int]) -> None:
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    split, chosen = split_of(classes, share, sizes, seed)
    assert counts == split.counts.tolist()
    expected = [min(max(round(share * count), 1), count - 1) for count in counts]
    assert expected == np.bincount(classes[chosen], minlength=len(counts)).tolist()
    assert chosen.tolist() == split_of(classes, share, [len(classes)], seed)[1].tolist()


def test_rows_of_a_large_class_go_by_themselves_and_no_keys_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT_ROWS", 400)
    monkeypatch.setattr(module, "LEAST_EXACT", 10)
    classes = np.r_[np.zeros(100_000, int), np.tile([1, 2], 100), np.zeros(100_000, int)]  # up to 133 are exact
    split = Split(3, 0.2)
    keys = row_keys(0, PART, 0, len(classes))
    most = 0
    for start in range(0, len(classes), 50):
        split.add(classes[start : start + 50], keys[start : start + 50])
        most = max(most, sum(map(len, split._keys)))
    assert most < 1000
    split.finish()
    chosen = split.is_validation(classes, keys)
    assert [20, 20] == np.bincount(classes[chosen])[1:].tolist()
    assert abs(chosen[classes == 0].mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 200_000)
    assert int(0.2 * 2.0**64) == int(split.thresholds[0])


def test_without_a_share_all_rows_are_for_training() -> None:
    split, chosen = split_of(np.array([0, 1, 1]), 0.0, [2])
    assert ([1, 2], [False] * 3) == (split.counts.tolist(), chosen.tolist())
