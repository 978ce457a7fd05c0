"""Launching karp's own program from any process: a script, a session, a notebook.

Theory of operation. The launcher is a child process in a process group of its own, so that Ctrl-C reaches this process
alone, which passes it on once; a second one kills. The child's standard input is a pipe of which this process has the
other end: when that closes, however this process ends, the child stops its run, and removes the run's directory
unless it is to be kept.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TextIO

from karp import environment
from karp.errors import RunError
from karp.launch.processes import SITE, TAIL_LINES, kill_group
from karp.monitor import streams
from karp.monitor.status_line import is_notebook
from karp.trainer.interrupts import Terminated

_KEPT, _NOTEBOOK = "kept", "notebook"
_MAIN = f"import sys; sys.path.insert(0, {SITE!r}); import karp; del sys.path[0]; " \
        "from karp.tabular.launching import main; sys.exit(main())"  # fmt: skip


def launch(workers: int, directory: Path, program: list[str], stream: TextIO | None, *, kept: bool) -> None:
    """Launch a program with its arguments, and wait for its end; `stream` gets what the launcher says.

    `kept` says whether the directory is for the user, or gone when this process has ended. Raises RunError if the run
    fails; an interrupt goes on when all processes have ended.
    """
    inherited = is_standard_error(stream)
    process = subprocess.Popen(
        [
            sys.executable, "-P", "-c", _MAIN, str(workers), _KEPT * kept, _NOTEBOOK * is_notebook(stream),
            str(directory), *program,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # the program's: it says what this process can see for itself
        stderr=None if inherited else subprocess.PIPE,
        env=environment.of_child(
            {} if inherited else {"PYTHONIOENCODING": "utf-8"}, environment.FAULT, environment.KERNELS
        ),
        process_group=0,
    )
    lines = None if process.stderr is None else io.TextIOWrapper(process.stderr, "utf-8", "replace", newline="")
    interrupt: BaseException | None = None
    last: deque[str] = deque(maxlen=TAIL_LINES)
    while True:
        try:
            for line in lines or ():
                last.append(line)
                if stream is not None:
                    stream.write(line)
                    stream.flush()
            process.wait()
            break
        except (KeyboardInterrupt, Terminated) as error:
            kill_group(process, signal.SIGINT if interrupt is None else signal.SIGKILL)
            interrupt = error
    for pipe in (process.stdin, lines):
        if pipe is not None:
            pipe.close()
    if interrupt is not None:
        raise interrupt
    if process.returncode:
        said = "see what it says above" if stream is not None else "".join(last).strip()
        raise RunError(f"the run in {directory} has failed: {said}")


def is_standard_error(stream: TextIO | None) -> bool:
    """Return whether a stream writes to the standard error that a child process inherits."""
    own = sys.__stderr__
    try:
        return own is not None and stream is own and own.fileno() == streams.ERRORS
    except (OSError, ValueError):  # it is closed, or has no descriptor
        return False


def main() -> int:
    """Launch what this process's arguments name, until the run or standard input ends; return the exit status."""
    from karp.launch import start
    from karp.launch.options import Options
    from karp.tabular.display import FitDisplay

    workers, kept, notebook, directory, program, *arguments = sys.argv[1:]
    orphaned = threading.Event()
    threading.Thread(target=_stop_with_parent, args=[orphaned], name="karp-leash", daemon=True).start()
    with streams.command():
        display = FitDisplay(sys.stderr, kept=bool(kept), notebook=bool(notebook))
        try:
            options = Options(program, arguments, int(workers), kernels=environment.read(environment.KERNELS))
            return start.launch(options, directory, display)
        finally:
            if orphaned.is_set() and not kept:
                shutil.rmtree(directory, ignore_errors=True)


def _stop_with_parent(orphaned: threading.Event) -> None:
    """Stop this process in good order once the other end of its standard input is closed."""
    os.read(0, 1)
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)
