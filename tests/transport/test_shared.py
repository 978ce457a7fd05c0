"""Shared memory: what one end puts in comes out at the other, and a weight that is being written is never used."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import PROGRAM, karp, program, summary

from karp import optim
from karp.parameters import Layout
from karp.protocol.messages import Contribution, Lease
from karp.protocol.ranges import Copies
from karp.protocol.tree import Node
from karp.transport.segment import ASLEEP, ELSEWHERE, HEAD, Segment, reason, spin, why_unavailable
from karp.transport.shared_server import SharedServer
from karp.transport.shared_worker import SharedWorker

LAYOUT = Layout({"weight": (5, 3), "bias": (3,)}, "float32")


OPTIMIZER = optim.SGD(lr=0.5, momentum=0.9)
vectors: list[list[np.ndarray]] = []  # the memory of the test's server


def copies_of(server: SharedServer) -> Copies:
    """The two copies as the server has them."""
    return Copies(OPTIMIZER, vectors, server.board)


@pytest.fixture
def server() -> Iterator[SharedServer]:
    made = SharedServer(pytest.fail)
    vectors[:] = made.allocate(LAYOUT, 2) or []
    copies_of(made).fill(0, LAYOUT.zeros(), None)
    yield made
    made.close()


@pytest.fixture
def worker(server: SharedServer) -> Iterator[SharedWorker]:
    made = SharedWorker(server.invite(b"a"), LAYOUT, OPTIMIZER)
    yield made
    made.close()


def lease(number: int = 1, version: int = 0, weights: np.ndarray | None = None) -> Lease:
    return Lease(number, version, 0, 2, version, weights)


def contribution(vector: np.ndarray, **changes: object) -> Contribution:
    fields = {"step": 3, "version": 3, "nodes": [Node(2, 4, 0.75, vector)], "logs": [], "last": False} | changes
    return Contribution(**fields)  # type: ignore[arg-type]


def test_a_contribution_arrives_without_a_copy_where_it_was_written_in_place(
    server: SharedServer, worker: SharedWorker
) -> None:
    assert server.receive() is None
    worker.slot.vector[:] = np.arange(LAYOUT.size)
    assert worker.send(contribution(worker.slot.vector))
    found = server.receive()
    assert found is not None
    peer, message = found
    assert (b"a", 3, 3) == (peer, message.step, message.version)
    assert (2, 4, 0.75) == message.nodes[0][:3]
    assert np.arange(LAYOUT.size, dtype=np.float32).tobytes() == message.nodes[0].vector.tobytes()
    assert server.receive() is None


@pytest.mark.parametrize(("odd", "no_overflow"), [(1.0, True), (1e30, False), (np.inf, False), (np.nan, False)])
def test_the_worker_looks_whether_its_gradient_is_finite(
    server: SharedServer, worker: SharedWorker, odd: float, no_overflow: bool
) -> None:
    worker.slot.vector[-1] = odd
    assert worker.send(contribution(worker.slot.vector))
    found = server.receive()
    assert found is not None
    assert no_overflow == found[1].no_overflow


def test_a_gradient_from_elsewhere_is_copied_in(server: SharedServer, worker: SharedWorker) -> None:
    vector = np.full(LAYOUT.size, 2.0, np.float32)
    assert worker.send(contribution(vector))
    vector[:] = 0
    assert server.receive()[1].nodes[0].vector[0] == 2.0  # type: ignore[index]


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": []},
        {"nodes": [Node(0, 1, 0.0, np.zeros(LAYOUT.size)), Node(2, 3, 0.0, np.zeros(LAYOUT.size))]},
        {"logs": [(0, "norm", 1.0)]},
        {"last": True},
    ],
)
def test_what_does_not_fit_goes_the_other_way(
    server: SharedServer, worker: SharedWorker, changes: dict[str, object]
) -> None:
    assert not worker.send(contribution(np.zeros(LAYOUT.size, np.float32), **changes))
    assert server.receive() is None


def test_a_lease_brings_the_weights_it_names(server: SharedServer, worker: SharedWorker) -> None:
    slot = server.slots[b"a"]
    weights = server.weights.vector  # type: ignore[union-attr]
    weights[:] = 7.0
    assert slot.put(lease(weights=weights))
    assert worker.has_lease()
    found = worker.read_lease()
    assert found is not None
    assert (1, 0, 0, 2, 0) == (found.number, found.step, found.start, found.stop, found.version)
    assert found.weights is worker.readable[0]
    assert weights.tobytes() == found.weights.tobytes()
    assert not found.weights.flags.writeable
    assert not worker.has_lease()
    assert slot.put(lease(2))
    again = worker.read_lease()
    assert again is not None
    assert again.weights is None


def test_a_mailbox_that_was_not_read_is_not_written_over(server: SharedServer, worker: SharedWorker) -> None:
    slot = server.slots[b"a"]
    assert slot.put(lease(1))
    assert not slot.put(lease(2))
    assert worker.read_lease().number == 1  # type: ignore[union-attr]
    assert slot.put(lease(3))


def test_weights_that_have_been_overwritten_are_not_used(server: SharedServer, worker: SharedWorker) -> None:
    copies = copies_of(server)
    for version, writing in ((1, True), (2, True), (2, False)):
        assert server.slots[b"a"].put(lease(weights=server.weights.vector))  # type: ignore[union-attr]
        copies.begin_write(version)
        if not writing:
            copies.end_write(version)
        found = worker.read_lease()
        assert (found is not None) == (version == 1)  # version 1 lies in the other copy


def test_a_worker_sees_that_its_weights_are_overwritten_and_can_copy_those_of_one_version(
    server: SharedServer, worker: SharedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies, yields = copies_of(server), []
    assert worker.copies.holds(0)
    copies.begin_write(1)
    assert worker.copies.holds(0)
    copies.end_write(1)
    copies.make_current(1)
    assert (True, True) == (worker.copies.holds(0), worker.copies.holds(1))
    mine = np.ones(LAYOUT.size, np.float32)

    def write() -> None:
        """The server ends its update while the worker tries."""
        yields.append(1)
        copies.at(1).weights[:] = 5.0
        copies.end_write(1)

    copies.begin_write(1)
    monkeypatch.setattr("os.sched_yield", write)
    worker.copy(mine)
    assert [1] == yields
    assert (5.0, 5.0) == (mine.min(), mine.max())


def test_a_spin_ends_when_there_is_something_or_when_its_time_is_over() -> None:
    tries = iter([False, False, True])
    assert spin(lambda: next(tries), 3600.0)
    assert [] == list(tries)
    assert spin(lambda: True, 0.0)
    assert not spin(lambda: False, 0.0)


def test_where_a_process_cannot_yield_nobody_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("karp.transport.segment.CAN_YIELD", False)
    tries = iter([False, True])
    assert not spin(lambda: next(tries), 3600.0)
    assert [True] == list(tries)


def test_whoever_sleeps_is_woken(server: SharedServer, worker: SharedWorker) -> None:
    server.set_asleep(True)
    assert worker.send(contribution(worker.slot.vector))
    assert b"!" == os.read(server.wakeup, 10)
    assert 0 == server.weights.words[ASLEEP]  # type: ignore[union-attr]
    worker.set_asleep(True)
    assert server.slots[b"a"].put(lease())
    assert worker.drain_wakeups()
    assert 0 == worker.words[ASLEEP]


def test_a_server_that_is_gone_is_noticed(server: SharedServer, worker: SharedWorker) -> None:
    server.forget(b"a")
    assert not worker.drain_wakeups()


def test_an_invitation_that_leads_nowhere_is_an_error_and_nothing_else(server: SharedServer) -> None:
    words = server.invite(b"a").split()
    with open(os.devnull) as file:
        cases = {
            "No such (file|process)": ["0", *words[1:]],  # a process that is none
            "No such file": [words[0], "9999", *words[2:]],
            "that number is another process's": [words[0], str(file.fileno()), *words[2:]],
            "that number is another server's": [*words[:7], "0" * 32, words[8]],
            "that number is .*": [words[0], words[2], words[1], *words[3:]],  # exchanged
            "No such file or .*": [*words[:6], "9999", *words[7:]],  # the last of them
            "cannot be read": ["nonsense"],
            "cannot be rea.": [],
        }
        before = os.listdir("/proc/self/fd")
        for why, changed in cases.items():
            with pytest.raises(OSError, match=why):
                SharedWorker(" ".join(changed), LAYOUT, OPTIMIZER)
        with pytest.raises(OSError, match="that number is another server's"):
            SharedWorker(" ".join(words), Layout({"weight": (1,)}, "float32"), OPTIMIZER)
        assert before == os.listdir("/proc/self/fd")


def test_a_slot_that_is_not_open_yet_takes_no_lease(server: SharedServer) -> None:
    invitation = server.invite(b"a")
    slot = server.slots[b"a"]
    assert not slot.put(lease(1))
    worker = SharedWorker(invitation, LAYOUT, OPTIMIZER)
    assert slot.put(lease(2))
    worker.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EFBIG, "File too large"), "File too large: ulimit -f counts for it, too"),
        (FileNotFoundError(errno.ENOENT, "No such file"), f"No such file: {ELSEWHERE}"),
        (OSError("that number is another process's"), f"that number is another process's: {ELSEWHERE}"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_the_reason_says_what_it_means_here(error: OSError, expected: str) -> None:
    assert expected == reason(error)


@pytest.mark.parametrize("refused", ["memfd_create", "pipe"])
def test_memory_that_cannot_be_had_is_said_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    said: list[str] = []
    server = SharedServer(said.append)
    if refused == "pipe":
        server.allocate(LAYOUT, 2)
    before = len(os.listdir("/proc/self/fd"))

    def refuse(*arguments: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, refused, refuse)
    if refused == "memfd_create":
        assert "memfd_create: Too many open files: raise ulimit -n" == why_unavailable()
        assert None is server.allocate(LAYOUT, 2)
    assert "" == server.invite(b"a")
    assert before == len(os.listdir("/proc/self/fd"))
    assert ["Too many open files" in text and "travel as frames" in text for text in said] == [True]
    server.close()


def test_memory_is_as_large_as_it_must_be_and_aligned() -> None:
    segment = Segment.make(LAYOUT)
    assert HEAD + LAYOUT.nbytes == os.fstat(segment.descriptor).st_size
    assert 0 == segment.vector.ctypes.data % 64
    segment.close()


def test_another_process_sees_it_and_it_has_no_name_in_the_file_system(server: SharedServer) -> None:
    assert server.weights is not None
    code = (
        "import sys, numpy as np\n"
        "from karp import optim\n"
        "from karp.parameters import Layout\n"
        "from karp.transport.shared_worker import SharedWorker\n"
        "from karp.protocol.messages import Contribution\n"
        "from karp.protocol.tree import Node\n"
        "worker = SharedWorker(sys.argv[1], Layout({'weight': (5, 3), 'bias': (3,)}, 'float32'), optim.SGD(0.5, 0.9))\n"
        "worker.slot.vector[:] = 3\n"
        "assert worker.send(Contribution(1, 1, [Node(0, 1, 0.5, worker.slot.vector)], [], False))\n"
        "import os; os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, server.invite(b"a")], check=False)
    found = server.receive()
    assert found is not None
    assert 3.0 == found[1].nodes[0].vector[0]  # type: ignore[index]
    for segment in (server.weights, server.slots[b"a"].segment):
        assert os.readlink(f"/proc/self/fd/{segment.descriptor}").startswith("/memfd:karp")


def test_workers_that_cannot_open_it_are_named_with_the_reason_and_end_with_the_same_bits(tmp_path: Path) -> None:
    forbidden = """
import os
real = os.readlink
def readlink(path, **options):
    if "/fd/" in str(path):
        raise PermissionError(13, "Permission denied")
    return real(path, **options)
os.readlink = readlink
"""
    found = {}
    for name, head in (("shared", ""), ("frames", forbidden)):
        done = karp("launch", "-n", 2, "--run-dir", name, program(tmp_path, head + PROGRAM), cwd=tmp_path)
        assert 0 == done.returncode, done.stderr
        found[name] = summary(tmp_path / name)["weights_sha256"]
        said = [line for line in done.stderr.splitlines() if "no memory is shared" in line]
        if name == "shared":
            assert [] == said
    why = "(Permission denied: it is another user's process, or its container forbids it)"
    who = [line.removeprefix("karp: no memory is shared with worker").split(" (")[0] for line in said]
    assert {"0", "1"} == {number for text in who for number in text.removeprefix("s").replace(" ", "").split(",")}
    assert [True] * len(said) == [f"{why}: gradients and weights travel as frames over tcp" in line for line in said]
    assert found["shared"] == found["frames"]
