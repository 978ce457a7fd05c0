"""Signals while a program trains in one process: they end it in good order, and a launcher goes on with it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import alone, completed, environment, karp, metrics, program, start, summary

import karp as library
from karp import nn, optim
from karp.errors import ProgramError
from karp.optim import Updater
from karp.protocol.server.ranges import Ranges
from karp.record.checkpoints import newest
from karp.trainer.interrupts import Interrupted, Terminated

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of a fresh interpreter, however this one was started; afterwards they are there again."""
    before = {number: signal.signal(number, handler) for number, handler in DEFAULTS.items()}
    yield
    found = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert DEFAULTS == found


def model() -> nn.MLP:
    return nn.MLP(3, [8], 2, seed=1)


def train(
    run: Path, net: nn.Module, each: Callable[[int], None] = lambda step: None, evaluate: Any = None, **changes: Any
) -> library.Trainer:
    """Train for 12 steps and call a function in the middle of each."""
    arguments = {"batch_size": 16, "epochs": 3, "run_dir": run, "show": False} | changes
    with library.Trainer(net, optim.Adam(lr=0.05), **arguments) as trainer:
        for x, y in trainer.batches(X, Y, evaluate=evaluate):
            loss = nn.cross_entropy(net(x), y)
            each(trainer.step)
            trainer.backward(loss)
    return trainer


def at(step: int, do: Callable[[], Any]) -> Callable[[int], None]:
    return lambda now: do() if now == step else None


def calls(function: Callable[..., Any], number: int, do: Callable[[], Any]) -> Callable[..., Any]:
    """The same function, but one call of it does something else first."""
    left = [number]

    def called(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            do()
        return function(*arguments)

    return called


def whole(run: Path, net: nn.Module, steps: int) -> None:
    """The record ends with this step, and its checkpoint has the model's weights, which are those of a whole step."""
    snapshot = newest(run, lambda text: None)
    assert snapshot is not None
    assert (steps, steps) == (snapshot[0]["version"], summary(run)["steps"])
    digest = net.parameters.layout.sha256(snapshot[1]["weights"])
    reference = model()
    stopped = run.parent / "reference"
    with contextlib.suppress(ZeroDivisionError):
        train(stopped, reference, at(steps, lambda: 1 / 0))
    assert reference.parameters.sha256() == digest == net.parameters.sha256() == summary(run)["weights_sha256"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_programs_code_raises_and_leaves_a_run_to_go_on_with(
    tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    net, run = model(), tmp_path / "run"
    with pytest.raises(Interrupted if number == signal.SIGINT else Terminated) as raised:
        train(run, net, at(5, lambda: signal.raise_signal(number)))
    assert 128 + number == raised.value.code == summary(run)["exit"]
    assert (False, "") == (summary(run)["finished"], summary(run)["failure"])
    assert "karp: stopped after step 5; " in capsys.readouterr().err
    whole(run, net, 5)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_middle_of_an_update_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    net, run = model(), tmp_path / "run"
    monkeypatch.setattr(Updater, "update", calls(Updater.update, 5, lambda: signal.raise_signal(number)))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(run, net)
    assert 128 + number == summary(run)["exit"]
    whole(run, net, 5)


def test_a_signal_while_scores_are_made_is_one_in_the_programs_code(tmp_path: Path) -> None:
    net, run = model(), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(run, net, evaluate=lambda: signal.raise_signal(signal.SIGINT) or 0.0)
    assert 130 == summary(run)["exit"]


def test_a_second_signal_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    monkeypatch.setattr(Updater, "update", calls(Updater.update, 5, twice))
    with pytest.raises(Terminated):
        train(run, model())
    assert (143, False) == (summary(run)["exit"], "weights_sha256" in summary(run))


def test_a_signal_while_the_files_are_written_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from karp.record.directory import Record

    run = tmp_path / "run"
    monkeypatch.setattr(Record, "finish", calls(Record.finish, 1, lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(Interrupted):
        train(run, model())
    assert (0, True, 12) == tuple(summary(run)[name] for name in ("exit", "finished", "steps"))


def test_an_interrupt_that_the_program_catches_is_over(tmp_path: Path) -> None:
    def interrupt(step: int) -> None:
        if step in (3, 5):
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    net = model()
    trainer = train(tmp_path / "run", net, interrupt)
    assert (12, 0, True) == (trainer.step, summary(tmp_path / "run")["exit"], trainer.main)


def test_code_after_an_interrupted_run_cannot_take_it_for_finished(tmp_path: Path) -> None:
    trainers = []
    net = model()
    with (
        contextlib.suppress(KeyboardInterrupt),
        library.Trainer(net, optim.Adam(lr=0.05), batch_size=16, run_dir=tmp_path / "run", show=False) as trainer,
    ):
        trainers.append(trainer)
        for _ in trainer.batches(X, Y):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(ProgramError, match="known when the run is over"):
        assert trainers[0].main


def test_a_handler_of_the_programs_own_is_left_alone(tmp_path: Path) -> None:
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(step: int) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)

    trainer = train(tmp_path / "run", model(), send, epochs=1)
    assert (4, [signal.SIGTERM] * 4) == (trainer.step, seen)
    assert signal.SIG_IGN == signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_handler_that_is_installed_in_the_loop_stays(tmp_path: Path) -> None:
    train(tmp_path / "run", model(), at(1, lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)))
    assert signal.SIG_IGN == signal.signal(signal.SIGTERM, signal.SIG_DFL)


class AlarmError(Exception):
    """What a program's own handler raises, wherever that may be."""


@pytest.mark.parametrize("function", [Updater.update, Ranges.try_to_end])
def test_an_exception_in_the_middle_of_an_update_leaves_the_newest_checkpoint_and_no_torn_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], function: Any
) -> None:
    def alarm() -> None:
        raise AlarmError

    run = tmp_path / "run"
    if function is Updater.update:
        monkeypatch.setattr(Updater, "update", calls(Updater.update, 6, alarm))
    else:  # when the weights are new, and the ledger does not know
        monkeypatch.setattr(Ranges, "try_to_end", torn)
    with pytest.raises(AlarmError):
        train(run, model())
    snapshot = newest(run, lambda text: None)
    assert (0, 1) == (snapshot[0]["version"] if snapshot else -1, summary(run)["exit"])
    assert not (run / "weights.safetensors").exists()
    assert "broken off in the middle of a step: what is left is the newest checkpoint" in capsys.readouterr().err


def torn(self: Ranges, *arguments: Any) -> bool:
    self.at_work = True
    raise AlarmError


def test_a_run_that_was_broken_off_does_not_go_on_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def catch() -> None:
        net = model()
        arguments = {"batch_size": 16, "run_dir": tmp_path / "run", "show": False}
        with library.Trainer(net, optim.Adam(lr=0.05), **arguments) as trainer, contextlib.suppress(AlarmError):
            for x, y in trainer.batches(X, Y):
                trainer.backward(nn.cross_entropy(net(x), y))

    monkeypatch.setattr(Ranges, "try_to_end", torn)
    with pytest.raises(ProgramError, match="broken off in the middle of a step"):
        catch()


def test_a_trainer_within_another_has_the_signals(tmp_path: Path) -> None:
    inner, outer = model(), model()

    def nested() -> None:
        train(tmp_path / "inner", inner, at(3, lambda: signal.raise_signal(signal.SIGTERM)))

    with pytest.raises(Terminated):
        train(tmp_path / "outer", outer, at(2, nested))
    assert (143, 143) == (summary(tmp_path / "inner")["exit"], summary(tmp_path / "outer")["exit"])
    assert (3, 2) == (summary(tmp_path / "inner")["steps"], summary(tmp_path / "outer")["steps"])


def test_a_thread_has_no_handlers(tmp_path: Path) -> None:
    found = []

    def look(step: int) -> None:
        found.append({number: signal.getsignal(number) for number in DEFAULTS})

    thread = threading.Thread(target=train, args=(tmp_path / "run", model(), look))
    thread.start()
    thread.join()
    assert [DEFAULTS] * 12 == found


def test_a_session_keeps_its_keyboard_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(KeyboardInterrupt) as raised:
        train(tmp_path / "run", model(), at(3, lambda: signal.raise_signal(signal.SIGINT)))
    assert KeyboardInterrupt is raised.type
    assert [] == [path.name for path in (tmp_path / "run").glob("launch.json")]
    handlers = []
    train(tmp_path / "other", model(), at(3, lambda: handlers.append(signal.getsignal(signal.SIGTERM))))
    assert [signal.SIG_DFL] == handlers


PROGRAM = """
import os, signal, sys
import numpy as np
import karp
from karp import nn, optim
x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)
model = nn.MLP(3, [8], 2, dropout=0.2)
def score():
    return float((model(x).data.argmax(axis=1) == y).mean())
with karp.Trainer(model, optim.Adam(lr=0.01), batch_size=16, epochs=20) as trainer:
    for xs, ys in trainer.batches(x, y, evaluate=score):
        trainer.backward(nn.cross_entropy(model(xs, trainer.rng), ys))
        if trainer.step == 41 and "SIGNAL" in os.environ:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
print("end", *sys.argv[1:])
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reference")
    found, _ = alone(program(folder, PROGRAM), directory=folder / "run")
    return str(found["weights_sha256"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_goes_on_with_a_run_in_one_process_to_the_same_bits(
    tmp_path: Path, reference: str, number: signal.Signals
) -> None:
    program(tmp_path, PROGRAM)
    run, line = tmp_path / "run", [sys.executable, "program.py", "a b"]
    done = completed(line, tmp_path, KARP_RUN_DIR=str(run), SIGNAL=str(int(number)))
    assert "" == done.stdout
    if number == signal.SIGKILL:
        assert -number == done.returncode
    else:
        assert 128 + number == done.returncode
        assert "Traceback" not in done.stderr
        last = f"karp: stopped after step 41; to go on: karp launch --resume {run} -n 1"
        assert last == done.stderr.splitlines()[-1]
        assert (41, 1) == (summary(run)["steps"], summary(run)["shards"])
        refused = completed(line, tmp_path, KARP_RUN_DIR=str(run))
        assert f"{run} holds a run already: pass another directory, or go on with it: karp launch --resume {run}" in (
            refused.stderr
        )
    again = karp("launch", "--resume", run, "-n", 3, cwd=tmp_path.parent)
    assert (0, "end a b\n") == (again.returncode, again.stdout), again.stderr
    assert "3 workers share 1 shard, so 2 of them will have nothing to do" in again.stderr or number == signal.SIGKILL
    found = summary(run)
    assert (reference, 80, 1, True) == (found["weights_sha256"], found["steps"], found["shards"], found["finished"])
    assert list(range(20)) == sorted(line["epoch"] for line in metrics(run) if line["report"] == "evaluation")


def test_a_text_that_is_no_file_is_told_that_nobody_can_go_on_with_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-"], input=PROGRAM, cwd=tmp_path, text=True, capture_output=True, check=False,
        env=environment(KARP_RUN_DIR=str(tmp_path / "run"), SIGNAL="15"),
    )  # fmt: skip
    assert (143, "") == (done.returncode, done.stdout)
    assert "karp: stopped after step 41; no launcher can go on with it" in done.stderr.splitlines()[-1]


def test_ctrl_c_is_for_who_is_in_front_alone(tmp_path: Path) -> None:
    """A shell starts what stands before & with SIGINT ignored."""
    path = program(tmp_path, PROGRAM)
    line = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, str(path)]
    process = start(line, tmp_path, SIGNAL="2", KARP_RUN_DIR=str(tmp_path / "run"))
    printed, error = process.communicate()
    assert (0, "end\n") == (process.returncode, printed), error
    assert os.path.exists(tmp_path / "run" / "weights.safetensors")
