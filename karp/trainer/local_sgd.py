"""Local SGD: a worker's local steps on the batches of one shard, and the contribution that they make.

A worker starts every shard of a step from the step's weights, with an optimiser state of zeros, takes one step of the
local optimiser on each of the shard's batches, and contributes the difference start - end, weighted by the shard's
share of the round's samples. For the server that is a gradient like any other; the outer optimiser applies it (DiLoCo:
Douillard et al., 2023; with rate 1 and no momentum the weights are averaged: McMahan et al., 2017). No state is carried
from one shard to the next, so the bits do not depend on which worker computes a shard.
"""

import numpy as np

from karp import optim
from karp.parameters import Parameters

OUTER_OPTIMIZER = optim.SGD(lr=0.7, momentum=0.9, nesterov=True)  # DiLoCo's


class LocalSteps:
    """Takes local steps on the weights of `parameters`, and restores the step's weights after each shard."""

    def __init__(self, optimizer: optim.Optimizer, parameters: Parameters) -> None:
        self.parameters = parameters
        self.start = parameters.layout.zeros()
        self.updater = optim.Updater(optimizer, parameters)
        self.losses = 0.0
        self.amount = 0.0  # samples of the shard's local steps, or their weights; at 0 the weights are the step's

    def take_step(self, loss: float, amount: float, batch: int) -> None:
        """Update the weights by the gradient and loss of one batch, means over `amount` samples (or their weights).

        `batch` is the number of the global batch, at which schedules and the optimiser's state begin with a new shard.
        """
        if self.amount == 0:
            self.start[:] = self.parameters.data
            self.losses = 0.0
            self.updater.restart(batch)
        self.updater.update(self.parameters.grad)
        self.losses += loss * amount
        self.amount += amount

    def finish_shard(self, share: float) -> float:
        """Write the contribution into the gradient, restore the weights, and return the mean loss times `share`."""
        gradient, weights = self.parameters.grad, self.parameters.data
        np.subtract(self.start, weights, out=gradient)
        gradient *= gradient.dtype.type(share)
        loss = self.losses / self.amount * share
        self.restore_weights()
        return loss

    def restore_weights(self) -> None:
        """Restore the step's weights, if local steps have been taken since: also in the middle of a shard."""
        if self.amount:
            self.parameters.data[:] = self.start
            self.parameters.mark_modified()
            self.amount = 0.0
