"""Runs a program as the interpreter would: as the main module of its process, and with nothing of karp's to be seen.

    sys.argv[0]   as it was given                       __file__   absolute, a symbolic link not followed
    sys.path[0]   the folder of the file behind a       __main__   is the program's, from its first line until the last
                  link; untouched under `python -P`                handler at exit has run

A folder or an archive with a `__main__.py` is a program too.
"""

import builtins
import os
import signal
import sys
import threading
from importlib.machinery import ModuleSpec, SourceFileLoader, SourcelessFileLoader
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from karp import environment
from karp.errors import KarpError, LostError, RefusedError, RunError


class Source(SourceFileLoader):
    """Reads a program; unlike a module's, its code is kept in no file, which might be another's of the same second."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def exists(path: str) -> bool:
    """Return whether there is a program at this path."""
    return path != "" and (os.path.isfile(path) or os.path.isfile(os.path.join(path, "__main__.py")))


def run(path: str, arguments: list[str], *raised: type[BaseException]) -> None:
    """Run a program in the place of this process's main module; exceptions of these types are raised.

    All others end the process, as the interpreter would.
    """
    main = sys.modules["__main__"]
    sys.argv[:] = [path, *arguments]
    spec = spec_in(path)
    file = absolute(path)
    loader: Any
    reader: Any = None
    if spec is not None:
        sys.path.insert(0, file)
        file, loader = spec.origin or file, spec.loader
    else:
        if not sys.flags.safe_path:
            sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
        if file.endswith(".pyc"):
            loader = SourcelessFileLoader("__main__", file)
        else:
            loader, reader = SourceFileLoader("__main__", file), Source("__main__", file)
    become(main, loader, file, spec)
    try:
        (reader or loader).exec_module(main)
    except BaseException as error:
        if isinstance(error, (SystemExit, KeyboardInterrupt, *raised)):
            raise
        fail(error, vars(main), file)


def spec_in(path: str) -> ModuleSpec | None:
    """Return where the main module of a folder or an archive is; None for any other file."""
    for hook in sys.path_hooks:
        try:
            finder = hook(absolute(path))
        except ImportError:
            continue
        return finder.find_spec("__main__")
    return None


def absolute(path: str) -> str:
    """Return a path as the interpreter makes it absolute: without a look at its parts."""
    try:
        return os.getcwd() if path == "." else os.path.join(os.getcwd(), path)
    except OSError:  # the folder is gone
        return path


def become(main: ModuleType, loader: Any, file: str | None, spec: ModuleSpec | None) -> None:
    """Give a module the namespace in which the interpreter would run this file."""
    namespace = vars(main)
    annotated = "__annotations__" in namespace  # not in every Python
    namespace.clear()
    namespace.update(
        __name__="__main__",
        __doc__=None,
        __package__=None if spec is None else "",
        __loader__=loader,
        __spec__=spec,
        **({"__annotations__": {}} if annotated else {}),
        __builtins__=builtins,
        __file__=file,
        __cached__=None if spec is None else spec.cached,
    )


def fail(error: BaseException, namespace: dict[str, Any], file: str) -> NoReturn:
    """End as the interpreter does on an exception of the program, whose traceback begins in the program."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals is not namespace:
        trace = trace.tb_next
    error.__traceback__ = trace
    if trace is None and getattr(error, "filename", None) is None:  # it has not begun, and the error says not where
        error.add_note(f"in {file}")
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    sys.excepthook(type(error), error, trace)
    sys.exit(1)


def hear_interrupts() -> None:
    """Let SIGINT interrupt this process, too, if a shell has started it with `&`: such a process ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def follow(leash: int) -> None:
    """End this process and all it has started when the other end of the pipe is closed."""
    os.read(leash, 1)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the program that this process's arguments name; its launcher, if any, holds the other end of a leash."""
    leash = environment.read(environment.LEASH)
    if leash:
        threading.Thread(target=follow, args=[int(leash)], name="karp-leash", daemon=True).start()
        run(sys.argv[1], sys.argv[2:])
        return
    try:  # somebody at a terminal has started it, and reads what it says
        if environment.read(environment.REPLAY):  # what it prints is part of a command's output, and no more than that
            from karp.monitor import streams

            with streams.command():
                run(sys.argv[1], sys.argv[2:], RefusedError)
        else:
            hear_interrupts()
            run(sys.argv[1], sys.argv[2:], RefusedError, LostError, RunError)
    except KeyboardInterrupt:
        sys.exit(130)
    except KarpError as error:
        print(f"karp: {error}", file=sys.stderr)
        sys.exit(2)
