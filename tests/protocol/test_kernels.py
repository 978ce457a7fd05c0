"""Workers, and a server, that compute with other kernels than the run's: said once, kept, or refused."""

from typing import Any

import pytest
from machines import Run, leases

from karp.data import Plan
from karp.errors import ProtocolError
from karp.protocol import reports
from karp.protocol.kernels import Kernels, KernelUses
from karp.protocol.messages import FROM_WORKER, Join, Lease, Refusal, Welcome, decode, encode
from karp.protocol.server.machine import Server
from karp.protocol.server.snapshot import restore, take

OURS = Kernels("3.11", "2.4.6", "gcc 14.2.1 X86_V2", "X86_V3 X86_V4", "openblas 0.3 SkylakeX", "glibc 2.36", "EPYC")
OTHERS = Kernels("3.13", "2.4.6", "gcc 14.2.1 X86_V2", "X86_V3", "openblas 0.3 Haswell", "glibc 2.36", "Xeon")
WHAT = "simd X86_V3 instead of X86_V3 X86_V4, blas openblas 0.3 Haswell instead of openblas 0.3 SkylakeX"


def join(run: Run, worker: int, kernels: Kernels) -> list[tuple[bytes, Any]]:
    return run.join_as(Join(worker, run.settings, "host", 1, kernels))


def notices(run: Run) -> list[str]:
    return [report.text for report in run.reported(reports.Notice)]


def test_a_kind_that_differs_is_said_once_and_its_workers_are_kept() -> None:
    run = Run(4)
    for worker, kernels in enumerate((OURS, OTHERS, OURS, OTHERS)):
        join(run, worker, kernels)
    assert [f"worker 1 on host computes with other kernels than this run's: {WHAT}. So"] == [
        text[: text.index(" the bits")] for text in notices(run)
    ]
    assert [0, 1] == [report.worker for report in run.reported(reports.Kernels)]
    found = run.server.joining.kernel_uses.summary()
    assert OURS.to_dict().items() <= found.items()
    assert [([0, 2], False), ([1, 3], False)] == [(use["workers"], use["server"]) for use in found["kernels"]]
    assert ["openblas 0.3 SkylakeX", "openblas 0.3 Haswell"] == [use["blas"] for use in found["kernels"]]


@pytest.mark.parametrize("name", ["numpy", "numpy_build", "simd", "blas", "libc"])
def test_what_gives_other_bits_is_a_difference(name: str) -> None:
    other = Kernels.from_dict(OURS.to_dict() | {name: "another"})
    assert f"{name} another instead of {getattr(OURS, name)}" == other.differences(OURS)
    assert "" == OURS.differences(OURS)


@pytest.mark.parametrize("name", ["python", "cpu"])
def test_what_gives_the_same_bits_is_kept_but_no_difference(name: str) -> None:
    run = Run(2)
    join(run, 0, OURS)
    join(run, 1, Kernels.from_dict(OURS.to_dict() | {name: "another"}))
    assert [] == notices(run)
    assert [[0], [1]] == [use["workers"] for use in run.kernels]


def test_where_they_must_be_the_same_a_worker_is_refused_and_the_run_goes_on() -> None:
    run = Run(1, same_kernels=True)
    answers = join(run, 0, OURS)
    refused = join(run, 1, OTHERS)
    assert [(b"1", Refusal(f"this worker on host computes with other kernels than the run's: {WHAT}"))] == refused
    assert ([0], 1) == ([member.worker for member in run.server.members.values()], run.server.counts["refused"])
    said = f"this worker on host computes with other kernels than the run's: {WHAT} (1 message refused so far)"
    assert [said] == [report.reason for report in run.reported(reports.Refused)]
    assert [[0]] == [use["workers"] for use in run.kernels]
    (lease,) = leases(answers).values()
    assert any(isinstance(message, Lease) for _, message in run.contribute(0, lease))
    assert isinstance(join(run, 2, OURS)[0][1], Welcome)


def test_the_server_is_named_too() -> None:
    run = Run(1)
    join(run, 0, OURS)
    run.take(run.server.computes_with(OURS, 0.0))
    assert [] == notices(run)
    run.take(run.server.computes_with(OTHERS, 0.0))
    assert notices(run)[0].startswith(f"the server computes with other kernels than this run's: {WHAT}")
    assert [True, True] == [use["server"] for use in run.kernels]


def test_a_server_that_must_not_differ_fails_the_run() -> None:
    run = Run(1, same_kernels=True)
    join(run, 0, OURS)
    run.take(run.server.computes_with(OTHERS, 0.0))
    assert f"the server computes with other kernels than this run's: {WHAT}" == run.failure


@pytest.mark.parametrize("same", [False, True])
def test_a_run_that_goes_on_elsewhere_is_compared_with_its_record(same: bool) -> None:
    run = Run(1)
    join(run, 0, OURS)
    other = Run(1)
    other.server = Server(1, Plan, 0.0, same_kernels=same)
    restore(other.server, take(run.server))
    other.take(other.server.tick(0.0))
    answers = join(other, 0, OTHERS)
    if same:
        assert isinstance(answers[0][1], Refusal)
    else:
        assert notices(other)[0].startswith(f"worker 0 on host computes with other kernels than this run's: {WHAT}")
        assert [[0], [0]] == [use["workers"] for use in other.kernels]


def test_nothing_is_said_of_a_run_that_nobody_has_computed() -> None:
    assert {} == KernelUses().summary()
    assert "" == KernelUses().differences(OURS)


@pytest.mark.parametrize("odd", [None, [], {}, OURS.to_dict() | {"cpu": 1}, OURS.to_dict() | {"cpu": "x" * 301}])
def test_kernels_that_cannot_be_are_refused(odd: object) -> None:
    head, payload = encode(Join(0, Run(1).settings, "host", 1, OURS))
    with pytest.raises(ProtocolError, match=r"join: kernels is .*, not a map of"):
        decode(head | {"kernels": odd}, payload, FROM_WORKER)
