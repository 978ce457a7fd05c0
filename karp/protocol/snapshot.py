"""All of a server that steers its run, as plain types and vectors: what a checkpoint holds.

A contribution is a pure function of weights, step, shard and seed, so nothing of what is under way has to be kept:
a server that is restored leases the step of its version afresh, and ends with the same bits.
"""

from typing import Any

from karp.errors import SettingError
from karp.optim import Updater
from karp.protocol.messages import Evaluation
from karp.protocol.server import Server
from karp.protocol.settings import Settings
from karp.protocol.tree import Vector

Snapshot = tuple[dict[str, Any], dict[str, Vector]]


def take(server: Server) -> Snapshot:
    """Plain types and copies of the vectors; the server must have its weights."""
    assert server.settings is not None
    assert server.updater is not None
    vectors = {"weights": server.updater.weights.copy()}
    vectors |= {f"state.{name}": vector.copy() for name, vector in server.updater.state.items()}
    vectors |= {f"evaluation.{due.epoch}": due.weights for due in server.evaluations if due.weights is not None}
    plain = {
        "settings": server.settings.to_dict(),
        "version": server.version,
        "final": server.final,
        "evaluations": [[due.epoch, due.version] for due in server.evaluations],
        "finished": server.over and not server.failure,
        "dropped": server.dropped,
        "refused": server.refused,
        "released": server.released,
        "progress": server.progress.to_dict(server.now),
    }
    return plain, vectors


def restore(server: Server, snapshot: Snapshot) -> None:
    """Put a new server where the other was; it goes on with whoever joins.

    Raises SettingError for what is not a snapshot.
    """
    plain, vectors = snapshot
    try:
        server._use(Settings.from_dict(plain["settings"]))
        assert server.settings is not None
        layout = server.settings.layout
        weights = layout.zeros()
        weights[:] = vectors["weights"]
        state = {name[6:]: vector.copy() for name, vector in vectors.items() if name.startswith("state.")}
        server.updater = Updater(server.settings.optimizer, weights, state, int(plain["version"]))
        server.final = int(plain["final"])
        server.evaluations = [
            Evaluation(1, int(epoch), int(version), vectors[f"evaluation.{epoch}"])
            for epoch, version in plain["evaluations"]
        ]
        server.dropped, server.refused = int(plain["dropped"]), int(plain["refused"])
        server.released = int(plain["released"])
        server.progress.restore(plain["progress"], server.now)
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError(f"this is no checkpoint of a run: {error!r:.200}") from None
    server.begun = True
    server._report("settings", server.settings.to_dict())
    server._report("begin", {"steps": server.final, "step": server.version, "workers": 0})
    server._open_step()
