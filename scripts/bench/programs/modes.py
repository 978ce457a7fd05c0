"""karp's part in `bench.sh modes`: train until the target is reached; KARP_BENCH_SLEEP slows worker 1 down.

One JSON argument: {task, seed, limit, trainer: {arguments of Trainer}}.
"""

import json
import os
import sys
import time

import numpy as np
from bench.gate import Gate
from bench.tasks import TASKS

import karp
from karp import nn, optim
from karp.transport import zeromq_worker

given = json.loads(sys.argv[1])
task, seed = TASKS[given["task"]], given["seed"]
x, y, test_x, test_y = task.data()
model = nn.MLP(x.shape[1], [*task.hidden], int(y.max()) + 1, seed=seed)
traffic = {"sent": 0, "received": 0}
report = {"reached": -1, "seconds": 0.0, "batches": 0}
nap = float(os.environ.get("KARP_BENCH_SLEEP", "0")) if os.environ.get("KARP_WORKER") == "1" else 0.0


def counted(name, function, frames_of):
    """The same function, with the bytes of its frames counted: what travels."""

    def wrapper(*args):
        result = function(*args)
        traffic[name] += sum(memoryview(frame).nbytes for frame in frames_of(args, result))
        return result

    return wrapper


zeromq_worker.pack = counted("sent", zeromq_worker.pack, lambda args, result: result)
zeromq_worker.unpack = counted("received", zeromq_worker.unpack, lambda args, result: args[0])


def score() -> float:
    """The share of the test rows that the model names rightly."""
    with karp.no_grad():
        return float(np.mean(model(test_x).data.argmax(axis=1) == test_y))


gate = Gate()
gate.meet()
with karp.Trainer(
    model, optim.SGD(lr=task.rate), batch_size=task.batch, epochs=given["limit"], seed=seed, show=False,
    **given["trainer"],
) as trainer:  # fmt: skip
    begin, looked = 0.0, -1
    for xs, ys in trainer.batches(x, y):
        begin = begin or time.perf_counter()
        batches = trainer.step * trainer.local_steps  # of all workers together, before the step's weights were there
        if trainer.shard == 0 and looked < trainer.step and batches % task.look < trainer.local_steps:
            looked = trainer.step
            if score() >= task.target:
                report |= {"reached": batches, "seconds": time.perf_counter() - begin}
                trainer.stop()
        if nap:
            time.sleep(nap)
        report["batches"] += 1
        trainer.backward(nn.cross_entropy(model(xs), ys))

gate.report(report | traffic)
