"""All of a server that steers its run, as plain types and vectors: what a checkpoint holds.

A contribution is a pure function of weights, step, shard and seed, so nothing of what is under way has to be kept:
a server that is restored leases the steps from its version on afresh, and ends with the same bits. Only in an
asynchronous run does it matter what of the open steps has arrived, since that has been applied.
"""

from typing import Any

from karp.errors import SettingError
from karp.protocol import reports
from karp.protocol.kernels import KernelUse
from karp.protocol.server import sizes
from karp.protocol.server.machine import Server
from karp.protocol.settings import Settings
from karp.protocol.tree import Vector
from karp.protocol.vectors import Snapshot

RETURN_SECONDS = 10.0  # for the main worker's connection to come back


def take(server: Server) -> Snapshot:
    """Plain types and copies of the vectors; the server must have its weights."""
    training = server.training
    assert training.settings is not None
    vectors = training.weights.copies()
    plain = {
        "settings": training.settings.to_dict(),
        "version": training.version,
        "final": training.ledger.final,
        "open": training.ledger.to_list(),
        "evaluations": [[epoch, version] for epoch, version in training.ledger.evaluations.items()],
        "finished": training.over and not training.failure,
        "main": main_of(server),
        "dropped": training.dropped,
        "refused": server.refusals.messages,
        "leased_again": server.leasing.leased_again,
        "programs": [list(ran) for ran in server.joining.programs],
        "progress": training.progress.to_dict(server.now),
        "kernels": [use.to_dict() for use in server.joining.uses.all],
    }
    return plain, vectors


def main_of(server: Server) -> list[Any] | None:
    """The worker that speaks for all, and its peer, as long as it may live and has not spoken."""
    peer = server.numbers.get(server.ending.main)
    return None if peer is None or server.ending.closed else [server.ending.main, peer.hex()]


def restore(server: Server, snapshot: Snapshot) -> None:
    """Put a new server where the other was; it goes on with whoever joins.

    The workers of an earlier launch (incarnation 0) are gone; those of this one may not know that their server was.

    Raises SettingError for what is not a snapshot.
    """
    plain, vectors = snapshot
    try:
        training, settings = server.training, Settings.from_dict(plain["settings"])
        training.use(settings)
        ledger = training.ledger
        check(plain, vectors, settings, ledger.final)
        training.weights.restore(vectors, int(plain["version"]))
        ledger.final = int(plain["final"])
        ledger.evaluations = {int(epoch): int(version) for epoch, version in plain["evaluations"]}
        if ledger.evaluations.keys() != training.weights.of_epochs.keys():
            raise ValueError("weights of evaluations that there are not")
        training.dropped, server.refusals.messages = int(plain["dropped"]), int(plain["refused"])
        server.leasing.leased_again = int(plain["leased_again"])
        training.progress.restore(plain["progress"], server.now)
        server.joining.uses.all = [KernelUse.from_dict(use) for use in plain["kernels"]]
        server.joining.restore(plain["programs"])
        if plain["main"] is not None and server.incarnation > 0:
            main, peer = plain["main"]
            server.ending.restore(int(main), bytes.fromhex(peer))
            server.alive_at = server.now + RETURN_SECONDS
        first, *steps = plain["open"]
        ledger.restore(int(first), [(int(number), missing) for number, missing in steps])
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SettingError(f"this is no checkpoint of a run: {error!r:.200}") from None
    training.report(reports.Settings, settings.to_dict())
    if server.incarnation == 0:
        for text in sizes.of_workers(settings, server.joining.workers):
            training.notice(text)
    training.report_begin(workers=0)


def check(plain: dict[str, Any], vectors: dict[str, Vector], settings: Settings, steps: int) -> None:
    """Raises ValueError for numbers or vectors that no server of these settings has, before they cost memory."""
    whole = settings.staleness is not None
    version, final, first = int(plain["version"]), int(plain["final"]), int(plain["open"][0])
    if not 0 <= first <= final <= steps or version < 0 or (whole and version != first):
        raise ValueError(f"version {version}, step {first} of {final} steps")
    if plain["main"] is not None and (first != final or plain["evaluations"]):
        raise ValueError("a run that is over before its end")
    if len(plain["open"]) > 1 and (whole or len(plain["open"]) > 1 + final):
        raise ValueError(f"{len(plain['open']) - 1} steps that are partly applied")
    if not all(0 <= int(epoch) < settings.epochs and 0 <= int(at) <= version for epoch, at in plain["evaluations"]):
        raise ValueError("evaluations of epochs that there are not")
    expected = (settings.layout.size,), settings.layout.dtype
    for name, vector in vectors.items():
        found = vector.shape, vector.dtype.name
        if not name.startswith("state.") and found != expected:
            raise ValueError(f"{name}: {found[0]} {found[1]}, but the model has {expected[0]} {expected[1]}")
