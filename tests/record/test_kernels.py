"""What a process finds out of its kernels."""

import json
import subprocess
import sys

import numpy as np
import pytest
from running import environment

from karp.protocol.kernels import TEXT, Kernels
from karp.record import kernels as room
from karp.record.kernels import kernels

CODE = "import json\nfrom karp.record.kernels import kernels\nprint(json.dumps(kernels().to_dict()))"


def test_every_fact_is_known_and_as_short_as_a_message_takes() -> None:
    found = kernels()
    assert np.__version__ == found.numpy
    assert found == Kernels.from_dict(found.to_dict())
    assert "" not in found.to_dict().values()
    assert found == kernels()


def of_process(before: str = "", **variables: str) -> Kernels:
    """The kernels of a process of its own, with these environment variables, after some code."""
    done = subprocess.run(
        [sys.executable, "-c", before + CODE], env=environment(**variables), capture_output=True, text=True, check=True
    )
    return Kernels.from_dict(json.loads(done.stdout))


def test_a_blas_that_another_package_has_brought_does_not_show() -> None:
    """SciPy's wheels have one of their own, with which karp does not compute."""
    pytest.importorskip("scipy")
    assert of_process() == of_process("import scipy.linalg\n") == kernels()


def test_other_kernels_of_this_cpu_are_seen() -> None:
    """What stands in for another machine: OpenBLAS takes the kernels of an older CPU, NumPy leaves out loops."""
    here = of_process()
    simd = np.show_config(mode="dicts")["SIMD Extensions"]["found"]  # type: ignore[index]
    kinds = [kind for kind in ("Nehalem", "Haswell") if kind not in here.blas]
    there = of_process(OPENBLAS_CORETYPE=kinds[0], NPY_DISABLE_CPU_FEATURES=" ".join(simd))
    assert here.blas != there.blas
    assert ("unknown", False) == (there.simd, there.simd == here.simd)
    assert {"blas", "simd"} == {difference.split()[0] for difference in there.differences(here).split(", ")}


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        ([], "unknown on CPU"),
        ([{"internal_api": "mkl", "version": "2024.0"}], "mkl 2024.0 on CPU"),
        ([{"internal_api": "openblas", "version": "0.3", "architecture": "Zen"}], "openblas 0.3 Zen"),
    ],
)
def test_a_blas_that_does_not_say_which_kernels_it_has_chosen_is_that_of_its_cpu(
    monkeypatch: pytest.MonkeyPatch, pools: list[dict[str, str]], expected: str
) -> None:
    common = {"user_api": "blas", "filepath": "/lib/libblas.so"}
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: [pool | common for pool in pools])
    monkeypatch.setattr(room, "cpu", lambda: "CPU")
    assert expected == room.blas()


def test_what_is_very_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "cpu", lambda: "x" * 1000)
    assert "x" * TEXT == kernels.__wrapped__().cpu
