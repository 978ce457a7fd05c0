"""The local steps of a worker: from the step's weights along the batches of one shard, and what that contributes.

A worker starts every shard of a step from the step's weights, with a fresh optimiser state, takes one step of the inner
optimiser on each of the shard's batches, and contributes how far it has come: start - end, weighted by the shard's
share of the round's samples. For the server that is a gradient like any other; the outer optimiser applies it (DiLoCo:
Douillard et al., 2023; with rate 1 and no momentum the weights are averaged: McMahan et al., 2017). Nothing of one
shard is left when the next begins, so it does not show who computed which.
"""

import numpy as np

from karp import optim
from karp.parameters import Parameters

OUTER = optim.SGD(lr=0.7, momentum=0.9, nesterov=True)  # DiLoCo's


class Inner:
    """Takes local steps on the weights of `parameters`, and puts them back."""

    def __init__(self, optimizer: optim.Optimizer, parameters: Parameters) -> None:
        self.parameters = parameters
        self.start = parameters.layout.zeros()
        self.updater = optim.Updater(optimizer, parameters)
        self.losses = 0.0
        self.samples = 0  # of the local steps taken; 0: the weights are the step's

    def step(self, loss: float, samples: int, batch: int) -> None:
        """Update by the gradient of a batch, a mean over so many samples; schedules count batches."""
        if self.samples == 0:
            self.start[:] = self.parameters.data
            self.losses = 0.0
            self.updater.restart(batch)
        self.updater.update(self.parameters.grad)
        self.losses += loss * samples
        self.samples += samples

    def end(self, share: float) -> float:
        """Write the contribution into the gradient and put the weights back; returns the weighted mean loss."""
        gradient, weights = self.parameters.grad, self.parameters.data
        np.subtract(self.start, weights, out=gradient)
        gradient *= gradient.dtype.type(share)
        loss = self.losses / self.samples * share
        self.put_back()
        return loss

    def put_back(self) -> None:
        """Leave the shard, wherever it is."""
        if self.samples:
            self.parameters.data[:] = self.start
            self.parameters.mark_modified()
            self.samples = 0
