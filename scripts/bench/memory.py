"""Peak memory of this process: the high-water mark of resident pages, interpreter and libraries included.

Linux keeps it per address space and lets a process set it back, so it can be taken over the training steps alone: what
importing and building needed for a moment does not count. (`getrusage` also has one, but a child inherits that of
the process that started it.) Elsewhere it is `getrusage`'s, over the whole life of the process.

How much a step needs is the growth: the peak over the steps minus what was resident when everything was imported and
nothing built. That is weights, gradient, batch, activations and scratch, with what the allocator keeps.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress

MB = 1e6


def resident() -> float:
    """MB resident now."""
    gc.collect()
    _give_back()
    return _status("VmRSS")


def peak() -> float:
    """MB resident at most, since `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak begin anew, where the system can."""
    gc.collect()
    _give_back()
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _give_back() -> None:
    """Hand free pages back to the system, where the allocator can: they are nobody's need."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> float:
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024 / MB
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB
