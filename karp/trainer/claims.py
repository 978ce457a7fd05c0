"""What a Trainer takes of its process between the beginning and the end of its `with` block.

The number of BLAS threads, the handlers of signals, and, once and for all, to be the first: a launcher that runs the
program again lets it train only once.
"""

import os
import threading

from karp.errors import ProgramError
from karp.record.launched import Launched
from karp.trainer import script
from karp.trainer.blas_threads import LIMIT
from karp.trainer.interrupts import Interrupts

_first = threading.Lock()  # taken by the first Trainer of this process, and given back by none


class Claims:
    """One Trainer's claims."""

    def __init__(self) -> None:
        self.interrupts = Interrupts()
        self.launched: tuple[Launched, str] | None = None  # how a launcher would run this program, and where
        self._process = -1

    def take(self, threads: int, under_launcher: bool) -> None:
        """Begin; raises ProgramError or SettingError, and has taken nothing, if that cannot be."""
        first = _first.acquire(blocking=False)
        if under_launcher and not first:
            raise ProgramError("a second Trainer: a program that a launcher has started takes part in one run only")
        self.interrupts.working = True
        if not under_launcher:
            self.interrupts.install(script.is_script())
        try:
            if first and not under_launcher:
                self.launched = script.launched(threads)
            LIMIT.take(threads)  # the last that may fail
        except BaseException:
            self.interrupts.restore()
            if first:
                _first.release()
            raise
        self._process = os.getpid()
        self.interrupts.working = False

    def give_back(self) -> None:
        """End; the handlers that the program has installed meanwhile stay."""
        LIMIT.give_back()
        self.interrupts.restore()

    @property
    def inherited(self) -> bool:
        """Whether this process is a fork of the one that has taken them."""
        return os.getpid() != self._process
