"""One scenario on real processes, and what must hold afterwards.

`Run` starts `karp launch`, looks at the run's directory a hundred times a second, and injects the faults of the
scenario: signals, joins, another launch with --resume after one that it has ended. At the end the exit status must be
0, the weights those of the undisturbed run to the bit, every sample used once per epoch, every epoch evaluated once,
and nothing left over: no process, no port, no file in /dev/shm.
"""

from __future__ import annotations

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
from chaos.scenario import ENDS_LAUNCH, Fault, Scenario

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "workers" / "digits.py"
LOOK_SECONDS = 0.01
HANG_SECONDS = 120.0  # without progress while no process is stopped: the run has failed
LEFT_SECONDS = 60.0  # after the end of a launch, until nothing of it may be left over
RESTARTS = 50


@dataclass(slots=True)
class Reference:
    """Hold what an undisturbed run ends with, and every other must end with."""

    weights: str
    metrics: dict[str, float]
    steps: int
    samples: int
    epochs: int
    printed: str


@dataclass(slots=True)
class Outcome:
    """Hold the outcome of a scenario; `recoveries` says how long the run stood still at each injected fault."""

    seed: int
    injected: list[str] = field(default_factory=list)
    too_late: list[str] = field(default_factory=list)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    leased_again: int = 0
    dropped: int = 0
    refused: int = 0
    bits_equal: bool = False
    directory: str = ""


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a process: no KARP_* variable but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KARP_")}
    return clean | {"PYTHONPATH": str(ROOT)} | variables


def arguments(epochs: int, optimizer: str) -> list[str]:
    """Return the arguments of the program."""
    return ["--shards", "8", "--epochs", str(epochs), "--optimizer", optimizer]


def run_undisturbed(directory: Path, epochs: int, optimizer: str) -> Reference:
    """Run the program in one process, without a socket."""
    command = [sys.executable, str(DIGITS), *arguments(epochs, optimizer)]
    done = subprocess.run(
        command, env=environment(KARP_RUN_DIR=str(directory)), capture_output=True, text=True, check=True
    )
    summary = watch.summary(directory)
    weights, metrics, steps = summary["weights_sha256"], summary["metrics"], summary["steps"]
    return Reference(weights, metrics, steps, summary["samples"], epochs, done.stdout)


class Run:
    """Run one scenario: start its processes, inject its faults, and judge how it has ended."""

    def __init__(self, scenario: Scenario, directory: Path, reference: Reference) -> None:
        self.scenario = scenario
        self.directory = directory
        self.reference = reference
        self.outcome = Outcome(scenario.seed, directory=str(directory))
        self.outside = [fault for fault in scenario.faults if not fault.plan]  # that are not injected yet
        self.named = [fault for fault in scenario.faults if fault.plan]
        self.fired: set[int] = set()  # indices of the named faults that have happened
        self.stopped: list[tuple[float, int]] = []  # (when to continue, pid)
        self.joined: list[subprocess.Popen[bytes]] = []
        self.leaving: subprocess.Popen[bytes] | None = None
        self.steps: list[tuple[float, int]] = []  # (time, step): when the highest step of a checkpoint rose
        self.injected: list[tuple[str, float]] = []  # (kind, time)
        self.ports: set[int] = set()  # on which the run has listened
        self.progress_at = time.time()
        self.launches = 0
        self.launcher = self.launch("-n", str(scenario.workers), "--run-dir", str(directory))
        self.workers = 0  # to resume with, once a fault has ended this launch

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        """Start `karp launch`; where it resumes, program and arguments come from the run's directory."""
        more: list[str] = []
        if not self.launches:
            every, keep = str(self.scenario.checkpoint_every), str(self.scenario.keep)
            more = ["--checkpoint-every", every, "--keep", keep, "--max-restarts", str(RESTARTS), str(DIGITS)]
            more[-1:-1] = ["--exchange", self.scenario.exchange]
            more += arguments(self.reference.epochs, self.scenario.optimizer)
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
        """Return the environment of a process, with the named faults in it."""
        return environment(**variables, **({"KARP_FAULT": self.scenario.plan} if self.scenario.plan else {}))

    def log(self, name: str) -> Path:
        """Return the path of a log beside the run's directory."""
        return self.directory.with_name(f"{self.directory.name}.{name}")

    # The loop.

    def run(self) -> Outcome:
        """Run until the run has ended and is judged, or until there is a problem."""
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
        self.outcome.recoveries = [(kind, self.stood_still(when)) for kind, when in self.injected]
        return self.outcome

    def look(self) -> None:
        """Note progress and faults that have happened, continue stopped processes, inject a fault that is due."""
        now = time.time()
        step = watch.newest_step(self.directory)
        if step > (self.steps[-1][1] if self.steps else -1):
            self.steps.append((now, step))
            self.progress_at = now
        for number, (pid, when) in watch.fired_faults(self.directory).items():
            if number not in self.fired:
                self.fired.add(number)
                self.note_injected(self.named[number], when)
                if " pauses " in self.named[number].kind:
                    self.stopped.append((when + self.named[number].seconds, pid))
        for until, pid in self.stopped.copy():
            if now >= until:
                self.stopped.remove((until, pid))
                self.signal(pid, signal.SIGCONT)
                self.progress_at = now
        self.interrupt_leaving()
        if self.outside and not self.workers and self.steps and self.steps[-1][1] >= self.outside[0].step:
            self.inject(self.outside.pop(0))
        if not self.stopped and now - self.progress_at > HANG_SECONDS:
            self.problem(f"stood still at step {step} for {HANG_SECONDS:.0f} s")

    def note_injected(self, fault: Fault, when: float) -> None:
        """Note that a fault has happened."""
        self.outcome.injected.append(fault.kind)
        self.injected.append((fault.kind, when))
        self.progress_at = max(self.progress_at, when)

    def problem(self, text: str) -> None:
        """Note why the scenario has failed."""
        self.outcome.problems.append(text)

    def ended(self) -> bool:
        """Return whether the launcher has ended; one that a fault has ended is started again, to resume."""
        status = self.launcher.poll()
        if status is None:
            return False
        if self.workers:
            self.check_nothing_left()
            self.launcher = self.launch("--resume", str(self.directory), "-n", str(self.workers))
            self.workers, self.progress_at = 0, time.time()
            return False
        if status:
            self.problem(f"the launcher ended with status {status}")
        return True

    # Faults from outside.

    def inject(self, fault: Fault) -> None:
        """Inject a fault, or note that it came too late."""
        processes = watch.processes(self.directory)
        self.ports |= {int(process.address.rsplit(":", 1)[1]) for process in processes if process.address}
        if not fault.kind.startswith("stop "):
            time.sleep(fault.seconds)
        verb, role = fault.kind.split(",")[0].split()[0], fault.kind.split(",")[0].split()[-1]
        if fault.kind in ENDS_LAUNCH:
            done = self.end_launch(fault)
        elif verb == "join":
            done = self.join(fault, processes)
        else:
            pids = [self.launcher.pid] if role == "launcher" else []
            pids += [process.pid for process in processes if process.role == role]
            pid = pids[int(fault.choice * len(pids))] if pids else 0
            done = bool(pid) and self.signal(pid, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)
            if done and verb == "stop":
                self.stopped.append((time.time() + fault.seconds, pid))
        if done:
            self.note_injected(fault, time.time())
        else:
            self.outcome.too_late.append(fault.kind)

    def end_launch(self, fault: Fault) -> bool:
        """Send the launcher the signals of the fault; return False if it has ended."""
        if self.launcher.poll() is not None:
            return False
        kill, interrupt, terminate = signal.SIGKILL, signal.SIGINT, signal.SIGTERM
        numbers = {"kill": [kill], "interrupt twice": [interrupt, interrupt], "interrupt": [interrupt]}
        name = fault.kind.split(",")[0].removesuffix(" launcher")
        for number in numbers.get(name, [terminate]):
            self.signal(self.launcher.pid, number)
            time.sleep(0.02 * (number == interrupt))  # Two signals of a kind that are sent at once arrive as one.
        self.workers = fault.workers
        return True

    def join(self, fault: Fault, processes: list[watch.RunProcess]) -> bool:
        """Start one more worker; return False if the run has no server to join."""
        address = next((process.address for process in processes if process.address), "")
        if not address:
            return False
        program = arguments(self.reference.epochs, self.scenario.optimizer)
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

    def interrupt_leaving(self) -> None:
        """Interrupt (Ctrl-C) a worker that is to leave, once it has joined."""
        if self.leaving is not None and self.has_joined(self.leaving):
            self.leaving.send_signal(signal.SIGINT)
            self.leaving = None

    def has_joined(self, process: subprocess.Popen[bytes]) -> bool:
        """Return whether the run's record says that this process has joined."""
        return any(line["report"] == "joined" and line["pid"] == process.pid for line in watch.lines(self.directory))

    def signal(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal; return False if the process is gone."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    # What must hold at the end.

    def check_nothing_left(self) -> None:
        """Check that a launch which has ended leaves no process and no port; workers that joined are killed first."""
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
        """Return the processes that the run has left and the ports that it still listens on."""
        processes = [str(process) for process in watch.processes(self.directory)]
        return processes + [f"port {port}" for port in self.ports if watch.listening(port)]

    def judge(self) -> None:
        """Check what the run says of itself after its end."""
        for process in self.joined:
            self.wait_for(process)
        self.check_nothing_left()
        self.look()
        self.outcome.too_late += [fault.kind for fault in self.outside]
        self.outcome.too_late += [fault.kind for number, fault in enumerate(self.named) if number not in self.fired]
        summary, reference = watch.summary(self.directory), self.reference
        self.outcome.bits_equal = summary.get("weights_sha256") == reference.weights
        self.outcome.leased_again, self.outcome.dropped = summary.get("leased_again", -1), summary.get("dropped", -1)
        self.outcome.refused = summary.get("refused", -1)
        if not self.outcome.bits_equal:
            self.problem(f"the weights are {summary.get('weights_sha256')}, not {reference.weights}")
        expected = {"steps": reference.steps, "samples": reference.samples, "metrics": reference.metrics, "exit": 0}
        if expected != (actual := {name: summary.get(name) for name in expected}):
            self.problem(f"the summary says {actual}, not {expected}")
        epochs = Counter(line["epoch"] for line in watch.lines(self.directory) if line["report"] == "evaluation")
        if epochs != Counter(range(reference.epochs)):
            self.problem(f"epochs were evaluated {dict(epochs)} times")
        logs = [self.log("launch.out"), self.log("joined.log")]  # A worker that joined may be the leader.
        if not any(path.exists() and reference.printed in path.read_text(errors="replace") for path in logs):
            self.problem("the leader's output is missing")

    def wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a worker that joined, which ends by itself if it came in time."""
        try:
            process.wait(LEFT_SECONDS if self.has_joined(process) else 0.1)
        except subprocess.TimeoutExpired:
            if self.has_joined(process):
                self.problem(f"the joined worker {process.pid} has not ended")
            process.kill()
            process.wait()

    def clean_up(self) -> None:
        """Kill every process that is left."""
        for _, pid in self.stopped:
            self.signal(pid, signal.SIGCONT)
        for process in [self.launcher, *self.joined]:
            if process.poll() is None:
                process.kill()
            process.wait()
        for process in watch.processes(self.directory):
            self.signal(process.pid, signal.SIGKILL)

    def stood_still(self, when: float) -> float:
        """Return the longest time without a higher step that a fault fell into, or that began soon after it."""
        gaps = [after - at for (at, _), (after, _) in pairwise(self.steps) if after > when > at - 0.25]
        return round(max(gaps, default=0.0), 2)


def as_json(scenario: Scenario, outcome: Outcome) -> dict[str, Any]:
    """Return one line of --json."""
    slowest = max((seconds for _, seconds in outcome.recoveries), default=0.0)
    faults = [{"kind": fault.kind, "step": fault.step, "plan": fault.plan} for fault in scenario.faults]
    return {
        "seed": scenario.seed,
        "ok": not outcome.problems,
        "bits_equal": outcome.bits_equal,
        "problems": outcome.problems,
        "optimizer": scenario.optimizer,
        "workers": scenario.workers,
        "checkpoint_every": scenario.checkpoint_every,
        "exchange": scenario.exchange,
        "faults": faults,
        "injected": outcome.injected,
        "too_late": outcome.too_late,
        "recoveries": outcome.recoveries,
        "slowest_recovery": slowest,
        "leased_again": outcome.leased_again,
        "dropped": outcome.dropped,
        "refused": outcome.refused,
        "seconds": outcome.seconds,
    }
