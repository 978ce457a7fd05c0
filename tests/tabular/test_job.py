"""The job of a fit's workers, as a file."""

import math
from pathlib import Path

import pytest

from karp.errors import DataError
from karp.tabular.job import Job
from karp.tabular.network.recipe import Recipe

RECIPE = Recipe.default("classification", rows=100, score="accuracy")


def test_a_job_goes_through_its_file_with_scores_that_are_not_defined(tmp_path: Path) -> None:
    """The AUC of a part with one class is none."""
    beside = {"validation": {"linear": {"accuracy": 1.0, "auc": math.nan}}}
    job = Job("prepared/manifest.json", "model.safetensors", RECIPE, "accuracy", beside, weight="w")
    job.write(tmp_path / "fit.json")
    again = Job.read(tmp_path / "fit.json")
    assert math.isnan(again.beside["validation"]["linear"]["auc"])
    again.beside["validation"]["linear"]["auc"] = beside["validation"]["linear"]["auc"]
    assert job == again


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"recipe": {}, "beside": 3}'])
def test_a_damaged_job_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(DataError, match=r"fit\.json cannot be used .* fit again"):
        Job.read(tmp_path / "fit.json")
