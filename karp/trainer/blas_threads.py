"""How many threads the BLAS uses. That is a setting of the process, so Trainers in several threads share it.

The first Trainer that is entered sets it, the last that is left restores what was there. One that asks for another
number meanwhile is refused: the number steers the bits of the others.
"""

import os
import threading
from typing import Any

from karp.errors import SettingError


class Limit:
    """The number of BLAS threads of this process, and how many Trainers hold it there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.holders = 0
        self._threads = 0  # as the holders agree
        self._before: Any = None  # restores what was there before the first of them
        self._follows_forks = False

    def take(self, threads: int) -> None:
        """Limit the BLAS to so many threads, until `give_back` is called as often as this.

        Raises SettingError if another number is held.
        """
        from threadpoolctl import threadpool_limits

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
            limit = threadpool_limits(threads, user_api="blas")  # each time: with OpenMP it is the calling thread's
            take_control()
            if self._before is None:
                self._before = limit
            self._threads = threads
            self.holders += 1

    def give_back(self) -> None:
        """End one hold; the last one restores what was there before the first."""
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
        """Begin afresh in a child: the runs that held the limit go on in its parent alone."""
        self._lock = threading.Lock()
        self.holders = 0


def take_control() -> None:
    """Let any thread set the limit next.

    threadpoolctl (3.8) obeys one thread alone, the first that has set a limit of OpenBLAS, for as long as it lives;
    what others ask for is passed over in silence.
    """
    import threadpoolctl

    if hasattr(threadpoolctl.OpenBLASController, "clear_controlling_thread"):
        threadpoolctl.OpenBLASController.clear_controlling_thread(force=True)


LIMIT = Limit()
