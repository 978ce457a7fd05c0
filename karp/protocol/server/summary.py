"""The totals of a run: what its server puts into summary.json."""

from typing import Any

from karp import optim
from karp.protocol.best import EPOCH
from karp.protocol.server.machine import Server


def summarise(server: Server) -> dict[str, Any]:
    """Return the settings, the progress and the counts of the server's run, as entries of its summary."""
    training, settings = server.training, server.settings
    summary: dict[str, Any] = {}
    if settings is not None:
        outer = None if settings.outer is None else optim.to_dict(settings.outer)
        summary = {
            "shards": settings.shards,
            "seed": settings.seed,
            "batch_size": settings.batch_size,
            "steps": server.step,
            "updates": server.version,
            "epochs": server.step / training.steps.steps_per_epoch,
            "optimizer": optim.to_dict(settings.optimizer),
            "local_steps": settings.local_steps,
            "outer": outer,
            "staleness_bound": settings.staleness,
            "codec": settings.codec,
            "codec_weights": settings.codec_weights,
            "dtype": settings.layout.dtype,
            "data_sha256": settings.data_sha256,
            "threads_per_worker": settings.threads,
            "programs": [{"step": step, "sha256": digest} for step, digest in server.joining.programs],
        }
    if settings is not None and settings.keep_best is not None and training.has_best_weights:
        assert training.best is not None
        summary["best"] = {EPOCH: training.best.epoch, settings.keep_best: training.best.score}
    summary |= training.progress.summary(server.now) | server.joining.kernel_uses.summary()
    return summary | {
        "main": server.ending.leader,
        **server.counts,
        "failure": server.failure,
        "finished": finished(server),
    }


def finished(server: Server) -> bool:
    """Return whether the run has come to its end: all steps are applied, and all scores are known."""
    return server.training.done and not server.failure
