"""Launching karp's own program from any process: a script, a session, a notebook.

Theory of operation. The launcher is a child process in a process group of its own, so that Ctrl-C reaches this process
alone, which passes it on once; a second one kills. The child's standard input is a pipe of which this process has the
other end: when that closes, however this process ends, the child stops its run.
"""

from __future__ import annotations

import io
import os
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

_MAIN = f"import sys; sys.path.insert(0, {SITE!r}); import karp; del sys.path[0]; " \
        "from karp.tabular.launching import main; sys.exit(main())"  # fmt: skip


def launch(workers: int, directory: Path, program: list[str], stream: TextIO | None) -> None:
    """Launch a program with its arguments, and wait for its end; `stream` gets what the launcher says.

    Raises RunError if the run fails, KeyboardInterrupt, with all processes ended, if it is interrupted.
    """
    inherited = is_standard_error(stream)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _MAIN, str(workers), str(directory), *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # the program's: it says what this process can see for itself
        stderr=None if inherited else subprocess.PIPE,
        env=environment.of_child({} if inherited else {"PYTHONIOENCODING": "utf-8"}, environment.FAULT),
        process_group=0,
    )
    lines = None if process.stderr is None else io.TextIOWrapper(process.stderr, "utf-8", "replace")
    interrupted = False
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
        except KeyboardInterrupt:
            kill_group(process, signal.SIGKILL if interrupted else signal.SIGINT)
            interrupted = True
    for pipe in (process.stdin, lines):
        if pipe is not None:
            pipe.close()
    if interrupted:
        raise KeyboardInterrupt
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

    workers, directory, program, *arguments = sys.argv[1:]
    threading.Thread(target=_stop_with_parent, name="karp-leash", daemon=True).start()
    with streams.command():
        return start.launch(Options(program, arguments, int(workers)), directory, FitDisplay(sys.stderr))


def _stop_with_parent() -> None:
    """Stop this process in good order once the other end of its standard input is closed."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
