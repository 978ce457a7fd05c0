"""Tables from files, and the sampling plan: which rows are in which shard of which step."""

from karp.data.number_text import MISSING
from karp.data.plan import Plan, generator
from karp.data.reading import read
from karp.data.table import Table, fingerprint

__all__ = ["MISSING", "Plan", "Table", "fingerprint", "generator", "read"]
