"""Strangers at the port of a live server: counted or ignored, logged once, never noticed by the run.

The workers of a small run stop at a gate, a pipe, in their first step; the strangers come, the gate opens, and the run
ends with the bits of one that nobody has disturbed.
"""

import contextlib
import json
import os
import resource
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from running import PATIENCE, Gate, command, completed, karp, metrics, program, started, summary

from karp.protocol.messages import PROTOCOL
from karp.record.kernels import kernels

PROGRAM = """
import os
import numpy as np
import karp
from karp import nn, optim
x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)
model = nn.MLP(3, [8], 2)
passed = not os.path.exists("gate")
with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=16, epochs=20, shards=4) as trainer:
    for xs, ys in trainer.batches(x, y):
        if not passed:
            with open("here", "w") as here:
                here.write(os.environ["KARP_SERVER"] + "\\n")
            open("gate").close()
            passed = True
        trainer.backward(nn.cross_entropy(model(xs), ys))
"""


def launch_of(folder: Path, *options: object) -> list[str]:
    return command("launch", "-n", 2, "--run-dir", "run", *options, program(folder, PROGRAM))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = completed(launch_of(folder), folder)
    assert 0 == done.returncode, done.stderr
    return str(summary(folder / "run")["weights_sha256"])


@contextlib.contextmanager
def at_the_gate(folder: Path, *options: object, heard: str = "") -> Iterator[tuple[str, int]]:
    """A run whose workers wait at the gate: host and port of its server. It goes on, and must end well, afterwards.

    With `heard` it goes on when the launcher has said a line with these words.
    """
    os.mkfifo(folder / "here")
    here = os.open(folder / "here", os.O_RDWR)
    try:
        with contextlib.closing(Gate(folder / "gate")) as gate, started(launch_of(folder, *options), folder) as process:
            assert select.select([here], [], [], PATIENCE)[0], "no worker has come to the gate"
            host, port = os.read(here, 100).decode().split()[0].removeprefix("tcp://").rsplit(":", 1)
            yield "127.0.0.1" if host == "0.0.0.0" else host, int(port)
            if heard:
                process.until(heard)
            gate.open()  # whoever waits at it, or comes to it, goes through
            status, _, error = process.end()
            assert 0 == status, error
    finally:
        os.close(here)


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    """As many descriptors for this process as the system gives: it holds a thousand connections, beside its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip(f"this system gives a process no more than {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def refusals(folder: Path) -> list[str]:
    return [line["reason"] for line in metrics(folder / "run") if line["report"] == "refused"]


@pytest.mark.parametrize("name", ["garbage", "http", "scanner", "half_message", "idle", "drip"])
def test_those_who_speak_no_zeromq_are_not_noticed(tmp_path: Path, expected: str, name: str) -> None:
    """Some bytes look like messages of ZeroMQ's oldest protocol: they are counted, and leave few lines."""
    from chaos import strangers

    with contextlib.ExitStack() as stack, at_the_gate(tmp_path) as (host, port):
        stack.enter_context(many_descriptors())  # the processes of the run have the usual limit
        stack.enter_context(getattr(strangers, name)(host, port))
    assert expected == summary(tmp_path / "run")["weights_sha256"]
    assert len(refusals(tmp_path)) == summary(tmp_path / "run")["refused"].bit_length()  # the 1st, 2nd, 4th, 8th, …


def test_one_who_never_reads_is_counted_and_leaves_few_lines(tmp_path: Path, expected: str) -> None:
    from chaos import strangers

    said = "messages refused so far"
    with contextlib.ExitStack() as stack, at_the_gate(tmp_path, heard=said) as (host, port):
        stack.enter_context(strangers.never_reads(host, port))
    assert expected == summary(tmp_path / "run")["weights_sha256"]
    assert 0 < len(refusals(tmp_path)) == summary(tmp_path / "run")["refused"].bit_length()


def test_a_worker_of_another_run_is_told_so_and_counted(tmp_path: Path, expected: str) -> None:
    from chaos import strangers

    head = {"kind": "ping", "seen": 0, "karp": PROTOCOL, "run": "another", "incarnation": 0, "dtypes": []}
    with contextlib.ExitStack() as stack, at_the_gate(tmp_path, heard="(8 messages refused so far)") as (host, port):
        stack.enter_context(strangers.dealer(host, port, [msgpack.packb(head)]))  # ten times
    assert expected == summary(tmp_path / "run")["weights_sha256"]
    assert 8 <= summary(tmp_path / "run")["refused"] <= 10
    assert 4 == len(refusals(tmp_path))  # the 1st, 2nd, 4th and 8th
    assert "a message of run 'another', but this is run" in refusals(tmp_path)[0]


def no_key() -> dict[str, Any]:
    return {}


def wrong_key() -> dict[str, Any]:
    import zmq

    public, secret = zmq.curve_keypair()
    return {"curve_serverkey": zmq.curve_keypair()[0], "curve_publickey": public, "curve_secretkey": secret}


@pytest.mark.parametrize("key", [no_key, wrong_key])
def test_without_the_key_nobody_is_heard(tmp_path: Path, expected: str, key: Callable[[], dict[str, Any]]) -> None:
    from chaos import strangers

    run = at_the_gate(tmp_path, "--host", "0.0.0.0", heard="turned away so far")
    with contextlib.ExitStack() as stack, run as (host, port):
        stack.enter_context(strangers.dealer(host, port, [b"hello"], **key()))
    assert (expected, 0) == (summary(tmp_path / "run")["weights_sha256"], summary(tmp_path / "run")["refused"])
    assert summary(tmp_path / "run")["rejected_connections"] > 0


def test_the_right_server_key_with_a_workers_key_that_is_not_the_runs(tmp_path: Path, expected: str) -> None:
    """One who has overheard the server's public key, but has no key of the run's."""
    import zmq
    from chaos import strangers

    assert 0 == karp("keys", "keys", cwd=tmp_path).returncode
    keys = json.loads((tmp_path / "keys" / "karp-keys.json").read_text())
    public, secret = zmq.curve_keypair()
    options = {
        "curve_serverkey": keys["server_public"].encode(),
        "curve_publickey": public,
        "curve_secretkey": secret,
    }
    run = at_the_gate(tmp_path, "--keys", "keys", heard="turned away so far")
    with contextlib.ExitStack() as stack, run as (host, port):
        stack.enter_context(strangers.dealer(host, port, [b"hello"], **options))
    assert (expected, 0) == (summary(tmp_path / "run")["weights_sha256"], summary(tmp_path / "run")["refused"])
    assert summary(tmp_path / "run")["rejected_connections"] > 0


def test_a_worker_without_keys_ends_and_the_server_says_who_was_turned_away(tmp_path: Path, expected: str) -> None:
    karp("keys", "keys", cwd=tmp_path)
    with at_the_gate(tmp_path, "--keys", "keys", heard="turned away so far") as (host, port):
        done = karp("worker", "--server", f"tcp://{host}:{port}", "program.py", cwd=tmp_path)
        assert (2, "") == (done.returncode, done.stdout)
        assert f"karp: the server at tcp://{host}:{port} takes workers with its keys alone, and this" in done.stderr
        assert "Traceback" not in done.stderr
    assert expected == summary(tmp_path / "run")["weights_sha256"]
    reasons = [line["reason"] for line in metrics(tmp_path / "run") if line["report"] == "rejected"]
    assert "without keys" in reasons[0]


def test_a_worker_with_other_kernels_is_refused_where_they_must_be_the_same(tmp_path: Path, expected: str) -> None:
    other = "Nehalem" if "Nehalem" not in kernels().blas else "Haswell"
    said = "computes with other kernels than the run's: blas"
    with at_the_gate(tmp_path, "--same-kernels", heard=said) as (host, port):
        arguments = ["worker", "--server", f"tcp://{host}:{port}", "program.py"]
        done = karp(*arguments, cwd=tmp_path, OPENBLAS_CORETYPE=other)
        assert (2, "") == (done.returncode, done.stdout)
        assert (True, True) == (said in done.stderr, other in done.stderr), done.stderr
    assert expected == summary(tmp_path / "run")["weights_sha256"]
    assert [([0, 1], True)] == [(use["workers"], use["server"]) for use in summary(tmp_path / "run")["kernels"]]
    assert json.loads((tmp_path / "run" / "launch.json").read_text())["same_kernels"]


def test_idle_connections_use_up_no_descriptors(tmp_path: Path, expected: str) -> None:
    """Many systems give a process 1,024 descriptors, and more only if it asks."""
    from chaos import strangers

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with contextlib.ExitStack() as stack, at_the_gate(tmp_path, "--checkpoint-every", 0) as (host, port):
            stack.enter_context(many_descriptors())
            stack.enter_context(strangers.idle(host, port))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert expected == summary(tmp_path / "run")["weights_sha256"]
    assert "could not be written" not in (tmp_path / "run" / "metrics.jsonl").read_text()
