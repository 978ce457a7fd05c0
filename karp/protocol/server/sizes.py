"""Notices about sizes of a run that do not fit together, though it can train: batch, rows, shards, workers."""

from collections.abc import Iterator

from karp.protocol.settings import Settings
from karp.text import counted


def of_batches(settings: Settings) -> Iterator[str]:
    """Yield notices about a batch larger than the data, and about more shards than rows in a batch."""
    if settings.batch_size > settings.samples:
        yield (
            f"batch_size is {settings.batch_size:,}, but the data have {counted(settings.samples, 'row')}: "
            "each step has all of them, so an epoch is one step"
        )
    batch = min(settings.batch_size, settings.samples)
    if (empty := settings.shards - batch) > 0:
        yield (
            f"{settings.shards:,} shards share the {counted(batch, 'row')} of a batch, so {empty:,} of them are empty: "
            "ask for fewer shards or a larger batch_size"
        )


def of_workers(settings: Settings, workers: int) -> Iterator[str]:
    """Yield a notice about more workers than shards."""
    shards = min(settings.shards, settings.batch_size, settings.samples)
    if (idle := workers - shards) > 0:
        all_share = f"{counted(workers, 'worker')} share {counted(shards, 'shard')}"
        yield f"{all_share}, so {idle:,} of them will have nothing to do: ask for more shards or fewer workers"
