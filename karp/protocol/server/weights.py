"""The weights of a run: their memory, who may read them when, and their updates. This file knows no worker.

    in one process            `vector` is the model's own; the program reads it in its loop, and an update changes it
                              between two batches
    over frames               `vector` is the server's; each lease carries a copy (or an encoded form) to its worker
    in shared memory          the weights lie in memory of the server in two copies (`karp.protocol.ranges`): workers of
                              this host compute on one, an update writes the other. Workers may write, too: then
                              `advance` says which version is the current one

The sums of open steps' gradients are kept beside it, in one tree for each step. A contribution's vectors may be
borrowed: they lie in memory that its worker writes to again once it has the next lease, so `copy_borrowed` is called
before that. When a step is complete and its sum is finite, the optimiser updates the weights and `version` is increased
by one; nothing else changes the weights, but that a run which keeps its best epoch ends with that epoch's.

In an asynchronous run each shard's gradient is an update of its own, on arrival. It keeps the weight of its share of
the step. So it is SGD whose batch is a shard and whose rate is smaller by the same factor (the linear scaling rule of
Goyal et al., 2017): an epoch moves the weights as far as in a synchronous run, and the rate need not be tuned again. If
each were weighted as a mean over its own samples instead, digits with momentum 0.9 and 3 workers would end at chance.
Momentum and schedules count these smaller updates.
"""

import math
from collections.abc import Mapping

from karp import codecs
from karp.errors import ProtocolError, SettingError
from karp.optim import OptimizerState, Updater
from karp.protocol.ranges import Copies, Memory, state_names
from karp.protocol.server.ledger import Step
from karp.protocol.settings import Settings
from karp.protocol.tree import Node, TreeSum, Vector
from karp.protocol.vectors import VectorSpec, is_finite, no_overflow


class Weights:
    """The weights of a run with these settings, and the sums that will change them.

    Args:
        settings: those of the run.
        memory: the memory for the weights, if other processes read them; None for memory of this process.
    """

    def __init__(self, settings: Settings, memory: Memory | None) -> None:
        self.settings = settings
        self.spec = VectorSpec(settings)
        self.encoded = settings.codec_weights is not None  # whether leases carry encoded weights
        plain = settings.staleness == 0 and settings.codec is None and not self.encoded
        self.whole_step_sum = plain and settings.local_steps == 1  # whether an update needs only a step's sum
        # With staleness the weights would change while a worker reads them; with a codec a worker needs decoded ones.
        self.memory = memory if plain else None
        self.shared: Copies | None = None  # in shared memory
        self._allocate()
        self.updater: Updater | None = None  # of the current version; None until the weights are known
        self.initial_state: OptimizerState | None = None  # of another training, in one process; None: zeros
        self.vector: Vector  # the weights, once they are known
        # The number of updates applied; unless the run is asynchronous, that of steps. The updater counts the same, but
        # it is asked for several times with each contribution, before there is an updater, too.
        self.version = 0
        self._outgoing: tuple[int, Vector | None] = (-1, None)  # the encoded weights of a version
        self.sums: dict[int, TreeSum] = {}  # open step -> the sums of its gradients
        self.may_overflow: set[int] = set()  # open steps whose sum may not be finite though every gradient is
        self.of_epochs: dict[int, Vector] = {}  # epoch -> a copy of its weights, for the evaluation that is due
        self.best: Vector | None = None  # the copy of the best epoch so far, if the run keeps it

    @property
    def known(self) -> bool:
        """Whether the initial weights have arrived."""
        return self.updater is not None

    @property
    def borrowed(self) -> bool:
        """Whether a worker's weights are not `vector` itself but decoded ones, or shared memory that changes."""
        return self.encoded or self.memory is not None

    def start_from(self, vector: Vector) -> None:
        """Start from the initial weights; raises ProtocolError if they are not those that the settings name."""
        layout = self.settings.layout
        self.spec.check_weights("the initial weights", vector)
        if layout.sha256(vector) != self.settings.weights_sha256:
            raise ProtocolError("the initial weights are not those that the settings name")
        differ = self.encoded or self.settings.local_steps > 1  # a worker's weights differ from the server's
        vectors, age = self.initial_state or (None, 0)
        if self.shared is None and vector.flags.writeable and not differ:  # in one process: the model's vector
            self.vector, self.updater = vector, Updater(self.settings.applied, vector, vectors, 0, age)
        elif vectors is not None:
            raise SettingError("optimizer_state does not go with codec_weights or local_steps: leave it out")
        else:
            self._fill(0, vector)

    def copies(self) -> dict[str, Vector]:
        """Return copies of all vectors that a checkpoint holds, by name."""
        assert self.updater is not None
        state = {f"state.{name}": vector.copy() for name, vector in self.updater.state.items()}
        due = {f"evaluation.{epoch}": vector for epoch, vector in self.of_epochs.items()}  # these never change
        best = {} if self.best is None else {"best": self.best}
        return {"weights": self.vector.copy()} | state | due | best

    def restore(self, vectors: Mapping[str, Vector], version: int) -> None:
        """Restore weights and optimiser state from the vectors of a checkpoint, which `copies` has named."""
        state = {name[6:]: vector for name, vector in vectors.items() if name.startswith("state.")}
        self._fill(version, vectors["weights"], state)
        due = {name[11:]: vector for name, vector in vectors.items() if name.startswith("evaluation.")}
        self.of_epochs = {int(epoch): vector for epoch, vector in due.items()}
        self.best = vectors.get("best")

    def _allocate(self) -> None:
        """Allocate two copies in shared memory; if there is no memory for them, have none."""
        optimizer, self.shared = self.settings.applied, None
        if self.memory is not None:
            vectors = self.memory.allocate(self.settings.layout, 1 + len(state_names(optimizer)))
            if vectors is None:
                self.memory = None
            else:
                self.shared = Copies(optimizer, vectors, self.memory.board)

    def _fill(self, version: int, weights: Vector, state: Mapping[str, Vector] | None = None) -> None:
        """Copy weights and optimiser state (None: zeros) of this version to shared memory, or to new vectors.

        Raises SettingError or ShapeError for a state that is not that of the optimiser.
        """
        layout, self.version = self.settings.layout, version
        if self.shared is None:
            own = None if state is None else {name: vector.copy() for name, vector in state.items()}
            self.vector = layout.zeros()
            self.vector[:] = weights
            self.updater = Updater(self.settings.applied, self.vector, own, version)
        else:
            self.shared.fill(version, weights, state)
            self.advance(version)

    def advance(self, version: int) -> None:
        """Make this version the current one, as workers have made it in shared memory; in one process it is already."""
        if self.shared is not None:
            self.updater = self.shared.at(version)
            self.updater.version = self.version = version
            self.vector = self.updater.weights

    def leave_memory(self) -> None:
        """Copy weights and state to other memory, as a process that has stopped may yet write to this one."""
        assert self.updater is not None
        weights, state = self.vector, dict(self.updater.state)
        self._allocate()
        self._fill(self.version, weights, state)

    def finite(self, node: Node, step: Step, checked: bool | None) -> bool:
        """Return whether loss and gradient of a node are finite; False if there is no vector.

        With `checked` the sender has found that no sum of the vector can overflow, so this is not computed again. If a
        sum may overflow, the step is noted in `may_overflow`.
        """
        if node.vector is None or not math.isfinite(node.loss):
            return False
        if checked or no_overflow(node.vector):
            return True
        if not is_finite(node.vector):
            return False
        self.may_overflow.add(step.number)
        return True

    def add(self, node: Node, step: Step) -> None:
        """Add a node that the ledger has entered to the sums of its step; one without a vector is a shard left out."""
        tree = self.sums.get(step.number)
        if tree is None:
            tree = self.sums[step.number] = TreeSum(step.shards, defer_last_join=True)
        tree.add(node)

    def copy_borrowed(self, vector: Vector) -> None:
        """Copy the nodes whose vector is this one, as its owner is going to write to it again."""
        for tree in self.sums.values():
            for start, node in tree.nodes.items():
                if node.vector is vector:
                    tree.nodes[start] = node._replace(vector=vector.copy())

    def apply(self, step: Step, scale: float) -> float | None:
        """Update the weights by the sum of a complete step; return its loss.

        If the sum is not finite, or there is none, return None and leave the weights alone. `scale` compensates for
        shards that are left out: it is the weight of the whole step divided by that of the shards in the sum.
        """
        tree = self.sums.pop(step.number)
        if step.left_out or step.number in self.may_overflow:
            self.may_overflow.discard(step.number)
            total = tree.total()
            if total.vector is None:
                return None
            loss, vectors = total.loss * scale, [total.vector * self.spec.dtype.type(scale)]
            if not is_finite(vectors[0]):
                return None
        else:
            loss, vectors = 0.0, []
            for node in tree.nodes.values():
                assert node.vector is not None
                loss += node.loss
                vectors.append(node.vector)
        self.update(*vectors)
        return loss

    def update(self, *gradient: Vector) -> None:
        """Update the weights by a gradient, or by the sum of two."""
        assert self.updater is not None
        if self.shared is None:
            self.updater.update(*gradient)
            self.version += 1
        else:
            self.shared.update(self.version, *gradient)
            self.shared.make_current(self.version + 1)
            self.advance(self.version + 1)

    def use_best(self) -> None:
        """Replace the weights by those of the best epoch, as training is over; doing so again changes nothing."""
        assert self.best is not None
        if self.shared is not None:
            self.shared.begin_write(self.version)
        self.vector[:] = self.best
        if self.shared is not None:
            self.shared.end_write(self.version)

    def forget_sums(self, open_steps: Mapping[int, Step]) -> None:
        """Drop the sums of steps that are no longer open."""
        if self.sums.keys() - open_steps.keys():
            self.sums = {number: tree for number, tree in self.sums.items() if number in open_steps}
            self.may_overflow &= open_steps.keys()

    def outgoing(self) -> Vector:
        """Return the weights as a lease carries them: `vector` itself, or its encoded form, made once per version."""
        codec = self.settings.codec_weights
        if codec is None:
            return self.vector
        if self._outgoing[0] != self.version or self._outgoing[1] is None:
            self._outgoing = self.version, codecs.encode(codec, self.vector)
        assert self._outgoing[1] is not None
        return self._outgoing[1]
