"""The kernels that compute a run: NumPy, BLAS and CPU, on which its bits depend beside its settings.

The kernels of the worker that joins first are the run's. Those of the other workers, and of the server, which applies
the updates, are compared with them. With other kernels the same shard has other bits, so the weights would depend on
which worker computed which shard, and the run could not be repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TEXT = 300  # the most characters of a field


class Kernels(NamedTuple):
    """The libraries and the CPU that a process computes with (`record/kernels.py` finds them out)."""

    python: str = ""
    numpy: str = ""
    numpy_build: str = ""  # its compiler and the instruction set that it requires
    simd: str = ""  # the other instruction sets that NumPy's loops use on this CPU
    blas: str = ""  # library, version and the kernels that it has chosen
    libc: str = ""
    cpu: str = ""

    @classmethod
    def from_dict(cls, plain: object) -> "Kernels":
        """Rebuild kernels from the map that `to_dict` returned; raises ValueError for anything else."""
        if not isinstance(plain, Mapping) or set(plain) != set(cls._fields):
            raise ValueError(f"a map of {', '.join(cls._fields)}")
        if any(type(value) is not str or len(value) > TEXT for value in plain.values()):
            raise ValueError(f"a map of texts of at most {TEXT} characters")
        return cls(**plain)

    def to_dict(self) -> dict[str, str]:
        """Return the kernels as plain types, for a message or a file."""
        return self._asdict()

    def differences(self, run: "Kernels") -> str:
        """Return the differences from the run's kernels that give other bits, both named; '' if there are none.

        Versions of Python and models of a CPU are not compared: NumPy's loops and the BLAS's kernels depend on what a
        CPU can do, and those are compared.

        >>> Kernels(blas="openblas 0.3 Haswell", cpu="A").differences(Kernels(blas="openblas 0.3 SkylakeX", cpu="B"))
        'blas openblas 0.3 Haswell instead of openblas 0.3 SkylakeX'
        """
        pairs = [(name, getattr(self, name), getattr(run, name)) for name in COMPARED]
        return ", ".join(f"{name} {value} instead of {of_run}" for name, value, of_run in pairs if value != of_run)


COMPARED = ("numpy", "numpy_build", "simd", "blas", "libc")
UNKNOWN = Kernels()


@dataclass(slots=True)
class KernelUse:
    """Kernels that a run was computed with, and the processes that used them."""

    kernels: Kernels
    workers: list[int] = field(default_factory=list)
    server: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the use as plain types, for a checkpoint or the summary."""
        return {"workers": self.workers, "server": self.server, **self.kernels.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "KernelUse":
        """Rebuild a use from the map that `to_dict` returned; raises ValueError, LookupError or TypeError otherwise."""
        facts = dict(plain)
        workers, server = [int(worker) for worker in facts.pop("workers")], bool(facts.pop("server"))
        return cls(Kernels.from_dict(facts), workers, server)


class KernelUses:
    """All kernels that a run has been computed with, in the order of their first use; the first are the run's."""

    def __init__(self) -> None:
        self.all: list[KernelUse] = []

    def differences(self, kernels: Kernels) -> str:
        """Return the differences from the run's kernels that give other bits; '' if none or none are known."""
        return kernels.differences(self.all[0].kernels) if self.all else ""

    def add(self, kernels: Kernels, worker: int | None) -> bool:
        """Add the kernels of a worker, or with None of the server; return whether they are new in this run."""
        use = next((use for use in self.all if use.kernels == kernels), None)
        is_new = use is None
        if use is None:
            use = KernelUse(kernels)
            self.all.append(use)
        if worker is None:
            use.server = True
        elif worker not in use.workers:
            use.workers = sorted([*use.workers, worker])
        return is_new

    def summary(self) -> dict[str, Any]:
        """Return the run's kernels as plain types, with the list of all uses as `kernels`; {} if none is known."""
        return {**self.all[0].kernels.to_dict(), "kernels": [use.to_dict() for use in self.all]} if self.all else {}
