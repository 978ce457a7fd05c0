"""The link between a worker and its server: over a network, or by direct calls within one process."""

import os
from pathlib import Path
from typing import Protocol

from karp import environment
from karp.errors import SettingError
from karp.monitor import streams
from karp.optim import OptimizerState
from karp.parameters import Layout
from karp.protocol.messages import FromServer, FromWorker, Lease
from karp.protocol.tree import Node, Vector
from karp.protocol.worker import Worker
from karp.record.launched import Launched
from karp.record.paths import fresh_directory
from karp.trainer.inputs import program_name


class Link(Protocol):
    """The protocol of a connection to the server, or to what takes its place."""

    address: str
    diagnosis: str  # why no message has come, as far as it is known; `receive` updates it

    @property
    def gradients(self) -> Vector | None:
        """A vector to write gradients to that is then sent without a copy; None if there is none."""

    @property
    def copies(self) -> tuple[Vector, ...]:
        """The vectors in which the weights lie by turns; () if they always come in others."""

    @property
    def overtaken(self) -> bool:
        """Whether the weights have changed since the worker began to compute on them."""

    def release_weights(self) -> None:
        """Copy the worker's current weights to its own vector, so that the worker needs none of the server's memory."""

    def try_apply(self, lease: Lease, node: Node, weight: float) -> bool:
        """Have the lease's step end in its range, move the lease on to the next step, and return True.

        If the step does not, return False: then a contribution has to be sent. `node` is the sum over the lease,
        `weight` that of the step's sample weights, 0 where samples have none.
        """

    def send(self, message: FromWorker, incarnation: int) -> None: ...

    def receive(self, seconds: float) -> tuple[FromServer, int] | None: ...

    def close(self, status: int) -> None: ...


def connect(
    worker: Worker,
    layout: Layout,
    sample_weights: Vector | None,
    run_dir: str | os.PathLike[str] | None,
    record: bool,
    show: bool,
    optimizer_state: OptimizerState | None,
    launched: tuple[Launched, str] | None,
) -> Link:
    """Return the link to a recorded run, to the launcher's server, or to a server's machine in this process.

    The environment says which of them. In the last case `launched` says how a launcher could resume the run, and
    without `record` the run leaves no files: then a directory is a SettingError. Raises what opening the record, or the
    server's address and keys, raises. An optimiser's state of another training can only go on in this process.
    """
    streams.open_standard_descriptors()
    if optimizer_state is not None and (environment.read(environment.REPLAY) or environment.read(environment.SERVER)):
        raise SettingError("optimizer_state is for a training in one process, and this program was launched: leave it")
    if recorded := environment.read(environment.REPLAY):
        from karp.trainer.replay import ReplayLink

        return ReplayLink(Path(recorded), sample_weights)
    directory = environment.given_directory(run_dir)
    if address := environment.read(environment.SERVER):
        from karp.transport.frames import ANY_RUN
        from karp.transport.keys import Keys
        from karp.transport.worker_end import WorkerEnd
        from karp.transport.zeromq_worker import WorkerSocket

        keys = environment.read(environment.KEYS)
        known = Keys.from_text(keys, environment.KEYS).for_worker() if keys else None
        socket = WorkerSocket(address, environment.read(environment.RUN) or ANY_RUN, known)
        return WorkerEnd(socket, worker, layout)
    from karp.serve.in_process import LocalLink

    environment.take(environment.RUN_DIR)
    name = program_name()
    if not record and directory is not None:
        given = "run_dir" if run_dir is not None else environment.RUN_DIR
        raise SettingError(f"record is False, so {given} {str(directory)!r} would hold no files: leave out one of them")
    return LocalLink(directory or fresh_directory(name) if record else None, name, show, launched, optimizer_state)
