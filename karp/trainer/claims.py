"""The resources of its process that a Trainer claims between the beginning and the end of its `with` block.

They are the number of BLAS threads and the signal handlers. The first Trainer also claims, for good, to be the first:
only its training can be run again by a launcher, which lets a program train once. That freed memory is kept (`heap.py`)
stays so, too.
"""

import os
import threading

from karp import environment
from karp.errors import ProgramError
from karp.record import kernels
from karp.record.launched import Launched
from karp.trainer import script
from karp.trainer.blas_threads import LIMIT
from karp.trainer.heap import keep_freed_memory
from karp.trainer.interrupts import Interrupts

_first = threading.Lock()  # the first Trainer of this process acquires it and never releases it


class Claims:
    """The claims of one Trainer on its process: the BLAS threads and the signal handlers."""

    def __init__(self) -> None:
        self.interrupts = Interrupts()
        self.launched: tuple[Launched, str] | None = None  # how a launcher would run this program, and where
        self._process = -1

    def acquire(self, threads: int, under_launcher: bool) -> None:
        """Claim the resources, or claim none and raise.

        Raises ProgramError for a second Trainer under a launcher, SettingError for a BLAS that does not use the kernels
        which are asked for, and for another number of BLAS threads than that of a Trainer which is training.
        """
        first = _first.acquire(blocking=False)
        if under_launcher and not first:
            raise ProgramError("a second Trainer: a program that a launcher has started takes part in one run only")
        self.interrupts.working = True
        if not under_launcher:
            self.interrupts.install(script.is_script())
        try:
            if first and not under_launcher:
                self.launched = script.launched(threads)
            keep_freed_memory()
            if wanted := environment.read(environment.KERNELS):
                kernels.require(wanted)
            LIMIT.acquire(threads)  # nothing after this may fail
        except BaseException:
            self.interrupts.restore()
            if first:
                _first.release()
            raise
        self._process = os.getpid()
        self.interrupts.working = False

    def release(self) -> None:
        """Release the resources; signal handlers that the program has installed meanwhile stay."""
        LIMIT.release()
        self.interrupts.restore()

    @property
    def inherited(self) -> bool:
        """Whether this process is a fork of the one that made the claims."""
        return os.getpid() != self._process
