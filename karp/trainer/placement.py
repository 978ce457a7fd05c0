"""The memory of a model's weights and gradients while it is trained.

In the loop the model reads its weights where the worker has them: in memory of its own, in a message, or in the
server's memory. Backward writes gradients to memory that the server can read, if there is some. Outside of the loop
both lie in the model's own memory.
"""

from karp.parameters import Parameters
from karp.protocol.tree import Vector
from karp.protocol.worker import Worker
from karp.trainer.link import Link


class Placement:
    """Binds a model's parameters to the memory in which its worker's weights and gradients lie."""

    def __init__(self, parameters: Parameters, worker: Worker) -> None:
        self.parameters = parameters
        self.worker = worker
        self._own = worker.weights  # the worker's own vector, in the loop a read-only view of it
        self._copies: tuple[Vector, ...] = ()  # the server's memory, in which the weights lie by turns
        self._gradients: Vector | None = None  # memory that the server reads; None: the model's own

    def make_read_only(self) -> None:
        """Make the model's weights read-only for the program, whose writes would be lost or reach other workers.

        `place_weights` puts that into force.
        """
        self._own = self.worker.weights.view()
        self._own.flags.writeable = False

    def place_weights(self) -> None:
        """Bind the model to the worker's current weights; graphs made before can no longer go backward."""
        worker, parameters = self.worker, self.parameters
        current = self._own if worker.current is worker.weights else worker.current
        if current is parameters.data:
            parameters.mark_modified()
        else:
            parameters.keep_weights_in(current)

    def follow(self, link: Link) -> None:
        """Have backward write gradients where the link wants them, and be ready for weights in its copies."""
        if link.copies is not self._copies:
            self._copies = link.copies
            self.parameters.prepare_bindings(self._copies)
        vector = link.gradients
        if vector is not self._gradients:
            self._gradients = vector
            self.parameters.keep_gradients_in(self.parameters.layout.zeros() if vector is None else vector)

    def restore_weights(self, link: Link | None) -> None:
        """Have the link copy the weights to memory of this process, and bind the model to them, writable again."""
        if link is not None:
            link.release_weights()
        self._own = self.worker.weights
        self.place_weights()
