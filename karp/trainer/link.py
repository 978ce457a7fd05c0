"""How a worker's messages reach the server and its answers come back: over a wire, or called directly."""

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from karp import environment
from karp.errors import SettingError
from karp.monitor import streams
from karp.parameters import Layout
from karp.protocol.messages import FromServer, FromWorker, Lease
from karp.protocol.tree import Node
from karp.protocol.worker import Worker
from karp.record.launched import Launched
from karp.record.paths import fresh_directory
from karp.trainer.inputs import program_name

Array = np.ndarray[Any, np.dtype[Any]]


class Link(Protocol):
    """What a Trainer needs of the way to its server."""

    address: str
    diagnosis: str  # why no message has come, as far as it is known; `receive` updates it

    @property
    def gradients(self) -> Array | None:
        """Where gradients may be written so that they need not be copied; None if nowhere."""

    @property
    def overtaken(self) -> bool:
        """Whether the weights have changed while the worker computed on them."""

    def settle(self) -> None:
        """Give the worker weights of its own."""

    def at_once(self, lease: Lease, node: Node) -> bool:
        """Whether the server has taken the sum over the lease's whole step, and moved the lease on to the next one."""

    def send(self, message: FromWorker, incarnation: int) -> None: ...

    def receive(self, seconds: float) -> tuple[FromServer, int] | None: ...

    def close(self, status: int) -> None: ...


def connect(
    worker: Worker,
    layout: Layout,
    run_dir: str | os.PathLike[str] | None,
    record: bool,
    show: bool,
    launched: tuple[Launched, str] | None,
) -> Link:
    """Return the link of this process: to a recorded run, the launcher's server, or a server's machine of its own.

    In the last case `launched` says how a launcher could go on with the run, and without `record` it leaves no files.
    Raises SettingError where the run is then given a directory.
    """
    streams.open_closed()
    if recorded := environment.read(environment.REPLAY):
        from karp.trainer.replay import ReplayLink

        return ReplayLink(Path(recorded))
    directory = environment.given_directory(run_dir)
    if address := environment.read(environment.SERVER):
        from karp.transport.frames import ANY_RUN
        from karp.transport.keys import Keys
        from karp.transport.zeromq_worker import WorkerSocket

        keys = environment.read(environment.KEYS)
        known = Keys.from_text(keys, environment.KEYS).for_worker() if keys else None
        return WorkerSocket(address, environment.read(environment.RUN) or ANY_RUN, worker, layout, known)
    from karp.serve.in_process import LocalLink

    environment.take(environment.RUN_DIR)
    name = program_name()
    if not record and directory is not None:
        given = "run_dir" if run_dir is not None else environment.RUN_DIR
        raise SettingError(f"record is False, so {given} {str(directory)!r} would hold no files: leave out one of them")
    return LocalLink(directory or fresh_directory(name) if record else None, name, show, launched)
