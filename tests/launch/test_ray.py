"""`karp launch --on ray`: two Ray nodes on this machine, or more."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from running import (
    ENDLESS,
    PATIENCE,
    PROGRAM,
    Process,
    command,
    completed,
    environment,
    free_port,
    gone,
    launch,
    metrics,
    processes,
    program,
    started,
    summary,
)

from karp.errors import SettingError
from karp.launch.options import Options
from karp.launch.ray import RayCluster
from karp.launch.ray_actors import hash_of, installed
from karp.launch.ray_places import Place
from karp.launch.run import Launch
from karp.launch.supervisor import SERVER

pytest.importorskip("ray")


WAIT = """
import time
def wait():
    while not os.path.exists({gate!r}):
        time.sleep(0.05)  # the environment of the tests does not reach a node, so a pipe's name would not
"""


class Nodes:
    """A Ray cluster, and the raylets of its nodes."""

    def __init__(self, process: "subprocess.Popen[str]", client: str) -> None:
        self.process = process
        self.client = client
        self.address = self._answer()
        self.raylets: list[int] = []

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def add(self, cpus: int) -> int:
        assert self.process.stdin is not None
        print(cpus, file=self.process.stdin, flush=True)
        self.raylets.append(int(self._answer()))
        return self.raylets[-1]

    def end(self) -> None:
        """Kill all of its processes, as the loss of all hosts does."""
        for number in below(self.process.pid):
            kill(number)

    def of(self, number: int) -> int:
        """The raylet of the node that a process runs on."""
        while number not in self.raylets:
            number = parent(number)
        return number

    def lose(self, raylet: int) -> None:
        """Kill all processes of a node, as the loss of its host does."""
        for number in [raylet, *below(raylet)]:
            kill(number)


def kill(number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)


def below(number: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    found = []
    for child in Path(f"/proc/{number}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            for text in child.read_text().split():
                found += [int(text), *below(int(text))]
    return found


def parent(number: int) -> int:
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with two_nodes() as nodes:
        yield nodes


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """A Ray cluster with two nodes of two CPUs each."""
    variables = environment(PYTHONWARNINGS="", RAY_DISABLE_IMPORT_WARNING="1")
    port = free_port()
    line = [sys.executable, str(Path(__file__).with_name("ray_nodes.py")), str(port)]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables
    ) as process:
        try:
            cluster = Nodes(process, f"ray://127.0.0.1:{port}")
            cluster.add(2)
            cluster.add(2)
            yield cluster
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(PATIENCE)


def line_of(folder: Path, workers: object, path: Path, *options: object) -> list[str]:
    return command("launch", "-n", workers, "--on", "ray", "--run-dir", folder / "run", *options, path)


def patched(code: str, line: list[str]) -> list[str]:
    """A line of the karp command whose process runs this code first."""
    main = "from karp.cli import main; raise SystemExit(main())"
    return [line[0], "-c", f"{code}\n{main}", *line[3:]]


def on(nodes: Nodes) -> dict[str, str]:
    return {"RAY_ADDRESS": nodes.address, "PYTHONWARNINGS": ""}


@contextlib.contextmanager
def begun(
    nodes: Nodes, folder: Path, workers: object = 3, patch: str = "", **variables: str
) -> Iterator[tuple[Process, Path]]:
    """A launch of three workers that train until the file named second is there; its launcher runs a patch first."""
    gate = folder / "gate"
    text = ENDLESS.replace('open(os.environ.get("GATE", os.devnull)).close()', "wait()")
    text = text.replace("model = ", WAIT.format(gate=str(gate)) + "model = ", 1)
    line = patched(patch, line_of(folder, workers, program(folder, text), "--checkpoint-every", 0.1))
    with started(line, folder, **on(nodes), **variables) as process:
        process.until("step ", "epoch ")
        yield process, gate


def secrets(folder: Path) -> list[str]:
    """The secret keys of the run, which it must have, as the nodes of the tests are not at loopback."""
    keys = json.loads(json.loads((folder / "run" / "server.json").read_text())["keys"])
    return [text for name, text in keys.items() if "secret" in name and text]


def on_command_lines(texts: list[str]) -> list[str]:
    """The command lines of all processes of this machine in which there is one of these texts, or none of the texts."""
    assert texts
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(file.read_bytes().decode(errors="replace"))
    return [line for line in lines if any(text in line for text in texts)]


def expected_bits(folder: Path) -> str:
    done = launch(folder, 3, program(folder / "here", ENDLESS), run="undisturbed")
    assert 0 == done.returncode, done.stderr
    return str(summary(folder / "undisturbed")["weights_sha256"])


def of_run(folder: Path, kind: str) -> list[int]:
    """The processes of the run's workers (worker_main), or of its server (serve.process)."""
    return [number for number, line, _ in processes(folder / "run") if kind in line]


def joined_by(folder: Path, count: int) -> None:
    """Wait until so many workers have joined the run."""
    until = time.monotonic() + PATIENCE
    while sum(line["report"] == "joined" for line in metrics(folder / "run")) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


def ended(folder: Path, nodes: Nodes) -> bool:
    """Wait until nothing of the run is left: no process, and no room that Ray keeps for it."""
    until = time.monotonic() + PATIENCE
    while of_run(folder, "karp") and time.monotonic() < until:
        time.sleep(0.05)
    code = (
        "import ray, time; ray.init(log_to_driver=False); from ray.util import placement_group_table as table\n"
        "while {group['state'] for group in table().values()} - {'REMOVED'}: time.sleep(0.1)"
    )
    done = completed([sys.executable, "-c", code], folder, **on(nodes))
    return (done.returncode, of_run(folder, "karp")) == (0, [])


def test_a_run_on_ray_has_the_bits_and_the_output_of_one_on_this_host(nodes: Nodes, tmp_path: Path) -> None:
    text = PROGRAM + "    print(os.environ['OMP_NUM_THREADS'], os.environ['OPENBLAS_NUM_THREADS'])\n"
    path = program(tmp_path, text)
    here = launch(tmp_path, 3, path, run="here")
    done = completed(line_of(tmp_path, 3, path), tmp_path, **on(nodes), OMP_NUM_THREADS="3")
    assert (0, here.stdout) == (done.returncode, done.stdout), done.stderr
    assert "1 1\n" in done.stdout
    assert summary(tmp_path / "here")["weights_sha256"] == summary(tmp_path / "run")["weights_sha256"]
    assert "step 8/8" in done.stderr
    assert "KARP_KEYS" not in done.stderr
    assert ended(tmp_path, nodes)


def test_a_run_goes_by_ray_s_client_as_well(nodes: Nodes, tmp_path: Path) -> None:
    line = command("launch", "-n", 2, "--on", nodes.client, "--run-dir", tmp_path / "run", program(tmp_path))
    done = completed(line, tmp_path, PYTHONWARNINGS="")
    assert (0, "trained 8\n") == (done.returncode, done.stdout), done.stderr
    assert ended(tmp_path, nodes)


def test_a_worker_that_is_killed_is_started_again_and_so_is_the_server(nodes: Nodes, tmp_path: Path) -> None:
    with begun(nodes, tmp_path) as (process, gate):
        assert on_command_lines(secrets(tmp_path)) == []
        os.kill(of_run(tmp_path, "worker_main")[0], signal.SIGKILL)
        process.until("was killed by SIGKILL: it is started again (1 of 3)")
        (server,) = of_run(tmp_path, "serve.process")
        os.kill(server, signal.SIGKILL)
        process.until("the server was killed by SIGKILL; it is started again")
        gate.touch()
        status, _, said = process.end()
    assert 0 == status, said
    assert expected_bits(tmp_path) == summary(tmp_path / "run")["weights_sha256"]
    assert ended(tmp_path, nodes)


def test_nothing_is_left_of_a_run_that_fails(nodes: Nodes, tmp_path: Path) -> None:
    text = PROGRAM.replace("pass", "assert trainer.step < 3, 'too far'")
    done = completed(line_of(tmp_path, 3, program(tmp_path, text)), tmp_path, **on(nodes))
    assert 1 == done.returncode
    assert "AssertionError: too far" in done.stderr
    assert ended(tmp_path, nodes)


def test_ctrl_c_stops_a_run_on_ray_and_it_is_resumed(nodes: Nodes, tmp_path: Path) -> None:
    with begun(nodes, tmp_path) as (process, gate):
        process.send_signal(signal.SIGINT)
        status, _, said = process.end()
    assert 130 == status, said
    assert f"to go on: karp launch --resume {tmp_path / 'run'} -n 3" in said
    assert ended(tmp_path, nodes)
    gate.touch()
    again = completed(command("launch", "--resume", tmp_path / "run"), tmp_path, **on(nodes))
    assert 0 == again.returncode, again.stderr
    assert expected_bits(tmp_path) == summary(tmp_path / "run")["weights_sha256"]


def test_a_node_that_is_lost_costs_no_bits(nodes: Nodes, tmp_path: Path) -> None:
    """First one with workers alone, then that of the server, which begins again on another."""
    for _ in range(2):
        nodes.add(2)
    with begun(nodes, tmp_path) as (process, gate):
        (server,) = of_run(tmp_path, "serve.process")
        others = [nodes.of(number) for number in of_run(tmp_path, "worker_main")]
        nodes.lose(next(node for node in others if node != nodes.of(server)))
        process.until("was lost with its actor on node", "it is started again (1 of 3)")
        nodes.lose(nodes.of(server))
        process.until("the server was lost with its actor on node", "it is started again from its newest checkpoint")
        gate.touch()
        status, _, said = process.end()
    assert 0 == status, said
    assert expected_bits(tmp_path) == summary(tmp_path / "run")["weights_sha256"]
    assert ended(tmp_path, nodes)


def test_nothing_is_left_when_the_driver_is_killed_and_the_run_is_resumed(nodes: Nodes, tmp_path: Path) -> None:
    with begun(nodes, tmp_path) as (process, gate):
        process.kill()
        process.wait()
    assert ended(tmp_path, nodes)
    gate.touch()
    again = completed(command("launch", "--resume", tmp_path / "run", "-n", 2), tmp_path, **on(nodes))
    assert 0 == again.returncode, again.stderr
    assert expected_bits(tmp_path) == summary(tmp_path / "run")["weights_sha256"]


HERE = ("10.0.0.1", installed(), "", True, [])


@pytest.mark.parametrize(
    ("worker", "server", "reason"),
    [
        (("10.0.0.2", "karp 0.0", "PROGRAM", True, []), HERE[:3], "node 10.0.0.2 has karp 0.0, and this host karp"),
        (("10.0.0.2", HERE[1], "", True, []), HERE[:3], "node 10.0.0.2 does not see the file PATH: put it on storage"),
        (("10.0.0.2", HERE[1], "other", True, []), HERE[:3], "node 10.0.0.2 has another file PATH"),
        (("10.0.0.2", HERE[1], "PROGRAM", False, []), HERE[:3], "node 10.0.0.2 does not see the folder FOLDER: run"),
        (("10.0.0.2", HERE[1], "PROGRAM", True, []), HERE[:3], "node 10.0.0.1, of the server, does not see the run's"),
        (("10.0.0.2", HERE[1], "PROGRAM", True, []), ("10.0.0.1", HERE[1], "LAUNCHED"), ""),
    ],
)
def test_what_a_node_lacks_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: tuple[object, ...], server: tuple[object, ...], reason: str
) -> None:
    path = program(tmp_path)
    options = Options(str(path), [], 1, on="ray")
    options.write(tmp_path)
    hashes = {"PROGRAM": hash_of(path), "LAUNCHED": hash_of(tmp_path / "launch.json")}
    answers = [tuple(hashes.get(str(part), part) for part in answer) for answer in (worker, server)]
    cluster = Launch(options, tmp_path, resume=False).hands
    assert isinstance(cluster, RayCluster)
    monkeypatch.setattr(cluster, "_get", lambda futures, what: answers)
    monkeypatch.setattr(Place, "call", lambda *arguments: None)
    cluster.places = {SERVER: Place(None), 0: Place(None)}
    said = reason.replace("PATH", str(path)).replace("FOLDER", str(Path.cwd()))
    with pytest.raises(SettingError, match=re.escape(said)) if reason else contextlib.nullcontext():
        cluster._check_nodes()


def test_a_working_directory_is_sent_to_the_nodes(nodes: Nodes, tmp_path: Path) -> None:
    """It goes over without what git ignores, which is named; more than Ray takes is refused with both sizes."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    for name in ("rows", "ignored"):
        (home / "data" / f"{name}.txt").write_text("4")
    (home / ".gitignore").write_text("ignored.txt\n")
    text = PROGRAM.replace("EPOCHS", "int(open('data/rows.txt').read()) // 2")
    text += "    print(os.getcwd(), os.path.exists('data/ignored.txt'))\n"
    path = program(home, text)
    line = [*line_of(tmp_path, 3, path), "data/ignored.txt"]
    line[-2:-2] = ["--working-dir", "."]
    done = completed(line, home, **on(nodes))
    assert 0 == done.returncode, done.stderr
    trained, where = done.stdout.splitlines()
    assert ("trained 8", "False") == (trained, where.rpartition(" ")[2])
    assert not where.startswith(str(tmp_path))
    assert 1 == done.stderr.count("or its arguments name (data/ignored.txt): git ignores them")
    assert launch(tmp_path, 3, path, run="here").returncode == 1  # its data are in `home`
    (home / "more.txt").write_text("what is there already is not sent again" * 100)
    limit = "from ray._private.runtime_env import packaging; packaging.GCS_STORAGE_MAX_SIZE = 100"
    refused = completed(patched(limit, [str(part).replace("/run", "/run2") for part in line]), home, **on(nodes))
    assert 2 == refused.returncode
    assert f"karp: Ray does not send --working-dir {home}: " in refused.stderr
    assert ended(tmp_path, nodes)


def test_what_ray_has_no_room_for_is_said(nodes: Nodes, tmp_path: Path) -> None:
    code = "from karp.launch import ray; ray.ROOM_SECONDS = 1.0"
    line = patched(code, line_of(tmp_path, 64, program(tmp_path)))
    done = completed(line, tmp_path, **on(nodes))
    assert 2 == done.returncode
    assert (
        "Ray had no room for the run in 1 s: it needs 1 CPU for the server and 1 for each of 64 workers; 4 of 4"
        in done.stderr
    )
    assert ended(tmp_path, nodes)


DIES = """
import os
from karp.launch import ray, ray_actors

class Dies(ray_actors.WorkerActor):
    def look(self, *given):
        try:
            os.mkdir({mark!r})
        except FileExistsError:
            return super().look(*given)
        os._exit(1)

begin = ray.RayCluster._begin
ray.RayCluster._begin = lambda self, kind, index: begin(self, Dies if index > self.options.workers else kind, index)
"""


def test_workers_begin_when_ray_has_room_for_them(nodes: Nodes, tmp_path: Path) -> None:
    """Two of six at once, one on the CPU that is left, two on a node that comes; for the sixth there is no room.

    The first actor that begins later is lost before its node is known.
    """
    path = program(tmp_path / "here", ENDLESS)
    with begun(nodes, tmp_path, workers="2:6", patch=DIES.format(mark=str(tmp_path / "died"))) as (process, gate):
        process.until("worker ", "was lost with its actor: it is started again (1 of 3)")
        joined_by(tmp_path, 3)
        nodes.add(2)
        joined_by(tmp_path, 5)
        gate.touch()
        status, _, said = process.end()
    assert 0 == status, said
    found = summary(tmp_path / "run")
    done = launch(tmp_path, 6, path, run="undisturbed")
    assert 0 == done.returncode, done.stderr
    assert (summary(tmp_path / "undisturbed")["weights_sha256"], 6) == (found["weights_sha256"], found["shards"])
    assert 1 == said.count("is started again")
    assert ended(tmp_path, nodes)


def test_a_run_on_ray_is_scaled(nodes: Nodes, tmp_path: Path) -> None:
    """A third worker has room, further ones have not, and are not started when two are enough again."""
    path = program(tmp_path / "here", ENDLESS)

    def scale(workers: int) -> None:
        line = command("scale", "--run-dir", tmp_path / "run", workers)
        assert 0 == completed(line, tmp_path, PYTHONWARNINGS="").returncode

    with begun(nodes, tmp_path, workers=2) as (process, gate):
        scale(3)
        joined_by(tmp_path, 3)
        scale(12)
        process.until("12 workers asked for: 9 more start")
        scale(2)
        process.until("2 workers asked for: 10 end when their tasks are done")
        gate.touch()
        status, _, said = process.end()
    assert 0 == status, said
    assert "is started again" not in said
    lost = {line["worker"] for line in metrics(tmp_path / "run") if line["report"] == "lost"}
    assert not lost - {0, 1}  # on a busy machine a worker that a backup has overtaken joins again
    done = launch(tmp_path, 2, path, run="undisturbed")
    assert 0 == done.returncode, done.stderr
    assert summary(tmp_path / "undisturbed")["weights_sha256"] == summary(tmp_path / "run")["weights_sha256"]
    assert ended(tmp_path, nodes)


def test_a_run_is_resumed_on_another_cluster_when_the_head_is_lost(nodes: Nodes, tmp_path: Path) -> None:
    """Ray ends its driver when it has not reached the head for a while. This test is the last: the nodes are lost."""
    with begun(nodes, tmp_path, RAY_gcs_rpc_server_reconnect_timeout_s="2") as (process, gate):
        nodes.end()
        status, *_ = process.end()
    assert 0 != status
    assert gone(tmp_path / "run")
    gate.touch()
    with two_nodes() as others:
        again = completed(command("launch", "--resume", tmp_path / "run"), tmp_path, **on(others))
        assert 0 == again.returncode, again.stderr
        assert ended(tmp_path, others)
    assert expected_bits(tmp_path) == summary(tmp_path / "run")["weights_sha256"]


class Actors:
    """What RayCluster needs of Ray, with one actor after the other; each answers at once, but for those that are lost.

    The first is lost when `lost` is called.
    """

    def __init__(self, lost: str, answers: dict[str, object]) -> None:
        self.exceptions = pytest.importorskip("ray").exceptions
        self.lost, self.answers = lost, answers
        self.begun = 0

    def begin(self, kind: type, index: int) -> Place:
        self.begun += 1
        actor, first = SimpleNamespace(), self.begun == 1
        actor.do = SimpleNamespace(remote=lambda number, method, *arguments: (first, method, object()))
        actor.poll = SimpleNamespace(remote=lambda *arguments: (first, "poll", object()))
        return Place(actor)

    def wait(self, futures: list[Any], timeout: float, num_returns: int = 1) -> tuple[list[Any], list[Any]]:
        return futures[:num_returns], futures[num_returns:]

    def get(self, future: tuple[bool, str, object]) -> object:
        first, method, _ = future
        if first and method == self.lost:
            raise self.exceptions.ActorDiedError
        return self.answers.get("first " * first + method, self.answers.get(method))

    def kill(self, actor: object) -> None:
        pass


@pytest.mark.parametrize("lost", ["look", "start", "poll", "program"])
def test_no_worker_is_forgotten_whose_actor_is_lost(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its node is known, before its process has started, later, or given up on a node without the program."""
    path = program(tmp_path)
    (tmp_path / "logs").mkdir()
    launch = Launch(Options(str(path), [], 1, on="ray"), tmp_path, resume=False)
    cluster, launch.variables = launch.hands, {}
    assert isinstance(cluster, RayCluster)
    here = ("10.0.0.1", installed(), hash_of(path), True, [])
    answers: dict[str, object] = {"look": here, "start": 4711, "poll": (b"", None)}
    if lost == "program":
        answers["first look"] = (*here[:2], "", True, [])
    cluster.ray = actors = Actors(lost, answers)
    monkeypatch.setattr(cluster, "_begin", actors.begin)
    launch.supervisor.begin()
    cluster.start_worker(0, {})
    for _ in range(8):
        cluster.watch(0.0)
    process = launch.supervisor.processes[0]
    assert (2, 1, "process 4711 on 10.0.0.1") == (actors.begun, process.restarts, process.name)
