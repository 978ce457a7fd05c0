"""Tables from files, sources of rows, and the sampling plan: which rows are in which shard of which step."""

from karp.data.number_text import MISSING
from karp.data.plan import Plan, generator
from karp.data.reading import read
from karp.data.source import Source, fingerprint
from karp.data.table import Table

__all__ = ["MISSING", "Plan", "Source", "Table", "fingerprint", "generator", "read"]
