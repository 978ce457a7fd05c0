"""Tables from files, sources of rows, and the sampling plan: which rows are in which shard of which step.

All but the plan is imported when it is first used: a server needs no tables, and starts 45 ms sooner without.
"""

from typing import TYPE_CHECKING, Any

from karp.data.plan import Plan, generator

if TYPE_CHECKING:
    from karp.data.number_text import MISSING
    from karp.data.reading import read
    from karp.data.source import Source, fingerprint
    from karp.data.table import Table

__all__ = ["MISSING", "Plan", "Source", "Table", "fingerprint", "generator", "read"]

_LAZY = {"MISSING": "number_text", "read": "reading", "Source": "source", "fingerprint": "source", "Table": "table"}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'karp.data' has no attribute {name!r}")
    from importlib import import_module

    attribute = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = attribute
    return attribute
