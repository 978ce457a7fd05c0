"""Running a program as the interpreter would: as the main module of its process, without a trace of karp.

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
    """Loads a program from its source, never from a cached .pyc, which misses a change within the same second."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def exists(path: str) -> bool:
    """Return whether there is a program at this path."""
    return path != "" and (os.path.isfile(path) or os.path.isfile(os.path.join(path, "__main__.py")))


def run(path: str, arguments: list[str], *raised: type[BaseException]) -> None:
    """Run a program in the place of this process's main module.

    SystemExit, KeyboardInterrupt and exceptions of the types `raised` are raised. Any other ends the process with a
    traceback and status 1, as the interpreter would.
    """
    main = sys.modules["__main__"]
    sys.argv[:] = [path, *arguments]
    spec = find_main(path)
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
    set_namespace(main, loader, file, spec)
    try:
        (reader or loader).exec_module(main)
    except BaseException as error:
        if isinstance(error, (SystemExit, KeyboardInterrupt, *raised)):
            raise
        fail(error, vars(main), file)


def find_main(path: str) -> ModuleSpec | None:
    """Return the spec of the main module in a folder or an archive; None for any other file."""
    for hook in sys.path_hooks:
        try:
            finder = hook(absolute(path))
        except ImportError:
            continue
        return finder.find_spec("__main__")
    return None


def absolute(path: str) -> str:
    """Return a path as the interpreter makes it absolute: after the current directory, with `..` and links kept.

    If the current directory is gone, return the path as it is.
    """
    try:
        return os.getcwd() if path == "." else os.path.join(os.getcwd(), path)
    except OSError:  # the folder is gone
        return path


def set_namespace(main: ModuleType, loader: Any, file: str | None, spec: ModuleSpec | None) -> None:
    """Replace a module's namespace by the one in which the interpreter would run this file."""
    namespace = vars(main)
    annotated = "__annotations__" in namespace  # only some versions of Python have it there
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
    """End the process as the interpreter does on an exception; the traceback begins in the program."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals is not namespace:
        trace = trace.tb_next
    error.__traceback__ = trace
    if trace is None and getattr(error, "filename", None) is None:  # the program had not begun: name its file
        error.add_note(f"in {file}")
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    sys.excepthook(type(error), error, trace)
    sys.exit(1)


def restore_sigint() -> None:
    """Let SIGINT interrupt this process even if a shell has started it with `&`, which makes it ignore the signal."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def die_with_launcher(leash: int) -> None:
    """Kill this process and all it has started when the other end of the pipe `leash` is closed."""
    os.read(leash, 1)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the program that this process's arguments name; with a launcher, die when the launcher ends.

    Without a launcher a RefusedError, and except in a replay a LostError or RunError, is printed without a traceback,
    and the exit status is 2.
    """
    leash = environment.read(environment.LEASH)
    if leash:
        threading.Thread(target=die_with_launcher, args=[int(leash)], name="karp-leash", daemon=True).start()
        run(sys.argv[1], sys.argv[2:])
        return
    try:  # without a launcher a user at a terminal has started it: errors go to standard error
        if environment.read(environment.REPLAY):  # what it prints is part of the output of `karp replay`
            from karp.monitor import streams

            with streams.command():
                run(sys.argv[1], sys.argv[2:], RefusedError)
        else:
            restore_sigint()
            run(sys.argv[1], sys.argv[2:], RefusedError, LostError, RunError)
    except KeyboardInterrupt:
        sys.exit(130)
    except KarpError as error:
        print(f"karp: {error}", file=sys.stderr)
        sys.exit(2)
