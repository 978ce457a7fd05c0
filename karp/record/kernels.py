"""Finding out the kernels of this process: NumPy, BLAS, C library and CPU, as `protocol/kernels.py` compares them."""

import os
import platform
from functools import lru_cache
from typing import Any, cast

import numpy as np

from karp import environment
from karp.errors import SettingError
from karp.protocol.kernels import TEXT, Kernels

REPORTED = {"prescott": "katmai"}  # the name in use, where OpenBLAS reports another than it was given


@lru_cache(maxsize=1)  # to find them takes some milliseconds
def kernels() -> Kernels:
    """Return the kernels of this process."""
    built = cast(dict[str, Any], np.show_config(mode="dicts"))
    compiler, simd = built.get("Compilers", {}).get("c", {}), built.get("SIMD Extensions", {})
    facts = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numpy_build": " ".join([compiler.get("name", ""), compiler.get("version", ""), *simd.get("baseline", [])]),
        "simd": " ".join(simd.get("found", [])),
        "blas": blas(),
        "libc": libc(),
        "cpu": cpu(),
    }
    return Kernels(**{name: value.strip()[:TEXT] or "unknown" for name, value in facts.items()})


def blas() -> str:
    """Return library, version and kernels of NumPy's BLAS; if it does not tell its kernels, the CPU's name.

    It is the one that lies with NumPy, else the first that was loaded: SciPy may have brought one of its own.
    """
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    package = os.path.dirname(np.__file__)
    with_numpy = [pool for pool in pools if pool["filepath"].startswith((f"{package}.libs", package + os.sep))]
    for pool in with_numpy or pools:
        return f"{pool['internal_api']} {pool['version']} {pool.get('architecture') or f'on {cpu()}'}"
    return f"unknown on {cpu()}"


def require(name: str) -> None:
    """Raise SettingError unless NumPy's BLAS uses the kernels of this name, which --kernels or KARP_KERNELS gives.

    OpenBLAS ignores a name that it does not know, and one that is set after it was loaded.
    """
    found = blas()
    if found.split()[-1].lower() == REPORTED.get(name.lower(), name.lower()):
        return
    if environment.CORETYPE in os.environ and found.startswith("openblas"):
        why = "a name that this OpenBLAS does not know, or kernels that it has not, are ignored in silence"
    else:
        why = f"they are chosen by {environment.CORETYPE} before NumPy is loaded, and by OpenBLAS alone"
    raise SettingError(
        f"the kernels {name!r:.60} are asked for (--kernels, {environment.KERNELS}), but this process's BLAS uses "
        f"{found}: {why}. Take a name that each host has, such as Nehalem, Haswell or SkylakeX, or leave it out"
    )


def libc() -> str:
    """Return name and version of the C library, whose functions NumPy uses where it has no loops of its own.

    Where that is not glibc, return the system's instead.
    """
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # the C library is not glibc
        return f"{platform.system()} {platform.release()}"


def cpu() -> str:
    """Return the name of the CPU's model."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
