"""One schedule on real processes, and whether everything holds that must hold afterwards.

The runner starts `karp launch`, looks at the run's directory a hundred times a second, and does what the schedule says:
signals, joins, another launch with --resume after one that it has ended. At last the exit status must be 0, the weights
those of the undisturbed run to the bit, every sample used once per epoch, every epoch evaluated once, and nothing left:
no process, no port, no file in /dev/shm.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from chaos import watch
from chaos.schedule import ENDS_LAUNCH, Fault, Schedule

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "workers" / "digits.py"
LOOK_SECONDS = 0.01
HANG_SECONDS = 40.0  # without progress, and nothing of it is stopped: the schedule has failed
LEFT_SECONDS = 5.0  # after the end of a launch nothing may be left any more
RESTARTS = 50


@dataclass(slots=True)
class Reference:
    """The undisturbed run: what every other must end with."""

    weights: str
    metrics: dict[str, float]
    steps: int
    samples: int
    epochs: int
    printed: str


@dataclass(slots=True)
class Outcome:
    """What came of a schedule; `recoveries` holds how long the run stood still at each fault that was injected."""

    seed: int
    injected: list[str] = field(default_factory=list)
    too_late: list[str] = field(default_factory=list)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    released: int = 0
    dropped: int = 0
    refused: int = 0
    bits_equal: bool = False
    directory: str = ""


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KARP_")}
    return clean | {"PYTHONPATH": str(ROOT)} | variables


def arguments(epochs: int, optimizer: str) -> list[str]:
    return ["--shards", "8", "--epochs", str(epochs), "--optimizer", optimizer]


def undisturbed(directory: Path, epochs: int, optimizer: str) -> Reference:
    """The run in one process, without a socket."""
    command = [sys.executable, str(DIGITS), *arguments(epochs, optimizer)]
    done = subprocess.run(
        command, env=environment(KARP_RUN_DIR=str(directory)), capture_output=True, text=True, check=True
    )
    found = watch.summary(directory)
    return Reference(found["weights_sha256"], found["metrics"], found["steps"], found["samples"], epochs, done.stdout)


class Run:
    """The processes of one schedule."""

    def __init__(self, schedule: Schedule, directory: Path, reference: Reference) -> None:
        self.schedule = schedule
        self.directory = directory
        self.reference = reference
        self.outcome = Outcome(schedule.seed, directory=str(directory))
        self.outside = [fault for fault in schedule.faults if not fault.plan]
        self.named = [fault for fault in schedule.faults if fault.plan]
        self.seen: set[int] = set()  # named faults that have fired
        self.stopped: list[tuple[float, int]] = []  # (when to continue, pid)
        self.joined: list[subprocess.Popen[bytes]] = []
        self.leaving: subprocess.Popen[bytes] | None = None
        self.steps: list[tuple[float, int]] = []  # when the highest step of a checkpoint rose, and to what
        self.hits: list[tuple[str, float]] = []
        self.ports: set[int] = set()
        self.moved = time.time()
        self.launches = 0
        self.launcher = self.launch("-n", str(schedule.workers), "--run-dir", str(directory))
        self.workers = 0  # to resume with, after this launch has been ended

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        """Start `karp launch`; a resumed one takes program and arguments from the run's directory."""
        more: list[str] = []
        if not self.launches:
            every, keep = str(self.schedule.checkpoint_every), str(self.schedule.keep)
            more = ["--checkpoint-every", every, "--keep", keep, "--max-restarts", str(RESTARTS), str(DIGITS)]
            more[-1:-1] = ["--exchange", self.schedule.exchange]
            more += arguments(self.reference.epochs, self.schedule.optimizer)
        self.launches += 1
        with self.log("launch.out").open("wb") as out, self.log("launch.err").open("ab") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "karp.cli", "launch", *options, *more],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def environment(self, **variables: str) -> dict[str, str]:
        return environment(**variables, **({"KARP_FAULT": self.schedule.plan} if self.schedule.plan else {}))

    def log(self, name: str) -> Path:
        return self.directory.with_name(f"{self.directory.name}.{name}")

    # The loop.

    def run(self) -> Outcome:
        """Until the run has ended well, or a problem is found."""
        began = time.time()
        try:
            while not self.outcome.problems and not self.ended():
                self.look()
                time.sleep(LOOK_SECONDS)
            if not self.outcome.problems:
                self.judge()
        finally:
            self.clean_up()
        self.outcome.seconds = round(time.time() - began, 2)
        self.outcome.recoveries = [(kind, self.stood_still(when)) for kind, when in self.hits]
        return self.outcome

    def look(self) -> None:
        """Progress, faults that have fired, processes to continue, faults that are due."""
        now = time.time()
        step = watch.newest_step(self.directory)
        if step > (self.steps[-1][1] if self.steps else -1):
            self.steps.append((now, step))
            self.moved = now
        for number, (pid, when) in watch.struck(self.directory).items():
            if number not in self.seen:
                self.seen.add(number)
                self.hit(self.named[number], when)
                if " pauses " in self.named[number].kind:
                    self.stopped.append((when + self.named[number].seconds, pid))
        for until, pid in self.stopped.copy():
            if now >= until:
                self.stopped.remove((until, pid))
                self.signal(pid, signal.SIGCONT)
                self.moved = now
        self.leave()
        if self.outside and not self.workers and self.steps and self.steps[-1][1] >= self.outside[0].step:
            self.strike(self.outside.pop(0))
        if not self.stopped and now - self.moved > HANG_SECONDS:
            self.problem(f"stood still at step {step} for {HANG_SECONDS:.0f} s")

    def hit(self, fault: Fault, when: float) -> None:
        self.outcome.injected.append(fault.kind)
        self.hits.append((fault.kind, when))
        self.moved = max(self.moved, when)

    def problem(self, text: str) -> None:
        self.outcome.problems.append(text)

    def ended(self) -> bool:
        """Whether the launcher has ended, and is not to be started again."""
        status = self.launcher.poll()
        if status is None:
            return False
        if self.workers:
            self.nothing_left()
            self.launcher = self.launch("--resume", str(self.directory), "-n", str(self.workers))
            self.workers, self.moved = 0, time.time()
            return False
        if status:
            self.problem(f"the launcher ended with status {status}")
        return True

    # What is done from outside.

    def strike(self, fault: Fault) -> None:
        there = watch.processes(self.directory)
        self.ports |= {int(seen.address.rsplit(":", 1)[1]) for seen in there if seen.address}
        if not fault.kind.startswith("stop "):
            time.sleep(fault.seconds)
        verb, role = fault.kind.split(",")[0].split()[0], fault.kind.split(",")[0].split()[-1]
        if fault.kind in ENDS_LAUNCH:
            done = self.end_launch(fault)
        elif verb == "join":
            done = self.join(fault, there)
        else:
            pids = [seen.pid for seen in there if seen.role == role] if role != "launcher" else [self.launcher.pid]
            pid = pids[int(fault.choice * len(pids))] if pids else 0
            done = bool(pid) and self.signal(pid, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)
            if done and verb == "stop":
                self.stopped.append((time.time() + fault.seconds, pid))
        if done:
            self.hit(fault, time.time())
        else:
            self.outcome.too_late.append(fault.kind)

    def end_launch(self, fault: Fault) -> bool:
        if self.launcher.poll() is not None:
            return False
        kill, interrupt, terminate = signal.SIGKILL, signal.SIGINT, signal.SIGTERM
        numbers = {"kill": [kill], "interrupt twice": [interrupt, interrupt], "interrupt": [interrupt]}
        name = fault.kind.split(",")[0].removesuffix(" launcher")
        for number in numbers.get(name, [terminate]):
            self.signal(self.launcher.pid, number)
            time.sleep(0.02 * (number == interrupt))  # two of one signal at once would be one
        self.workers = fault.workers
        return True

    def join(self, fault: Fault, there: list[watch.Seen]) -> bool:
        """One more worker, perhaps one that leaves again."""
        address = next((seen.address for seen in there if seen.address), "")
        if not address:
            return False
        program = arguments(self.reference.epochs, self.schedule.optimizer)
        with self.log("joined.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "karp.cli", "worker", "--server", address, str(DIGITS), *program],
                env=self.environment(KARP_RUN_DIR=str(self.directory)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.joined.append(process)
        if fault.kind == "join, leave":
            self.leaving = process
        return True

    def leave(self) -> None:
        """Ctrl-C to a worker that is to leave, once it has joined."""
        if self.leaving is not None and self.has_joined(self.leaving):
            self.leaving.send_signal(signal.SIGINT)
            self.leaving = None

    def has_joined(self, process: subprocess.Popen[bytes]) -> bool:
        return any(line["report"] == "joined" and line["pid"] == process.pid for line in watch.lines(self.directory))

    def signal(self, pid: int, number: signal.Signals) -> bool:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    # What must hold.

    def nothing_left(self) -> None:
        """Of the launch that has ended: no process, no port. Those that joined by themselves are sent away."""
        for process in self.joined:
            process.kill()
            process.wait()
        self.joined.clear()
        self.leaving = None
        until = max([time.time(), *(when for when, _ in self.stopped)]) + LEFT_SECONDS
        while (left := self.left()) and time.time() < until:
            self.look()
            time.sleep(LOOK_SECONDS)
        if left:
            self.problem(f"left after {LEFT_SECONDS:.0f} s: {left}")

    def left(self) -> list[str]:
        """Processes of the run and ports that it has listened on."""
        there = [str(seen) for seen in watch.processes(self.directory)]
        return there + [f"port {port}" for port in self.ports if watch.listening(port)]

    def judge(self) -> None:
        """The run says that it has ended well."""
        for process in self.joined:
            self.wait_for(process)
        self.nothing_left()
        self.look()
        self.outcome.too_late += [fault.kind for fault in self.outside]
        self.outcome.too_late += [fault.kind for number, fault in enumerate(self.named) if number not in self.seen]
        found, reference = watch.summary(self.directory), self.reference
        self.outcome.bits_equal = found.get("weights_sha256") == reference.weights
        self.outcome.released, self.outcome.dropped = found.get("released", -1), found.get("dropped", -1)
        self.outcome.refused = found.get("refused", -1)
        if not self.outcome.bits_equal:
            self.problem(f"the weights are {found.get('weights_sha256')}, not {reference.weights}")
        expected = {"steps": reference.steps, "samples": reference.samples, "metrics": reference.metrics, "exit": 0}
        if expected != (here := {name: found.get(name) for name in expected}):
            self.problem(f"the summary says {here}, not {expected}")
        epochs = Counter(line["epoch"] for line in watch.lines(self.directory) if line["report"] == "evaluation")
        if epochs != Counter(range(reference.epochs)):
            self.problem(f"epochs were evaluated {dict(epochs)} times")
        logs = [self.log("launch.out"), self.log("joined.log")]  # a worker that joined may be the main one
        if not any(path.exists() and reference.printed in path.read_text(errors="replace") for path in logs):
            self.problem("the main worker's output is missing")

    def wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """A joined worker ends by itself, if it came in time."""
        try:
            process.wait(LEFT_SECONDS if self.has_joined(process) else 0.1)
        except subprocess.TimeoutExpired:
            if self.has_joined(process):
                self.problem(f"the joined worker {process.pid} has not ended")
            process.kill()
            process.wait()

    def clean_up(self) -> None:
        """Whatever happened, nothing of it goes on."""
        for _, pid in self.stopped:
            self.signal(pid, signal.SIGCONT)
        for process in [self.launcher, *self.joined]:
            if process.poll() is None:
                process.kill()
            process.wait()
        for seen in watch.processes(self.directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(seen.pid, signal.SIGKILL)

    def stood_still(self, when: float) -> float:
        """Seconds without a higher step around a fault: the longest such gap, that it fell into or that began soon."""
        gaps = [after - at for (at, _), (after, _) in pairwise(self.steps) if after > when > at - 0.25]
        return round(max(gaps, default=0.0), 2)


def as_json(schedule: Schedule, outcome: Outcome) -> dict[str, Any]:
    """One line of --json."""
    slowest = max((seconds for _, seconds in outcome.recoveries), default=0.0)
    faults = [{"kind": fault.kind, "step": fault.step, "plan": fault.plan} for fault in schedule.faults]
    return {
        "seed": schedule.seed,
        "ok": not outcome.problems,
        "bits_equal": outcome.bits_equal,
        "problems": outcome.problems,
        "optimizer": schedule.optimizer,
        "workers": schedule.workers,
        "checkpoint_every": schedule.checkpoint_every,
        "exchange": schedule.exchange,
        "faults": faults,
        "injected": outcome.injected,
        "too_late": outcome.too_late,
        "recoveries": outcome.recoveries,
        "slowest_recovery": slowest,
        "released": outcome.released,
        "dropped": outcome.dropped,
        "refused": outcome.refused,
        "seconds": outcome.seconds,
    }
