"""What stands on the nodes of a Ray cluster for a run: one actor for the server's process, one for each worker's.

An actor starts its process as a launcher does on its own host (processes.py). The process is the actor's child, as Ray
has no orderly end for actors: so a worker's process can be asked to end, has its own environment and its exit status.
When the actor is gone, however it ended, a pipe closes, and the process ends as one whose launcher is gone. An actor is
asked with `poll`, which answers when there is something to say.

A node may be cut off and live on. The driver then goes on without it, and so its processes must end: an actor that has
not been asked anything for SILENT_SECONDS kills its process. A server on another node begins when the lock of the run's
directory is free.

The launcher makes actors of these classes (ray.py).
"""

import hashlib
import os
import selectors
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from karp import __version__, environment
from karp.launch.processes import Child, ServerProcess, start_worker, stop
from karp.serve.config import Config
from karp.transport.listening import address_of, listen

SILENT_SECONDS = 30.0  # after which a driver that has asked nothing is gone
LOCK_SECONDS = 0.2  # between two looks at a lock
LOOK_SECONDS = 0.1  # between two looks at what a worker has printed


class Watchdog:
    """Calls `end` whenever `asked` has not been called for SILENT_SECONDS."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end
        self.last = time.monotonic()
        threading.Thread(target=self._watch, name="karp-watchdog", daemon=True).start()

    def asked(self) -> None:
        """Note that the driver is there."""
        self.last = time.monotonic()

    def _watch(self) -> None:
        while True:
            if (left := self.last + SILENT_SECONDS - time.monotonic()) > 0:
                time.sleep(left)
            else:
                self.last = time.monotonic()
                self.end()


class Ordered:
    """An actor whose `poll` waits beside its other calls, which are done one after the other, in their order.

    Ray's concurrency groups would do that, too, but its client does not know them.
    """

    def __init__(self) -> None:
        self._next = 0
        self._changed = threading.Condition()

    def do(self, number: int, method: str, *arguments: Any) -> Any:
        """Call a method of the actor, when all calls with lower numbers are done."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)
        try:
            return getattr(self, method)(*arguments)
        finally:
            with self._changed:
                self._next += 1
                self._changed.notify_all()


class WorkerActor(Ordered):
    """Runs the processes of one worker, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.watchdog = Watchdog(self.stop)
        self.folder = tempfile.TemporaryDirectory(prefix="karp-")
        self.leash, self.held = os.pipe()
        self.child: Child | None = None
        self.number = -1  # of the process that was started last
        self.printed: BinaryIO | None = None  # its output

    def look(self, program: str, folder: str, files: list[str]) -> tuple[str, str, str, bool, list[str]]:
        """Return the node's address, its karp and Python, and what it sees of the program, as its launcher knows it.

        That is the SHA-256 of its file, whether its folder is there, and which of these files are missing in that.
        Paths that are not absolute are in the working directory that Ray has sent.
        """
        missing = [file for file in files if not os.path.isfile(os.path.join(folder, file))]
        return node_address(), installed(), hash_of(Path(program)), os.path.isdir(folder), missing

    def start(
        self, number: int, worker: int, program: str, arguments: list[str], folder: str, variables: dict[str, str]
    ) -> int:
        """Start the process with this number, in place of the one before it; return its process number."""
        self.watchdog.asked()
        self.number = number  # what the process before it prints, and its end, are of no interest any more
        if self.child is not None:
            stop([self.child.process])
            self.child.close()
        log = Path(self.folder.name) / f"{number}.log"
        given = environment.of_child(variables)
        program = os.path.abspath(program)  # as it is not run from here, but from its folder
        self.child = start_worker(worker, program, arguments, given, log, self.leash, folder)
        if self.printed is not None:
            self.printed.close()
        self.printed = log.open("rb")
        return self.child.process.pid

    def poll(self, number: int, seconds: float) -> tuple[bytes, int | None]:
        """Return what the process with this number has printed since, and its exit status, None while it runs.

        Waits for that at most so many seconds. Another number is that of a process that is gone (-9).
        """
        self.watchdog.asked()
        until = time.monotonic() + seconds
        while self.child is not None and self.printed is not None and number == self.number:
            status = self.child.process.poll()
            printed = self.printed.read()
            if printed or status is not None or time.monotonic() >= until:
                return printed, status
            wait_for(self.child.end, LOOK_SECONDS)
        return b"", -9

    def stop(self) -> None:
        """End the process: first by SIGTERM, then by SIGKILL."""
        if self.child is not None:
            stop([self.child.process])


class ServerActor(Ordered):
    """Runs the server's process, and starts it again at the same address."""

    def __init__(self) -> None:
        super().__init__()
        self.server: ServerProcess | None = None
        self.watchdog = Watchdog(self.kill)

    def look(self, file: str) -> tuple[str, str, str]:
        """Return the node's address, its karp and Python, and a file's SHA-256."""
        return node_address(), installed(), hash_of(Path(file))

    def listen(self) -> str:
        """Listen for workers at the node's address; return it with the port."""
        self.listener = listen(node_address())
        return address_of(self.listener)

    def start(self, config: list[object], variables: dict[str, str], moved: bool) -> int:
        """Start the server's process; return its process number. `config` are the fields of a Config.

        If it has `moved` here from a node that may live on, the lock of the run's directory is waited for.
        """
        self.watchdog.asked()
        self.kill()
        given = Config(*config)._replace(descriptor=self.listener.fileno())  # type: ignore[arg-type]
        if moved:
            wait_until_unlocked(Path(given.run_dir) / "metrics.jsonl", 2 * SILENT_SECONDS)
            self.watchdog.asked()
        log = Path(given.run_dir) / "logs" / "server.log"
        self.server = ServerProcess(given, environment.of_child(variables), log)
        return self.server.process.pid

    def kill(self) -> None:
        """Kill the server's process."""
        if self.server is not None:
            self.server.kill()

    def tell(self, command: dict[str, object]) -> None:
        """Send the server a command; if it is gone, do nothing."""
        if self.server is not None:
            self.server.tell(**command)

    def poll(self, seconds: float) -> tuple[list[bytes], int | None]:
        """Return the lines of the server's new reports, and its exit status, None while it runs.

        Waits for them at most so many seconds.
        """
        self.watchdog.asked()
        if self.server is None or self.server.released:  # another is about to be started
            time.sleep(LOOK_SECONDS)
            return [], None
        try:
            return self.server.read(seconds), None
        except EOFError:
            return [], self.server.wait_for_end()


def wait_until_unlocked(file: Path, seconds: float) -> None:
    """Wait until no server holds the lock of a run's directory, at most so many seconds; then the next one says it."""
    import fcntl

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with file.open("ab") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        except BlockingIOError:
            time.sleep(LOCK_SECONDS)
        except OSError:  # this file system has no locks
            return


def node_address() -> str:
    """Return the address of the node that this process runs on."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())  # type: ignore[no-untyped-call]


def installed() -> str:
    """Return which karp and Python this process has."""
    return f"karp {__version__}, Python {sys.version_info.major}.{sys.version_info.minor}"


def hash_of(file: Path) -> str:
    """Return the hex SHA-256 of a file; '' if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def wait_for(descriptor: int, seconds: float) -> None:
    """Wait until a descriptor is readable, at most so many seconds; -1 stands for none."""
    with selectors.DefaultSelector() as selector:
        if descriptor >= 0:
            selector.register(descriptor, selectors.EVENT_READ)
        selector.select(seconds)
