"""`karp server` and workers that something else starts: a shell, Slurm's and Kubernetes' files, other hosts."""

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Hosts, connected
from running import (
    DIGITS,
    ENDLESS,
    HEAD,
    PATIENCE,
    ROOT,
    Gate,
    Process,
    alone,
    command,
    completed,
    karp,
    launch,
    metrics,
    program,
    started,
    summary,
)

from karp.launch.named_files import named_files
from karp.record.server_address import published
from karp.transport import listening

CLUSTER = ROOT / "scripts" / "cluster"


def serve(folder: Path, *options: object) -> list[str]:
    return command("server", "-n", 2, "--run-dir", folder / "run", *options)


@contextlib.contextmanager
def joined(folder: Path, count: int, **variables: str) -> Iterator[list[Process]]:
    """So many workers of the run in this folder; they are killed should the test end before them."""
    line = command("worker", "--run-dir", folder / "run", "--wait", 60)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(started(line, folder, **variables)) for _ in range(count)]


def test_a_server_s_workers_come_from_elsewhere_and_the_bits_are_those_of_one_process(tmp_path: Path) -> None:
    options = ["--shards", 2, "--epochs", 2]
    expected, printed = alone(DIGITS, *options, directory=tmp_path / "alone")
    line = serve(tmp_path, "--bind", "tcp://127.0.0.1:0", DIGITS, *options)
    with started(line, tmp_path) as server, joined(tmp_path, 2) as workers:
        ends = [worker.end() for worker in workers]
        status, nothing, said = server.end()
    assert (0, "", [0, 0]) == (status, nothing, [status for status, _, _ in ends]), said
    assert printed in [output for _, output, _ in ends]
    found = summary(tmp_path / "run")
    assert (expected["weights_sha256"], 0) == (found["weights_sha256"], found["exit"])
    assert [0, 1] == sorted(line["worker"] for line in metrics(tmp_path / "run") if line["report"] == "joined")
    assert f"to add a worker: karp worker --run-dir {tmp_path / 'run'}" in said
    assert "closed" in [line["report"] for line in metrics(tmp_path / "run")]  # others may leave after the leader


def test_ctrl_c_stops_a_server_and_it_goes_on(tmp_path: Path) -> None:
    path = program(tmp_path, ENDLESS)
    undisturbed = launch(tmp_path, 2, path, run="undisturbed")
    assert 0 == undisturbed.returncode, undisturbed.stderr
    os.mkfifo(tmp_path / "gate")
    line = serve(tmp_path, "--checkpoint-every", 0.1, path)
    with started(line, tmp_path) as server, joined(tmp_path, 2, GATE=str(tmp_path / "gate")):
        server.until("step ", "epoch ")
        server.send_signal(signal.SIGINT)
        status, _, said = server.end()
    assert 130 == status
    assert f"to go on: karp server --resume {tmp_path / 'run'} -n 2" in said
    line = command("server", "--resume", tmp_path / "run", "-n", 1)
    with started(line, tmp_path) as server, joined(tmp_path, 1) as (worker,):
        assert (0, 0) == (worker.end()[0], server.end()[0])
    assert summary(tmp_path / "undisturbed")["weights_sha256"] == summary(tmp_path / "run")["weights_sha256"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--bind", "0.0.0.0:5"], "--bind is '0.0.0.0:5'; it must be tcp://HOST:PORT, with a port from 0 to 65535"),
        (["--bind", "tcp://no.such.host.invalid:0"], "but there is no such host"),
        (["--bind", "tcp://192.0.2.77:0"], "the server cannot listen on 192.0.2.77"),
    ],
)
def test_where_a_server_cannot_listen_is_said(tmp_path: Path, options: list[object], reason: str) -> None:
    done = karp("server", "-n", 1, *options, "--run-dir", tmp_path / "run", program(tmp_path), cwd=tmp_path)
    assert 2 == done.returncode
    assert reason in done.stderr


@pytest.mark.parametrize("options", [["-n", "2:4"], ["-n", "4:2", "--on", "ray"], ["-n", 2, "--on", "moon"]])
def test_where_workers_cannot_run_is_said(tmp_path: Path, options: list[object]) -> None:
    done = karp("launch", *options, "--run-dir", tmp_path / "run", program(tmp_path), cwd=tmp_path)
    assert (2, False) == (done.returncode, (tmp_path / "run").exists())
    assert re.search("with --on ray, as more workers|must be host, ray or ray://HOST:PORT", done.stderr)


def test_a_server_at_all_addresses_has_one_that_others_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening.listen("0.0.0.0") as everywhere, listening.listen() as loopback:
        assert listening.address_of(loopback) == listening.address_for_others(loopback)
        monkeypatch.setattr(listening, "outward_host", lambda family: "192.0.2.7")
        port = everywhere.getsockname()[1]
        assert f"tcp://192.0.2.7:{port}" == listening.address_for_others(everywhere)
    monkeypatch.undo()

    class NoRoute:
        def __init__(self, *kind: object) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", NoRoute)
    named = [(2, 1, 6, "", ("127.0.1.1", 0)), (2, 1, 6, "", ("192.0.2.9", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: named)
    assert "192.0.2.9" == listening.outward_host(socket.AF_INET)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: named[:1])
    assert "127.0.0.1" == listening.outward_host(socket.AF_INET)


def test_the_kubernetes_file_follows_the_published_schema() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    yaml = pytest.importorskip("yaml")
    objects = list(yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text()))
    assert ["Service", "PersistentVolumeClaim", "Job", "Job"] == [each["kind"] for each in objects]
    for each in objects:
        validate.validate(each, validate.latest_version(), strict=True)
    wrong = objects[-1] | {"spec": objects[-1]["spec"] | {"paralellism": 4}}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, validate.latest_version(), strict=True)


SRUN = """#!/bin/sh
# Two tasks on each of two hosts, whose processes do not see those of the other.
shift
for host in HOSTS; do
    for task in 1 2; do
        ip netns exec $host unshare --uts --pid --fork --mount-proc sh -c "hostname $host && exec $*" &
    done
done
wait
"""


def test_the_slurm_file_runs_on_two_hosts(tmp_path: Path) -> None:
    with connected(2) as hosts:
        run_slurm(tmp_path, hosts.names)


def run_slurm(tmp_path: Path, hosts: list[str]) -> None:
    options = ["--shards", 4, "--epochs", 2]
    expected, printed = alone(DIGITS, *options, directory=tmp_path / "alone")
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "srun").write_text(SRUN.replace("HOSTS", " ".join(hosts)))
    (commands / "karp").write_text(f'#!/bin/sh\nexec {sys.executable} -m karp.cli "$@"\n')
    for path in commands.iterdir():
        path.chmod(0o755)
    line = ["ip", "netns", "exec", hosts[0], "bash", str(CLUSTER / "slurm.sbatch"), str(DIGITS), *map(str, options)]
    variables = {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}
    done = completed(line, tmp_path, **variables)
    assert (0, printed) == (done.returncode, done.stdout), done.stderr
    assert 4 == done.stderr.count("joined the run at tcp://10.77.1.1:")
    found = summary(tmp_path / "runs" / "slurm-7")
    assert (expected["weights_sha256"], 4) == (found["weights_sha256"], found["workers"])
    where = [line["host"] for line in metrics(tmp_path / "runs" / "slurm-7") if line["report"] == "joined"]
    assert sorted(hosts * 2) == sorted(where)


GATES = """
with karp.Trainer(model, optim.SGD(lr=0.1), batch_size=16, epochs=300, shards=2) as trainer:
    for xs, ys in trainer.batches(x, y):
        if trainer.step in (300, 900):
            open(os.environ.get(f"GATE{trainer.step}", os.devnull)).close()
        trainer.backward(nn.cross_entropy(model(xs), ys))
"""


@contextlib.contextmanager
def spread(folder: Path, path: Path, hosts: Hosts, **variables: str) -> Iterator[list[Process]]:
    """A server on the first host and a worker on each of the others, all with keys."""
    server = hosts.command(0, serve(folder, "--bind", "tcp://0.0.0.0:0", path))
    worker = command("worker", "--run-dir", folder / "run", "--wait", 60)
    with contextlib.ExitStack() as stack:
        lines = [server, *(hosts.command(number, worker) for number in range(1, len(hosts.names)))]
        yield [stack.enter_context(started(line, folder, **variables)) for line in lines]


def end_well(processes: list[Process], hosts: Hosts, folder: Path) -> dict[str, Any]:
    """The summary of a run on these hosts, with which all went well."""
    ends = [process.end() for process in processes]
    assert [0] * len(ends) == [status for status, _, _ in ends], ends
    assert all("joined the run at tcp://10.77.1.1:" in said for _, _, said in ends[1:]), ends
    joined = {line["host"] for line in metrics(folder / "run") if line["report"] == "joined"}
    assert set(hosts.names[1:]) == joined
    return summary(folder / "run")


@pytest.mark.parametrize("worse", [False, True], ids=["a good network", "20 ms and 1 % loss"])
def test_workers_on_other_hosts_compute_the_same_bits(tmp_path: Path, worse: bool) -> None:
    path = program(tmp_path)
    expected, _ = alone(path, directory=tmp_path / "alone")
    with connected(3) as hosts:
        if worse:
            hosts.worsen()
        with spread(tmp_path, path, hosts) as processes:
            found = end_well(processes, hosts, tmp_path)
    assert expected["weights_sha256"] == found["weights_sha256"]


def reported(folder: Path, kind: str, count: int) -> None:
    """Wait until the run's record has so many reports of this kind."""
    record, until = folder / "run" / "metrics.jsonl", time.monotonic() + PATIENCE
    while record.read_text().count(f'"report": "{kind}"') < count:  # the last line may not be whole yet
        assert time.monotonic() < until, f"{count} reports of {kind} are awaited"
        time.sleep(0.05)  # there is no event of a line in another process's file


def test_a_cable_that_is_cut_until_its_worker_is_given_up_costs_no_bits(tmp_path: Path) -> None:
    """Both workers are at the first gate then; with the cable mended, the lost one is back before the second opens."""
    path = program(tmp_path, HEAD + GATES)
    expected, _ = alone(path, directory=tmp_path / "alone")
    with (
        connected(3) as hosts,
        contextlib.closing(Gate(tmp_path / "300")) as first,
        contextlib.closing(Gate(tmp_path / "900")) as second,
        spread(tmp_path, path, hosts, GATE300=str(first.path), GATE900=str(second.path)) as processes,
    ):
        processes[0].until("step ", "2 workers")
        address, _, keys_of_workers = published(tmp_path / "run")
        assert ("tcp://10.77.1.1", True) == (address.rpartition(":")[0], bool(keys_of_workers))
        hosts.cut(2)
        reported(tmp_path, "lost", 1)
        hosts.heal(2)
        first.open()
        reported(tmp_path, "joined", 3)
        second.open()
        found = end_well(processes, hosts, tmp_path)
    assert expected["weights_sha256"] == found["weights_sha256"]


def test_a_server_goes_on_here_with_a_run_that_was_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from karp.cli import main
    from karp.launch import start

    resumed = []
    monkeypatch.setattr(start, "resume", lambda *arguments: resumed.append(arguments) or 0)
    assert 0 == main(["server", "--resume", "run"])
    ((directory, given, changed, elsewhere),) = resumed
    assert ("run", False, True) == (directory, changed, elsewhere)
    assert {"on": "host", "most_workers": 0, "working_dir": ""} == given


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--working-dir", "."], "--working-dir goes with --on ray"),
        (["--on", "ray", "--working-dir", "nowhere"], "nowhere', which is no directory"),
        (["--on", "ray", "--working-dir", "other"], "is not in --working-dir"),
    ],
)
def test_a_working_directory_that_ray_cannot_send_is_refused(tmp_path: Path, options: list[str], reason: str) -> None:
    (tmp_path / "other").mkdir()
    done = karp("launch", "-n", 1, *options, program(tmp_path), cwd=tmp_path)
    assert (2, True) == (done.returncode, reason in done.stderr), done.stderr


def test_files_that_a_program_names_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.csv", "more.csv", "model.bin", "other.csv"):
        (tmp_path / name).touch()
    (tmp_path / "program.py").write_text("open('rows.csv'); 'no file', '', 'a\\0b', 4\n")
    found = named_files(tmp_path / "program.py", ["--data=more.csv", "model.bin", "--other", "."])
    assert ["model.bin", "more.csv", "rows.csv"] == found
    (tmp_path / "program.py").write_text("not Python")
    assert ["more.csv"] == named_files(tmp_path / "program.py", ["more.csv"])
