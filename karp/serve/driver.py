"""Code that both drivers of the server's machine share: passing reports to viewers, and concluding the run.

One driver is the server's own process, the other a Trainer in the program's process.
"""

from typing import Any

from karp.protocol.reports import Notice, Report, Viewer
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import take
from karp.record.directory import Record


class Audience:
    """Passes every report to all viewers of a run; its record, if it has one, is the first of them."""

    def __init__(self, server: Server, record: Record | None, *others: Viewer) -> None:
        self.server = server
        self.record = record
        self.viewers: list[Viewer] = [*others] if record is None else [record, *others]

    def report(self, report: Report) -> None:
        """Pass a report to all viewers, and then as notices the troubles of the record, such as a full disk."""
        for viewer in self.viewers:
            viewer.report(report)
        self.report_troubles()

    def report_troubles(self) -> None:
        """Pass new troubles of the record, such as a full disk, to all viewers as notices."""
        troubles = [] if self.record is None else self.record.writer.take_troubles()
        for trouble in troubles:
            self.report(Notice(self.server.seconds, self.server.step, trouble))


def conclude(audience: Audience, program: str, workers: int, status: int, intact: bool = True) -> dict[str, Any]:
    """Write a last checkpoint, the weights and the summary; return the summary, with the run's exit status.

    The status is not 0 if a file cannot be written, which the summary then names. Weights and checkpoint of a server
    that is not `intact`, as an exception has interrupted an update, are not written. Without a record there are no
    files, only the summary.
    """
    server, record = audience.server, audience.record
    training = server.training
    layout = training.settings.layout if training.settings is not None else None
    weights = training.weights.vector if training.ready and intact else None
    summary = summarise(server, program, workers, status)
    if record is None:
        return summary if layout is None or weights is None else summary | {"weights_sha256": layout.sha256(weights)}
    if weights is not None:
        record.save(take(server))
    summary = record.finish(summary, layout, weights)
    audience.viewers.remove(record)
    audience.report_troubles()
    return summary


def summarise(server: Server, program: str, workers: int, status: int) -> dict[str, Any]:
    """Return the summary of this server's run."""
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
            "programs": [{"step": step, "sha256": digest} for step, digest in server.joining.programs],
        }
    summary |= server.training.progress.summary(server.now) | server.joining.kernel_uses.summary()
    return summary | {
        "main": server.ending.leader,
        **server.counts,
        "failure": server.training.failure,
        "finished": finished(server),
        "exit": status,
    }


def finished(server: Server) -> bool:
    """Return whether this server's run has come to its end: all steps are applied, and all scores are known."""
    training = server.training
    return training.done and not training.failure
