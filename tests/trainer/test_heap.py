"""The memory of freed arrays: it is not taken from the kernel again in every step."""

import platform

import numpy as np
import pytest

from karp.trainer.heap import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_arrays_of_a_step_cause_no_page_faults_in_the_next() -> None:
    import resource

    def step() -> None:
        arrays = [np.ones(1 << 18, np.float32) for _ in range(12)]  # 12 MB
        del arrays

    assert keep_freed_memory()
    assert keep_freed_memory()
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    assert 1000 > resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before  # there would be 30,000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()
