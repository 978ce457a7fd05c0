"""Real processes: the launcher, the server and N workers."""

import contextlib
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest
from running import (
    DIGITS,
    ENDLESS,
    GATE,
    HEAD,
    LOOP,
    ONCE,
    ROOT,
    alone,
    command,
    environment,
    free_port,
    gated,
    gone,
    karp,
    launch,
    launched,
    left_over,
    metrics,
    processes,
    program,
    started,
    summary,
)

from karp import __version__


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_digits_ends_with_the_same_bits_for_any_number_of_workers(tmp_path: Path, optimizer: str) -> None:
    options = ["--shards", 8, "--epochs", 3, "--optimizer", optimizer]
    expected, printed = alone(DIGITS, *options, directory=tmp_path / "alone")
    for workers in (1, 2, 3, 5, 8):
        exchange = ("--exchange", ("auto", "zeromq")[workers % 2])
        done = launch(tmp_path, workers, DIGITS, *options, run=str(workers), options=exchange)
        assert (0, printed) == (done.returncode, done.stdout), done.stderr
        found = summary(tmp_path / str(workers))
        assert expected["weights_sha256"] == found["weights_sha256"], workers
        same = ("shards", "steps", "samples", "metrics", "epoch_loss", "exit", "refused")
        assert {name: expected[name] for name in same} == {name: found[name] for name in same}
        assert (workers, 0) == (found["workers"], found["main"])


def test_digits_reaches_97_percent_and_says_where_its_files_are(tmp_path: Path) -> None:
    done = launch(tmp_path, 2, DIGITS)
    assert 0 == done.returncode, done.stderr
    found = summary(tmp_path / "run")
    assert found["metrics"]["test_accuracy"] >= 0.97
    assert f"test accuracy {found['metrics']['test_accuracy']:.4f} on 359 digits\n" == done.stdout
    assert f"files in {tmp_path / 'run'}" in done.stderr
    assert "step 690/690" in done.stderr
    assert "launch -n" in summary(tmp_path / "run")["command"]
    folders = {"checkpoints", "logs"}
    files = {"launch.json", "metrics.jsonl", "settings.json", "summary.json", "weights.safetensors"}
    assert folders | files == {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("workers", [1, 3, 6])
def test_four_points_under_workers_some_of_which_have_nothing_to_do(tmp_path: Path, workers: int) -> None:
    four_points = ROOT / "workers" / "four_points.py"
    done = launch(tmp_path, workers, four_points)
    assert 0 == done.returncode, done.stderr
    values = [float(line.removeprefix("Value(").removesuffix(")")) for line in done.stdout.splitlines()]
    for expected, value in zip([1, -1, -1, 1], values, strict=True):
        assert abs(expected - value) < 0.01


def test_an_exception_at_the_same_shard_twice_ends_the_run_with_its_traceback(tmp_path: Path) -> None:
    body = "if (trainer.step, trainer.shard) == (5, 1): raise ZeroDivisionError('on purpose')"
    done = launch(tmp_path, 3, program(tmp_path, HEAD + LOOP.format(body=body)))
    assert 1 == done.returncode
    assert 1 == done.stderr.count("Traceback (most recent call last)")
    assert "failed at step 5, shard 1 (ZeroDivisionError: on purpose); another worker tries it" in done.stderr
    assert "failed at step 5, shard 1: ZeroDivisionError: on purpose" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("karp: the run has FAILED after 5 steps in ")
    assert "program.py" in done.stderr
    found = summary(tmp_path / "run")
    assert (1, 5) == (found["exit"], found["steps"])
    assert "ZeroDivisionError: on purpose" in found["failure"]
    assert [] == left_over(tmp_path / "run")


@pytest.mark.parametrize("fault", ["raise ZeroDivisionError", "os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_a_fault_that_does_not_come_again_costs_no_bits(tmp_path: Path, fault: str) -> None:
    undisturbed = launch(tmp_path / "a", 2, program(tmp_path / "a", HEAD + LOOP.format(body="pass")))
    assert 0 == undisturbed.returncode, undisturbed.stderr
    body = f"if trainer.step == 3 and once('fault'): {fault}\n        {GATE.replace('600', '4')}"
    path = program(tmp_path / "b", HEAD + ONCE + LOOP.format(body=body))
    with gated(tmp_path / "b", 2, path) as (process, gate):
        process.until("it is started again (1 of 3)")  # the run has not ended before
        gate.open()
        status, _, error = process.end()
    assert 0 == status, error
    expected, found = summary(tmp_path / "a" / "run"), summary(tmp_path / "b" / "run")
    same = ("weights_sha256", "steps", "samples", "exit")
    assert {name: expected[name] for name in same} == {name: found[name] for name in same}
    assert found["leased_again"] > 0
    assert [] == left_over(tmp_path / "b" / "run")


def test_a_worker_that_keeps_dying_is_given_up_and_the_run_goes_on(tmp_path: Path) -> None:
    path = program(tmp_path, ENDLESS.replace(GATE, f"if worker == 1: os._exit(3)\n        {GATE}"))
    with launched(tmp_path, 2, path, "--max-restarts", 1) as (process, gate):
        process.until("worker 1 ended with exit status 3 once more: the run goes on without it")
        gate.open()
        status, _, error = process.end()
    assert 0 == status, error
    assert 1200 == summary(tmp_path / "run")["steps"]


def test_the_run_fails_when_every_worker_keeps_dying(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="os._exit(3)"))
    done = launch(tmp_path, 2, path, options=("--max-restarts", 1))
    assert 1 == done.returncode
    assert "once more, and no other is left" in done.stderr
    assert [] == left_over(tmp_path / "run")


def test_the_main_worker_that_is_killed_after_the_run_is_replaced(tmp_path: Path) -> None:
    after = "\nif trainer.main and once('main'): os.kill(os.getpid(), 9)\nif trainer.main: print('main', worker)"
    done = launch(tmp_path, 3, program(tmp_path, HEAD + ONCE + LOOP.format(body="pass") + after))
    assert (0, "main 1\n") == (done.returncode, done.stdout), done.stderr
    assert 1 == summary(tmp_path / "run")["main"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("os._exit(3)", "", "worker 1 ended with exit status 3"),
        ("import no_such_module", "", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("", "trainer.main; os._exit(3)", "worker 1 ended with exit status 3"),  # once it is known to have left
        ("", "raise ValueError('after')", "ValueError: after"),
    ],
)
def test_what_fails_before_or_after_the_loop_ends_the_run(
    tmp_path: Path, before: str, after: str, expected: str
) -> None:
    before, after = (f"if worker == 1: {fault}" if fault else "" for fault in (before, after))
    done = launch(tmp_path, 2, program(tmp_path, HEAD + before + LOOP.format(body="pass") + after))
    assert 1 == done.returncode, done.stderr
    assert expected in done.stderr
    assert 1 == summary(tmp_path / "run")["exit"]
    assert [] == left_over(tmp_path / "run")


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    body = "xs[0, 0] = np.nan if (trainer.step, trainer.shard) == (3, 1) else 0"
    done = launch(tmp_path, 2, program(tmp_path, HEAD + LOOP.format(body=body)))
    assert 1 == done.returncode
    assert re.search(r"the gradient of step 3, shard 1 from worker [01] is not finite", done.stderr)
    assert "for the second time" in done.stderr
    assert 3 == summary(tmp_path / "run")["steps"]


def test_programs_that_differ_are_refused_with_both_values(tmp_path: Path) -> None:
    text = HEAD + LOOP.format(body="pass").replace("batch_size=16", "batch_size=16 + worker")
    done = launch(tmp_path, 2, program(tmp_path, text))
    assert 1 == done.returncode
    assert "batch_size is 1" in done.stderr
    assert " in the program, 1" in done.stderr
    assert [] == left_over(tmp_path / "run")


def test_a_second_trainer_is_refused(tmp_path: Path) -> None:
    done = launch(tmp_path, 1, program(tmp_path, HEAD + LOOP.format(body="pass") + LOOP.format(body="pass")))
    assert 1 == done.returncode
    assert "a second Trainer" in done.stderr


def test_a_program_without_a_trainer_is_told(tmp_path: Path) -> None:
    done = launch(tmp_path, 2, program(tmp_path, "print('hello')"))
    assert 1 == done.returncode
    assert "no worker trained" in done.stderr


def test_a_stop_in_one_worker_ends_the_run_for_all(tmp_path: Path) -> None:
    text = HEAD + LOOP.format(body="if (trainer.step, trainer.shard) == (2, 1): trainer.stop()")
    path = program(tmp_path, text + "\nif trainer.main: print(trainer.step, *sys.argv[1:])")
    done = launch(tmp_path, 3, path, "--flag", "x y")
    assert (0, "3 --flag x y\n") == (done.returncode, done.stdout), done.stderr
    assert 3 == summary(tmp_path / "run")["steps"]


def test_a_break_in_every_worker_ends_the_run(tmp_path: Path) -> None:
    text = HEAD + LOOP.format(body="pass") + "        if trainer.step == 2: break\n"
    done = launch(tmp_path, 2, program(tmp_path, text + "\nif trainer.main: print(trainer.step)"))
    assert (0, "3\n") == (done.returncode, done.stdout), done.stderr


def test_every_worker_has_the_final_weights(tmp_path: Path) -> None:
    text = HEAD + LOOP.format(body="pass") + "\nprint(model.parameters.sha256())"
    done = launch(tmp_path, 3, program(tmp_path, text))
    assert 0 == done.returncode, done.stderr
    expected = summary(tmp_path / "run")["weights_sha256"] + "\n"
    assert [expected] * 3 == [(tmp_path / "run" / "logs" / f"worker-{worker}.log").read_text() for worker in range(3)]


def test_threads_are_handed_on_and_too_many_are_said_once(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass"))
    done = launch(tmp_path, 2, path, options=("--threads", 99))
    assert 0 == done.returncode, done.stderr
    assert 1 == done.stderr.count("2 workers with 99 BLAS threads each on ")
    assert 99 == summary(tmp_path / "run")["threads_per_worker"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-n", 0, DIGITS], "-n must be a whole number from 1 to 9999, not 0"),
        (["-n", 2, "missing.py"], "there is no program 'missing.py'"),
        (["-n", 2, "--run-dir", "file/run", DIGITS], "the run directory file/run cannot be made"),
        (["-n", 2, "--run-dir", "taken", DIGITS], "taken holds a run already"),
    ],
)
def test_what_cannot_be_launched_is_said_at_once(tmp_path: Path, arguments: list[object], reason: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "metrics.jsonl").write_text("")
    done = karp("launch", *arguments, cwd=tmp_path)
    assert 2 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert f"karp: {reason}" in done.stderr


def expected_bits(tmp_path: Path, path: Path) -> str:
    done = launch(tmp_path, 2, path, run="undisturbed")
    assert 0 == done.returncode, done.stderr
    return str(summary(tmp_path / "undisturbed")["weights_sha256"])


def test_ctrl_c_ends_everything_and_says_how_to_resume(tmp_path: Path) -> None:
    path = program(tmp_path, ENDLESS)
    with launched(tmp_path, 2, path) as (process, _):
        process.send_signal(signal.SIGINT)
        status, _, error = process.end()
    assert 130 == status
    assert 130 == summary(tmp_path / "run")["exit"]
    assert [] == left_over(tmp_path / "run")
    steps = summary(tmp_path / "run")["steps"]
    assert f"stopped after step {steps}; to go on: karp launch --resume {tmp_path / 'run'} -n 2" in error
    again = karp("launch", "--resume", tmp_path / "run", "-n", 3, cwd=tmp_path)
    assert 0 == again.returncode, again.stderr
    found = summary(tmp_path / "run")
    assert (expected_bits(tmp_path, path), 1200) == (found["weights_sha256"], found["steps"])
    seen = [line["step"] for line in metrics(tmp_path / "run") if line["report"] == "progress"]
    assert sorted(set(seen)) == seen


def test_nothing_is_left_when_the_launcher_is_killed_and_the_run_can_be_resumed(tmp_path: Path) -> None:
    path = program(tmp_path, ENDLESS)
    with launched(tmp_path, 3, path) as (process, _):
        process.kill()
        process.wait()
    assert gone(tmp_path / "run")
    again = karp("launch", "--resume", tmp_path / "run", "-n", 1, cwd=tmp_path)
    assert 0 == again.returncode, again.stderr
    found = summary(tmp_path / "run")
    assert (3, 1200) == (found["shards"], found["steps"])  # as it was launched


def test_a_server_that_is_killed_is_started_again(tmp_path: Path) -> None:
    path = program(tmp_path, ENDLESS)
    with launched(tmp_path, 2, path) as (process, gate):
        (server,) = [number for number, line, _ in processes(tmp_path / "run") if "karp.serve.process" in line]
        os.kill(server, signal.SIGKILL)
        gate.open()
        status, _, error = process.end()
    assert 0 == status, error
    assert "the server was killed by SIGKILL; it is started again from its newest checkpoint (1 of 3)" in error
    found = summary(tmp_path / "run")
    assert (expected_bits(tmp_path, path), 1200, 1200 * 16) == (
        found["weights_sha256"],
        found["steps"],
        found["samples"],
    )


IGNORED = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]


@pytest.mark.parametrize(
    ("shell", "host", "named"),
    [([], "127.0.0.1", True), (IGNORED, "127.0.0.1", False), ([], "0.0.0.0", False)],
    ids=["at an address", "in the background", "with keys"],
)
def test_a_worker_joins_and_leaves_without_harm(tmp_path: Path, shell: list[str], host: str, named: bool) -> None:
    """Also where SIGINT was ignored when it was started, as by a script's `karp worker … &`."""
    path = program(tmp_path, ENDLESS.replace(GATE, f"print('computes', flush=True)\n        {GATE}"))
    with launched(tmp_path, 2, path, "--host", host, "--port", free_port()) as (process, gate):
        address = f"tcp://{host}:{process.args[process.args.index('--port') + 1]}"  # type: ignore[index,union-attr]
        how = ["--server", address, path] if named else ["--run-dir", tmp_path / "run"]
        with started([*shell, *command("worker", *how)], tmp_path.parent, GATE=str(gate.path)) as joined:
            assert "computes\n" == joined.stdout.readline()
            joined.send_signal(signal.SIGINT)
            status, _, said = joined.end()
        left = "left the run; what this worker was at goes to others"
        first, *_, last = said.splitlines()
        at = re.escape(address) if host != "0.0.0.0" else rf"tcp://(?!0\.0\.0\.0)[\d.]+:{address.rpartition(':')[2]}"
        assert re.fullmatch(f"karp: joined the run at {at} as worker 2", first), said
        assert (130, f"karp: {left}") == (status, last)
        gate.open()
        status, _, error = process.end()
    assert 0 == status, error
    assert "failed" not in error
    assert expected_bits(tmp_path, path) == summary(tmp_path / "run")["weights_sha256"]


def test_a_run_beyond_loopback_has_keys(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass"))
    done = launch(tmp_path, 2, path, options=("--host", "0.0.0.0"))
    assert 0 == done.returncode, done.stderr
    assert 8 == summary(tmp_path / "run")["steps"]
    assert 0 == karp("keys", tmp_path / "keys", cwd=tmp_path).returncode
    assert 0o600 == (tmp_path / "keys" / "karp-keys.json").stat().st_mode & 0o777
    done = launch(tmp_path, 2, path, run="run2", options=("--host", "0.0.0.0", "--keys", tmp_path / "keys"))
    assert 0 == done.returncode, done.stderr


LARGE = HEAD.replace("nn.MLP(3, [8], 2)", "nn.MLP(3, [8192], 2)") + """
codec = sys.argv[1] if len(sys.argv) > 1 else None
def score():
    return float(model(x).data.sum())
trainer = karp.Trainer(model, optim.SGD(lr=0.01), batch_size=16, epochs=2, shards=2, codec_weights=codec, show=False)
with trainer:
    for xs, ys in trainer.batches(x, y, evaluate=score, wait_for_score=True):
        trainer.backward(nn.cross_entropy(model(xs), ys))
"""


@pytest.mark.parametrize("codec", ["", "float16", "bfloat16"])
def test_large_vectors_arrive_as_they_were_sent(tmp_path: Path, codec: str) -> None:
    """ZeroMQ does not copy them: nothing may be written to where it still reads, nor be sent in another's place."""
    path, arguments = program(tmp_path, LARGE), [codec] if codec else []
    expected, _ = alone(path, *arguments, directory=tmp_path / "alone")
    for exchange in ("auto", "zeromq"):
        done = launch(tmp_path, 2, path, *arguments, run=exchange, options=("--exchange", exchange))
        assert 0 == done.returncode, done.stderr
        assert "started again" not in done.stderr
        found = summary(tmp_path / exchange)
        assert (expected["weights_sha256"], expected["metrics"]) == (found["weights_sha256"], found["metrics"])


def test_a_program_that_looks_at_its_weights_trains_as_ever(tmp_path: Path) -> None:
    """They are the server's own, read where they lie."""
    plain = launch(tmp_path / "a", 2, program(tmp_path / "a", HEAD + LOOP.format(body="pass")))
    body = "model.parameters.data.sum()"
    after = "\nmodel.parameters.data *= 2\nif trainer.main: print(model.parameters.sha256())"
    done = launch(tmp_path / "b", 2, program(tmp_path / "b", HEAD + LOOP.format(body=body) + after))
    assert (0, 0) == (plain.returncode, done.returncode), done.stderr
    expected, found = summary(tmp_path / "a" / "run"), summary(tmp_path / "b" / "run")
    assert expected["weights_sha256"] == found["weights_sha256"] != done.stdout.strip()


@pytest.mark.parametrize("exchange", ["auto", "zeromq"])
def test_a_program_that_writes_to_its_weights_in_the_loop_is_told(tmp_path: Path, exchange: str) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="model.parameters.data *= 0.5"))
    done = launch(tmp_path, 2, path, options=("--exchange", exchange))
    assert 1 == done.returncode
    assert "ValueError: output array is read-only" in done.stderr


def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    path = program(tmp_path, HEAD + LOOP.format(body="pass"))
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        command("launch", "-n", 2, "--run-dir", tmp_path / "run", path),
        cwd=tmp_path,
        env=environment(TERM="xterm", COLUMNS="80"),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's word for the end
        while chunk := os.read(mine, 4096):
            shown += chunk
    os.close(mine)
    assert 0 == process.wait(), shown.decode()
    assert "8/8" in shown.decode()
    assert "━━━" in shown.decode()
    assert "samples/s  2 workers" in shown.decode()


def test_the_version_is_said() -> None:
    done = karp("--version", cwd=ROOT)
    assert (0, f"karp {__version__}\n") == (done.returncode, done.stdout)


def test_help_reads_well() -> None:
    for arguments in ([], ["launch"], ["server"], ["worker"], ["keys"]):
        done = karp(*arguments, "--help", cwd=ROOT)
        assert 0 == done.returncode
        assert "usage: karp" in done.stdout
        assert all(len(line) <= 120 for line in done.stdout.splitlines())
    assert 2 == karp("nonsense", cwd=ROOT).returncode
