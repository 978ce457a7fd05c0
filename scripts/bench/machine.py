"""What the figures depend on."""

from __future__ import annotations

import os
import platform
from typing import Any, cast


def describe() -> str:
    """Processor, cores, Python, NumPy and its BLAS in one line."""
    import numpy as np

    built = cast(dict[str, Any], np.show_config(mode="dicts"))
    blas = built.get("Build Dependencies", {}).get("blas", {})
    library = " ".join(filter(None, (blas.get("name"), blas.get("version")))) or "unknown BLAS"
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
