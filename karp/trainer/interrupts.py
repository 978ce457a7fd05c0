"""Ctrl-C, and the signals that ask a process to end, while it trains by itself.

A signal may come in the middle of an update. Then it is kept until the program's own code goes on, where it raises:

    karp is at work  --a batch, an evaluation, the end of the block-->  the program
    (a signal is kept)  <--the next batch, trainer.batches, ...--  (a signal raises)

The second one raises wherever it comes. A handler that the program has installed is left alone, a signal that is
ignored stays so, and only the main thread of a process can have handlers at all.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # those that this system has


class Interrupted(KeyboardInterrupt, SystemExit):
    """Ctrl-C. If nobody catches it, the interpreter ends with its code, and shows no traceback."""

    def __init__(self) -> None:
        super().__init__("Ctrl-C")
        self.code = 128 + signal.SIGINT


class Terminated(SystemExit):
    """Another signal has asked the process to end."""


class Interrupts:
    """What happens on a signal between `install` and `restore`."""

    def __init__(self) -> None:
        self.working = False  # whether karp is, and may not be interrupted
        self.kept = 0  # the signal that has come meanwhile, or has been raised before the block is left
        self._script = False
        self._before: dict[int, Any] = {}  # signal -> its handler

    def install(self, script: bool) -> None:
        """Handle the signals that would end the process; outside of a script that is Ctrl-C alone."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._script = script
        for name in ENDING if script else ENDING[:1]:
            number = getattr(signal, name, None)
            if number is not None and is_default(signal.getsignal(number)):
                with contextlib.suppress(ValueError):  # not in this interpreter
                    self._before[number] = signal.signal(number, self._arrived)

    def restore(self) -> None:
        """Give back the handlers, where the program has not installed its own meanwhile."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._arrived:
                signal.signal(number, handler)
        self._before.clear()

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.working and not self.kept:
            self.kept = number
        else:
            raise self._exception(number)

    @contextlib.contextmanager
    def kept_back(self) -> Iterator[None]:
        """Keep signals back while this block is at work."""
        self.working = True
        try:
            yield
        finally:
            self.working = False
        if self.kept:
            self.strike()

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """Let signals raise while karp calls a function of the program."""
        self.working = False
        if self.kept:
            self.strike()
        yield
        self.working = True

    def strike(self) -> None:
        """Raise what was kept."""
        number, self.kept = self.kept, 0
        raise self._exception(number)

    def leave(self, error: BaseException | None) -> BaseException | None:
        """Keep signals back while the block is left with this error; returns what was kept until now, to be raised.

        If that or the error is an interrupt, the next signal is the second.
        """
        self.working = True
        if error is None and self.kept:
            error = self._exception(self.kept)
        if isinstance(error, KeyboardInterrupt | Terminated):
            self.kept = self.kept or signal.SIGINT
        return error

    def _exception(self, number: int) -> BaseException:
        if number != signal.SIGINT:
            return Terminated(128 + number)
        return Interrupted() if self._script else KeyboardInterrupt()


def is_default(handler: Any) -> bool:
    """Return whether nobody but a Trainer further out has installed this handler."""
    ours = isinstance(getattr(handler, "__self__", None), Interrupts)
    return ours or handler in (signal.SIG_DFL, signal.default_int_handler)
