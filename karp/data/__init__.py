"""Tables from files, sources of rows, and the sampling plan: which rows are in which shard of which step.

All but the plan is imported when it is first used: a server needs no tables, and starts 45 ms sooner without.
"""

from typing import TYPE_CHECKING

from karp.data.plan import Plan, generator
from karp.lazy import lazy_attributes

if TYPE_CHECKING:
    from karp.data.number_text import MISSING
    from karp.data.reading import read
    from karp.data.source import Source, fingerprint
    from karp.data.table import Table

__all__ = ["MISSING", "Plan", "Source", "Table", "fingerprint", "generator", "read"]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {"MISSING": "number_text", "read": "reading", "Source": "source", "fingerprint": "source", "Table": "table"},
)
