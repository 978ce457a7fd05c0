"""Workers on CPUs of different kinds: `karp … --kernels`.

What stands in for another machine: OpenBLAS takes the kernels of an older CPU, and NumPy leaves out loops.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from running import DIGITS, command, completed, karp, launch, metrics, program, started, summary

from karp import environment
from karp.errors import SettingError
from karp.record import kernels
from karp.record.kernels import cpu

KINDS = ("Nehalem", "Haswell")
NEHALEM, HASWELL = (
    {name: environment.kernel_variables(kind)[name] for name in ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES")}
    for kind in KINDS
)
OPTIONS = ["--shards", 2, "--epochs", 2]


def has(kind: str) -> bool:
    """Whether OpenBLAS has these kernels on this CPU."""
    return "openblas" in kernels.blas() and ({"Nehalem": "sse4_2", "Haswell": "avx2"}[kind] in flags())


def flags() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().split() if path.exists() else []


needs_both = pytest.mark.skipif(not all(map(has, KINDS)), reason=f"no OpenBLAS with kernels for {KINDS} on {cpu()}")


def by_hand(folder: Path, *options: object) -> dict[str, Any]:
    """The summary of a run whose server and two workers each have the environment of another machine."""
    line = command("server", "-n", 2, "--run-dir", folder / "run", *options, DIGITS, *OPTIONS)
    worker = command("worker", "--run-dir", folder / "run", "--wait", 60)
    with (
        started(line, folder, **NEHALEM) as server,
        started(worker, folder, **NEHALEM) as first,
        started(worker, folder, **HASWELL) as second,
    ):
        ends = [process.end() for process in (first, second, server)]
    assert [0, 0, 0] == [status for status, _, _ in ends], ends
    return summary(folder / "run")


@needs_both
def test_workers_on_two_kinds_of_cpu_are_named(tmp_path: Path) -> None:
    kinds = {use["blas"].split()[-1] for use in by_hand(tmp_path)["kernels"]}
    notices = [line["text"] for line in metrics(tmp_path / "run") if line["report"] == "notice"]
    assert (set(KINDS), True) == (kinds, any("computes with other kernels than" in text for text in notices))


@needs_both
def test_numpy_leaves_out_its_loops_for_newer_cpus(tmp_path: Path) -> None:
    source = "from karp.record.kernels import kernels\nprint(kernels().simd)"
    line = [sys.executable, "-c", source]
    old, new = (completed(line, tmp_path, **kind).stdout.split() for kind in (NEHALEM, HASWELL))
    assert {"X86_V3", "AVX2"} & set(new)
    assert not {"X86_V3", "AVX2", "X86_V4", "AVX512F"} & set(old)
    assert not {"X86_V4", "AVX512F"} & set(new)


@needs_both
def test_with_one_name_of_kernels_they_compute_the_same_bits(tmp_path: Path) -> None:
    options = [DIGITS, *OPTIONS]
    done = launch(tmp_path, 2, *options, run="haswell", **HASWELL)
    assert 0 == done.returncode, done.stderr
    expected, found = summary(tmp_path / "haswell"), by_hand(tmp_path, "--kernels", "Haswell")
    assert expected["weights_sha256"] == found["weights_sha256"]
    (use,) = found["kernels"]
    assert ("Haswell", [0, 1], True) == (use["blas"].split()[-1], use["workers"], use["server"])
    assert "Haswell" == json.loads((tmp_path / "run" / "launch.json").read_text())["kernels"]
    done = karp("replay", tmp_path / "run", cwd=tmp_path, **NEHALEM)
    assert 0 == done.returncode, done.stdout


def test_kernels_that_there_are_not_are_an_error_that_names_those_in_use(tmp_path: Path) -> None:
    done = launch(tmp_path, 1, "--kernels", "Potato", program(tmp_path))
    assert 0 != done.returncode
    assert "the kernels 'Potato' are asked for (--kernels, KARP_KERNELS), but this process's BLAS uses" in done.stderr


@pytest.mark.parametrize(
    ("name", "in_use", "reason"),
    [
        ("Haswell", "openblas 0.3 Haswell", ""),
        ("haswell", "openblas 0.3 Haswell", ""),
        ("Prescott", "openblas 0.3 Katmai", ""),
        ("Potato", "openblas 0.3 SkylakeX", "BLAS uses openblas 0.3 SkylakeX: a name that this OpenBLAS does not know"),
        ("Haswell", "mkl 2024.0 on CPU", "BLAS uses mkl 2024.0 on CPU: they are chosen by OPENBLAS_CORETYPE"),
    ],
)
def test_the_kernels_in_use_are_compared(monkeypatch: pytest.MonkeyPatch, name: str, in_use: str, reason: str) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", name)
    monkeypatch.setattr(kernels, "blas", lambda: in_use)
    if not reason:
        kernels.require(name)
        return
    with pytest.raises(SettingError, match=reason):
        kernels.require(name)


@needs_both
def test_a_fit_uses_the_kernels_that_it_is_given(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("size,kind\n" + "".join(f"{row % 7},{'ab'[row % 2]}\n" for row in range(80)))
    hashes = []
    for number, variables in enumerate((HASWELL, NEHALEM)):
        options = ["--kernels", "Haswell", "-n", 1 + number, "-o", f"{number}.safetensors", "--epochs", 2]
        done = karp("fit", table, "--target", "kind", *options, cwd=tmp_path, **variables)
        assert 0 == done.returncode, done.stderr
        hashes.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert hashes[0] == hashes[1]
    done = karp("fit", table, "--target", "kind", "--kernels", "Potato", "-o", "no.safetensors", cwd=tmp_path)
    assert (2, False) == (done.returncode, (tmp_path / "no.safetensors").exists())
    assert "the kernels 'Potato' are asked for" in done.stderr
