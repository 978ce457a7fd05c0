"""Snapshots: the state of a server that a checkpoint holds, as plain types and vectors.

A contribution is a pure function of weights, step, shard and seed, so the contributions to open steps need not be kept:
a restored server leases the steps from its version on again, and ends with the same bits. Only an asynchronous run
keeps which shards of the open steps have arrived, since those have been applied.
"""

import math
from typing import Any

from karp.errors import SettingError
from karp.protocol import reports
from karp.protocol.best import Best
from karp.protocol.kernels import KernelUse
from karp.protocol.server import sizes
from karp.protocol.server.machine import Server
from karp.protocol.settings import Settings
from karp.protocol.tree import Vector
from karp.protocol.vectors import Snapshot

RETURN_SECONDS = 10.0  # for the leader to connect again


def take(server: Server) -> Snapshot:
    """Take a snapshot of a server whose weights are known (`server.ready`); the vectors are copies."""
    training = server.training
    assert training.settings is not None
    vectors = training.weights.copies()
    plain = {
        "settings": training.settings.to_dict(),
        "version": training.version,
        "final": training.ledger.final,
        "open": training.ledger.to_list(),
        "evaluations": [[epoch, version] for epoch, version in training.ledger.evaluations.items()],
        "epoch_losses": [[epoch, loss] for epoch, loss in training.epoch_losses.items()],
        "scores": training.scores,
        "best": None if training.best is None else list(training.best),
        "finished": training.over and not training.failure,
        "main": leader_of(server),
        "dropped": training.dropped,
        "refused": server.refusals.messages,
        "leased_again": server.leasing.leased_again,
        "steps_in_ranges": server.ranges.steps,
        "programs": [list(ran) for ran in server.joining.programs],
        "progress": training.progress.to_dict(server.now),
        "kernels": [use.to_dict() for use in server.joining.kernel_uses.all],
    }
    return plain, vectors


def leader_of(server: Server) -> list[Any] | None:
    """Return [number, peer as hex] of the leader; None if no leader is known, or if the leader has ended."""
    peer = server.numbers.get(server.ending.leader)
    return None if peer is None or server.ending.closed else [server.ending.leader, peer.hex()]


def restore(server: Server, snapshot: Snapshot) -> None:
    """Restore a new server from a snapshot; it goes on with the workers that join.

    If its incarnation is 0, the workers of the earlier launch are gone; otherwise they may still be running.

    Raises SettingError for anything but the snapshot of a run; the new server must then be thrown away.
    """
    plain, vectors = snapshot
    try:
        training, settings = server.training, Settings.from_dict(plain["settings"])
        training.use(settings)
        ledger = training.ledger
        check_snapshot(plain, vectors, settings, ledger.final)
        training.weights.restore(vectors, int(plain["version"]))
        ledger.final = int(plain["final"])
        ledger.evaluations = {int(epoch): int(version) for epoch, version in plain["evaluations"]}
        training.epoch_losses = {int(epoch): float(loss) for epoch, loss in plain["epoch_losses"]}
        training.scores = {str(name): float(value) for name, value in plain["scores"].items()}
        if ledger.evaluations.keys() != training.epoch_losses.keys():
            raise ValueError("losses of evaluations that there are not")
        if ledger.evaluations.keys() != training.weights.of_epochs.keys():
            raise ValueError("weights of evaluations that there are not")
        if (best := plain["best"]) is not None:
            training.best = Best(int(best[0]), float(best[1]))
        training.dropped, server.refusals.messages = int(plain["dropped"]), int(plain["refused"])
        server.leasing.leased_again = int(plain["leased_again"])
        server.ranges.steps = int(plain["steps_in_ranges"])
        training.progress.restore(plain["progress"], server.now)
        server.joining.kernel_uses.all = [KernelUse.from_dict(use) for use in plain["kernels"]]
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


def check_snapshot(plain: dict[str, Any], vectors: dict[str, Vector], settings: Settings, steps: int) -> None:
    """Raise ValueError for numbers or vectors that no server of these settings has, before they cost memory."""
    updates_are_steps = settings.staleness is not None
    version, final, first = int(plain["version"]), int(plain["final"]), int(plain["open"][0])
    if not 0 <= first <= final <= steps or version < 0 or (updates_are_steps and version != first):
        raise ValueError(f"version {version}, step {first} of {final} steps")
    if plain["main"] is not None and (first != final or plain["evaluations"]):
        raise ValueError("a run that is over before its end")
    if len(plain["open"]) > 1 and (updates_are_steps or len(plain["open"]) > 1 + final):
        raise ValueError(f"{len(plain['open']) - 1} steps that are partly applied")
    if not all(0 <= int(epoch) < settings.epochs and 0 <= int(at) <= version for epoch, at in plain["evaluations"]):
        raise ValueError("evaluations of epochs that there are not")
    check_best(plain, vectors, settings)
    expected = (settings.layout.size,), settings.layout.dtype
    for name, vector in vectors.items():
        actual = vector.shape, vector.dtype.name
        if not name.startswith("state.") and actual != expected:
            raise ValueError(f"{name}: {actual[0]} {actual[1]}, but the model has {expected[0]} {expected[1]}")


def check_best(plain: dict[str, Any], vectors: dict[str, Vector], settings: Settings) -> None:
    """Raise ValueError for a best epoch that no server of these settings has; a run that keeps none need not say so."""
    best = plain["best"]
    if (best is not None) != ("best" in vectors) or (best is not None and settings.keep_best is None):
        raise ValueError(f"weights of a best epoch, or none, where the best is {best} and kept is {settings.keep_best}")
    if best is None:
        return
    epoch, score = best
    due = [int(evaluation[0]) for evaluation in plain["evaluations"]]
    if not 0 <= int(epoch) < settings.epochs or int(epoch) in due or math.isnan(score):
        raise ValueError(f"a best epoch {epoch} with the score {score}")
