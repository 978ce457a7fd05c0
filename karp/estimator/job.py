"""A training that several workers do: its files, which this process writes and each worker maps.

    DIR/job/*.npy      rows, targets, weights, initial weights, and the state of the generator that shuffles
    DIR/job/job.json   the rules, and what of the network is no array
    DIR/run/           the run, with the weights at its end, its checkpoints, and its epochs in metrics.jsonl
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karp.data.source import fingerprint
from karp.errors import RunError
from karp.estimator.network import BaseNetwork, Network
from karp.estimator.recipe import RecipeNetwork
from karp.estimator.rows import Order, Rows, Shuffled, in_order
from karp.estimator.samples import Samples
from karp.estimator.training import Rules, Trained
from karp.optim import OptimizerState
from karp.protocol import reports
from karp.record import checkpoints, files
from karp.tabular.launching import launch

Array = NDArray[Any]
PROGRAM = str(Path(__file__).with_name("program.py"))
SPARSE = ("data", "indices", "indptr")
KINDS = ("coefs", "intercepts")


class Job(NamedTuple):
    """All that a worker needs: the network with its initial weights, rows, rules, and validation rows or None."""

    network: BaseNetwork
    rows: Rows
    rules: Rules
    held_out: Samples | None

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Map the files of a job, which no other process changes."""
        plain = files.read_json(folder / "job.json")
        samples = _read_samples(folder, "train", plain["train"])
        held_out = None if plain["held_out"] is None else _read_samples(folder, "held_out", plain["held_out"])
        orders: Order = in_order(len(samples.y))
        if plain["shuffle"]:
            random = np.random.RandomState()
            random.set_state(("MT19937", _load(folder / "random.npy"), plain["position"], 0, 0.0))
            orders = Shuffled(random, len(samples.y))
        network, rules = _read_network(folder, plain["network"]), Rules.from_plain(plain["rules"])
        return cls(network, Rows(*samples, orders, plain["fingerprint"]), rules, held_out)


def write(
    folder: Path, network: BaseNetwork, samples: Samples, rules: Rules, held_out: Samples | None,
    random: np.random.RandomState | None,
) -> None:  # fmt: skip
    """Write the files of a job; `random` is the generator that shuffles, None if nothing is shuffled."""
    folder.mkdir()
    position: Any = None
    if random is not None:
        _, keys, position, *_ = random.get_state(legacy=True)
        np.save(folder / "random.npy", keys)
    arrays = [array for array in (*_parts(samples.x).values(), *samples[1:]) if array is not None]
    files.write_json(folder / "job.json", {
        "network": _write_network(folder, network), "rules": rules.plain(),
        "shuffle": random is not None, "position": position, "fingerprint": fingerprint(arrays),
        "train": _write_samples(folder, "train", samples),
        "held_out": None if held_out is None else _write_samples(folder, "held_out", held_out),
    })  # fmt: skip


def run(
    workers: int, network: BaseNetwork, samples: Samples, rules: Rules, held_out: Samples | None,
    random: np.random.RandomState | None,
) -> tuple[Trained, OptimizerState]:  # fmt: skip
    """Have workers train a network, whose weights are then those at the end, or of the best score; see `Training.run`.

    Raises RunError if the run fails. An interrupt goes on, when all processes have ended and their files are gone.
    """
    with tempfile.TemporaryDirectory(prefix="karp-estimator-", ignore_cleanup_errors=True) as name:
        folder, directory = Path(name) / "job", Path(name) / "run"
        write(folder, network, samples, rules, held_out, random)
        launch(workers, directory, [PROGRAM, str(folder)], None, kept=False)
        lines = (directory / "metrics.jsonl").read_bytes().splitlines()
        snapshot = checkpoints.newest(directory, lambda text: None)
        if snapshot is None:
            raise RunError("the run has ended without a checkpoint, so the result is not known: fit again")
        plain, vectors = snapshot
        network.parameters.data[:] = vectors["best"] if vectors.get("best") is not None else vectors["weights"]
    evaluations = [report for report in map(reports.from_line, lines) if isinstance(report, reports.Evaluation)]
    epochs = [_numbers(report.scores) for report in evaluations]
    if random is not None:
        Shuffled(random, len(samples.y))(len(epochs) - 1)
    better = rules.scored and epochs[-1]["best"] != rules.best
    trained = Trained(
        epochs, epochs[-1]["failures"] > rules.n_iter_no_change, rules.next_rate(len(epochs), len(samples.y)),
        network.parameters.data.copy() if better else None, False,
    )  # fmt: skip
    state = {name[6:]: vector for name, vector in vectors.items() if name.startswith("state.")}
    return trained, OptimizerState(state, int(plain["version"]))


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of an epoch as they were: a NaN is null in a line."""
    return {name: float("nan") if value is None else value for name, value in scores.items()}


def _write_network(folder: Path, network: BaseNetwork) -> dict[str, Any]:
    """Write the arrays of a network, and return what else it consists of; that of a recipe is drawn from its seed."""
    if isinstance(network, RecipeNetwork):
        return network.plain()
    assert isinstance(network, Network)
    coefs, intercepts = network.layers()
    for layer, pair in enumerate(zip(coefs, intercepts, strict=True)):
        for kind, array in zip(KINDS, pair, strict=True):
            np.save(folder / f"{kind}{layer}.npy", array)
    return {"layers": len(coefs), "activation": network.activation, "output": network.output}


def _read_network(folder: Path, plain: dict[str, Any]) -> BaseNetwork:
    if "recipe" in plain:
        return RecipeNetwork.from_plain(plain)
    coefs, intercepts = (
        [np.array(_load(folder / f"{kind}{layer}.npy")) for layer in range(plain["layers"])] for kind in KINDS
    )
    return Network(coefs, intercepts, plain["activation"], plain["output"])


def _parts(x: Any) -> dict[str, Array]:
    """Return the arrays of rows, dense or sparse, by name."""
    return {"x": x} if isinstance(x, np.ndarray) else {name: getattr(x, name) for name in SPARSE}


def _write_samples(folder: Path, name: str, samples: Samples) -> dict[str, Any]:
    """Write the arrays of samples, and return what else they consist of."""
    arrays = _parts(samples.x) | {"y": samples.y, "weights": samples.weights}
    for part, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.{part}.npy", array)
    return {"sparse": "x" not in arrays, "shape": list(samples.x.shape), "weighted": samples.weights is not None}


def _read_samples(folder: Path, name: str, plain: dict[str, Any]) -> Samples:
    def load(part: str) -> Array:
        return _load(folder / f"{name}.{part}.npy")

    if plain["sparse"]:
        from scipy.sparse import csr_array

        x = csr_array(tuple(load(part) for part in SPARSE), shape=tuple(plain["shape"]))
    else:
        x = load("x")
    return Samples(x, load("y"), load("weights") if plain["weighted"] else None)


def _load(path: Path) -> Array:
    array: Array = np.asarray(np.load(path, mmap_mode="r"))
    return array
