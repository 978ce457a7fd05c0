"""What whoever drives the server's machine does at its end."""

from typing import Any

from karp.protocol.server.machine import Server
from karp.record.directory import facts


def summarise(server: Server, program: str, workers: int, status: int) -> dict[str, Any]:
    """The summary of the run that this server has steered."""
    summary: dict[str, Any] = {"program": program, "workers": workers}
    if (settings := server.training.settings) is not None:
        summary |= {
            "shards": settings.shards,
            "seed": settings.seed,
            "batch_size": settings.batch_size,
            "steps": server.training.number,
            "updates": server.training.version,
            "epochs": server.training.number / server.training.steps.steps_per_epoch,
            "staleness_bound": settings.staleness,
            "threads_per_worker": settings.threads,
        }
    summary |= server.training.progress.summary(server.now) | facts()
    return summary | {
        "main": server.ending.main,
        **server.counts,
        "failure": server.training.failure,
        "finished": finished(server),
        "exit": status,
    }


def finished(server: Server) -> bool:
    """Whether the run of this server has come to its end: every step is in, every score due is known."""
    training = server.training
    return training.done and not training.failure
