"""What this process computes with, as `protocol/kernels.py` compares it."""

import os
import platform
from typing import Any, cast

import numpy as np

from karp.protocol.kernels import TEXT, Kernels


def kernels() -> Kernels:
    """Return what this process computes with, in about a millisecond where threadpoolctl is imported already."""
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
    """Return library, version and kernels of each BLAS; where it does not say which it has chosen, the CPU's name."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    names = [f"{pool['internal_api']} {pool['version']} {pool.get('architecture') or f'on {cpu()}'}" for pool in pools]
    return ", ".join(names) or f"unknown on {cpu()}"


def libc() -> str:
    """Return the C library, from which NumPy has the functions that it has no loops of its own for."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # another one than glibc
        return f"{platform.system()} {platform.release()}"


def cpu() -> str:
    """Return the CPU's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
