"""Code that both drivers of the server's machine share: passing reports to viewers, and concluding the run.

One driver is the server's own process, the other a Trainer in the program's process.
"""

from typing import Any

from karp.protocol.reports import Notice, Report, Viewer
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take
from karp.protocol.server.summary import summarise
from karp.protocol.vectors import Snapshot
from karp.record.directory import Record


class Audience:
    """Passes every report to all viewers of a run, and checkpoints to its record, which is the first viewer.

    Without a record (None) there are no checkpoints. `launched` is the time at which this launch of the run began, on
    the server's clock.
    """

    def __init__(self, server: Server, record: Record | None, launched: float, *others: Viewer) -> None:
        self.server = server
        self.record = record
        self.launched = launched
        self.earlier_seconds = 0.0  # the wall-clock seconds of earlier launches, as far as they are known
        self.viewers: list[Viewer] = [*others] if record is None else [record, *others]

    def wall_seconds(self, now: float) -> float:
        """Return the seconds of all launches of the run, of earlier ones until their last checkpoint."""
        return self.earlier_seconds + now - self.launched

    def save(self) -> None:
        """Have a checkpoint of the server as it is now written, if there is a record."""
        if self.record is not None:
            plain, vectors = take(self.server)
            plain["wall_seconds"] = [self.earlier_seconds, self.wall_seconds(self.server.now)]
            self.record.save((plain, vectors))

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the server from a checkpoint; raises SettingError if the snapshot is not that of a run."""
        earlier, total = snapshot[0].get("wall_seconds", (0.0, 0.0))
        restore(self.server, snapshot)
        self.earlier_seconds = earlier if self.server.incarnation > 0 else total
        if self.server.incarnation == 0:
            self.save()  # this checkpoint names no worker of the earlier launch

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


def conclude(audience: Audience, facts: dict[str, Any], status: int, intact: bool = True) -> dict[str, Any]:
    """Write a last checkpoint, the weights and the summary; return the summary, with the run's exit status.

    `facts` are entries of the summary that the server's machine does not know. If a file cannot be written, nothing is
    raised: the summary names it as `missing`, and its `exit` is not 0. Weights and checkpoint of a server that is not
    `intact`, as an exception has interrupted an update, are not written. Without a record there are no files, only the
    summary.
    """
    server, record, settings = audience.server, audience.record, audience.server.settings
    layout = None if settings is None else settings.layout
    weights = server.weights if intact else None
    wall_seconds = max(audience.wall_seconds(server.now), server.seconds, 1e-3)
    summary = facts | summarise(server)
    summary |= {
        "wall_seconds": round(wall_seconds, 3),
        "effective_share": round(server.seconds / wall_seconds, 3),
        "exit": status,
    }
    if record is None:
        return summary if layout is None or weights is None else summary | {"weights_sha256": layout.sha256(weights)}
    if weights is not None:
        audience.save()
    summary = record.finish(summary, layout, weights)
    audience.viewers.remove(record)
    audience.report_troubles()
    return summary
