"""The run's directory: what a run leaves behind, and what it can be resumed from."""

from karp.record.directory import Record, facts, finished, fresh_directory, given_directory, summarise

__all__ = ["Record", "facts", "finished", "fresh_directory", "given_directory", "summarise"]
