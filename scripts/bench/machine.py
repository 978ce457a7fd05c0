"""What the figures depend on."""

from __future__ import annotations

import os
import platform
from typing import Any, cast


def describe() -> str:
    """Processor, cores, Python, NumPy, its BLAS and the kernels that this has chosen, in one line.

    OPENBLAS_CORETYPE in the environment chooses them by name; those for another processor can take twice as long.
    """
    import numpy as np
    from threadpoolctl import threadpool_info

    built = cast(dict[str, Any], np.show_config(mode="dicts"))
    blas = built.get("Build Dependencies", {}).get("blas", {})
    library = " ".join(filter(None, (blas.get("name"), blas.get("version")))) or "unknown BLAS"
    kernels = next((one["architecture"] for one in threadpool_info() if "architecture" in one), "")
    library += f" ({kernels} kernels)" if kernels else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, NumPy {np.__version__}, {library}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
