"""karp's part in `bench.sh exchange`: a program as a user writes it, which knows a clock. See bench/clock.py."""

import sys

from bench.cases import CASES, RATE
from bench.clock import Clock
from bench.feed import table
from bench.gate import Gate

import karp
from karp import nn, optim

name, workers, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
case = CASES[name]
x, y = table(case, workers)
inputs, *hidden, outputs = case.sizes
model = nn.MLP(inputs, hidden, outputs, activation=case.activation)
model.parameters.load({
    f"layers.{i}.{kind}": array
    for i, layer in enumerate(case.layers())
    for kind, array in zip(("weight", "bias"), layer, strict=True)
})  # fmt: skip
gate, clock, losses = Gate(), Clock(seconds), {}
gate.meet()

with karp.Trainer(
    model, optim.SGD(lr=RATE), batch_size=workers * case.batch, shards=workers, epochs=1_000_000, show=False
) as trainer:
    for xs, ys in trainer.batches(x, y):
        loss = nn.cross_entropy(model(xs), ys)
        trainer.backward(loss)
        step = trainer.step
        if step == clock.CHECKED:
            losses[trainer.shard] = loss.item()
        if clock.over(step):
            trainer.stop()

gate.report(clock.report(case.batch, losses))
