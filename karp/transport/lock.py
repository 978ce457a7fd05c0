"""A lock between the processes of a host, which the kernel releases when its holder dies: a POSIX record lock.

It is that of a process, so the holder's threads share it, and a forked process does not have it. As closing any
descriptor of a file releases the process's locks on it, and a memory map has a descriptor of its own, the lock is on a
file that is never mapped.
"""

import os
import time

YIELDS = 100  # attempts between which the processor is only yielded


class FileLock:
    """A lock on an open file; `patience` is the number of seconds after which a holder counts as stopped."""

    def __init__(self, descriptor: int, patience: float) -> None:
        import fcntl  # it is not on every system, as shared memory is not

        self.descriptor = descriptor
        self.patience = patience
        self._lockf = fcntl.lockf
        self._exclusive, self._unlock = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

    @classmethod
    def make(cls, patience: float) -> "FileLock":
        """Make a lock on an anonymous file; raises OSError if the system has no such locks."""
        lock = cls(os.memfd_create("karp-lock", os.MFD_CLOEXEC), patience)
        try:
            lock._lockf(lock.descriptor, lock._exclusive)
            lock.release()
        except OSError:
            lock.close()
            raise
        return lock

    def try_acquire(self) -> bool:
        """Acquire the lock and return True; return False if another process holds it."""
        try:
            self._lockf(self.descriptor, self._exclusive)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def acquire(self) -> bool:
        """Acquire the lock and return True; return False if another process holds it for longer than `patience`."""
        until, attempts = time.monotonic() + self.patience, 0
        while not self.try_acquire():
            if time.monotonic() > until:
                return False
            attempts += 1
            if attempts < YIELDS:
                os.sched_yield()
            else:
                time.sleep(0.0005)
        return True

    def release(self) -> None:
        """Release the lock, which this process holds."""
        self._lockf(self.descriptor, self._unlock)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)
