"""Threads of which one runs at a time, taking turns at every access to shared memory; they can be killed or stopped.

So code that is written for several processes is tested in all orders that a seed can name. A thread that is killed
executes nothing more, not even a `finally`; one that is stopped may go on later, at the point where it was.
"""

import threading
from collections.abc import Callable
from random import Random
from typing import Any


class Killed(BaseException):
    """The thread has been killed; it is raised again at each further access."""


class Task:
    """One thread."""

    def __init__(self, turns: "Turns", name: str, body: Callable[[], None]) -> None:
        self.turns = turns
        self.name = name
        self.body = body
        self.go = threading.Semaphore(0)
        self.killed = self.stopped = self.ended = False
        self.error: BaseException | None = None
        self.points = 0  # how many it has reached
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        self.go.acquire()
        try:
            if not self.killed:
                self.body()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self.turns.switch(self)


class Turns:
    """Chooses which task runs next, at each of its points; `events` are called with (task, its number of points)."""

    def __init__(self, rng: Random, stickiness: float = 0.6) -> None:
        self.rng = rng
        self.stickiness = stickiness
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.at_point: Callable[[Task], None] = lambda task: None
        self.idle: Callable[[], bool] = lambda: False  # no task can run: return whether one can now
        self.over = threading.Semaphore(0)

    def add(self, name: str, body: Callable[[], None]) -> Task:
        self.tasks.append(Task(self, name, body))
        return self.tasks[-1]

    def point(self) -> None:
        """Let another task run, perhaps."""
        task = self.current
        if task is None:  # the test itself, before or after
            return
        if task.killed:
            raise Killed
        task.points += 1
        self.at_point(task)
        if task.killed:
            raise Killed
        if task.stopped or self.rng.random() > self.stickiness:
            self.switch(task)
            if task.killed:
                raise Killed

    def switch(self, task: Task) -> None:
        """Let a task run, this one or another; return when it is this one's turn."""
        ready = [other for other in self.tasks if not other.ended and not other.stopped]
        if not ready and self.idle():
            ready = [other for other in self.tasks if not other.ended and not other.stopped]
        if not ready:
            self.current = None
            self.over.release()
        else:
            self.current = self.rng.choice(ready)
            if self.current is task:
                return
            self.current.go.release()
        if not task.ended:
            task.go.acquire()

    def run(self) -> None:
        """Run all tasks until each has ended or is stopped for good; raises the first error of one."""
        for task in self.tasks:
            task.thread.start()
        self.current = self.rng.choice(self.tasks)
        self.current.go.release()
        assert self.over.acquire(timeout=60), "a task waits outside of a point"
        for task in self.tasks:  # let those that are stopped end
            if not task.ended:
                task.killed = True
                self.current = task
                task.go.release()
                self.over.acquire(timeout=60)
        self.current = None
        for task in self.tasks:
            task.thread.join(10)
            if task.error is not None:
                raise task.error


class Cells(list[Any]):
    """Shared memory: every access is a point."""

    turns: Turns

    def __init__(self, turns: Turns, values: list[Any]) -> None:
        super().__init__(values)
        self.turns = turns

    def __getitem__(self, index: Any) -> Any:
        self.turns.point()
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.turns.point()
        super().__setitem__(index, value)


class Lock:
    """A lock that is released when its holder is killed, and stays with one that is stopped."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.holder: Task | None = None

    def try_acquire(self) -> bool:
        self.turns.point()
        if self.holder is not None and not self.holder.killed:
            return False
        self.holder = self.turns.current
        self.turns.point()
        return True

    def acquire(self) -> bool:
        while not self.try_acquire():
            if self.holder is not None and self.holder.stopped:
                return False
        return True

    def release(self) -> None:
        self.turns.point()
        assert self.holder is self.turns.current
        self.holder = None
        self.turns.point()
