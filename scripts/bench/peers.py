"""The peers of `bench.sh exchange`, one worker each: python -m bench.peers NAME CASE WORKERS SECONDS RANK.

Those of the hand-written step differ only in what they do with the gradient before the update. Where workers must
agree when to end, the first of them counts the steps of the warm-up and tells the others how many are to follow.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.cases import CASES, RATE, Case
from bench.clock import WARM_SECONDS, Clock
from bench.feed import orders, table
from bench.gate import Gate
from bench.handwritten import Vectors, empty, stepping, updating

Step = Callable[[], float]  # one step; gives the loss of this worker's shard
Agree = Callable[[int], int]  # what the first worker says


def by_hand(case: Case, workers: int, rank: int, vectors: Vectors, update: Callable[[], None]) -> Step:
    """The hand-written step on gathered batches."""
    x, y = table(case, workers)
    batch, aims = empty(case.batch, case.sizes[0]), np.empty(case.batch, y.dtype)
    order = orders(len(x), case, workers, rank)

    def gather() -> None:
        rows = next(order)
        x.take(rows, 0, batch, "clip")  # without a mode NumPy gathers into a buffer first
        y.take(rows, 0, aims, "clip")

    run = stepping(case, batch, aims, vectors, update, gather)
    return lambda: run(1)


def free(case: Case, workers: int, rank: int) -> tuple[Step, None]:
    """Nobody talks: the limit."""
    vectors = Vectors(case)
    return by_hand(case, workers, rank, vectors, updating(vectors)), None


def mpi(case: Case, workers: int, rank: int) -> tuple[Step, Agree]:
    """Allreduce of one flat vector."""
    from mpi4py import MPI

    comm, vectors = MPI.COMM_WORLD, Vectors(case)
    apply, gradient = updating(vectors, 1 / workers), vectors.gradient

    def update() -> None:
        comm.Allreduce(MPI.IN_PLACE, gradient)
        apply()

    return by_hand(case, workers, comm.Get_rank(), vectors, update), lambda number: comm.bcast(number)


def bare(case: Case, workers: int, rank: int) -> tuple[Step, None]:
    """karp's engine in a loop of one's own, without a Trainer."""
    from karp import nn, optim

    inputs, *hidden, outputs = case.sizes
    model = nn.MLP(inputs, hidden, outputs, activation=case.activation)
    model.parameters.load({
        f"layers.{i}.{kind}": array
        for i, layer in enumerate(case.layers())
        for kind, array in zip(("weight", "bias"), layer, strict=True)
    })
    parameters = model.parameters
    updater = optim.Updater(optim.SGD(RATE), parameters)
    x, y = table(case, 1)
    order = orders(len(x), case, 1, 0)

    def step() -> float:
        rows = next(order)
        parameters.zero_grad()
        loss = nn.cross_entropy(model(x.take(rows, 0)), y.take(rows, 0))
        loss.backward()
        updater.update(parameters.grad)
        return float(loss.data)

    return step, None


def torch(case: Case, workers: int, rank: int, flat: bool) -> tuple[Step, Agree]:
    """PyTorch over gloo: DistributedDataParallel, or one all_reduce of all gradients in one buffer."""
    import torch
    from torch import distributed, nn

    torch.set_num_threads(1)
    store = f"file://{os.environ['KARP_BENCH_DIR']}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=workers)
    layers: list[Any] = []
    for weight, bias in case.layers():
        layer = nn.Linear(*weight.shape)
        layer.load_state_dict({"weight": torch.from_numpy(weight.T.copy()), "bias": torch.from_numpy(bias)})
        layers += [layer, nn.ReLU()]
    model: Any = nn.Sequential(*layers[:-1])
    buffer = torch.zeros(sum(one.numel() for one in model.parameters()))
    if flat:
        at = 0
        for one in model.parameters():
            one.grad = buffer[at : at + one.numel()].view_as(one)
            at += one.numel()
    else:
        model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE / workers if flat else RATE)
    criterion = nn.CrossEntropyLoss()
    x, y = map(torch.from_numpy, table(case, workers))
    order = orders(len(x), case, workers, rank)

    def step() -> float:
        rows = torch.from_numpy(next(order))
        optimizer.zero_grad(set_to_none=not flat)
        loss = criterion(model(x[rows]), y[rows])
        loss.backward()
        if flat:
            distributed.all_reduce(buffer)
        optimizer.step()
        return float(loss.detach())

    def agree(number: int) -> int:
        told = torch.tensor([number])
        distributed.broadcast(told, 0)
        return int(told)

    return step, agree


def ray(case: Case, workers: int, seconds: float) -> dict[str, Any]:
    """A parameter server and workers as actors of Ray; this process leads them."""
    import ray

    gate, clock, losses = Gate(), Clock(seconds), {}
    room = os.environ["KARP_BENCH_DIR"] + "/ray"
    ray.init(
        num_cpus=workers + 1, include_dashboard=False, log_to_driver=False, configure_logging=False,
        object_store_memory=500_000_000, _temp_dir=room if len(room) < 50 else None,
    )  # fmt: skip
    try:
        server = ray.remote(RayServer).remote(case.name, workers)
        actors = [ray.remote(RayWorker).remote(case.name, workers, rank) for rank in range(workers)]
        ray.get([actor.ready.remote() for actor in actors])
        gate.meet()
        weights, step, ahead = server.start.remote(), 0, []
        while True:
            weights = server.update.remote(*[actor.gradient.remote(weights) for actor in actors])
            ahead.append(weights)
            if len(ahead) > 2:  # not more steps are asked for ahead of time
                ray.wait([ahead.pop(0)])
            if step == clock.CHECKED:
                losses = dict(enumerate(ray.get([actor.told.remote() for actor in actors])))
            if clock.over(step):
                break
            step += 1
    finally:
        ray.shutdown()
    gate.report(clock.report(workers * case.batch, losses))
    return {}


class RayServer:
    """Averages and updates."""

    def __init__(self, name: str, workers: int) -> None:
        self.vectors = Vectors(CASES[name])
        self.apply = updating(self.vectors, 1 / workers)

    def start(self) -> Any:
        return self.vectors.weights

    def update(self, *gradients: Any) -> Any:
        np.add(gradients[0], gradients[-1], out=self.vectors.gradient) if len(gradients) > 1 else np.copyto(
            self.vectors.gradient, gradients[0]
        )
        for gradient in gradients[1:-1]:
            self.vectors.gradient += gradient
        self.apply()
        return self.vectors.weights


class RayWorker:
    """Computes gradients."""

    def __init__(self, name: str, workers: int, rank: int) -> None:
        self.vectors = Vectors(CASES[name])
        self.step = by_hand(CASES[name], workers, rank, self.vectors, lambda: None)
        self.losses: list[float] = []

    def ready(self) -> bool:
        return True

    def gradient(self, weights: Any) -> Any:
        np.copyto(self.vectors.weights, weights)
        self.losses.append(self.step())
        return self.vectors.gradient

    def told(self) -> float:
        return self.losses[Clock.CHECKED]


def train(step: Step, agree: Agree | None, case: Case, rank: int, seconds: float) -> None:
    """Meet, warm up, count, report."""
    gate, clock, losses, number = Gate(), Clock(seconds), {}, 0
    gate.meet()
    if agree is not None:  # the warm-up, in chunks that the first worker decides on
        start = time.perf_counter()
        left = Clock.CHECKED + 1
        while left:
            for _ in range(left):
                loss = step()
                if number == Clock.CHECKED:
                    losses[rank] = loss
                number += 1
            spent = time.perf_counter() - start
            left = agree(0 if spent > WARM_SECONDS else max(1, int(number * 0.02 / spent)))
        spent = time.perf_counter() - start
        count = agree(max(1, int(number * seconds / spent)))
        clock.first, clock.begin = number, time.perf_counter()
        for _ in range(count):
            step()
        clock.last, clock.end = number + count, time.perf_counter()
    else:
        over = False
        while not over:
            loss = step()
            if number == Clock.CHECKED:
                losses[rank] = loss
            over = clock.over(number)
            number += 1
    gate.report(clock.report(case.batch, losses))


BY_HAND: dict[str, Callable[[Case, int, int], tuple[Step, Agree | None]]] = {
    "free": free,
    "bare": bare,
    "mpi": mpi,
    "ddp": lambda case, workers, rank: torch(case, workers, rank, flat=False),
    "torch-flat": lambda case, workers, rank: torch(case, workers, rank, flat=True),
}


def main(name: str, case_name: str, workers: int, seconds: float, rank: int) -> None:
    """One worker's process, or Ray's leader."""
    case = CASES[case_name]
    if name == "ray":
        ray(case, workers, seconds)
        return
    step, agree = BY_HAND[name](case, workers, rank)
    if name == "mpi":
        from mpi4py import MPI

        rank = MPI.COMM_WORLD.Get_rank()
    train(step, agree, case, rank, seconds)
    if name in ("ddp", "torch-flat"):
        from torch import distributed

        distributed.barrier()  # nobody is to lose the other in the last step
        os._exit(0)  # its threads end this process with an abort now and then, with destroy_process_group or without


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
