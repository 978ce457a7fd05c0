"""Handwritten digits: 1,797 pictures of 8×8 pixels, an MLP, at least 97 % right on the fifth it has not seen.

python workers/digits.py                    one process, no socket
karp launch -n 4 workers/digits.py          a server and four workers that run this file

Both end with the same weights, bit for bit, as the hash at the end of each says: a batch is cut into --shards slices,
and their gradients are added in one order, whoever computed them.
"""

import argparse
from pathlib import Path

import numpy as np

import karp
from karp import data, nn, optim


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train an MLP on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64, help="samples of a global batch (default: 64)")
    parser.add_argument(
        "--shards", type=int, default=4,
        help="slices of a global batch, which up to so many workers share; the bits of the weights depend on them, not "
        "on the number of workers (default: 4)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--lr", type=float, help="learning rate (default: 0.1 for sgd, 0.003 for adam)")
    return parser.parse_args()


options = parse()
table = data.read(Path(__file__).with_name("digits.csv.gz"), target="digit").scaled(1 / 16)  # pixels are 0 … 16
train, test = table.split(test=0.2, seed=options.seed)
model = nn.MLP(64, [128, 64], 10, seed=options.seed)
optimizer: optim.Optimizer
if options.optimizer == "sgd":
    optimizer = optim.SGD(lr=0.1 if options.lr is None else options.lr, momentum=0.9)
else:
    optimizer = optim.Adam(lr=0.003 if options.lr is None else options.lr)


def evaluate() -> dict[str, float]:
    """The share of the test pictures that the model names rightly."""
    with karp.no_grad():
        named = model(test.x).data.argmax(axis=1)
    return {"test_accuracy": float(np.mean(named == test.y))}


with karp.Trainer(
    model,
    optimizer,
    batch_size=options.batch_size,
    epochs=options.epochs,
    shards=options.shards,
    seed=options.seed,
) as trainer:
    for x, y in trainer.batches(train, evaluate=evaluate):
        trainer.backward(nn.cross_entropy(model(x), y))

if trainer.main:
    print(f"test accuracy {evaluate()['test_accuracy']:.4f} on {len(test)} digits")
