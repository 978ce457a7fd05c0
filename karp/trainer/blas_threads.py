"""The number of threads that the BLAS uses: a setting of the process, which Trainers in several threads share.

The first Trainer to be entered sets the limit, and the last to be left restores the one before. A Trainer that needs
another number meanwhile is refused, as the bits of the others depend on theirs.
"""

import os
import sys
import threading
from typing import Any

from karp.errors import SettingError


class Limit:
    """The limit of this process's BLAS threads, and the number of Trainers that hold it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.holders = 0
        self._threads = 0  # the limit that the holders have set
        self._before: Any = None  # threadpoolctl's object that restores the limit before the first holder's
        self._follows_forks = False
        self._controller: Any = None  # threadpoolctl's, of the libraries that this process has loaded
        self._modules = 0  # how many modules were imported then

    def acquire(self, threads: int) -> None:
        """Limit the BLAS to so many threads, until `release` has been called as often as this.

        Raises SettingError if other Trainers hold another limit.
        """
        from threadpoolctl import ThreadpoolController

        with self._lock:
            if self.holders and threads != self._threads:
                raise SettingError(
                    f"threads is {threads}, but another Trainer in this process is training with {self._threads}: the "
                    "number of BLAS threads is the process's, so train with the same number, or one after the other"
                )
            if not self._follows_forks and hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._forked)
                self._follows_forks = True
            if not self.holders:
                self._restore()
            take_control()
            if self._modules != len(sys.modules):  # to look for libraries takes milliseconds, and imports bring them
                self._controller, self._modules = ThreadpoolController(), len(sys.modules)
            limit = self._controller.limit(limits=threads, user_api="blas")  # by each: with OpenMP it is one thread's
            take_control()
            if self._before is None:
                self._before = limit
            self._threads = threads
            self.holders += 1

    def release(self) -> None:
        """Release one hold; the last release restores the limit that was in force before the first hold."""
        with self._lock:
            self.holders -= 1
            if not self.holders:
                self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            take_control()
            self._before.restore_original_limits()
            take_control()
            self._before = None

    def _forked(self) -> None:
        """Forget the holders in a forked child: their runs go on only in the parent."""
        self._lock = threading.Lock()
        self.holders = 0


def take_control() -> None:
    """Allow the calling thread to set the limit.

    threadpoolctl (3.8) accepts limits of OpenBLAS from one thread, the first that has set one, for as long as that
    lives, and ignores those of other threads without a word.
    """
    import threadpoolctl

    if hasattr(threadpoolctl.OpenBLASController, "clear_controlling_thread"):
        threadpoolctl.OpenBLASController.clear_controlling_thread(force=True)


LIMIT = Limit()
