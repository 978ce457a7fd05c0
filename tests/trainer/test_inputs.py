"""What a Trainer makes of what a program hands it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from karp import nn
from karp.errors import KarpError, ProgramError, SettingError
from karp.trainer import inputs
from karp.trainer.dataset import Dataset
from karp.trainer.inputs import scores

MASKED = np.ma.masked_equal(np.array([1.0, -1.0, 0.0], np.float32), -1)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"n" * 201: 1}, "the name of a number is 'nnn"),
        ({"": 1}, "the name of a number is ''; it must be a text of 1 to 200 characters on one line"),
        ({"a\nb": 1}, r"the name of a number is 'a\\nb'"),
        ({"caf\udce9": 1}, r"the name of a number is 'caf\\udce9'"),
        ({1: 1, "1": 2}, "the name of a number is '1'; .*, and there only once"),
        ({str(number): 1 for number in range(1001)}, "1,001 numbers at once; at most 1,000 can be logged"),
    ],
)
def test_names_of_numbers_are_checked_where_they_are_given(named: dict[object, float], said: str) -> None:
    with pytest.raises(ProgramError, match=said):
        inputs.scores(named)  # type: ignore[arg-type]


def test_what_is_no_text_names_a_number_as_it_is_printed() -> None:
    assert {"0": 0.5, "None": 1.0, "é": 2.0} == inputs.scores({0: 0.5, None: 1, "é": 2})  # type: ignore[dict-item]


def test_a_program_is_known_by_its_file_wherever_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text("")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "program.py"), raising=False)
    monkeypatch.setattr(sys, "argv", ["renamed"])
    monkeypatch.chdir("/")
    assert (tmp_path / "program.py", "program.py") == (inputs.program_file(), inputs.program_name())
    (tmp_path / "__main__.py").write_text("")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "__main__.py"))
    assert tmp_path.name == inputs.program_name()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "<stdin>")
    assert (None, "python") == (inputs.program_file(), inputs.program_name())
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert (None, "session") == (inputs.program_file(), inputs.program_name())


def test_what_is_masked_is_no_data() -> None:
    layer = nn.Linear(3, 1, bias=False)
    before = layer.parameters.sha256()
    logits = nn.Linear(1, 2)(np.ones((3, 1), np.float32))
    for use in (
        lambda: Dataset(MASKED),
        lambda: layer(MASKED),
        lambda: layer.parameters.load({"weight": MASKED.reshape(3, 1)}),
        lambda: nn.mse(layer(np.eye(3, dtype=np.float32))[:, 0], MASKED),
        lambda: nn.binary_cross_entropy(logits[:, 0], MASKED),
        lambda: nn.cross_entropy(logits, MASKED.astype(int)),
    ):
        with pytest.raises(KarpError, match="1 of 3 elements are masked: fill them"):
            use()
    with pytest.raises(KarpError, match="only numbers can be logged"):
        scores({"mean": np.ma.masked_all(3).mean()})
    assert before == layer.parameters.sha256()


def test_data_without_rows_are_refused_in_words() -> None:
    with pytest.raises(SettingError, match="there are no rows to train on"):
        Dataset(np.empty((0, 4)), [])


def test_a_mask_that_hides_nothing_changes_nothing() -> None:
    found = Dataset(np.ma.masked_equal(np.arange(3.0), 7))
    taken = found.source.take(np.arange(2))[0]
    assert (np.ndarray, Dataset(np.arange(3.0)).source.fingerprint()) == (type(taken), found.source.fingerprint())
