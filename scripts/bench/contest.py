"""A process per contestant, and rounds in which each has a turn.

Each contestant lives in a process of its own, so that its memory and its threads are its own, and stays alive over all
rounds. In a round every contestant has one turn, cut into parts that go round between them in an order that rotates. So
whatever else the machine does, it does to all of them: on a machine whose speed jumps by a half every second the ratios
of a round are still good to a few per cent.

The two ends talk in lines over the child's standard input and output: the parent writes a command (`turn 0.4`), the
child answers with one JSON object. End of input ends the child. Whatever a library prints goes to standard error, which
is kept: if the child dies, its last line is the reason. Every answer has a deadline.

This room knows nothing of engines: a child is any command that calls `serve`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

START = 300.0  # seconds within which a contestant must be ready; compilers take long
PARTS = 8  # of a turn
ANSWER = 120.0  # seconds an answer may take beyond the time asked for

Answer = dict[str, Any]


class FailedError(Exception):
    """A contestant cannot go on; says why."""


class Process:
    """The parent's end of one contestant."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close
        self._rest = b""
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(environment),
        )

    def ready(self) -> Answer:
        """Wait until it can take commands."""
        return self._answer(time.monotonic() + START)

    def ask(self, command: str, seconds: float = 0.0) -> Answer:
        """Send a command that takes about so many seconds, and return the answer."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(command.encode() + b"\n")
            self._child.stdin.flush()
        except OSError:
            raise FailedError(self._reason()) from None
        return self._answer(time.monotonic() + seconds + ANSWER)

    def turn(self, seconds: float) -> Answer:
        """Work about so many seconds: {count, seconds, cpu}."""
        return self.ask(f"turn {seconds}", seconds)

    def close(self) -> None:
        """End it; kill it if it does not go."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(OSError):  # it may have gone already
            self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._errors.close()

    def _answer(self, deadline: float) -> Answer:
        line = self._line(deadline)
        answer: Answer = json.loads(line)
        if "failed" in answer:
            raise FailedError(answer["failed"])
        return answer

    def _line(self, deadline: float) -> bytes:
        assert self._child.stdout is not None
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._child.stdout], [], [], left)[0]:
                self._child.kill()
                raise FailedError("no answer before the deadline")
            some = os.read(self._child.stdout.fileno(), 1 << 16)
            if not some:
                raise FailedError(self._reason())
            self._rest += some
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _reason(self) -> str:
        self._child.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"ended with status {self._child.returncode}" + (f": {lines[-1]}" if lines else "")


def rounds(
    contestants: Sequence[Process], count: int, seconds: float, report: Callable[[int], None], parts: int = PARTS
) -> tuple[dict[str, list[Answer]], dict[str, str]]:
    """The turns of each contestant, one per round, and why those who failed did.

    `report(round)` is called before each round. Who fails has no more turns, and none in the result. Turns of work that
    takes long to begin are cut into fewer parts.
    """
    turns: dict[str, list[Answer]] = {one.name: [] for one in contestants}
    failed: dict[str, str] = {}
    for number in range(count):
        report(number + 1)
        whole: dict[str, Answer] = {}
        for part in range(parts):
            first = (number * parts + part) % max(1, len(contestants))
            for one in (*contestants[first:], *contestants[:first]):
                if one.name in failed:
                    continue
                try:
                    answer = one.turn(seconds / parts)
                except FailedError as error:
                    failed[one.name] = str(error)
                    del turns[one.name]
                    continue
                so_far = whole.setdefault(one.name, dict.fromkeys(answer, 0))
                whole[one.name] = {key: so_far[key] + answer[key] for key in answer}
        for name in turns:
            turns[name].append(whole[name])
    return turns, failed


def serve(start: Callable[[], Mapping[str, Callable[[str], Answer]]]) -> None:
    """The child's end: call `start`, then answer commands by the functions it returned until the input ends."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # and stands in its place there

        def answer(function: Callable[[], Answer]) -> None:
            try:
                line = json.dumps(function())
            except Exception as error:
                traceback.print_exc()
                line = json.dumps({"failed": f"{type(error).__name__}: {error}".strip().splitlines()[0]})
            answers.write(line + "\n")
            answers.flush()

        commands: Mapping[str, Callable[[str], Answer]] = {}

        def begin() -> Answer:
            nonlocal commands
            commands = start()
            return {}

        answer(begin)
        for line in sys.stdin:
            word, _, argument = line.strip().partition(" ")
            answer(lambda word=word, argument=argument: commands[word](argument))  # type: ignore[misc]


def turns_of(run: Callable[[int], object]) -> dict[str, Callable[[str], Answer]]:
    """The commands `warm SECONDS` and `turn SECONDS` for a function that does its work so many times."""
    rate = 1.0  # calls a second

    def timed(count: int) -> Answer:
        nonlocal rate
        cpu, start = time.process_time(), time.perf_counter()
        run(count)
        seconds = time.perf_counter() - start
        rate = count / seconds
        return {"count": count, "seconds": seconds, "cpu": time.process_time() - cpu}

    def warm(argument: str) -> Answer:
        count = 1
        while timed(count)["seconds"] < float(argument) / 2:
            count *= 2
        return {}

    def turn(argument: str) -> Answer:
        return timed(max(1, round(rate * float(argument))))

    return {"warm": warm, "turn": turn}
