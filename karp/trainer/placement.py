"""Where a model's weights and gradients lie while it is trained.

In the loop the model reads its weights where the worker has them: in memory of its own, in a message, or in the
server's memory. Its gradients are written where the server can read them, if there is such a place. Outside of the loop
both are the model's own.
"""

from typing import Any

import numpy as np

from karp.parameters import Parameters
from karp.protocol.worker import Worker

Array = np.ndarray[Any, np.dtype[Any]]


class Placement:
    """Moves the values of these parameters to where this worker's weights and gradients lie."""

    def __init__(self, parameters: Parameters, worker: Worker) -> None:
        self.parameters = parameters
        self.worker = worker
        self._own = worker.weights  # as the model may see them
        self._gradients: Array | None = None  # memory shared with the server; None: the model's own

    def forbid_writing(self) -> None:
        """Have the model see its weights read-only: a program's writes would reach nobody, or everybody."""
        self._own = self.worker.weights.view()
        self._own.flags.writeable = False

    def place_weights(self) -> None:
        """Have the model read the weights that the worker has now: a graph of those before is stale."""
        worker, parameters = self.worker, self.parameters
        current = self._own if worker.current is worker.weights else worker.current
        if current is parameters.data:
            parameters.mark_modified()
        else:
            parameters.keep_weights_in(current)

    def place_gradients(self, vector: Array | None) -> None:
        """Have backward write into this vector; None: into one of the model's own."""
        if vector is not self._gradients:
            self._gradients = vector
            self.parameters.keep_gradients_in(self.parameters.layout.zeros() if vector is None else vector)

    def take_back(self) -> None:
        """Give the model weights of its own again, once the worker has them."""
        self._own = self.worker.weights
        self.place_weights()
