"""The program of this process, if it is one that a launcher could run again."""

import os
import sys

from karp import environment
from karp.record.launched import Launched
from karp.trainer.inputs import program_file


def launched(threads: int) -> tuple[Launched, str] | None:
    """Return how a launcher would run this process's program, and in which directory; None if a launcher cannot.

    That is so in a session, in a notebook and with `python -c`, where there is no file, and in a child that
    `multiprocessing` has started: its file is that of its parent, which does something else.
    """
    file = program_file()
    if file is None or not is_script() or is_child():
        return None
    try:
        path = os.path.abspath(file)
        cwd = started_in(path)
    except OSError:  # the current directory is gone
        return None
    launched = Launched(path, [str(argument) for argument in sys.argv[1:]], 1, threads)
    launched = launched._replace(kernels=environment.read(environment.KERNELS))
    return launched.with_consistency(environment.given_consistency()), cwd


def is_script() -> bool:
    """Return whether this process ends with its program, unlike a session or a notebook, which read statements."""
    return not hasattr(sys, "ps1")


def is_child() -> bool:
    """Return whether `multiprocessing` has started this process."""
    module = sys.modules.get("multiprocessing")
    return module is not None and module.parent_process() is not None


def started_in(file: str) -> str:
    """Return the directory in which this process began, as far as its program's name tells; else the current one."""
    name = sys.argv[0] if sys.argv else ""
    if name and not os.path.isabs(name) and file.endswith(os.sep + name):
        return file[: -len(name) - 1] or os.sep
    return os.getcwd()
