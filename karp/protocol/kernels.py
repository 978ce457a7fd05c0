"""What the bits of a run depend on beyond its settings: the kernels that compute it, and whose they are.

The kernels of the worker that joins first are the run's. Those of the others, and of the server, which applies the
updates, are compared with them: the same shard has other bits with other kernels, so that the weights depend on who
computed what, which nobody can repeat.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

TEXT = 300  # characters of a field


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a process computes with (`record/kernels.py` finds it out)."""

    python: str = ""
    numpy: str = ""
    numpy_build: str = ""  # its compiler and the instruction set that it takes for granted
    simd: str = ""  # the further instruction sets whose loops NumPy uses here
    blas: str = ""  # library, version and the kernels that it has chosen
    libc: str = ""
    cpu: str = ""

    @classmethod
    def from_dict(cls, plain: object) -> "Kernels":
        """Raises ValueError for what is not the dict of some kernels."""
        names = [field.name for field in fields(cls)]
        if not isinstance(plain, Mapping) or set(plain) != set(names):
            raise ValueError(f"a map of {', '.join(names)}")
        if any(type(value) is not str or len(value) > TEXT for value in plain.values()):
            raise ValueError(f"a map of texts of at most {TEXT} characters")
        return cls(**plain)

    def to_dict(self) -> dict[str, str]:
        """Plain types, for a message or a file."""
        return asdict(self)

    def differences(self, run: "Kernels") -> str:
        """What of it gives other bits than the run's, both named; '' if nothing.

        Two versions of Python and two models of a CPU give the same bits where all else is equal: NumPy's loops and the
        BLAS's kernels are chosen by what a CPU can do, and that is compared.

        >>> Kernels(blas="openblas 0.3 Haswell", cpu="A").differences(Kernels(blas="openblas 0.3 SkylakeX", cpu="B"))
        'blas openblas 0.3 Haswell instead of openblas 0.3 SkylakeX'
        """
        pairs = [(name, getattr(self, name), getattr(run, name)) for name in COMPARED]
        return ", ".join(f"{name} {mine} instead of {others}" for name, mine, others in pairs if mine != others)


COMPARED = ("numpy", "numpy_build", "simd", "blas", "libc")
UNKNOWN = Kernels()


@dataclass(slots=True)
class Use:
    """Kernels of a run, and whose they are."""

    kernels: Kernels
    workers: list[int] = field(default_factory=list)
    server: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a checkpoint or the summary."""
        return {"workers": self.workers, "server": self.server, **self.kernels.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Use":
        """Raises ValueError, LookupError or TypeError for what is none."""
        facts = dict(plain)
        workers, server = [int(worker) for worker in facts.pop("workers")], bool(facts.pop("server"))
        return cls(Kernels.from_dict(facts), workers, server)


class Uses:
    """All kernels that a run has been computed with; the first are the run's."""

    def __init__(self) -> None:
        self.all: list[Use] = []

    def differences(self, kernels: Kernels) -> str:
        """What of these gives other bits than the run's; '' if nothing, or if there are none yet."""
        return kernels.differences(self.all[0].kernels) if self.all else ""

    def add(self, kernels: Kernels, worker: int | None) -> bool:
        """These are a worker's, or with None the server's; whether they are new here."""
        use = next((use for use in self.all if use.kernels == kernels), None)
        is_new = use is None
        if use is None:
            use = Use(kernels)
            self.all.append(use)
        if worker is None:
            use.server = True
        elif worker not in use.workers:
            use.workers = sorted([*use.workers, worker])
        return is_new

    def summary(self) -> dict[str, Any]:
        """The run's own, and in a list all of them with those who have used them."""
        return {**self.all[0].kernels.to_dict(), "kernels": [use.to_dict() for use in self.all]} if self.all else {}
