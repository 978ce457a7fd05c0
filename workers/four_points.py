"""The origin's demo: an MLP(3, [4, 4], 1) learns 1, -1, -1, 1 for four vectors.

python workers/four_points.py
karp launch -n 2 workers/four_points.py     the same bits, as shards=2 says how a batch is cut
"""

import numpy as np

import karp
from karp import nn, optim

x = np.array([[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]])
y = np.array([[1.0], [-1.0], [-1.0], [1.0]])

model = nn.MLP(3, [4, 4], 1, activation="tanh", dtype=np.float64)
with karp.Trainer(model, optim.SGD(lr=0.1, momentum=0.9), batch_size=4, epochs=300, shards=2) as trainer:
    for xs, ys in trainer.batches(x, y):
        trainer.backward(nn.mse(model(xs), ys))

if trainer.main:
    for row in x:
        print(model(row)[0])
