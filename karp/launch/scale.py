"""`karp scale`: ask the launcher of a run that is under way for fewer or more workers, by way of its server."""

import time
from pathlib import Path

import zmq

from karp.checks import whole
from karp.errors import LostError, ProtocolError, RefusedError, SettingError
from karp.launch.credentials import resolve
from karp.launch.options import WORKERS
from karp.protocol.messages import Refusal, Scale, Waiting
from karp.record.server_address import published
from karp.transport import keys
from karp.transport.frames import ANY_RUN
from karp.transport.zeromq_worker import WorkerSocket

ANSWER_SECONDS = 10.0  # for the server to answer
ASK_SECONDS = 1.0  # between two questions


def scale(server: str | None, run_dir: str | None, keys_dir: str | None, workers: int) -> None:
    """Ask for so many workers, in the run in a directory or at a server's address; return when the server has heard it.

    Raises SettingError for arguments that cannot be used, DataError if no run is under way in the directory,
    RefusedError if the run's workers are not the launcher's or it does not train, LostError if no server answers.
    """
    whole("the number of workers", workers, 1, WORKERS - 1)
    if (server is None) == (run_dir is None):
        raise SettingError("karp scale needs the server's ADDRESS or --run-dir DIR, and not both")
    run, known = ANY_RUN, None
    if run_dir is not None:
        server, run, text = published(Path(run_dir))
        known = keys.Keys.from_text(text, str(run_dir)) if text else None
    if keys_dir is not None:
        known = keys.read(Path(keys_dir)).for_worker()
    assert server is not None
    resolve(server, "ADDRESS")
    socket = WorkerSocket(server, run, known)
    try:
        _ask(socket, workers)
    finally:
        socket.close()


def _ask(socket: WorkerSocket, workers: int) -> None:
    """Ask until the server answers; asked twice, it does nothing more."""
    began, diagnosis = time.monotonic(), ""
    while time.monotonic() - began < ANSWER_SECONDS:
        socket.send(Scale(workers), 0)
        if socket.socket.poll(int(ASK_SECONDS * 1000), zmq.POLLIN):
            match socket.receive()[0]:
                case Refusal(reason):
                    raise RefusedError(f"the server refused: {reason}")
                case Waiting():
                    return
                case other:
                    raise ProtocolError(f"the server at {socket.address} has answered {type(other).__name__}")
        diagnosis = socket.connection.diagnose(True)
    known = f": {diagnosis}" if diagnosis else ""
    raise LostError(f"no server has answered at {socket.address} for {ANSWER_SECONDS:.0f} s{known}; is its run over?")
