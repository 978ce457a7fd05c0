"""Tables from files, and the sampling plan: which rows are in which shard of which step."""

from karp.data.plan import Plan, generator

__all__ = ["Plan", "generator"]
