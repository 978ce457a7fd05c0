"""Runs a program as a worker's process: `python -m karp.launch.worker_main PROGRAM ARGS…`.

The process leads a group of its own. It holds one end of a pipe whose other end only its launcher has (KARP_LEASH):
when that closes, the launcher is gone, however it went, and the whole group goes too.
"""

import os
import runpy
import signal
import sys
import threading


def follow(leash: int) -> None:
    """End this process and all it has started when the other end of the pipe is closed."""
    os.read(leash, 1)
    os.killpg(0, signal.SIGKILL)


def hear_interrupts() -> None:
    """Let SIGINT interrupt this process, too, if a shell has started it with `&`: such a process ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run(program: str, arguments: list[str]) -> None:
    """Run a Python file as the interpreter would have."""
    sys.argv = [program, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(program))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    if leash := os.environ.pop("KARP_LEASH", ""):
        threading.Thread(target=follow, args=[int(leash)], name="karp-leash", daemon=True).start()
    run(sys.argv[1], sys.argv[2:])
