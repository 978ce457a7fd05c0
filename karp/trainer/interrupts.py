"""Ctrl-C, and the other signals that ask a process to end, during a training in one process.

A signal may come in the middle of an update. Then it is deferred until the program's own code runs, where it raises:

    karp is at work      --a batch, an evaluation, the end of the block-->  the program
    (a signal is pending)  <--the next batch, trainer.batches, ...--        (a signal raises)

A second signal raises wherever it comes. A handler that the program has installed is left alone, an ignored signal
stays ignored, and only the main thread of a process can have handlers.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # the last does not exist on every system


class Interrupted(KeyboardInterrupt, SystemExit):
    """Ctrl-C in a script: if it is not caught, the interpreter ends with its code and shows no traceback."""

    def __init__(self) -> None:
        super().__init__("Ctrl-C")
        self.code = 128 + signal.SIGINT


class Terminated(SystemExit):
    """A signal other than Ctrl-C that asks the process to end."""


@contextlib.contextmanager
def raising(script: bool) -> Iterator[None]:
    """Have the signals that ask the process to end raise in this block, so that it leaves nothing behind.

    `script` is that of `Interrupts.install`.
    """
    interrupts = Interrupts()
    interrupts.install(script)
    try:
        yield
    finally:
        interrupts.restore()


class Interrupts:
    """The signal handlers of a Trainer, in force between `install` and `restore`."""

    def __init__(self) -> None:
        self.working = False  # whether karp is at work and must not be interrupted
        self.pending = 0  # the number of a signal that is deferred, or that has ended the block; 0: none
        self._script = False
        self._before: dict[int, Any] = {}  # signal -> its handler

    def install(self, script: bool) -> None:
        """Install handlers that defer the signals to end the process while karp is at work, and else raise.

        In a session or a notebook (no `script`) only Ctrl-C gets one. A signal that the program handles or ignores
        keeps its handler, and outside of the main thread none is installed.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._script = script
        for name in ENDING if script else ENDING[:1]:
            number = getattr(signal, name, None)
            if number is not None and is_default(signal.getsignal(number)):
                with contextlib.suppress(ValueError):  # in a subinterpreter there can be no handlers
                    self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Restore the handlers that `install` replaced, except where the program has installed its own meanwhile."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.working and not self.pending:
            self.pending = number
        else:
            raise self._exception(number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals during this block, and raise a pending one at its end."""
        self.working = True
        try:
            yield
        finally:
            self.working = False
        if self.pending:
            self.raise_pending()

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals raise during this block, in which karp calls a function of the program."""
        self.working = False
        if self.pending:
            self.raise_pending()
        yield
        self.working = True

    def raise_pending(self) -> None:
        """Raise the exception of the pending signal, which must exist; it is no longer pending then."""
        number, self.pending = self.pending, 0
        raise self._exception(number)

    def leave_block(self, error: BaseException | None) -> BaseException | None:
        """Defer signals from now on, as the `with` block is left with `error`, or None.

        Returns this error; without one, the exception of a pending signal, or None. If the returned error is an
        interrupt, the next signal counts as the second, which raises at once.
        """
        self.working = True
        if error is None and self.pending:
            error = self._exception(self.pending)
        if isinstance(error, KeyboardInterrupt | Terminated):
            self.pending = self.pending or signal.SIGINT
        return error

    def _exception(self, number: int) -> BaseException:
        if number != signal.SIGINT:
            return Terminated(128 + number)
        return Interrupted() if self._script else KeyboardInterrupt()


def is_default(handler: Any) -> bool:
    """Return whether a signal handler is Python's default, or that of an enclosing Trainer."""
    is_trainers = isinstance(getattr(handler, "__self__", None), Interrupts)
    return is_trainers or handler in (signal.SIG_DFL, signal.default_int_handler)
